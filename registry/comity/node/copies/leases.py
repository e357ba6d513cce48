"""Leases on copies, and the decision to withdraw a copy. No I/O, no clock: seconds of a monotonic clock are arguments.

A node that wants to withdraw its copy (the *dropper*) asks the other holders to prove theirs under a *lease*: the
promise not to begin a withdrawal of the same artifact for a time. So two nodes that withdraw at once cannot count on
each other:

(1) a node that has begun to withdraw an artifact grants no lease on it
(2) a node that has granted a lease begins no withdrawal of the artifact until the lease is over, by its own clock
(3) a node that has just started begins none for the longest lease: it may have granted some before
(4) the dropper counts from before its first request, and acts in the first half of the lease only; the holder counts
from the request, which is later. Clocks may differ in rate by nearly a factor of two

(1) alone keeps the number of copies: a node that is counted has not begun yet, so the last one that begins counts only
nodes that never withdraw. (2) to (4) bound how old a counted answer can be.

    grows with   bound        charged to                      at the bound
    leases       MAX_LEASES   the member that audits          refused: LEASES; other members get theirs
    one member   one lease an artifact in PAUSE seconds       refused: LEASES; so it cannot keep others from withdrawing
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from comity.rules.audit import MAX_LEASE
from comity.rules.copy_counts import CopyCount, CopyPolicy, Holder
from comity.trust.encoding import Digest, short
from comity.trust.errors import Conflict, OutOfSpace, PolicyNotMet
from comity.trust.places import Reach

MAX_LEASES: Final = 5_000
"""Leases of one member."""
PAUSE: Final = 6.0 * MAX_LEASE
"""Seconds after the start of a lease until the same member gets another one on the same artifact."""


@dataclass(slots=True)
class _Lease:
    begun: float
    until: float


class Leases:
    """The leases that this node has granted, and the withdrawals that it has begun.

    Args:
        started: when this process started.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._leases: dict[Digest, dict[Digest, _Lease]] = {}
        """By member, and by artifact, the oldest first."""
        self._withdrawing: set[Digest] = set()

    def withdrawing(self, artifact: Digest) -> bool:
        return artifact in self._withdrawing

    def grant(self, artifact: Digest, member: Digest, seconds: int, now: float) -> None:
        """Promise the member to keep the copy for `seconds`. Raises Conflict (WITHDRAWING), OutOfSpace (LEASES)."""
        if artifact in self._withdrawing:
            why = f"{short(artifact)}: this node is about to withdraw its own copy"
            raise Conflict("no lease on this copy", why=why, hint="ask again later", code="WITHDRAWING")
        granted = self._leases.setdefault(member, {})
        while granted and now - next(iter(granted.values())).begun >= PAUSE:
            del granted[next(iter(granted))]
        if artifact in granted or len(granted) >= MAX_LEASES:
            why = "this member had one a short time ago" if artifact in granted else "this member has too many"
            raise OutOfSpace("no lease on this copy", why=why, hint="ask again later", code="LEASES")
        granted[artifact] = _Lease(now, now + min(seconds, MAX_LEASE))

    def begin(self, artifact: Digest, now: float, *, force: bool = False) -> None:
        """Begin a withdrawal. Raises Conflict (WITHDRAWING), and unless it is forced, Conflict (LEASED)."""
        if artifact in self._withdrawing:
            raise Conflict("this copy is being withdrawn", why="another command does it", code="WITHDRAWING")
        times = [leases[artifact].until for leases in self._leases.values() if artifact in leases]
        until = max([self._started + MAX_LEASE, *times])
        if now < until and not force:
            why = "another node counts on this copy" if now < max(times, default=0) else "this node has just started"
            hint = f"try again in {until - now:.0f} s"
            raise Conflict("this copy cannot be withdrawn yet", why=why, hint=hint, code="LEASED")
        self._withdrawing.add(artifact)

    def end(self, artifact: Digest) -> None:
        """The withdrawal is over, or was given up."""
        self._withdrawing.discard(artifact)


@dataclass(slots=True)
class RemovalCount:
    """The holders that have proven their copies under a lease, for one withdrawal.

    Args:
        began: before the first request. lease: the seconds that were asked for.
        own: the member of the dropper, which does not count.
    """

    policy: CopyPolicy
    own: Digest
    began: float
    lease: int
    proven: dict[Digest, Holder] = field(default_factory=dict)

    def add(self, member: Digest, jurisdiction: str, reach: Reach = ()) -> None:
        """A node of `member` has answered the challenge and granted the lease. Of several nodes of one member, the one
        that answered last counts."""
        if member != self.own:
            self.proven[member] = Holder(member, jurisdiction, tested=True, reach=reach)

    @property
    def enough(self) -> bool:
        """Whether enough others have proven their copies."""
        return CopyCount.of(self.proven.values()).meets(self.policy)

    def check(self, now: float) -> None:
        """Raises PolicyNotMet (COPIES-SHORT) if too few others hold a copy, and Conflict (LEASE-OVER) if it is too late
        to act on what they promised."""
        count, asked = CopyCount.of(self.proven.values()), self.policy
        if not count.meets(asked):
            reaches = f" and {count.reaches} reaches" if asked.min_reaches else ""
            why = (
                f"{count.copies} other members in {count.jurisdictions} jurisdictions{reaches} proved a copy now;"
                f" the charter asks for {asked}"
            )
            hint = "wait until others have copied it, or add --force"
            raise PolicyNotMet("too few others hold this artifact", why=why, hint=hint, code="COPIES-SHORT")
        if now - self.began > self.lease / 2:
            why = "the others' promises may end before the copy is gone"
            raise Conflict("the withdrawal took too long", why=why, hint="try again", code="LEASE-OVER")
