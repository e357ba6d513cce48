"""The part of a node that grants, over a real ledger and without a network, and a borrower. The node can be killed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comity.content import fault
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.node.keys import NodeSigner
from comity.node.members import Membership, OwnNode
from comity.node.offers.index import OfferIndex
from comity.node.offers.own_chains import RecordWriter
from comity.node.offers.provider import GrantReconciler, HardwareAttester, OfferProvider
from comity.node.threads import AsyncLedger, Pools
from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import PartyStatement
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.keys import Signer
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.trust.tlog.note import Checkpoint
from support.case import nodes
from support.offers import START, an_offer
from support.world import Identity, found, identity

NODE, PEER = nodes(2)
FEDERATION = found((NODE, PEER))
HOLDER, OTHER = identity("Borrower"), identity("Somebody else")


class DiedError(Exception):
    """A simulated power cut."""


class GrantingNode:
    """A provider of offers with its clock. `now` is the time of both."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = START
        self.deadly = ""
        self._point, fault.point = fault.point, self._at
        self.open()
        self.ledger.logs.create(NODE.origin, self.log, own=True)
        self.ledger.logs.append(self.log, [NODE.seat.entry.line, NODE.entry.line, HOLDER.entry.line, OTHER.entry.line])

    def open(self) -> None:
        membership = Membership(OwnNode.parse(NODE.seat.entry.line, NODE.entry.line), FEDERATION)
        self.membership = membership
        self.async_ledger, self._pools = AsyncLedger(Ledger.open(self.folder, lambda: self.now)), Pools()
        self.ledger, self.log = self.async_ledger.tables, membership.own_node.log
        signer = NodeSigner(NODE.record, NODE.online)
        self.index = OfferIndex(self.async_ledger, self._pools, membership, 1)  # of others' logs
        writer = RecordWriter(self.async_ledger, membership, signer, self._clock, self.compose)
        store = FolderStore(self.folder / "blobs")
        attester = HardwareAttester(self.async_ledger, self._pools, store, signer, self.index, self._append)
        self.provider = OfferProvider(membership, writer, self.index, attester)
        self.clock = GrantReconciler(self._clock, self.provider, self.index)

    async def _append(self, line: bytes) -> int:
        raise AssertionError("these tests log no hardware evidence")

    def _clock(self) -> float:
        return float(self.now)

    def close(self) -> None:
        self._pools.close()
        self.async_ledger.close()

    def reopen(self) -> None:
        """Everything in memory is lost."""
        self.close()
        self.open()

    def end(self) -> None:
        fault.point = self._point
        self.close()
        shutil.rmtree(self.folder)

    async def compose(self, make: Any) -> list[tuple[int, bytes]]:
        """As the node's sequencer would."""
        first, lines = await asyncio.to_thread(self.ledger.logs.compose, self.log, make)
        return list(enumerate(lines, first))

    def offer(self, **more: Any) -> Offer:
        return an_offer(provider=NODE.seat.id, log=self.log, **more)

    def say(self, said: PartyStatement, by: Identity = HOLDER) -> Entry:
        """Log a statement of the borrower, or of another author."""
        entry = sign_statement(statement_of(said), by.signer)
        self.ledger.logs.append(self.log, [entry.line])
        return entry

    def forge(self, said: PartyStatement, by: Signer) -> Entry:
        """Log a statement in a peer's log, in the borrower's name, signed by `by`."""
        entry = sign_statement(statement_of(said), by)
        logs, origin, vkey = self.ledger.logs, PEER.origin, str(PEER.record.log)
        start = logs.create(origin, vkey, own=False).size
        root = logs.stage(vkey, start, [entry.line])
        logs.advance(vkey, start + 1, [], Checkpoint(origin, start + 1, root).signed(PEER.log))
        return entry

    def together(self, acts: Sequence[Any]) -> list[Any]:
        """Do all concurrently; the results and the errors, in order."""

        async def all_of_them() -> list[Any]:
            self._prove()
            await self.index.read()
            return list(await asyncio.gather(*acts, return_exceptions=True))

        return asyncio.run(all_of_them())

    def tick(self) -> None:
        """The automatic steps at this time."""

        async def turn() -> None:
            self._prove()
            while await self.index.read():
                pass
            await self.clock.step()

        asyncio.run(turn())

    def _prove(self) -> None:
        """As the intake of a node when its log has grown."""
        seats = self.membership.chains
        LineProver(self.ledger, lambda who: [chain.start for chain in seats(who)]).finish_all()

    def read(self) -> OfferLogReader:
        """The chain that a stranger computes from the log."""
        log = OfferLogReader(self.log)
        size = self.ledger.logs.get(self.log).size
        for index, line in enumerate(self.ledger.history.entries(self.log, 0, size)):
            entry = parse_entry(line)
            by = entry.statement.by
            log.read(index, entry, by != NODE.record.node or entry.envelope.verified_by(NODE.online.public))
        return log

    def _at(self, name: str, /) -> None:
        if name == self.deadly:
            self.deadly = ""
            raise DiedError(name)


BORROWER: Digest = HOLDER.id
