"""What is proven: who is who, who published what under which name, and what is said about a digest.

Nothing else of what logs hold is found here. An exact question (a digest, a name with its publisher, an identity) costs
what its own answer costs, however many others claim something. An answer with a limit takes the first statement of each
log, then the second of each, and says whether there was more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, and_, select, tuple_

from comity.ledger import schema
from comity.ledger.database import Database, find_log
from comity.ledger.intake import KNOWN, OTHER, PUBLISHED, ClaimedName, IdentityFacts, fact, fold, last_number
from comity.ledger.tree import corrupt_ledger
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.keys import VerifyingKey
from comity.trust.statement import parse_entry
from comity.trust.upstream import OBSERVED

MAX_ANSWER: Final = 1000
MAX_LOOKED_UP: Final = 64
"""Observers that are looked up in one query."""
_LAST_CHARACTER: Final = "\U0010ffff"

_LOG, _ENTRY, _STATEMENT, _SUBJECT = schema.logs.c, schema.entries.c, schema.statements.c, schema.subjects.c
_PUBLICATION, _CLAIMANT, _IDENTITY = schema.publications.c, schema.claimants.c, schema.identities.c
_ROTATION, _NODE = schema.rotations.c, schema.nodes.c

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What was found; `limited` where the limit left something out."""

    found: tuple[T, ...]
    limited: bool


@dataclass(frozen=True, slots=True)
class ProvenLine:
    """A proven line, and where it stands. `number` is its place in the order in which this node proved things."""

    origin: str
    vkey: str
    index: int
    line: bytes
    number: int


@dataclass(frozen=True, slots=True)
class ProvenPosition:
    """Where a proven line stands, to ask for it later (`Proven.lines`)."""

    log_id: int
    index: int


@dataclass(frozen=True, slots=True)
class ListedPublication:
    """A publication in the order in which they are listed, log by log in turn: `turn` and `place.log_id` are where to
    go on. `name` is folded, with its version."""

    turn: int
    place: ProvenPosition
    name: str


@dataclass(frozen=True, slots=True)
class NameClaimant:
    """Who published or observed something under a name, and the number of the first such statement."""

    publisher: Digest
    number: int


@dataclass(frozen=True, slots=True)
class ProvenPublication:
    """A proven `published` or `observed` statement: `publisher` is an identity, or the node that observed; `version` of
    what was observed is the commit, and its `repository` begins with the upstream (`hf:`)."""

    predicate: str
    repository: str
    version: str
    publisher: Digest
    artifact: Digest
    origin: str
    vkey: str
    index: int
    line: bytes
    number: int

    @property
    def name(self) -> str:
        return f"{self.repository}@{self.version}"


