"""Cosigns mirrored logs: a cosignature states that every entry up to a size, with its side objects, is stored here.

Only the newest checkpoint of durable entries is signed, so sizes never decrease. If a peer shows a larger checkpoint
with this node's own cosignature, the ledger is older than what was signed: then that log is not cosigned until it has
reached that checkpoint.

Every peer shows the same checkpoints, and may repeat what is not valid: results of verifications are cached, bounded,
and what was used least recently is dropped.

Every node cosigns every log that it mirrors, and gives its cosignatures to every caller. In a federation of more than
16 members only some of them tell all others: those that are first in the log's order (`trust.charter.document`). Each
of the others would cost every node 2.7 kB with each checkpoint.

A member does its part for a log if its cosignature of the newest checkpoint is fresh, or if a cosignature of any
checkpoint came from it within `PATIENCE`. A member of the order is needed as long as too few of those before it do
their part. The longer that lasts, the more members tell theirs: twice as many after each `PATIENCE`. Members that do
not sign therefore delay cosignatures, and cannot prevent them. Members further back in the order cannot release one
before them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final, Generic, TypeVar

import structlog

from comity.ledger.records import CosignerPlaces, NewestHead
from comity.node.keys import NodeKeys
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.replication.link import StartBarrier
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.threads import AsyncLedger, Clock
from comity.rules.assigned_cosigners import assigned_count, cosigning_order
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.tlog.note import (
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    open_checkpoint,
    verify_cosignature,
)
from comity.wire.news import KnownCosignatures

PATIENCE: Final = 20.0
"""Seconds for which a member is waited for before others tell their cosignatures in its place."""
MOST_DOUBLINGS: Final = 8
"""200 members are reached before."""
HEARTBEAT: Final = 600
"""Seconds after which an unchanged checkpoint is cosigned again."""

MAX_KEPT: Final = 4096
"""Results kept: about 1 MB."""

V = TypeVar("V")


class AssignedCosigners:
    """Thread-safe.

    Args:
        clock: seconds; compared with the times in cosignatures.
        fresh: seconds for which a cosignature of an unchanged checkpoint is fresh.
    """

    def __init__(self, membership: Membership, clock: Clock, fresh: float) -> None:
        self._membership = membership
        self._clock = clock
        self._fresh = fresh
        self._body: Digest | None = None
        self._orders: dict[str, tuple[Digest, ...]] = {}
        """By log, for the followed body. Logs of unknown members have none."""
        self._arrived: dict[str, dict[Digest, float]] = {}
        """By log: when a cosignature of each member came."""
        self._needed_since: dict[str, float] = {}
        self._untold: frozenset[str] = frozenset()
        self._lock = Lock()
        self._changed: Callable[[], None] = lambda: None

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in any thread, after each change of what `is_told` returns. It must not raise."""
        self._changed = changed

    def is_told(self, log: str) -> bool:
        """Whether this node tells everybody its cosignatures of a log, named by its verifier key."""
        return log not in self._untold

    def arrived(self, log: str, key_ids: Iterable[bytes]) -> None:
        """Valid cosignatures of a log came, by these keys."""
        if self._count() is None:
            return
        members, now = self._members_by_key(), self._clock()
        with self._lock:
            self._arrived.setdefault(log, {}).update((members[key], now) for key in key_ids if key in members)

    def places(self, log: str) -> CosignerPlaces:
        """The place in a log's order of the member of each cosigner key; those of the log's owner have none."""
        with self._lock:
            place = {member: index for index, member in enumerate(self._order(log))}
        known = self._membership.cosigners.items()
        return {name: place[member] for name, (_, member) in known if member in place}

    def update(self, heads: Iterable[NewestHead]) -> Mapping[str, bool]:
        """Decide again. `heads` are the newest checkpoints of the mirrored logs, with the cosignatures that are kept.

        Returns, by log, whether too few members have freshly cosigned its checkpoint: only for logs of known members in
        a federation in which not all cosign for everybody.
        """
        with self._lock:
            before, count = self._untold, self._count()
            if count is None:
                self._arrived.clear()
                self._untold, short = frozenset[str](), dict[str, bool]()
            else:
                short = self._assess(heads, count)
            changed = self._untold != before
        if changed:
            self._changed()
        return short

    def _assess(self, heads: Iterable[NewestHead], count: int) -> dict[str, bool]:
        members, untold, short = self._members_by_key(), set[str](), dict[str, bool]()
        for head in heads:
            order, signers = self._order(head.vkey), self._signers(head, members)
            if not order:
                continue
            short[head.vkey] = len(signers.intersection(order)) < min(count, len(order))
            if not self._is_needed(head.vkey, order, signers, count):
                untold.add(head.vkey)
        self._untold = frozenset(untold)
        return short

    def _is_needed(self, log: str, order: Sequence[Digest], signers: set[Digest], count: int) -> bool:
        own = self._membership.own_node.inception.id
        if own not in order:
            return False
        before = order[: order.index(own)]
        if len(before) < count:
            return True
        if len((signers | self._arrived_lately(log)).intersection(before)) >= count:
            self._needed_since.pop(log, None)
            return False
        now = self._clock()
        waited = max(0.0, now - self._needed_since.setdefault(log, now))
        return len(before) < count << min(MOST_DOUBLINGS, int(waited / PATIENCE))

    def _signers(self, head: NewestHead, members: dict[bytes, Digest]) -> set[Digest]:
        oldest = self._clock() - self._fresh
        fresh = (line.key_id for line in head.cosignatures if int.from_bytes(line.signature[:8], "big") >= oldest)
        return {members[key_id] for key_id in fresh if key_id in members}

    def _arrived_lately(self, log: str) -> set[Digest]:
        oldest = self._clock() - PATIENCE
        return {member for member, at in self._arrived.get(log, {}).items() if at >= oldest}

    def _members_by_key(self) -> dict[bytes, Digest]:
        return {key.key_id: peer.member.id for peer in self._membership.peers for key in peer.record.cosigners}

    def _count(self) -> int | None:
        body = self._membership.body
        return assigned_count(body) if body else None

    def _order(self, log: str) -> tuple[Digest, ...]:
        body = self._membership.body
        if body is None:
            return ()
        if body.digest != self._body:
            self._body = body.digest
            self._orders.clear()
            self._needed_since.clear()
        if log not in self._orders:
            owner, known = self._membership.owner(log), self._membership.known
            if owner is None or owner not in known:  # also this node's own log, until an epoch admits its member
                return ()
            self._orders[log] = cosigning_order(body, known, owner)
        return self._orders[log]


