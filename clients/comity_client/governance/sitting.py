"""What follows from the lines at hand: a pure look at a federation's proceedings, from a body that is held for true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from comity.trust.charter import Body, Member
from comity.trust.charter.council import deliberate
from comity.trust.charter.proceedings import Council, DraftState
from comity.trust.charter.readings import INTENT, RATIFIED, Reading, read_reading
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused
from comity.trust.federation import Federation
from comity.trust.keys import VerifyingKey
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry, parse_entry


@dataclass(frozen=True, slots=True)
class Material:
    """Lines and bodies, from wherever they came. Nothing in it is proven; more of it never takes anything away."""

    lines: frozenset[bytes] = frozenset()
    objects: Mapping[Digest, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[bytes], objects: Iterable[bytes] = ()) -> Material:
        return cls(frozenset(lines), {sha256(data): data for data in objects})

    def __or__(self, other: Material) -> Material:
        return Material(self.lines | other.lines, {**self.objects, **other.objects})


@dataclass(frozen=True, slots=True)
class Sitting:
    """A council computed here, with the lines that it was computed from. Made by `convene`."""

    start: Body
    material: Material
    entries: tuple[Entry, ...]
    council: Council

    @property
    def current(self) -> Body:
        """The newest body that is certified by what is at hand."""
        return self.council.current

    def adding(self, material: Material) -> Sitting:
        """The same with more at hand: a newcomer's card, say."""
        return convene(self.start, self.material | material)

    def draft(self, name: str) -> DraftState:
        """The open draft whose digest begins with `name`, 8 digits at least. Raises NotFound."""
        wanted = name.removeprefix("sha256:")
        found = [draft for draft in self.council.drafts if draft.body.digest.startswith(wanted)]
        if len(wanted) < 8 or len(found) != 1:
            known = ", ".join(draft.body.digest[:12] for draft in self.council.drafts) or "none"
            hint = "comity proposal ls"
            raise NotFound(f"no draft {name[:80]!r}", why=f"open drafts: {known}", hint=hint, code="NO-DRAFT")
        return found[0]

    def superseded(self, name: str) -> tuple[Body, Body]:
        """The body whose digest begins with `name` and that lost to another of its epoch, with the one that it was
        drafted upon. Raises NotFound (NO-DRAFT)."""
        wanted = name.removeprefix("sha256:")
        past = {body.digest: body for body in (self.start, *(made.body for made in self.council.epochs))}
        found = [
            (drafted, past[drafted.prev])
            for digest, data in self.material.objects.items()
            if len(wanted) >= 8 and digest.startswith(wanted) and digest not in past
            if (drafted := _body(data)) is not None and drafted.prev in past and drafted.prev != self.current.digest
        ]
        if len(found) != 1:
            why = f"{len(found)} drafts of earlier epochs begin so, among the lines at hand"
            raise NotFound(f"no draft {name[:80]!r} to rebase", why=why, hint="comity proposal ls", code="NO-DRAFT")
        return found[0]

    def member(self, name: str) -> Member:
        """A seat of the current charter, by name, or by the first 8 digits or more of its id. Raises NotFound."""
        seats = self.current.members
        found = [m for m in seats if name == m.name or (len(name) >= 8 and m.id.startswith(name))]
        if len(found) != 1:
            known = ", ".join(f"{m.name} [{m.id[:12]}]" for m in seats)
            raise NotFound(f"no member {name[:80]!r}", why=f"members: {known}", hint="comity member ls")
        return found[0]

    def chain(self, member: Digest) -> Chain:
        """A member's keys from its seat in the current charter on, by the rotations at hand. Raises NotFound."""
        seat = self.current.member(member)
        if seat is None:
            raise NotFound("no such member", why=f"{member[:16]} has no seat in epoch {self.current.epoch}")
        return follow(seat.key_state, self.entries)

    def seat_of(self, key: VerifyingKey) -> tuple[Member, KeyState]:
        """The member that `key` speaks for now, and all its keys. Raises Refused (NO-SEAT, RETIRED-KEY); Conflict
        (DISPUTED) where two rotations claim the seat."""
        for seat in self.current.members:
            chain = self.chain(seat.id)
            if chain.disputes:
                if any(key in state.keys.keys for state in chain.reached):
                    why = "two rotations of its keys exclude one another, and no charter settles that"
                    raise Conflict(f"whose keys {seat.name} has is in dispute", why=why, code="DISPUTED")
            elif key in chain.current.keys.keys:
                return seat, chain.current
            elif any(key in state.keys.keys for state in chain.reached):
                why = f"{seat.name} has changed its keys since"
                raise Refused("this key no longer speaks for its member", why=why, code="RETIRED-KEY")
        why = f"no member of epoch {self.current.epoch} has it"
        raise Refused("this key has no seat", why=why, hint="comity proposal ls", code="NO-SEAT")

    def said(self, member: Digest) -> list[Reading]:
        """The proven readings of a member of the current charter, on its successor."""
        chain = self.chain(member)
        return [
            reading
            for entry, reading in _readings(self.entries)
            if reading.member == member and reading.prev == self.current.digest and chain.signed(entry.envelope)
        ]


def convene(start: Body, material: Material) -> Sitting:
    """Compute what was decided after `start`, and what is open. Lines that are no statements count for nothing."""
    entries = tuple(_entries(material.lines))
    return Sitting(start, material, entries, deliberate(start, entries, material.objects))


def of_federation(federation: Federation, *material: Material) -> Sitting:
    """The sitting after the newest body of a federation file."""
    return convene(federation.body, reduce(Material.__or__, material, material_of(federation)))


def material_of(federation: Federation) -> Material:
    """What a federation file brings: bodies, and the lines that certify them."""
    bodies = (body.data for body in federation.chain)
    lines = (line for certificate in federation.certificates for line in certificate)
    return Material.of(lines, bodies)


def _body(data: bytes) -> Body | None:
    try:
        return Body.parse(data)
    except ComityError:
        return None


def _entries(lines: Iterable[bytes]) -> Iterable[Entry]:
    for line in sorted(lines):
        try:
            yield parse_entry(line)
        except Malformed:
            continue


def _readings(entries: Iterable[Entry]) -> Iterable[tuple[Entry, Reading]]:
    for entry in entries:
        if entry.statement.predicate in (INTENT, RATIFIED):
            try:
                yield entry, read_reading(entry)
            except ComityError:
                continue