class ProvenTables:
    """Searches over what is proven in any log held here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def identity(self, identity: Digest) -> IdentityFacts | None:
        """An identity whose inception is proven."""
        wanted = select(_IDENTITY.id, _IDENTITY.home, _IDENTITY.display).where(_IDENTITY.id == identity)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else IdentityFacts(*row)

    def identities(self, identities: Collection[Digest]) -> dict[Digest, IdentityFacts]:
        """Those of these, at most 1,000, whose inception is proven, by id."""
        wanted = select(_IDENTITY.id, _IDENTITY.home, _IDENTITY.display).where(_IDENTITY.id.in_(identities))
        with self._database.reading() as connection:
            return {row.id: IdentityFacts(*row) for row in connection.execute(wanted)}

    def inception(self, identity: Digest) -> bytes | None:
        """The line of an identity's proven inception."""
        wanted = select(_ENTRY.line).join_from(
            schema.identities,
            schema.entries,
            and_(_ENTRY.log_id == _IDENTITY.log_id, _ENTRY.index == _IDENTITY.index),
        )
        with self._database.reading() as connection:
            return connection.execute(wanted.where(_IDENTITY.id == identity)).scalar_one_or_none()

    def rotations(self, identity: Digest) -> list[bytes]:
        """The lines of an identity's proven rotations, on every branch; the intake bounds how many there are."""
        wanted = select(_ENTRY.line).join_from(
            schema.rotations,
            schema.entries,
            and_(_ENTRY.log_id == _ROTATION.log_id, _ENTRY.index == _ROTATION.index),
        )
        wanted = wanted.where(_ROTATION.identity == identity).order_by(_ROTATION.statement)
        with self._database.reading() as connection:
            return list(connection.execute(wanted).scalars())

    def node_key(self, node: Digest) -> VerifyingKey | None:
        """The online key of a node, where some proven node-record binds it: whose node it is, membership says."""
        with self._database.reading() as connection:
            key = connection.execute(select(_NODE.key).where(_NODE.id == node)).scalar_one_or_none()
        return None if key is None else VerifyingKey.from_json(json.loads(key))

    def claimants(self, name: str, limit: int = 32) -> Page[NameClaimant]:
        """Who published under a repository's name, in any case, the earliest first: no later claimant displaces an
        earlier one. For a name of an upstream (`hf:org/repo`) the nodes that observed it. A name that ends in `/` is
        none here (`repositories` lists those below it)."""
        _check(limit)
        wanted = select(_CLAIMANT.publisher, _CLAIMANT.number).where(_CLAIMANT.name == fold(name))
        with self._database.reading() as connection:
            rows = list(connection.execute(wanted.order_by(_CLAIMANT.number).limit(limit + 1)))
        return Page(tuple(NameClaimant(*row) for row in rows[:limit]), len(rows) > limit)

    def first_claim(self, name: str, publisher: Digest) -> int | None:
        """The number of a publisher's first statement under a name."""
        key = (_CLAIMANT.name == fold(name), _CLAIMANT.publisher == publisher)
        with self._database.reading() as connection:
            return connection.execute(select(_CLAIMANT.number).where(*key)).scalar_one_or_none()

    def publications(
        self, name: str, publisher: Digest, version: str | None = None, limit: int = MAX_ANSWER
    ) -> Page[ProvenPublication]:
        """What one publisher published under a repository's name, in any case: one version of it, or all. A statement
        that stands in several logs comes once for each."""
        _check(limit)
        wanted = [_PUBLICATION.name == fold(name), _PUBLICATION.publisher == publisher]
        if version is not None:
            wanted.append(_PUBLICATION.version == version)
        with self._database.reading() as connection:
            return _publications(connection, wanted, limit)

    def publications_of(self, artifact: Digest, limit: int = MAX_ANSWER) -> Page[ProvenPublication]:
        """Under which names an artifact was published or observed, in turn over logs."""
        _check(limit)
        with self._database.reading() as connection:
            places = _about(connection, artifact, (PUBLISHED, OBSERVED), limit)
            lines = _at(connection, places.found)
        return Page(tuple(map(_publication, lines)), places.limited)

    def observations(
        self, name: str, observers: Collection[Digest], commit: str | None = None, limit: int = 64
    ) -> Page[ProvenPublication]:
        """What some nodes observed of an upstream's repository (`hf:org/repo`): at most `limit` of each observer."""
        _check(limit)
        found: list[ProvenPublication] = []
        limited = False
        with self._database.reading() as connection:
            for some in _chunks(list(observers), MAX_LOOKED_UP):
                key = (_CLAIMANT.name == fold(name), _CLAIMANT.publisher.in_(some))
                for observer in connection.execute(select(_CLAIMANT.publisher).where(*key)).scalars().all():
                    wanted = [_PUBLICATION.name == fold(name), _PUBLICATION.publisher == observer]
                    if commit is not None:
                        wanted.append(_PUBLICATION.version == commit)
                    answer = _publications(connection, wanted, limit)
                    found += answer.found
                    limited = limited or answer.limited
        return Page(tuple(found), limited)

    def repositories(self, after: str = "", prefix: str = "", limit: int = MAX_ANSWER) -> list[str]:
        """Folded names of repositories after `after`, in order, that begin with `prefix`."""
        _check(limit)
        least = fold(prefix)
        wanted = select(_CLAIMANT.name).where(_CLAIMANT.name > fold(after)).distinct()
        if least:
            wanted = wanted.where(_CLAIMANT.name >= least, _CLAIMANT.name < least + _LAST_CHARACTER)
        with self._database.reading() as connection:
            return list(connection.execute(wanted.order_by(_CLAIMANT.name).limit(limit)).scalars())

    def listed(self, after: tuple[int, int] | None, limit: int) -> list[ListedPublication]:
        """Publications after a place in the list of them, in turn over logs: the first of each, then the second."""
        turn, log_id = after or (0, -1)
        columns = (_PUBLICATION.turn, _PUBLICATION.log_id, _PUBLICATION.index, _PUBLICATION.name, _PUBLICATION.version)
        found: list[ListedPublication] = []
        rest = and_(_PUBLICATION.turn == turn, _PUBLICATION.log_id > log_id)
        start, width = turn + 1, 1
        with self._database.reading() as connection:
            while len(found) < limit:
                joined = select(*columns).select_from(schema.logs)
                joined = joined.join(schema.publications, and_(_PUBLICATION.log_id == _LOG.id, rest))
                ordered = joined.order_by(_PUBLICATION.turn, _PUBLICATION.log_id).limit(limit - len(found))
                rows = list(connection.execute(ordered))
                found += [
                    ListedPublication(at, ProvenPosition(log, index), f"{name}@{fold(label)}")
                    for at, log, index, name, label in rows
                ]
                if not rows and width > 1:  # turns have no gaps
                    break
                rest = and_(_PUBLICATION.turn >= start, _PUBLICATION.turn < start + width)
                start, width = start + width, 2 * width
        return found

    def about(
        self, digest: Digest, kinds: Sequence[str] = (*sorted(KNOWN), OTHER), limit: int = MAX_ANSWER
    ) -> Page[ProvenLine]:
        """What is said about a digest, in turn over logs for each kind of statement, and over the kinds. A kind is a
        predicate that this version knows, or OTHER for all that it does not know."""
        _check(limit)
        with self._database.reading() as connection:
            places = _about(connection, digest, kinds, limit)
            return Page(tuple(_at(connection, places.found)), places.limited)

    def places_about(self, digest: Digest, limit: int) -> Page[ProvenPosition]:
        """Where all stands that is said about a digest, in the order of `about`, to read it bit by bit."""
        with self._database.reading() as connection:
            return _about(connection, digest, (*sorted(KNOWN), OTHER), limit)

    def lines(self, places: Sequence[ProvenPosition]) -> list[ProvenLine]:
        """The lines at these places, in this order."""
        with self._database.reading() as connection:
            return _at(connection, places)

    def since(
        self, number: int, predicates: Sequence[str], limit: int = 256, log: str | None = None
    ) -> list[ProvenLine]:
        """What was proven after the statement of this number, with one of these predicates, in that order; in one log
        (its verifier key) or any. Raises NotFound (NO-SUCH-LOG)."""
        _check(limit)
        found: list[ProvenLine] = []
        with self._database.reading() as connection:
            here = () if log is None else (_STATEMENT.log_id == find_log(connection, log).id,)
            for predicate in predicates:
                later = _lines().where(_STATEMENT.predicate == predicate, _STATEMENT.number > number, *here)
                rows = connection.execute(later.order_by(_STATEMENT.number).limit(limit))
                found += [ProvenLine(*row) for row in rows]
        return sorted(found, key=lambda line: line.number)[:limit]

    def by(self, author: Digest, predicate: str, limit: int = MAX_ANSWER, log: str | None = None) -> Page[ProvenLine]:
        """What somebody said with one predicate, in order of log and index; in one log (its verifier key) or any."""
        _check(limit)
        wanted = _lines().where(_STATEMENT.by == author, _STATEMENT.predicate == predicate)
        if log is not None:
            wanted = wanted.where(_LOG.vkey == log)
        ordered = wanted.order_by(_STATEMENT.log_id, _STATEMENT.index).limit(limit + 1)
        with self._database.reading() as connection:
            rows = list(connection.execute(ordered))
        return Page(tuple(ProvenLine(*row) for row in rows[:limit]), len(rows) > limit)

    def last_by(self, author: Digest, predicate: str, log: str) -> bytes | None:
        """What somebody said last with one predicate in a log (its verifier key). Raises NotFound (NO-SUCH-LOG)."""
        wanted = (
            select(_ENTRY.line)
            .select_from(schema.statements)
            .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
            .where(_STATEMENT.by == author, _STATEMENT.predicate == predicate)
        )
        with self._database.reading() as connection:
            here = wanted.where(_STATEMENT.log_id == find_log(connection, log).id)
            return connection.execute(here.order_by(_STATEMENT.index.desc()).limit(1)).scalar_one_or_none()

    def keys_of(self, author: Digest) -> list[ProvenLine]:
        """The inception and the rotations of an identity, each where it stands first; nothing for who is not known."""
        places: list[ProvenPosition] = []
        with self._database.reading() as connection:
            for columns in (
                select(_IDENTITY.log_id, _IDENTITY.index).where(_IDENTITY.id == author),
                select(_ROTATION.log_id, _ROTATION.index).where(_ROTATION.identity == author),
            ):
                places += [ProvenPosition(*row) for row in connection.execute(columns)]
            return _at(connection, places)

    def of_line(self, line: bytes) -> list[ProvenLine]:
        """Where a statement is proven by this very line, in one log."""
        statement = parse_entry(line).statement_digest
        wanted = _lines().where(_STATEMENT.statement == statement, _ENTRY.digest == sha256(line)).limit(1)
        with self._database.reading() as connection:
            return [ProvenLine(*row) for row in connection.execute(wanted)]

    def last(self) -> int:
        """The number of the statement that was proven last."""
        with self._database.reading() as connection:
            return last_number(connection)


