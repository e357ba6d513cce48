"""Mirrors a commit with the huggingface-hub of this interpreter. Run as a program:

    python mirror_child.py ENDPOINT HOST NAME FOLDER [BYTES]

prints one JSON object: the mirrored files, or the code of the refusal. With BYTES it kills itself when so many bytes
were hashed. MIRROR_TOKEN is the token of the upstream.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

from comity.trust.errors import ComityError
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, fetch_repository, list_repository, pin_revision


class Silent:
    def __init__(self, killed_at: int) -> None:
        self._left = killed_at

    def progress(self, path: str, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wait(self, seconds: float, why: str) -> None:
        pass


def main(endpoint: str, host: str, name: str, folder: str, killed_at: str = "") -> None:
    work = Silent(int(killed_at or sys.maxsize))
    try:
        hosts = AllowedHosts.to(endpoint, [host], os.environ.get("MIRROR_TOKEN", ""))
        order = MirrorOrder(UpstreamRequest.parse(name), hosts)
        done = fetch_repository(order, list_repository(order, pin_revision(order, work), work), Path(folder), work)
    except ComityError as refusal:
        print(json.dumps({"code": refusal.code, "hint": refusal.hint, "said": str(refusal)}))
        return
    pairs = zip(done.observations, done.paths, strict=True)
    files = {seen.entry.path: hashlib.sha256(path.read_bytes()).hexdigest() for seen, path in pairs}
    print(json.dumps({"commit": done.listing.revision_info.upstream.commit, "files": files, "tls": done.tls}))


if __name__ == "__main__":
    main(*sys.argv[1:])
