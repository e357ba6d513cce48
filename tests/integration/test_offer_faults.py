"""Providers that break the rules in their own logs: every mirror detects it, reports it, and continues with other
offers.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from comity.content.secrets import read_signer
from comity.ledger.ledger import Ledger
from comity.rules.misbehaviour import verify_misbehaviour
from comity.rules.offers.fault_proof import FaultProof, OfferFault, verify_fault_proof
from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import SliceAllocation, Window
from comity.rules.offers.records import Grant, Offered
from comity.rules.signing import statement_of
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.trust.statement_kinds import OFFER_FAULT
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof
from comity.wire.offer import OfferQuery
from support.federation import NodeHome, found, introduced, serving, until
from support.offer_commands import Borrower, Lender, holding, reaches, read_chain
from support.offers import HOUR, to


def this_week() -> Window:
    now = int(time.time()) // HOUR * HOUR
    return Window(now, now + 240 * HOUR)


def some_hours(window: Window, first: int, last: int, nodes: int) -> SliceAllocation:
    return SliceAllocation("h100", nodes, window.start + first * HOUR, window.start + last * HOUR, 8)


def overbook(lender: Lender, borrower: Borrower, window: Window) -> tuple[Entry, ...]:
    """Lines signed by the node that grant four nodes twice, each linked correctly to the one before."""
    online = read_signer(lender.home.directory / "keys" / "online.pem")
    offer, node = lender.offer(window=window), lender.home.record.node
    link, lines = replace(to(offer.id), at=window.start, remaining=(1000,)), []

    def say(record: Any) -> Entry:
        lines.append(sign_statement(statement_of(record, node), online))
        return lines[-1]

    last = say(Offered(link, offer))
    for seq in (1, 2):
        asked = borrower.request(offer.id, some_hours(window, 1, 5, 4))
        lines.append(asked)
        link = replace(link, seq=seq, prev=last.digest, remaining=(1000 - 8 * seq,))
        allocations = (some_hours(window, 1, 5, 4),)
        last = say(Grant(link, asked.digest, borrower.id, allocations, window.start + 86_400))
    return tuple(lines)


def write(home: NodeHome, lines: list[bytes]) -> None:
    """Put lines into a log while its node is down, as anyone with its disk can."""
    ledger = Ledger.open(home.config().storage.ledger.parent, time.time)
    try:
        ledger.logs.append(home.origin, lines)
    finally:
        ledger.close()


async def accusations(home: NodeHome) -> list[tuple[str, str]]:
    """The accuser and kind of each accusation in the logs that a node holds."""
    found = []
    async with home.client() as client:
        for head in await client.logs():
            size = int(head.note.split(b"\n")[1]) if head.note else 0
            if size:
                async for batch in client.entries(head.vkey, 0, size):
                    for entry in map(parse_entry, batch.lines):
                        if entry.statement.predicate == OFFER_FAULT:
                            found.append((head.origin, OfferFault.parse(entry.statement).kind))
    return found


@pytest.mark.slow
async def test_i11_a_log_that_grants_too_much_is_accused_by_every_mirror(tmp_path: Path) -> None:
    homes = found(tmp_path, 3).homes
    lender, borrower, window = Lender(homes[0]), Borrower(), this_week()
    async with serving(homes[0]):
        await introduced(homes[0])
    lines = overbook(lender, borrower, window)
    write(homes[0], [borrower.publisher.announcement, *(line.line for line in lines)])
    offer = lender.offer(window=window).id
    async with serving(*homes):
        everybody = {(home.origin, "overbooked") for home in homes[1:]}

        async def accused() -> bool:
            return [set(await accusations(home)) for home in homes] == [everybody] * 3

        await until(accused, what="both mirrors to accuse the provider, everywhere")
        for home in homes:
            await until(partial(told, home), what=f"{home.name} to tell of the fault")
            async with home.client() as client:
                assert await client.offers.search() == ()
                (state,) = await client.offers.search(OfferQuery(closed=True))
            assert state.fault.startswith("overbooked: ")
        read = await read_chain(homes[2], str(homes[0].record.log), offer)
        assert await convicted(homes[2], homes[0], read) == "overbooked"


async def told(home: NodeHome) -> bool:
    async with home.operator() as client:
        return any("is at fault in its offer" in line for line in (await client.status()).warnings)


async def convicted(mirror: NodeHome, provider: NodeHome, read: OfferLogReader) -> str:
    """The fault proven by the proof that a client can make from a mirror's answers."""
    (chain,) = read.chains.values()
    assert chain.fault is not None
    async with mirror.client() as client:
        note = SignedNote.parse(await client.checkpoint(str(provider.record.log)))
        size = int(note.text.split("\n")[1])
        shown = []
        for index in (*chain.indexes, chain.fault.index):
            async for batch in client.entries(str(provider.record.log), index, index + 1):
                hashes = await client.inclusion(str(provider.record.log), index, size)
                shown.append((batch.lines[0], TlogProof(index, hashes, note)))
    fault_proof = FaultProof.parse(FaultProof.of(shown).encode())
    return verify_fault_proof(fault_proof, provider.record.log, provider.record.online)


@pytest.mark.slow
async def test_i11_two_provider_processes_on_one_key_leave_a_proof_at_every_mirror(tmp_path: Path) -> None:
    first, one, other = found(tmp_path, 3).homes
    lender, borrower, window = Lender(first), Borrower(), this_week()
    async with serving(first, one, other):
        offer = await lender.post(window=window)
        for home in (one, other):
            await holding(home, lambda client: client.offers.search(), "the offer to be mirrored")
    second = copied(first, tmp_path / "second")
    for home, mirror in ((first, one), (second, other)):
        async with serving(home, mirror):
            asked = borrower.request(offer, some_hours(window, 1, 5, 4))
            await borrower.submit(home, asked)
            await Lender(home).approve(asked.digest)
            await reaches(mirror, asked, "granted")
    async with serving(one, other):
        for home in (one, other):
            async with home.client() as client:
                await until(client.misbehaviour, what=f"{home.name} to have a proof")
                proof = (await client.misbehaviour())[0]
            assert proof.origin == first.origin
            verify_misbehaviour(proof.kind, proof.parts, first.record.log)


def copied(home: NodeHome, directory: Path) -> NodeHome:
    """A second node with the same keys: a copy of a home whose operator confirmed that the ledger is current."""
    shutil.copytree(home.directory, directory)
    twin = NodeHome(directory, home.card)
    database = twin.config().storage.ledger
    database.with_name("ledger.inode").write_bytes(b"%d\n" % database.stat().st_ino)
    return twin