def _about(connection: Connection, digest: Digest, kinds: Sequence[str], limit: int) -> Page[ProvenPosition]:
    """Places of statements about a digest: the first of each log and kind, then the next ones, twice as many a time."""
    found: list[ProvenPosition] = []
    start, end = 0, 1
    here = (_SUBJECT.digest == digest, _SUBJECT.kind.in_(kinds))
    while len(found) <= limit:
        stretch = (_SUBJECT.log_id == _LOG.id, _SUBJECT.turn >= start, _SUBJECT.turn < end)
        wanted = (
            select(_SUBJECT.log_id, _SUBJECT.index)
            .select_from(schema.logs)
            .join(schema.subjects, and_(*here, *stretch))
        )
        ordered = wanted.order_by(_SUBJECT.turn, _SUBJECT.kind, _SUBJECT.log_id).limit(limit + 1 - len(found))
        rows = [ProvenPosition(*row) for row in connection.execute(ordered)]
        found += rows
        if not rows:  # turns have no gaps
            break
        start, end = end, end * 2
    return Page(tuple(found[:limit]), len(found) > limit)


def _at(connection: Connection, places: Sequence[ProvenPosition]) -> list[ProvenLine]:
    """The lines at these places, in this order."""
    found: dict[ProvenPosition, ProvenLine] = {}
    for some in _chunks(places, 200):
        named = tuple_(_STATEMENT.log_id, _STATEMENT.index).in_([(place.log_id, place.index) for place in some])
        for *line, log_id in connection.execute(_lines().add_columns(_STATEMENT.log_id).where(named)):
            item = ProvenLine(*line)
            found[ProvenPosition(log_id, item.index)] = item
    return [found[place] for place in places if place in found]  # an earlier copy may have come to stand for one


