"""New nodes and addresses in the logs: none is lost when the ledger does not answer for some time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.ledger.intake import IntakeResult, statement_facts
from comity.ledger.ledger import Ledger
from comity.node.members import Membership, OwnNode
from comity.node.replication.peers import PeerDiscovery
from comity.node.threads import AsyncLedger
from comity.rules.signing import sign_content
from comity.trust.errors import Unavailable
from comity.trust.node_records import Addresses
from comity.trust.statement import Entry
from comity.trust.tlog.merkle import leaf_hash, root
from comity.trust.tlog.note import Checkpoint
from support.world import found, node, seat

OWN, OTHER = node(seat("CH")), node(seat("SG"))
MOVED = sign_content(Addresses.of(OTHER.record, ("sg.example:7443",), ()), OTHER.online)


class FailingLedger(AsyncLedger):
    """Fails one of its calls."""

    def __init__(self, tables: Ledger, failing: int) -> None:
        super().__init__(tables)
        self.calls, self.failing = 0, failing

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.failing:
            raise Unavailable("the database is busy", code="BUSY")
        return await super().run(work, *args, **kwargs)


def prove(ledger: Ledger, *entries: Entry) -> None:
    """All of them are in the log of the other node."""
    log, lines = OTHER.record.log, [entry.line for entry in entries]
    ledger.logs.create(log.name, str(log))
    note = Checkpoint(log.name, len(lines), root([leaf_hash(line) for line in lines])).signed(OTHER.log)
    ledger.logs.advance(str(log), 0, lines, note)
    facts = (statement_facts(index, entry) for index, entry in enumerate(entries))
    batch = ledger.intake.next_batch(str(log))
    ledger.intake.commit(batch, IntakeResult(str(log), tuple(item for item in facts if item is not None)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000)
    prove(opened, OTHER.entry, MOVED)
    yield opened
    opened.close()


@pytest.mark.parametrize("failing", range(1, 8))
async def test_a_failure_in_between_loses_no_node_and_no_address(ledger: Ledger, failing: int) -> None:
    federation = found([OWN, OTHER])
    members = Membership(OwnNode.parse(OWN.seat.entry.line, OWN.entry.line), replace(federation, nodes=()))
    failed = FailingLedger(ledger, failing)
    discovery, learned = PeerDiscovery(failed, members), list[str]()
    for _ in range(2):
        try:
            learned += [peer.name for peer in await discovery.read()]
        except Unavailable:
            continue
    assert learned == [OTHER.record.name]
    assert [peer.announced_mutual for peer in members.peers] == [("sg.example:7443",)]
