"""Decides for which logs this node tells everybody its cosignatures.

Every node cosigns every log that it mirrors, and gives its cosignatures to whoever asks. In a federation of more than
16 members only some of them tell all others: those that are first in the log's order (`trust.charter.assignment`). Each
of the others would cost every node 2.7 kB with each checkpoint.

A member does its part for a log if its cosignature of the newest checkpoint is fresh, or if a cosignature of any
checkpoint came from it within `PATIENCE`. A member of the order is needed as long as too few of those before it do
their part. The longer that lasts, the more members tell theirs: twice as many after each `PATIENCE`. Members that do
not sign therefore delay cosignatures, and cannot prevent them. Members further back in the order cannot release one
before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final

from comity.ledger.records import NewestHead
from comity.node.members import Membership
from comity.node.threads import Clock
from comity.trust.charter.assignment import assigned_count, cosigning_order
from comity.trust.encoding import Digest

PATIENCE: Final = 20.0
"""Seconds."""
MOST_DOUBLINGS: Final = 8
"""200 members are reached before."""


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

    def update(self, heads: Iterable[NewestHead]) -> Mapping[str, bool]:
        """Decide anew. `heads` are the newest checkpoints of the mirrored logs, with the cosignatures that are kept.

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
        own = self._membership.seat.inception.id
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
            owner = self._membership.owner(log)
            if owner is None:
                return ()
            self._orders[log] = cosigning_order(body, self._membership.known, owner)
        return self._orders[log]