class _Results(Generic[V]):
    """The results of verifications by the digest of everything that was verified."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Digest, V] = OrderedDict()

    def get(self, digest: Digest) -> V | None:
        if digest not in self._kept:
            return None
        self._kept.move_to_end(digest)
        return self._kept[digest]

    def keep(self, digest: Digest, result: V) -> None:
        self._kept[digest] = result
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


class OpenedNotes:
    """Checkpoints whose log's signature was verified."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._results: _Results[Checkpoint] = _Results(most)

    def get(self, note: SignedNote, key: VerifierKey) -> Checkpoint:
        """The checkpoint in `note`. Raises Malformed, and Untrusted if the log did not sign it."""
        lines = [line for line in note.signatures if line.by(key)]
        digest = _digest(str(key).encode(), note.text.encode(), *(line.signature for line in lines))
        opened = self._results.get(digest)
        if opened is None:
            opened = open_checkpoint(note, key)
            self._results.keep(digest, opened)
        return opened


class CheckedCosignatures:
    """Results of verifying cosignatures, valid or not."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._results: _Results[bool] = _Results(most)

    def is_valid(self, line: NoteSignature, key: VerifierKey, checkpoint: Checkpoint) -> bool:
        digest = _digest(str(key).encode(), checkpoint.text.encode(), line.signature)
        known = self._results.get(digest)
        if known is None:
            try:
                verify_cosignature(line, key, checkpoint)
                known = True
            except Untrusted:
                known = False
            self._results.keep(digest, known)
        return known


def _digest(*parts: bytes) -> Digest:
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))


_log: Final = structlog.get_logger("comity.node")


@frozen
class _ForgottenCheckpoint:
    """A checkpoint that this node cosigned and its ledger does not contain."""

    size: int
    root: bytes


class CheckpointCosigner:
    """Cosigns mirrored logs and collects the cosignatures of others."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        keys: NodeKeys,
        clock: Clock,
        metrics: Metrics,
        start: StartBarrier,
        misbehaviour: MisbehaviourProofs,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._keys = keys
        self.cosigners = keys.record.cosigners
        """The keys with which this node cosigns."""
        self._clock = clock
        self._metrics = metrics
        self._start = start
        self._misbehaviour = misbehaviour
        self.assigned = AssignedCosigners(membership, clock, 2 * HEARTBEAT)
        """Decides for which logs the cosignatures are told to everybody."""
        self._forgotten: dict[VerifierKey, _ForgottenCheckpoint] = {}
        self._checked = CheckedCosignatures()
        self._signed: dict[str, tuple[Checkpoint, float]] = {}
        """What this node signed last for each log, and when: the ledger stores a bounded number of cosigners."""

    async def collect(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Store a checkpoint that the stored log reaches, with its valid cosignatures."""
        known = await self._ledger.run(self._known_signatures, log, checkpoint, note)
        await self._add(log, checkpoint, [line for line in note.signatures if line not in known])

    async def collect_told(self, log: VerifierKey, size: int, lines: Sequence[NoteSignature]) -> bool:
        """Store the valid ones of `lines`, cosignatures of the checkpoint of `size`. Returns whether nothing is left to
        do: false until the stored log has reached `size`. If no checkpoint of that size is stored, they are ignored."""
        try:
            note = await self._ledger.run(self._ledger.tables.cosignatures.all, str(log), size)
        except NotFound:
            return await self._ledger.run(self._has_passed, log, size)
        await self._add(log, Checkpoint.parse(note.text), [line for line in lines if line not in note.signatures])
        return True

    def note_own_cosignature(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Remember a checkpoint larger than the stored log if it has this node's own cosignature."""
        for key in self._keys.record.cosigners:
            for line in note.signatures:
                if line.by(key) and self._is_valid(line, checkpoint):
                    forgotten = self._forgotten.get(log)
                    if forgotten is None or forgotten.size < checkpoint.size:
                        self._forgotten[log] = _ForgottenCheckpoint(checkpoint.size, checkpoint.root)
                        _log.warning("ledger is older than this node's cosignature", origin=checkpoint.origin)

    def look_around(self) -> list[KnownCosignatures]:
        """Decide again for which logs this node tells its cosignatures. Returns, for each log whose newest checkpoint
        lacks a fresh cosignature of a member that is to tell it: those that it has. Blocking."""
        peers = [peer for peer in self._membership.peers if self._membership.member(peer.member.id)]
        expected = {key.key_id for peer in peers for key in peer.record.cosigners}
        heads = self._ledger.tables.cosignatures.newest_heads(expected)
        assigned = self.assigned.update(heads)
        found = list[KnownCosignatures]()
        for head in heads:
            known = [(line.key_id, int.from_bytes(line.signature[:8], "big")) for line in head.cosignatures]
            short = assigned.get(head.vkey)
            if self._lacks_one(head, expected, known) if short is None else short:
                found.append(KnownCosignatures(head.vkey, head.size, tuple(known)))
        return found

    def _lacks_one(self, head: NewestHead, expected: set[bytes], known: Iterable[tuple[bytes, int]]) -> bool:
        """Whether a fresh cosignature by one of the keys `expected`, other than the log's writer, is missing."""
        oldest = self._clock() - 2 * HEARTBEAT
        writers = {key.key_id for record in self._membership.records_of(head.vkey) for key in record.cosigners}
        return bool(expected - writers - {key_id for key_id, time in known if time >= oldest})

    async def cosign_if_due(self, key: VerifierKey) -> None:
        """Cosign the newest checkpoint of a mirrored log if it is due and allowed."""
        if not self._start.settled or self._misbehaviour.frozen(key):
            return
        signed = await self._ledger.run(self._cosign, key)
        if signed:
            _log.info("cosigned", origin=key.name, size=signed.size)

    def _cosign(self, log: VerifierKey) -> Checkpoint | None:
        """Sign if the newest checkpoint covers all stored entries and was not signed recently. Blocking."""
        ledger, name = self._ledger.tables, str(log)
        try:
            note = ledger.cosignatures.all(name)
        except NotFound:
            return None
        checkpoint = Checkpoint.parse(note.text)
        state = ledger.logs.get(name)
        forgotten = self._forgotten.get(log)
        if checkpoint.size != state.size or checkpoint.size == 0:
            return None
        if forgotten and (forgotten.size > state.size or ledger.history.root(name, forgotten.size) != forgotten.root):
            return None
        if self._signed_lately(name, checkpoint, note):
            return None
        signed = self._keys.cosign(checkpoint, self._clock)
        ledger.cosignatures.add(name, checkpoint.size, checkpoint.root, signed)
        self._signed[name] = checkpoint, self._clock()
        return checkpoint

    def _signed_lately(self, log: str, checkpoint: Checkpoint, note: SignedNote) -> bool:
        last, at = self._signed.get(log, (None, 0.0))
        if last == checkpoint and 0 <= self._clock() - at < HEARTBEAT:
            return True
        keys = self._keys.record.cosigners
        times = [int.from_bytes(line.signature[:8], "big") for key in keys for line in note.signatures if line.by(key)]
        return len(times) == len(keys) and min(times) > self._clock() - HEARTBEAT

    def _known_signatures(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> frozenset[NoteSignature]:
        """Store the checkpoint if it is new. Returns its known signatures. Blocking."""
        try:
            kept = self._ledger.tables.cosignatures.all(str(log), checkpoint.size)
        except NotFound:
            self._ledger.tables.logs.set_note(str(log), note)
            return frozenset()
        return frozenset(kept.signatures)

    async def _add(self, log: VerifierKey, checkpoint: Checkpoint, lines: Iterable[NoteSignature]) -> None:
        """Store the valid ones of `lines`."""
        good = [line for line in lines if self._is_valid(line, checkpoint)]
        if good:
            await self._ledger.run(
                self._ledger.tables.cosignatures.add, str(log), checkpoint.size, checkpoint.root, good
            )
            self.assigned.arrived(str(log), (line.key_id for line in good))

    def _has_passed(self, log: VerifierKey, size: int) -> bool:
        """Blocking."""
        try:
            return self._ledger.tables.logs.get(str(log)).size >= size
        except NotFound:
            return False

    def _is_valid(self, line: NoteSignature, checkpoint: Checkpoint) -> bool:
        key = self._membership.cosigner_key(line.name, line.key_id)
        if key is None:
            return False
        if not self._checked.is_valid(line, key, checkpoint):
            self._metrics.verify_failures.labels("cosignature").inc()
            return False
        return True
