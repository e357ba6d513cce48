"""Which copies may use how much of the disk: one table of members, copies and promised bytes. No I/O and no clock.

Each byte of a copy is charged to the member in whose log the artifact is published, by the size that is claimed: the
pieces that are found on the disk and written once more cost as much as received ones. What the operator wants (a pin,
the own publications) is charged to nobody.

    space for copies    what is free above `stop`, and what the copies of all members use already
    part                `reserved` of this space, in equal parts: nobody else can use up a member's part
    common space        the rest: beyond its part a member uses at most as much of it as it leaves free, so that there
                        is always room for another; with a share set by the operator, up to that share

(1) a copy is admitted if its whole size fits the member's limit and the disk. Until it is stored, what is missing is
    promised to it, and nobody else can use that
(2) a promise follows what arrives. After `grace` seconds a copy keeps a promise for what it will receive within
    `horizon` seconds at the rate that it had, and `step` bytes. A member whose copy received nothing for `grace`
    seconds gets promises of `step` bytes only, until a copy of it receives that much within such a time
(3) a copy that received nothing for `grace` seconds gives way to another that needs its promise. One that received
    nothing for its `patience` is withdrawn in any case. Until it has ended, `in_flight` bytes of it may still arrive
(4) if there is less space than was promised, because others wrote to the disk or the operator wants a copy, the largest
    user gives way first

Why a member's part is always free for it: with `over` for what each member uses beyond its part, the sum of all `over`
is at most the common space, by (1). So all use together leaves at least what the members below their part may still
take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

MIB: Final = 1 << 20
OPERATOR: Final = ""
"""Charged with what the operator of this node wants: without a limit but the disk's."""
OUTSIDE: Final = "no member"
"""Charged with what is published in logs that no member writes: together they have the part of one member."""


@frozen
class AdmissionLimits:
    """Attributes:
    stop: bytes of the disk that stay free.
    reserved: the part of the space for copies that is reserved for the members in equal parts, from 0 to 1.
    shares: the most that a member may use, from 0 to 1, where the operator sets it.
    step: bytes that a copy keeps promised which receives little.
    in_flight: bytes of one copy that may arrive before it is stopped; at most `step`.
    grace, horizon: seconds, see (2).
    """

    stop: int
    reserved: float = 0.5
    shares: Mapping[str, float] = field(default_factory=dict)
    step: int = 32 * MIB
    in_flight: int = 24 * MIB
    grace: float = 10.0
    horizon: float = 6 * 3_600.0


@dataclass(slots=True, eq=False)
class AdmittedCopy:
    """A running copy.

    Attributes:
        size: bytes of its files that were not stored when it was admitted.
        stored: those of them that are stored now.
        promised: bytes that it may store, and nobody else.
        patience: seconds without a verified byte after which it is withdrawn.
        withdrawn: why it must end; empty while it may go on.
    """

    artifact: Digest
    member: str
    size: int
    stored: int
    patience: float
    promised: int = 0
    verified: int = 0
    withdrawn: str = ""
    received_at: float = 0.0
    looked_at: float = 0.0
    verified_then: int = 0
    rate: float = 0.0

    @property
    def missing(self) -> int:
        return self.size - self.stored


@frozen
class Refusal:
    """Why a copy is not admitted. `waits`: its member's limit has no room for it, whatever running copies do."""

    why: str
    waits: bool


@frozen
class MemberSpace:
    """The space of one member: bytes of its copies on the disk, bytes promised to running ones, and the most that both
    together may be now; None if the free space of the store is not known."""

    member: str
    stored: int
    promised: int
    most: int | None

    @property
    def used(self) -> int:
        return self.stored + self.promised


@frozen
class _Division:
    """The space for copies, a member's part of it, and the common space."""

    total: int
    part: int
    common: int


