"""How many of our files a pull, a verification and a cosign round pass through, and what they check how often.

python bench/files_passed.py

Prints, for a pull of two files from four nodes, for a verification of the copy, and for the rounds in which a new node
mirrors and cosigns the log of one peer: the modules of ours in which code ran, signatures that were checked, and
statements that were parsed, with how many of them are distinct. Nothing is timed. Results:
`bench/results/files_passed.json`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from comity.node.replication.link import PeerLink  # noqa: E402
from comity.node.replication.peers import PeerRounds  # noqa: E402
from comity.trust import keys, statement  # noqa: E402
from comity_client.client import Client  # noqa: E402
from comity_client.home import Home  # noqa: E402
from harness import write  # noqa: E402
from support.federation import Founded, NodeHome, found, note_of, processes, serving, until  # noqa: E402
from support.publisher import model  # noqa: E402


@dataclass
class Passed:
    """The modules, signatures and statements that a block of code used."""

    files: set[str] = field(default_factory=set)
    checked: Counter[tuple[bytes, bytes, bytes]] = field(default_factory=Counter)
    parsed: Counter[bytes] = field(default_factory=Counter)

    def row(self, what: str) -> dict[str, Any]:
        return {
            "what": what,
            "files": len(self.files),
            "signature_checks": self.checked.total(),
            "distinct_signatures": len(self.checked),
            "parse_calls": self.parsed.total(),
            "distinct_lines": len(self.parsed),
            "passed": sorted(Path(name).relative_to(ROOT).as_posix() for name in self.files),
        }


@contextmanager
def passing(wanted: Callable[[], bool] = lambda: True) -> Iterator[Passed]:
    """Count what runs inside the block, in every thread that begins in it, where `wanted` says so."""
    seen = Passed()
    verify, parse = keys.PublicKey.verify.__code__, statement.parse_entry.__code__

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or not wanted():
            return
        code = frame.f_code
        if "/comity" in code.co_filename and str(ROOT) in code.co_filename:
            seen.files.add(code.co_filename)
        if code is verify:
            local = frame.f_locals
            seen.checked[local["self"].raw, local["signature"], local["message"]] += 1
        elif code is parse:
            seen.parsed[frame.f_locals["line"]] += 1

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


IN_ROUND: ContextVar[bool] = ContextVar("in_round", default=False)


async def cosigned(writer: NodeHome, cosigner: NodeHome) -> Passed:
    """The modules that the rounds of `cosigner`, which runs here, use until it has cosigned the log of `writer`."""
    real = PeerRounds.run

    async def watched(peer_rounds: PeerRounds, link: PeerLink, links: Collection[PeerLink]) -> None:
        IN_ROUND.set(True)
        try:
            await real(peer_rounds, link, links)
        finally:
            IN_ROUND.set(False)

    with patch.object(PeerRounds, "run", watched), passing(IN_ROUND.get) as seen:
        async with serving(cosigner), cosigner.client() as client:

            async def has_cosigned() -> bool:
                note = await note_of(client, writer.origin)
                return note is not None and any(
                    line.by(key) for key in cosigner.record.cosigners for line in note.signatures
                )

            await until(has_cosigned, patience=60, what="the cosignature")
    return seen


def pulled_and_verified(work: Path, founded: Founded) -> tuple[Passed, Passed]:
    client = Client(Home(work / "home"))
    client.pin(founded.federation.encode())
    publisher = client.new_publisher("Bench", "CH", founded.homes[0].origin)
    with processes(*founded.homes) as nodes:
        for node in nodes:
            asyncio.run(node.ready())
        files = model(work / "model", weights=3_000_000)
        client.publish(files, "bench/two@v1", publisher=publisher, licence="MIT")
        _await_cosigners(Home(work / "other"), founded)
        with passing() as pulled:
            client.pull("bench/two@v1", to=work / "copy")
    with passing() as verified:
        client.verify(work / "copy")
    return pulled, verified


def _await_cosigners(home: Home, founded: Founded) -> None:
    """Wait, as another user, until every other node has cosigned the log of the first."""
    other, (writer, *others) = Client(home), founded.homes
    other.pin(founded.federation.encode())

    async def cosigned_by_all() -> bool:
        seen = await asyncio.to_thread(other.log_checkpoint, writer.origin)
        return len(seen.cosigners) >= len(others)

    asyncio.run(until(cosigned_by_all, patience=60, what="the cosignatures"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pulled, verified = pulled_and_verified(work, found(work / "nodes", 4))
        writer, cosigner = found(work / "two", 2).homes
        with processes(writer) as (node,):
            asyncio.run(node.ready())
            round_ = asyncio.run(cosigned(writer, cosigner))
    rows = [seen.row(what) for what, seen in (("pull", pulled), ("verify", verified), ("cosign round", round_))]
    for row in rows:
        print(json.dumps({name: value for name, value in row.items() if name != "passed"}))
    write("files_passed", rows=rows)


if __name__ == "__main__":
    main()
