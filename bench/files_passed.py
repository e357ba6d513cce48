"""How many of our files a pull, a verification and a round of gossip pass through, and what they check how often.

python bench/files_passed.py

Prints, for a pull of two files from four nodes and for a verification of the copy: the modules of ours in which code
ran, signatures that were checked, and statements that were parsed, with how many of them are distinct. Nothing is
timed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from comity.trust import keys, statement  # noqa: E402
from comity_client.client import Client  # noqa: E402
from comity_client.home import Home  # noqa: E402
from support.federation import found, processes  # noqa: E402
from support.publisher import model  # noqa: E402


@dataclass
class Passed:
    """What a block of code went through."""

    files: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    parsed: Counter[bytes] = field(default_factory=Counter)

    def row(self, what: str) -> dict[str, Any]:
        return {
            "what": what,
            "files": len(self.files),
            "signature_checks": self.calls["verify"],
            "parse_calls": self.parsed.total(),
            "distinct_lines": len(self.parsed),
        }


@contextmanager
def passing() -> Iterator[Passed]:
    """Count what runs inside the block, in every thread that begins in it."""
    seen = Passed()
    verify, parse = keys.PublicKey.verify.__code__, statement.parse_entry.__code__

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if "/comity" in code.co_filename and str(ROOT) in code.co_filename:
            seen.files.add(code.co_filename)
        if code is verify:
            seen.calls["verify"] += 1
        elif code is parse:
            seen.parsed[frame.f_locals["line"]] += 1

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        founded = found(work / "nodes", 4)
        client = Client(Home(work / "home"))
        client.pin(founded.federation.encode())
        publisher = client.new_publisher("Bench", "CH", founded.homes[0].origin)
        with processes(*founded.homes) as nodes:
            for node in nodes:
                asyncio.run(node.ready())
            files = model(work / "model", weights=3_000_000)
            client.publish(files, "bench/two@v1", publisher=publisher, licence="MIT")
            with passing() as pulled:
                client.pull("bench/two@v1", to=work / "copy")
        with passing() as verified:
            client.verify(work / "copy")
        for row in (pulled.row("pull"), verified.row("verify")):
            print(json.dumps(row))
            names = pulled.files if row["what"] == "pull" else verified.files
            print("  " + " ".join(sorted(Path(name).relative_to(ROOT).as_posix() for name in names)))


if __name__ == "__main__":
    main()
