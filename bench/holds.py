"""What the copies of an artifact cost the ledger of each member, by how many artifacts one statement claims.

    python bench/holds.py [--members 3,50] [--batches 1,8,16,32,64] [--artifacts 512]

One member's log has a `published` statement of each artifact, by a publisher with a hybrid key. The log of each member
has its claims of copies: single `hold` statements for a batch of 1, else `holds`. All lines are indexed, as the intake
of a node does it; signatures are not checked. Measured are the bytes of the database, without those of an empty one,
and the bytes that the process wrote to the disk for it (`write_bytes` of /proc/self/io), as a multiple of the bytes of
all lines; no other work may run in the process. `answer` is what a reader receives who asks who holds one artifact: a
line of each member.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from comity.rules.signing import sign_content
from comity.trust.copies import Holds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import sha256
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.node_records import NodeRecord
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements import Licence, Published
from harness import write
from support.case import nodes
from support.logs import LogKeys
from support.world import identity

ADVANCE = 256
"""Lines by which a log grows at once."""


@dataclass(frozen=True)
class LedgerCost:
    """Bytes an artifact: all of the ledger, and what it has without any claim of a copy."""

    members: int
    batch: int
    ledger: int
    publications: int
    line: int
    answer: int
    written: float
    """Bytes written for each byte of a line."""


@dataclass(frozen=True)
class Holding:
    """A member's node: its record, its online key and its log."""

    record: NodeRecord
    online: HybridSigner
    log: LogKeys

    @classmethod
    def make(cls, number: int) -> Holding:
        online = HybridSigner.generate()
        return cls(replace(nodes(1)[0].record, online=online.public), online, LogKeys.generate(f"node-{number}/log"))

    def claims(self, published: Sequence[Published], batch: int) -> Iterator[bytes]:
        if batch == 1:
            for item in published:
                yield sign_content(HeldArtifact(self.record.node, item.manifest, item.pieces), self.online).line
            return
        held = [HeldArtifact(self.record.node, item.manifest, item.pieces) for item in published]
        for start in range(0, len(held), batch):
            yield sign_content(Holds.of(self.record.node, held[start : start + batch]), self.online).line


def publish(count: int) -> tuple[list[Published], list[bytes]]:
    publisher = identity("Bench", "CH")
    made, lines = [], []
    for number in range(count):
        manifest = SideObject(sha256(b"manifest %d" % number), 613)
        pieces, licence = SideObject(sha256(b"pieces %d" % number), 702), SideObject(sha256(b"licence"), 11_357)
        name = Name(f"org-{number % 97:02}", f"model-{number:07}", "v1")
        said = Published(publisher.id, name, manifest.digest, manifest, pieces, Licence("Apache-2.0", licence))
        made.append(said)
        lines.append(sign_content(said, publisher.signer).line)
    return made, lines


def fill(folder: Path, logs: Sequence[tuple[LogKeys, Sequence[bytes]]]) -> int:
    """Returns the bytes of a ledger with these logs."""
    with closing(Ledger.open(folder, time.time)) as ledger:
        for log, lines in logs:
            ledger.logs.create(log.origin, log.vkey)
            for start in range(0, len(lines), ADVANCE):
                some = list(lines[start : start + ADVANCE])
                root = ledger.logs.stage(log.vkey, start, some)
                ledger.logs.advance(log.vkey, start + len(some), [], log.note(start + len(some), root))
            while (batch := ledger.intake.next_batch(log.vkey)).lines:
                read = enumerate(map(parse_entry, batch.lines), batch.start)
                facts = [found for index, entry in read if (found := statement_facts(index, entry)) is not None]
                ledger.intake.commit(batch, IntakeResult(log.vkey, tuple(facts)))
    return (folder / DATABASE_FILE).stat().st_size


def written() -> int:
    """Bytes that this process caused to be written to disks."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def measure(members: Sequence[Holding], batch: int, published: Sequence[Published], lines: list[bytes]) -> LedgerCost:
    claims = [list(member.claims(published, batch)) for member in members]
    logs = [(member.log, said) for member, said in zip(members, claims, strict=True)]
    first = members[0].log
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), len(published)
        empty = fill(folder / "empty", [])
        without = fill(folder / "published", [(first, lines)])
        before = written()
        whole = fill(folder / "whole", [(first, [*lines, *claims[0]]), *logs[1:]])
        amplification = (written() - before) / sum(map(len, chain(lines, *claims)))
    line = len(claims[0][0])
    bytes_of = ((whole - empty) // count, (without - empty) // count, line // batch, line * len(members))
    cost = LedgerCost(len(members), batch, *bytes_of, round(amplification, 2))
    print(cost, flush=True)
    return cost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default="3,50")
    parser.add_argument("--batches", default="1,8,16,32,64")
    parser.add_argument("--artifacts", type=int, default=512)
    parser.add_argument("--result", default="holds", help="the name of the result file; empty: none")
    arguments = parser.parse_args()
    publications = publish(arguments.artifacts)
    rows = []
    for number in map(int, arguments.members.split(",")):
        holding = [Holding.make(each) for each in range(number)]
        rows += [measure(holding, int(batch), *publications) for batch in arguments.batches.split(",")]
    if arguments.result:
        write(arguments.result, artifacts=arguments.artifacts, rows=[asdict(row) for row in rows])
