"""The home logs of an identity: which logs order its statements, and where a statement is in that order.

A log is the pair of origin and key, and any member may bind a log of its own to the origin of another member's log. So
an identity names its home log by the verifier key, which has both. Of the logs that node records bind, these count, the
earlier ones first:

    the log with this key
    its successors: other logs of this origin that a seat binds which binds the log with this key

An identity of an older version names the origin only. Then these logs count:

    those of this origin that its owner binds: the first seat admitted whose member's own inception names the origin
    if no member's inception names it: those that a seat binds, if only one does

A rotation may name another home log. Its logs come after those of the home log before it. A rotation that adds the key
to the origin that the identity named before replaces it. A statement is as old as the earliest of its places: an entry
in a later log changes nothing. Several logs of one rank, which only the seat that writes them can make, have no order:
there the names of the versions decide, as for statements that are in no home log.

Which member was admitted first is read from the pinned charters, never from the evidence, so nobody changes it later.
Source: protocol, sections 3, 5 and 8
(docs/decisions, 40).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.node_records import NodeRecord
from comity.trust.rotation import RotationChain
from comity.trust.statement import Entry
from comity.trust.statement_kinds import INCEPTION
from comity.trust.tlog.note import ED25519, MAX_NAME, VerifierKey

MAX_HOMES: Final = 8
"""Home logs of one identity, one after the other: to order its statements, their positions in each are asked for."""
UNORDERED: Final = 0
"""The index of a statement in a rank with several logs."""


@dataclass(frozen=True, slots=True, order=True)
class HomePosition:
    """The place of a statement in the home logs of its author: the lower, the older."""

    rank: int
    index: int


@frozen
class NamedLog:
    """A log as an identity names it: its origin, and its verifier key unless only the origin is named."""

    origin: str
    key: VerifierKey | None = None

    @classmethod
    def parse(cls, home: str) -> NamedLog | None:
        """Read the member `home` of an inception or rotation; None if it is empty or names no log."""
        if "+" not in home:
            return cls(home) if home else None
        try:
            key = VerifierKey.parse(home)
        except ComityError:
            return None
        return cls(key.name, key) if key.type == ED25519 else None


def home_name(log: VerifierKey) -> str:
    """The text by which an identity names its home log: the verifier key, or the origin if the key would be longer than
    the 255 characters that `home` may have."""
    return str(log) if len(str(log)) <= MAX_NAME else log.name


def home_origin(home: str) -> str:
    """The origin of the log that `home` names; empty if it names none."""
    named = NamedLog.parse(home)
    return named.origin if named else ""


@frozen
class OriginOwners:
    """Which seat each origin belongs to, by the pinned charters.

    `seats` has, for each member that succeeded another one, the first seat of that line. `owners` has, for each origin
    that the inception of a member names, the first seat that did; None if two seats of one epoch, or of two
    federations, did.
    """

    owners: Mapping[str, Digest | None] = field(default_factory=dict)
    seats: Mapping[Digest, Digest] = field(default_factory=dict)

    def seat(self, member: Digest) -> Digest:
        """The first seat of the line of successors of this member: the member itself if it succeeded nobody."""
        return self.seats.get(member, member)

    @classmethod
    def of_all(cls, federations: Iterable[OriginOwners]) -> OriginOwners:
        """The owners by the charters of several federations."""
        owners: dict[str, Digest | None] = {}
        seats: dict[Digest, Digest] = {}
        for each in federations:
            seats.update(each.seats)
            for origin, seat in each.owners.items():
                owners[origin] = seat if owners.get(origin, seat) == seat else None
        return cls(owners, seats)


@dataclass(slots=True)
class AdmittedMembers:
    """The members that the epochs of one federation admitted, in order. Not thread-safe.

    Attributes:
        epochs: by member, the first epoch that lists it.
    """

    epochs: dict[Digest, int] = field(default_factory=dict)
    _seats: dict[Digest, Digest] = field(default_factory=dict)

    @classmethod
    def of(cls, chain: Iterable[Body]) -> AdmittedMembers:
        admitted = cls()
        for body in chain:
            admitted.add(body)
        return admitted

    def add(self, body: Body) -> None:
        """Take up the next epoch."""
        for member in body.members:
            self.epochs.setdefault(member.id, body.epoch)
            if member.successor_of is not None:
                self._seats[member.id] = self._seats.get(member.successor_of, member.successor_of)

    def owners(self, homes: Mapping[Digest, str]) -> OriginOwners:
        """Args:
        homes: by member, the member `home` of its inception; of members whose inception is known.
        """
        first: dict[str, tuple[int, Digest]] = {}
        several: set[str] = set()
        for member, epoch in self.epochs.items():  # in the order of the epochs, as they were added
            origin, seat = home_origin(homes.get(member, "")), self._seats.get(member, member)
            if not origin:
                continue
            known = first.setdefault(origin, (epoch, seat))
            if known[0] == epoch and known[1] != seat:
                several.add(origin)
        owners = {origin: None if origin in several else seat for origin, (_, seat) in first.items()}
        return OriginOwners(owners, dict(self._seats))


def inception_homes(entries: Iterable[Entry]) -> dict[Digest, str]:
    """By identity, the member `home` of the inceptions among `entries`. The id is the hash of the inception, so no
    signature is needed to know what the identity with that id names."""
    homes: dict[Digest, str] = {}
    inceptions = {entry.line: entry for entry in entries if entry.statement.predicate == INCEPTION}
    for entry in inceptions.values():  # each epoch may have them again
        try:
            inception = Inception.from_json(entry.statement.body.get("record"))
        except ComityError:
            continue
        homes[inception.id] = inception.home
    return homes


def origin_owners(chain: Iterable[Body], entries: Iterable[Entry]) -> OriginOwners:
    """The owners of origins by the epochs of one federation.

    Args:
        entries: statements of its certificates, among them the inceptions of all members.
    """
    return AdmittedMembers.of(chain).owners(inception_homes(entries))


def named_homes(chain: RotationChain) -> tuple[NamedLog, ...]:
    """The last `MAX_HOMES` home logs that an identity names, the first one first. Only rotations before a dispute
    count. An origin whose key a later rotation adds is left out."""
    found = (NamedLog.parse(state.home) for state in chain.states)
    named = list(dict.fromkeys(each for each in found if each is not None))[-MAX_HOMES:]
    keyed = {each.origin for each in named if each.key is not None}
    return tuple(each for each in named if each.key is not None or each.origin not in keyed)


@frozen
class HomeLogs:
    """The home logs of one identity. `ranks` are the verifier keys of its logs, the earlier ones first; `origins` has
    the rank of the logs of each origin that it names: the last one, if it names several logs of one origin."""

    ranks: tuple[tuple[str, ...], ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict)

    @property
    def logs(self) -> tuple[str, ...]:
        """The verifier keys of all home logs."""
        return tuple(log for logs in self.ranks for log in logs)

    def position(self, places: Iterable[tuple[str, int]]) -> HomePosition | None:
        """The earliest of these places (verifier key of a log, index); None if none is in a home log."""
        found = (self._position(log, index) for log, index in places)
        return min((position for position in found if position is not None), default=None)

    def is_before(self, places: Sequence[tuple[str, int]], origin: str, index: int) -> bool | None:
        """Whether one of these places is before entry `index` of the home log of this origin; None if that is not
        known: no place is in it or in an earlier home log, or the origin names several logs."""
        return self.position_before(self.position(places), origin, index)

    def position_before(self, position: HomePosition | None, origin: str, index: int) -> bool | None:
        """As `is_before`, for a position in these home logs."""
        rank = self.origins.get(origin)
        if position is None or rank is None or position.rank > rank:
            return None
        if position.rank < rank:
            return True
        return position.index < index if len(self.ranks[rank]) == 1 else None

    def _position(self, log: str, index: int) -> HomePosition | None:
        for rank, logs in enumerate(self.ranks):
            if log in logs:
                return HomePosition(rank, index if len(logs) == 1 else UNORDERED)
        return None


def home_logs(named: Sequence[NamedLog], records: Iterable[NodeRecord], owners: OriginOwners) -> HomeLogs:
    """Return the logs that `named` home logs mean.

    Args:
        named: as `named_homes` returns them.
        records: verified node records of members, in any order. A record that another member signs adds nothing to the
            logs of an identity, and takes nothing away, except where the module's text says "only one".
    """
    by_origin: dict[str, list[NodeRecord]] = {each.origin: [] for each in named}
    for record in records:
        if record.origin in by_origin:
            by_origin[record.origin].append(record)
    exact = {str(each.key) for each in named if each.key is not None}
    ranks: list[tuple[str, ...]] = []
    origins: dict[str, int] = {}
    for each in named:
        bound = by_origin[each.origin]
        origins[each.origin] = len(ranks)
        if each.key is None:
            ranks.append(_logs_of(bound, _owning_seat(each.origin, bound, owners), owners))
            continue
        ranks.append((str(each.key),))
        later = _logs_of(bound, _writing_seat(each.key, bound, owners), owners)
        ranks.append(tuple(log for log in later if log not in exact))
    return HomeLogs(tuple(ranks), origins)


def _logs_of(records: Iterable[NodeRecord], seat: Digest | None, owners: OriginOwners) -> tuple[str, ...]:
    return tuple(sorted({str(record.log) for record in records if owners.seat(record.member) == seat}))


def _owning_seat(origin: str, records: Iterable[NodeRecord], owners: OriginOwners) -> Digest | None:
    if origin in owners.owners:
        return owners.owners[origin]
    seats = {owners.seat(record.member) for record in records}
    return seats.pop() if len(seats) == 1 else None


def _writing_seat(log: VerifierKey, records: Iterable[NodeRecord], owners: OriginOwners) -> Digest | None:
    """The seat that binds this log. Only a holder of its key can bind it; if two seats do, the owner of the
    origin counts, else neither."""
    seats = {owners.seat(record.member) for record in records if record.log == log}
    if len(seats) > 1:
        seats &= {owners.owners.get(log.name)}
    return seats.pop() if len(seats) == 1 else None
