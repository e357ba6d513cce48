"""A provider's node is killed while it grants, at each point of the commit: each reservation is logged once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from comity.rules.offers.offer import SliceAllocation, Window
from comity.rules.offers.records import read_record
from comity.trust.errors import ComityError, Refused
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import GRANT
from support.federation import NodeProcess, make_home, until
from support.offer_commands import Borrower, Lender, read_chain
from support.offers import HOUR, a_slice

pytestmark = pytest.mark.slow

POINTS = ["ledger.compose.before-commit", "ledger.append.grown", "ledger.compose.after-commit"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_node_killed_while_it_grants_has_granted_once_or_not_at_all(tmp_path: Path, point: str) -> None:
    lender, borrower = Lender(make_home(tmp_path / "home", 0)), Borrower()
    now = int(time.time()) // HOUR * HOUR
    window = Window(now, now + 240 * HOUR)

    def wanted(amount: int) -> SliceAllocation:
        return SliceAllocation("h100", 1, now + HOUR, now + 20 * HOUR, amount)

    node = NodeProcess(lender.home)
    try:
        await node.ready()
        offer = await lender.post(window=window, slices=(a_slice(amount=100),))
        asked = [borrower.request(offer, wanted(60)) for _ in range(3)]
        await borrower.submit(lender.home, *asked)
        node.kill()
        node = NodeProcess(lender.home, {"COMITY_FAULT": point})
        await node.ready()
        with pytest.raises(ComityError):
            await lender.approve(asked[0].digest)
        await until(lambda: not node.alive, what="the node to die")
        node = NodeProcess(lender.home)
        await node.ready()
        granted = await lender.approve(asked[0].digest)
        with pytest.raises(Refused) as refused:
            await lender.approve(asked[1].digest)
        assert refused.value.code == "OFFER-CAPACITY"
        read = await read_chain(lender.home, str(lender.home.record.log), offer)
        async with lender.home.client() as client:
            entries = [parse_entry(line) async for b in client.entries(lender.home.origin, 0, 100) for line in b.lines]
    finally:
        node.close()
    grants = [entry for entry in entries if entry.statement.predicate == GRANT]
    assert grants == [granted]
    assert read_record(granted.statement).link.remaining == (40,)
    chain = read.chain_of(offer)
    assert chain is not None
    assert chain.fault is None
    assert chain.state.remaining == (40,)