def _publications(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int
) -> Page[ProvenPublication]:
    columns = (_PUBLICATION.predicate, _PUBLICATION.repository, _PUBLICATION.version)
    wanted = (
        select(*columns, _PUBLICATION.publisher, _PUBLICATION.artifact, _LOG.origin, _LOG.vkey, _PUBLICATION.index)
        .add_columns(_ENTRY.line, _STATEMENT.number)
        .select_from(schema.publications)
        .join(schema.logs, _LOG.id == _PUBLICATION.log_id)
        .join(schema.entries, and_(_ENTRY.log_id == _PUBLICATION.log_id, _ENTRY.index == _PUBLICATION.index))
        .join(schema.statements, and_(_STATEMENT.log_id == _PUBLICATION.log_id, _STATEMENT.index == _PUBLICATION.index))
        .where(*conditions)
        .order_by(_PUBLICATION.version, _PUBLICATION.log_id, _PUBLICATION.turn)
        .limit(limit + 1)
    )
    rows = list(connection.execute(wanted))
    return Page(tuple(ProvenPublication(*row) for row in rows[:limit]), len(rows) > limit)


def _publication(found: ProvenLine) -> ProvenPublication:
    said = fact(found.index, parse_entry(found.line))
    if said is None or not isinstance(said.said, ClaimedName):
        raise corrupt_ledger(found.origin, f"entry {found.index} is no publication")
    named = said.said
    about = (said.predicate, named.repository, named.version, said.by, named.artifact)
    return ProvenPublication(*about, found.origin, found.vkey, found.index, found.line, found.number)


def _lines() -> Select[str, str, int, bytes, int]:
    """Proven lines with what a `Line` says of them."""
    return (
        select(_LOG.origin, _LOG.vkey, _STATEMENT.index, _ENTRY.line, _STATEMENT.number)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .join(schema.logs, _LOG.id == _STATEMENT.log_id)
    )


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _check(limit: int) -> None:
    if not 1 <= limit <= MAX_ANSWER:
        raise Malformed("bad limit", why=f"{limit} is not in 1 to {MAX_ANSWER}")
