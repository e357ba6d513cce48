"""The charter at one node: a charter follower over a real ledger, with logs that tests write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from comity.content.blobs import FolderStore
from comity.federation_file import Federation
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.node.charter.follower import CharterFollower
from comity.node.epochs import EpochStore
from comity.node.intake import LineProver
from comity.node.keys import NodeSigner
from comity.node.members import Membership, OwnNode
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog
from comity.node.threads import AsyncLedger, Pools
from comity.trust.charter.document import Body
from comity.trust.charter.federation import FederationNode
from comity.trust.charter.votes import consent
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.note import Checkpoint
from support.assembly import CLASSICAL, Assembly
from support.context import node_context
from support.world import Identity, Node, node


def at(who: Identity) -> Node:
    return node(who, "", CLASSICAL)


class Bench:
    """A charter follower over logs that tests write. The node is the first member's, if none is named.

    `nodes`: the records of all members' nodes are known, as a federation file brings them.
    """

    def __init__(
        self, folder: Path, assembly: Assembly, branch: str = "", me: Identity | None = None, *, nodes: bool = False
    ) -> None:
        self.assembly = assembly
        own = me or assembly.seats[0]
        self.me = at(own)
        lines = [x for who in assembly.seats for x in (who.entry.line, consent(assembly.body, who.id, who.signer).line)]
        records = [at(who) for who in assembly.seats] if nodes else []
        known = [FederationNode(each.record, each.entry.line, (), ()) for each in records]
        federation = Federation.assemble([assembly.body], [lines], known)
        self.ledger = Ledger.open(folder, lambda: 1000.0)
        self.store = FolderStore(folder / "blobs")
        epoch_store = EpochStore(self.ledger.epochs, federation, branch)
        members = Membership(OwnNode.parse(own.entry.line, self.me.entry.line), federation, epoch_store.bodies())
        self.async_ledger, self._pools = AsyncLedger(self.ledger), Pools()
        self.members = members
        self.changes = 0
        self.signer = NodeSigner(self.me.record, self.me.online)
        self.follower = CharterFollower(
            node_context(
                ledger=self.async_ledger, store=self.store, pools=self._pools, membership=members, metrics=Metrics()
            ),
            epoch_store,
            cast(OwnLog, self),
            self._changed,
        )
        self.log(own, [])
        seats = members.chains
        self._prover = LineProver(self.ledger, lambda who: [chain.start for chain in seats(who)])
        self.follower.open()

    def close(self) -> None:
        self._pools.close()
        self.async_ledger.close()

    async def _changed(self) -> None:
        self.changes += 1

    async def append(self, line: bytes) -> int:
        """As the own log's sequencer does."""
        (index,) = self.ledger.logs.append(str(self.me.record.log), [line])
        self._prover.finish_all()
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        return [await self.append(line) for line in lines]

    def log(self, who: Identity, entries: Iterable[Entry]) -> None:
        record = at(who).record
        self.ledger.logs.create(record.origin, str(record.log), own=True)
        for body in self.assembly.bodies.values():
            self.store.put(Body.parse(body).digest, body)
        if lines := [entry.line for entry in entries]:
            self.ledger.logs.append(str(record.log), lines)
            self._prover.finish_all()

    def mirror(self, who: Identity, lines: Sequence[bytes]) -> None:
        """Let the mirrored log of another member's node grow by any lines."""
        held, vkey = at(who), str(at(who).record.log)
        state = self.ledger.logs.create(held.origin, vkey, own=False)
        if lines:
            root = self.ledger.logs.stage(vkey, state.size, lines)
            note = Checkpoint(held.origin, state.size + len(lines), root).signed(held.log)
            self.ledger.logs.advance(vkey, state.size + len(lines), [], note)
            self._prover.finish_all()

    def said(self, predicate: str) -> list[Entry]:
        """The statements that the node has logged itself."""
        mine = EntryQuery(predicate=predicate, origin=str(self.me.record.log), by=self.me.record.node.id)
        return [parse_entry(found.line) for found in self.ledger.index.find(mine)]

    async def settle(self) -> None:
        while await self.follower.step():
            pass
