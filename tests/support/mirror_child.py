"""Mirrors a commit with whatever huggingface-hub this interpreter has. Run as a program:

    python mirror_child.py ENDPOINT HOST NAME FOLDER

prints one JSON object: what came, or the code of the refusal.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from comity.trust.errors import ComityError
from comity.trust.upstream.naming import Wanted
from comity.upstream.mirror import Order, fetch, listed, pin
from comity.upstream.reach import Reach


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


def main(endpoint: str, host: str, name: str, folder: str) -> None:
    work = Silent()
    try:
        order = Order(Wanted.parse(name), Reach.to(endpoint, [host]))
        done = fetch(order, listed(order, pin(order, work), work), Path(folder), work)
    except ComityError as refusal:
        print(json.dumps({"code": refusal.code, "hint": refusal.hint, "said": str(refusal)}))
        return
    pairs = zip(done.observations, done.paths, strict=True)
    files = {seen.entry.path: hashlib.sha256(path.read_bytes()).hexdigest() for seen, path in pairs}
    print(json.dumps({"commit": done.listing.standing.upstream.commit, "files": files, "tls": done.tls}))


if __name__ == "__main__":
    main(*sys.argv[1:])
