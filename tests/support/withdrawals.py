"""A node that withdraws copies, in memory except for its disk: the other holders and the network are simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from attackers.forging import Identity, Release
from comity.content.blobs import BlobStore
from comity.ledger.copy_tables import OwnClaim
from comity.ledger.ledger import Ledger
from comity.node.copies.auditor import AuditedCopy, Auditor
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex, CopyRow, HoldFact, ResultFact, WithdrawalFact
from comity.node.copies.leases import Leases
from comity.node.copies.own_copies import OwnClaims, WithheldFiles
from comity.node.copies.withdrawal import LoggedHolds, OtherHolders, SoleFiles, Withdrawals, WithdrawnFiles
from comity.node.keys import NodeSigner
from comity.node.members import Membership, Peer
from comity.node.own_log import OwnLog
from comity.node.replication.replicas import Replicas
from comity.node.threads import AsyncLedger, Pools
from comity.rules.audit import DAY, MAX_LEASE
from comity.rules.copy_counts import PASSED, AuditResult
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout, encode_records, records_root
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest, PieceRecord
from comity.trust.charter.document import CharterPolicy
from comity.trust.copies import HeldArtifact, HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import HOLD_WITHDRAWN
from support.world import node, seat

CODES = ("CH", "SG", "ES", "KR")


PUBLISHER = Identity.made("the publisher of what is held")


@dataclass(frozen=True)
class _Objects:
    """The documents of an artifact, as a publication names them."""

    manifest: bytes
    pieces: bytes


class WithdrawingNode:
    """One of four nodes: the one at `place`. `store` has its blobs; the others answer every audit with `outcome`.

    Attributes:
        refuse_log: what the own log raises, if it is set.
        unclaimed: the files of each complete copy whose claim is not logged yet.
        refuse_claims: what claiming these raises, if it is set.
        asked: the copies that were audited.
    """

    def __init__(self, folder: Path, store: BlobStore, place: int = 0) -> None:
        self.nodes = [node(seat(code)) for code in (*CODES[place:], *CODES[:place])]
        own, *others = self.nodes
        self.store, self.log = store, str(own.record.log)
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.ledger.logs.create(own.record.log.name, self.log, own=True)
        members = {each.seat.id: each.seat.member for each in self.nodes}
        self.peers = {
            str(each.record.log): Peer(each.seat.member, each.record, each.entry.line, (), ()) for each in others
        }
        self.membership = cast(
            Membership,
            SimpleNamespace(
                federation_id=sha256(b"the federation"),
                own_node=SimpleNamespace(log=self.log, record=own.record, inception=own.seat.inception),
                body=SimpleNamespace(policy=CharterPolicy(3, 2, 2, 0), members=list(members.values())),
                peers=list(self.peers.values()),
                shown_name=lambda peer: peer.name,
                member=members.get,
                node={each.record.node: each.record for each in self.nodes}.get,
                writers=lambda log: {each.record.node for each in self.nodes if str(each.record.log) == log},
                records_of=lambda log: tuple(each.record for each in self.nodes if str(each.record.log) == log),
                peer=lambda key: next((peer for peer in self.peers.values() if peer.key == key), None),
            ),
        )
        self.index = CopiesIndex(folder / "copies.sqlite", self.log, lambda: 0)
        self.held = HeldFiles(folder / "copies.sqlite", self.log)
        self.pools = Pools()
        self.outcome = PASSED
        self.refuse_log: ComityError | None = None
        self.unclaimed: list[Sequence[bytes]] = []
        self.refuse_claims: ComityError | None = None
        self.asked: list[str] = []
        self.withdrawn: set[Digest] = set()
        self.signer = cast(NodeSigner, SimpleNamespace(record=own.record, online=own.online))
        self.today = 20_000
        self.now = 10.0 * MAX_LEASE
        self.own_log = cast(OwnLog, SimpleNamespace(append=self._append, signer=self.signer))
        self.withdrawals = self.restarted()

    def restarted(self) -> Withdrawals:
        """The withdrawals of a process that has just started."""
        ledger = AsyncLedger(self.ledger)
        self.files = HeldFilesReader(
            ledger, self.store, self.pools, self.membership, self.held, lambda: self.today * DAY
        )
        replicas = cast(
            Replicas,
            SimpleNamespace(
                has_withdrawn=self._has_withdrawn,
                begin_withdrawal=self.withdrawn.add,
                end_withdrawal=self.withdrawn.discard,
                own_claims_logged=self._nothing,
                claim_waiting=self._claim_waiting,
                want_again=self._wanted_again,
            ),
        )
        self.played_auditor = SimpleNamespace(read_new=self._nothing, peer=self.peers.get, audit=self._audit)
        claims = OwnClaims(self.ledger, self.signer.record.node.id, self.log)
        holds = LoggedHolds(ledger, self.pools, claims, self.own_log, replicas)
        self.withdrawals = Withdrawals(
            ledger,
            lambda: self.now,
            Leases(0.0),
            holds,
            OtherHolders(ledger, self.membership, self.index, cast(Auditor, self.played_auditor), lambda: self.now),
            SoleFiles(ledger, self.store, self.pools, self.held, self.files),
            WithdrawnFiles(self.pools, holds, WithheldFiles(self.store), replicas, lambda: None),
        )
        return self.withdrawals

    def hold(self, files: Sequence[bytes], *, holders: int = 4, names: Sequence[str] = ()) -> Digest:
        """An artifact of these files, published under these names, which the first `holders` nodes claim to hold; this
        one does."""
        manifest = Manifest.of(FileEntry(f"file-{sha256(data)}", len(data), sha256(data)) for data in files)
        by_digest = {sha256(data): data for data in files}
        index = PieceIndex(tuple((entry.path, _layout(by_digest[entry.sha256])) for entry in manifest.files))
        for data in (*files, manifest.encode(), index.encode()):
            self.store.put(sha256(data), data)
        for data in files:
            self.ledger.pieces.store_records(sha256(data), len(data), FIXED_LAYOUT, encode_records([_record(data)]))
        named, pieces = SideObject.of(manifest.encode()), SideObject.of(index.encode())
        line = sign_content(HeldArtifact(self.signer.record.node, named, pieces), self.signer.online).line
        objects = _Objects(manifest.encode(), index.encode())
        self.ledger.logs.append(self.log, [PUBLISHER.publish(name, cast(Release, objects)) for name in names])
        (at,) = self.ledger.logs.append(self.log, [line])
        self._claim(manifest.digest, at, hold=True)
        for number, each in enumerate(self.nodes[:holders]):
            fact = HoldFact(
                manifest.digest, str(each.record.log), each.record.node.id, at if number == 0 else 0, named, pieces
            )
            self.index.add([fact])
        return manifest.digest

    def _claim(self, artifact: Digest, index: int, *, hold: bool) -> None:
        numbers = {self.log: self.ledger.proven.last_number()}
        self.ledger.replicas.add_claims([OwnClaim(artifact, index, hold)], sha256(b"basis"), numbers)

    def test(self, artifact: Digest, nodes: Sequence[int]) -> None:
        """This node tested the copies of these other nodes today."""
        result = AuditResult(self.nodes[0].seat.id, self.today, PASSED, 1)
        for number in nodes:
            self.index.add([ResultFact(artifact, str(self.nodes[number].record.log), result)])

    async def _append(self, line: bytes) -> int:
        if self.refuse_log is not None:
            raise self.refuse_log
        (index,) = self.ledger.logs.append(self.log, [line])
        statement = parse_entry(line).statement
        if statement.predicate != HOLD_WITHDRAWN:
            return index
        withdrawn = HoldWithdrawn.parse(statement)
        self._claim(withdrawn.artifact, index, hold=False)
        self.index.add([WithdrawalFact(withdrawn.artifact, self.log, index, withdrawn.reason)])
        return index

    async def _audit(self, row: CopyRow, peer: Peer, *, lease: int = 0) -> AuditedCopy:
        self.asked.append(peer.name)
        return AuditedCopy(peer, self.outcome)

    async def _nothing(self) -> None:
        """The callback of a withdrawal: the test adds facts when they are logged."""

    async def _claim_waiting(self) -> None:
        if self.refuse_claims is not None:
            raise self.refuse_claims
        while self.unclaimed:
            self.hold(self.unclaimed.pop())

    async def _has_withdrawn(self, artifact: Digest) -> bool:
        return artifact in self.withdrawn

    async def _wanted_again(self, artifact: Digest) -> None:
        self.withdrawn.discard(artifact)

    def close(self) -> None:
        self.held.close()
        self.index.close()
        self.pools.close()
        self.ledger.close()


def _layout(data: bytes) -> PieceLayout:
    return PieceLayout(FIXED_LAYOUT, 1, records_root([_record(data)]))


def _record(data: bytes) -> PieceRecord:
    """Of a file of one piece."""
    return PieceRecord(len(data), bytes.fromhex(sha256(data)))
