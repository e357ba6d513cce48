"""What a node answers about an artifact, a name and an identity while others say ten thousand things about them: the
words of the publisher, of members and of those whom the asker names are the same, at three times the cost at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from comity.ledger import subject_reads
from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.services.artifact import ArtifactServicer
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest
from comity.wire.messages import LocatedEntry
from sqlalchemy import event
from support.case import FILES, case, nodes, release
from support.flooding import FLOODS, Adviser, Subject
from support.logs import LogKeys
from support.world import identity

LOG = LogKeys.generate("open.example/log")
NODES = nodes()
PUBLISHER, ISSUER = identity("Swiss AI", "CH"), identity("Warnings", "ES")
WITHDRAWN = release({**FILES, "LICENSE": b"other"}, by=PUBLISHER, name="swiss-ai/tiny@v2")[1]
OTHER = WITHDRAWN.statement.subject
SUBJECT = Subject(
    "swiss-ai/tiny",
    case().artifact,
    OTHER,
    (case().publication.line, WITHDRAWN.line),
    PUBLISHER,
    ISSUER,
    Adviser.of(NODES[1].seat),
    Adviser.of(NODES[2].seat),
)
HONEST: Final = SUBJECT.honest(LOG.origin)
MOST: Final = 3
"""Times the cost without a flood."""
DOORS: Final = ("the artifact", "what is withdrawn", "the name", "the identity")


@dataclass(frozen=True)
class Answer:
    """The honest lines of an answer, whether it says that it is not all, its bytes, and the queries for it."""

    honest: frozenset[bytes]
    marked: bool
    size: int
    queries: int


class Flooded:
    """A node that knows four members, with the honest words between two floods of `count` statements each."""

    def __init__(self, folder: Path, floods: Sequence[str], count: int) -> None:
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        known = tuple(each.seat.id for each in NODES)
        membership = SimpleNamespace(
            node_ids=tuple(each.record.node.id for each in NODES),
            known=known,
            peers=[SimpleNamespace(line=each.entry.line) for each in NODES[1:]],
            own_node=SimpleNamespace(record_line=NODES[0].entry.line),
            precedence=Precedence(members=frozenset(known)),
            bound_publisher=lambda namespace: None,
            body=None,
        )
        self.service = ArtifactServicer(AsyncLedger(self.ledger), cast(Membership, membership), Metrics())
        self._say([line for each in NODES for line in (each.seat.entry.line, each.entry.line)])
        for first, said in ((0, HONEST), (count, [])):
            self._say([*SUBJECT.junk(floods, first, count), *said])

    def _say(self, lines: Sequence[bytes]) -> None:
        for start in range(0, len(lines), 500):
            self.ledger.logs.append(LOG.vkey, lines[start : start + 500])

    async def answers(self) -> dict[str, Answer]:
        """The second answers, because the first one reads what is kept about members."""
        named = [SUBJECT.publisher.id, SUBJECT.issuer.id]
        found = {}
        for _ in range(2):
            found = {
                "the artifact": await self._asked(self.service.claims(SUBJECT.good, named)),
                "what is withdrawn": await self._asked(self.service.claims(OTHER, named)),
                "the name": await self._asked(self.service.resolve(SUBJECT.name, None, None, named)),
                "the identity": await self._asked(self.service.claims(Digest(SUBJECT.publisher.id), named)),
            }
        return found

    async def _asked(self, answer: Any) -> Answer:
        queries: list[None] = []

        def counted(*_: Any) -> None:
            queries.append(None)

        engine = self.ledger._database._engine
        event.listen(engine, "after_cursor_execute", counted)
        lines: list[LocatedEntry] = [each async for each in answer]
        event.remove(engine, "after_cursor_execute", counted)
        found = {each.line for each in lines}
        size = sum(len(each.line) for each in lines)
        return Answer(frozenset(found & set(HONEST)), any(each.others for each in lines), size, len(queries))


async def check(folder: Path, floods: Sequence[str], count: int) -> None:
    quiet, loud = Flooded(folder / "quiet", (), 0), Flooded(folder / "loud", floods, count)
    usual, flooded = await quiet.answers(), await loud.answers()
    for door in DOORS:
        assert usual[door].honest and flooded[door].honest == usual[door].honest, door
        assert not usual[door].marked
        assert flooded[door].size <= MOST * usual[door].size, door
        assert flooded[door].queries <= MOST * usual[door].queries, door
    quiet.ledger.close()
    loud.ledger.close()


@pytest.mark.parametrize("whose", FLOODS)
async def test_a_flood_hides_no_word_that_counts(whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_reads, "FEW", 20)
    await check(tmp_path, [whose], 60)


@pytest.mark.slow
@pytest.mark.parametrize("whose", FLOODS)
async def test_a_thousand_statements_before_and_after_hide_no_word_that_counts(whose: str, tmp_path: Path) -> None:
    await check(tmp_path, [whose], 1_000)


@pytest.mark.long
@pytest.mark.parametrize("whose", FLOODS)
async def test_ten_thousand_statements_hide_no_word_that_counts(whose: str, tmp_path: Path) -> None:
    """Long: each statement is signed and verified."""
    await check(tmp_path, [whose], 10_000)
