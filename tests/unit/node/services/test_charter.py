"""The charter service: epochs in their order, what is said about the next one, and a node without a federation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.ledger.ledger import Ledger
from comity.node.services import charter as module
from comity.node.services.charter import MAX_ADOPTED, MAX_MISBEHAVIOUR, CharterServicer
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.statement import Author, parse_entry
from comity.trust.statement_kinds import ADOPTED, MISBEHAVIOUR
from support.logs import LogKeys, statement_line

LOG, OTHER = LogKeys.generate("node-ch.example/log"), LogKeys.generate("node-es.example/log")
WRITER = Author("node", sha256(b"writer"))
STRANGER = Author("node", sha256(b"stranger"))
BODIES = [sha256(b"body %d" % number) for number in range(4)]


@dataclass
class Follower:
    """Follows these epochs; `said` are lines about the next one."""

    digests: list[Digest] = field(default_factory=lambda: list(BODIES[:3]))
    said: list[bytes] = field(default_factory=list)
    asked: list[Digest] = field(default_factory=list)

    @property
    def epoch_store(self) -> Any:
        return self

    @property
    def newest(self) -> Any:
        return SimpleNamespace(digest=self.digests[-1])

    def certificate(self, epoch: int) -> Any:
        if not 0 <= epoch < len(self.digests):
            raise NotFound("no such charter", code="NO-CHARTER")
        return SimpleNamespace(body=SimpleNamespace(epoch=epoch, data=b"%d" % epoch), lines=(b"line",))

    async def entries(self, body: Digest) -> list[Any]:
        self.asked.append(body)
        return [parse_entry(line) for line in self.said]


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path) -> Iterator[AsyncLedger]:
    opened = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000))
    opened.tables.logs.create(LOG.origin, LOG.vkey, own=True)
    opened.tables.logs.create(OTHER.origin, OTHER.vkey)
    yield opened
    opened.close()


def service(ledger: AsyncLedger, follower: Follower | None) -> CharterServicer:
    writers = {LOG.vkey: [SimpleNamespace(id=WRITER.id)]}
    membership: Any = SimpleNamespace(writers=lambda log: writers.get(log, []))
    unused: Any = None
    made: Any = follower
    return CharterServicer(ledger, membership, made, unused)


async def test_epochs_are_given_from_the_first_that_is_asked_for(ledger: AsyncLedger) -> None:
    made = service(ledger, Follower())
    assert [charter.epoch async for charter in made.epochs()] == [0, 1, 2]
    assert [charter.epoch async for charter in made.epochs(2)] == [2]
    for start in (3, -1):
        with pytest.raises(NotFound):
            _ = [charter async for charter in made.epochs(start)]


async def test_a_node_of_no_federation_has_no_charter(ledger: AsyncLedger) -> None:
    made = service(ledger, None)

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: read(made.epochs()),
        lambda: read(made.next_epoch_entries()),
        lambda: made.ask(None, ()),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(NotFound, match="belongs to no federation yet") as raised:
            await call()
        assert raised.value.code == "NO-CHARTER"


async def test_a_body_that_is_not_held_has_no_next_epoch(ledger: AsyncLedger) -> None:
    follower = Follower()
    made = service(ledger, follower)
    with pytest.raises(NotFound, match="does not hold the body"):
        _ = [item async for item in made.next_epoch_entries(BODIES[3])]
    assert follower.asked == []
    assert [item async for item in made.next_epoch_entries(BODIES[0])] == []
    assert [item async for item in made.next_epoch_entries()] == []
    assert follower.asked == [BODIES[0], BODIES[2]]


async def test_statements_are_given_with_their_place(ledger: AsyncLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    lines = [statement_line(number) for number in range(5)]
    ledger.tables.logs.append(LOG.vkey, lines)
    found = [item async for item in service(ledger, Follower(said=lines)).next_epoch_entries()]
    assert [(item.index, item.line) for item in found] == list(enumerate(lines))


async def test_few_adopted_lines_of_the_writers_of_a_log_are_given(ledger: AsyncLedger) -> None:
    def adopted(number: int, by: Author, body: Digest = BODIES[2]) -> bytes:
        return statement_line(number, predicate=ADOPTED, subject=body, by=by)

    lines = [adopted(number, WRITER) for number in range(MAX_ADOPTED + 2)]
    ledger.tables.logs.append(LOG.vkey, [adopted(100, STRANGER), *lines, adopted(101, WRITER, BODIES[1])])
    found = [item.line async for item in service(ledger, Follower()).next_epoch_entries()]
    assert found == lines[:MAX_ADOPTED]


async def test_few_misbehaviour_statements_of_each_log_are_given(ledger: AsyncLedger) -> None:
    lines = [statement_line(number, predicate=MISBEHAVIOUR, by=STRANGER) for number in range(MAX_MISBEHAVIOUR + 2)]
    ledger.tables.logs.append(LOG.vkey, lines)
    found = [item.line async for item in service(ledger, Follower()).next_epoch_entries()]
    assert found == lines[:MAX_MISBEHAVIOUR]