class CopyAdmission:
    """Not thread-safe. Every time is in monotonic seconds, and never decreases.

    Attributes:
        freed: space was given back since somebody set this to False.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._members: frozenset[str] = frozenset()
        self._settled: Counter[str] = Counter()
        self._running: dict[Digest, AdmittedCopy] = {}
        self._silent: set[str] = set()
        """Members whose promises are short, see (2)."""
        self._free: int | None = None
        self.freed = False

    def set_members(self, members: Iterable[str]) -> None:
        """The members between whom the space is divided. One that has copies counts too."""
        self._members = frozenset(members)

    def load(self, stored: Mapping[str, int]) -> None:
        """Set what ended copies use, by member."""
        self._settled = Counter({member: count for member, count in stored.items() if member != OPERATOR})
        self.freed = True

    def charge(self, member: str, change: int) -> None:
        """Charge bytes of ended copies to a member, or take some back."""
        if member != OPERATOR and change:
            self._settled[member] += change
            if not self._settled[member]:
                del self._settled[member]
            self.freed = self.freed or change < 0

    def payer(self, members: Collection[str]) -> str:
        """Of the members that publish an artifact, the one with the most room."""
        return max(sorted(members), key=lambda member: self.room(member) or 0)

    def admit(
        self,
        artifact: Digest,
        member: str,
        size: int,
        stored: int,
        now: float,
        *,
        partial: int = 0,
        patience: float = 60.0,
    ) -> AdmittedCopy | Refusal:
        """Admit a copy of which `stored` of `size` bytes are on the disk, charged to nobody now. `partial` of these are
        reported to `received` again. Its caller has just had a `look` at the disk. (1)"""
        verified = max(0, stored - partial)
        copy = AdmittedCopy(artifact, member, size, min(stored, size), patience, 0, verified, "", now, now, verified)
        is_silent = member in self._silent
        first = min(copy.missing, self._limits.step) if is_silent else copy.missing
        idle = [] if is_silent else self._idle(now)
        self._running[artifact] = copy
        refusal = self._refusal(copy, first, without=idle)
        if refusal is not None:
            del self._running[artifact]
            return refusal
        for other in idle:
            if self._refusal(copy, first) is None:
                break
            self._withdraw(other, f"nothing was received for {now - other.received_at:.0f} s, and others wait")
        copy.promised = first
        self._give_way()
        return copy

    def received(self, copy: AdmittedCopy, count: int, now: float) -> None:
        """Bytes of a copy were verified and stored, those of an earlier try first."""
        copy.verified += count
        arrived = max(copy.stored, min(copy.verified, copy.size)) - copy.stored
        copy.stored += arrived
        copy.promised = max(0, copy.promised - arrived)
        copy.received_at = now
        if self._free is not None:
            self._free -= arrived
        if not copy.withdrawn and copy.promised < min(copy.missing, self._limits.in_flight):
            self._extend(copy, self._target(copy))
            if copy.promised < min(copy.missing, self._limits.in_flight):
                self._withdraw(copy, "the space that it needs is used or promised: it waits for its turn")

    def end(self, copy: AdmittedCopy, stored: int) -> None:
        """A copy has ended, with so many of its bytes stored."""
        if self._running.get(copy.artifact) is copy:
            del self._running[copy.artifact]
        self.charge(copy.member, stored)
        self.freed = self.freed or bool(copy.promised) or stored < copy.stored

    def look(self, now: float, free: int | None) -> None:
        """Compare promises with what arrived, and with the bytes that are free. (2), (3), (4)"""
        self._free = free
        for copy in self._live():
            if now - copy.received_at >= copy.patience:
                self._withdraw(copy, f"nothing was received for {copy.patience:.0f} s")
            elif now - min(copy.looked_at, copy.received_at) >= self._limits.grace:
                self._measure(copy, now)
        self._give_way()

    def withdrawn(self) -> list[AdmittedCopy]:
        """The running copies that must end."""
        return [copy for copy in self._running.values() if copy.withdrawn]

    def room(self, member: str) -> int | None:
        """Bytes for which a further copy of a member would be admitted; None without a limit."""
        if self._free is None:
            return None
        disk = self._disk_room()
        if member == OPERATOR:
            return disk
        uses = self._uses()
        return max(0, min(disk, self._most(member, uses) - uses.get(member, 0)))

    def spaces(self) -> list[MemberSpace]:
        """The space of each member, the largest user first."""
        uses, promised = self._uses(), Counter[str]()
        for copy in self._running.values():
            promised[copy.member] += copy.promised
        found = [
            MemberSpace(
                member,
                use - promised[member],
                promised[member],
                None if self._free is None else self._most(member, uses),
            )
            for member, use in uses.items()
        ]
        return sorted(found, key=lambda space: (-space.used, space.member))

    @property
    def promised(self) -> int:
        """Bytes that are promised to running copies."""
        return sum(copy.promised for copy in self._running.values())

    def _live(self) -> list[AdmittedCopy]:
        return [copy for copy in self._running.values() if not copy.withdrawn]

    def _uses(self, without: Collection[AdmittedCopy] = ()) -> dict[str, int]:
        """By each of those between whom the space is divided, the bytes that it uses, if copies `without` had ended."""
        uses = {**dict.fromkeys(self._members, 0), **self._settled}
        for copy in self._running.values():
            if copy.member != OPERATOR:
                uses[copy.member] = uses.get(copy.member, 0) + copy.stored + self._kept(copy, without)
        return uses

    def _disk_room(self, without: Collection[AdmittedCopy] = ()) -> int:
        """Bytes of the disk that are neither promised nor kept free."""
        assert self._free is not None
        promised = sum(self._kept(copy, without) for copy in self._running.values())
        return max(0, self._free - self._limits.stop - promised)

    def _kept(self, copy: AdmittedCopy, without: Collection[AdmittedCopy]) -> int:
        """What is promised to a copy, if those in `without` were withdrawn."""
        return min(copy.promised, self._limits.in_flight) if copy in without else copy.promised

    def _division(self, parties: int) -> _Division:
        assert self._free is not None
        copies = self._running.values()
        stored = sum(self._settled.values()) + sum(copy.stored for copy in copies if copy.member != OPERATOR)
        others = self._limits.stop + sum(copy.promised for copy in copies if copy.member == OPERATOR)
        total = max(0, self._free - others) + stored
        part = int(total * self._limits.reserved) // max(1, parties)
        return _Division(total, part, total - part * parties)

    def _most(self, member: str, uses: Mapping[str, int]) -> int:
        """The most that a member may use now, if all use this much."""
        parts = self._division(len(uses.keys() | {member}))
        over = sum(max(0, use - parts.part) for other, use in uses.items() if other != member)
        left = max(0, parts.common - over)
        if (share := self._limits.shares.get(member)) is not None:
            return min(int(parts.total * share), parts.part + left)
        return parts.part + left // 2

    def _refusal(self, copy: AdmittedCopy, first: int, without: Collection[AdmittedCopy] = ()) -> Refusal | None:
        """Why a running copy may not have its promise, if those in `without` were withdrawn; None if it may."""
        if self._free is None or not copy.missing:
            return None
        if copy.member != OPERATOR:
            uses = self._uses(without)
            used, most = uses[copy.member], self._most(copy.member, uses)
            if used + copy.missing > most:
                least = self._uses(self._running.values())
                waits = least[copy.member] + copy.missing > self._most(copy.member, least)
                why = f"copies for its member use {used} of at most {most} bytes, and this one needs {copy.missing}"
                return Refusal(why, waits)
        if first > self._disk_room(without):
            promised = sum(self._kept(other, without) for other in self._running.values())
            why = f"{copy.missing} bytes are missing, {self._free} are free, {promised} promised to other copies, and "
            return Refusal(f"{why}{self._limits.stop} stay free", waits=False)
        return None

    def _idle(self, now: float) -> list[AdmittedCopy]:
        """Copies that gave nothing for their promise: those of the largest user first. (3)"""
        uses = self._uses()
        idle = [copy for copy in self._live() if now - copy.received_at >= self._limits.grace]
        return sorted(idle, key=lambda copy: -uses.get(copy.member, 0))

    def _measure(self, copy: AdmittedCopy, now: float) -> None:
        """(2)"""
        is_idle = now - copy.received_at >= self._limits.grace
        gained = 0 if is_idle else copy.verified - copy.verified_then
        copy.rate = gained / max(now - copy.looked_at, self._limits.grace)
        copy.looked_at, copy.verified_then = now, copy.verified
        if not gained:
            self._silent.add(copy.member)
        elif gained >= self._limits.step:
            self._silent.discard(copy.member)
        target = self._target(copy)
        if target < copy.promised:
            copy.promised, self.freed = target, True
        else:
            self._extend(copy, target)

    def _target(self, copy: AdmittedCopy) -> int:
        return min(copy.missing, self._limits.step + int(copy.rate * self._limits.horizon))

    def _extend(self, copy: AdmittedCopy, target: int) -> None:
        """Promise up to `target` bytes to a copy, as far as its member and the disk have room."""
        room = self.room(copy.member)
        more = target - copy.promised if room is None else min(target - copy.promised, room)
        copy.promised += max(0, more)

    def _give_way(self) -> None:
        """(4). No more is promised than the disk has, and beyond their parts the members use the common space only."""
        if self._free is None:
            return
        uses, parties = self._uses(), len(self._uses())
        for copy in sorted(self._live(), key=lambda copy: -uses.get(copy.member, 0)):
            parts = self._division(parties)
            over = {member: max(0, use - parts.part) for member, use in self._uses().items()}
            excess = self.promised - max(0, self._free - self._limits.stop)
            common = min(sum(over.values()) - parts.common, over.get(copy.member, 0))
            less = min(copy.promised, max(excess, common))
            if less > 0:
                copy.promised, self.freed = copy.promised - less, True
            if copy.promised < min(copy.missing, self._limits.in_flight):
                self._withdraw(copy, "the disk has less free space than was promised: the largest user gives way")

    def _withdraw(self, copy: AdmittedCopy, why: str) -> None:
        copy.withdrawn, copy.promised, self.freed = why, min(copy.promised, self._limits.in_flight), True
