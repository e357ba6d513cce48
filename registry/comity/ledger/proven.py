"""Searches over verified statements: identities, publications under a name, and statements about a digest.

Unverified lines are never found. The cost of an exact query (a digest, a name with its publisher, an identity) depends
only on its own result, not on the number of other claims. A result with a limit reports whether the limit omitted
results; which statements about a digest it has, `comity.rules.precedence` says.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Integer, Select, and_, bindparam, func, select, tuple_

from comity.ledger import schema
from comity.ledger.artifact_names import artifact_names, first_artifact_names
from comity.ledger.claim_order import NameClaimant, first_claims
from comity.ledger.database import Database, find_log
from comity.ledger.intake import (
    ClaimedName,
    IdentityFacts,
    fold_name,
    last_number,
    named_version,
    statement_facts,
)
from comity.ledger.name_search import MAX_GRAMS, grams_of, name_index
from comity.ledger.subject_reads import OTHER, ProvenPosition, first_authors, first_authors_of_each, read_about
from comity.ledger.tree import corrupt_ledger
from comity.rules.precedence import Bounds, Precedence, Selection
from comity.rules.retention import NamedArtifact
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.keys import VerifyingKey
from comity.trust.names import UPSTREAM
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import AUDITED, KNOWN_PREDICATES, PUBLICATION_PREDICATES

MAX_ANSWER: Final = 1000
MAX_CANDIDATES: Final = 4_000
"""Names that one search looks at."""
MAX_LOOKED_UP: Final = 64
"""Observers in one query."""
TOGETHER: Final = 100
"""Artifacts, or repositories, in one query."""
LINES_TOGETHER: Final = 200
"""Lines in one query."""
VERSIONS_TOGETHER: Final = 32
"""Statements of a repository that are read together with those of others, on average."""
_LAST_CHARACTER: Final = "\U0010ffff"

_LOG, _ENTRY, _STATEMENT, _SUBJECT = schema.logs.c, schema.entries.c, schema.statements.c, schema.subjects.c
_PUBLICATION, _CLAIMANT, _IDENTITY = schema.publications.c, schema.claimants.c, schema.identities.c
_ROTATION, _NODE = schema.rotations.c, schema.nodes.c
_LISTED: Final = (
    _PUBLICATION.turn, _PUBLICATION.log_id, _PUBLICATION.index,
    _PUBLICATION.name, _PUBLICATION.version, _PUBLICATION.artifact, _PUBLICATION.kind,
)  # fmt: skip
"""What a `ListedPublication` is made of."""

ALL_KINDS: Final = (*sorted(KNOWN_PREDICATES), OTHER)
WITHOUT_AUDITS: Final = (*sorted(KNOWN_PREDICATES - {AUDITED}), OTHER)
NOBODY: Final = Precedence()

T = TypeVar("T")


@frozen
class Page(Generic[T]):
    """Results; `limited` is true if the limit omitted results."""

    found: tuple[T, ...]
    limited: bool


@frozen
class ProvenLine:
    """A verified line and its position. `number` counts statements in the order in which this node verified them."""

    origin: str
    vkey: str
    index: int
    line: bytes
    number: int


@frozen
class ListedPublication:
    """A publication in a listing, ordered by `turn`, then log. `turn` and `position.log_id` are the cursor of the next
    page. `name` is the folded name with its version, `kind` that of the artifact (`stated_kinds`)."""

    turn: int
    position: ProvenPosition
    name: str
    artifact: Digest
    kind: str

    @property
    def place(self) -> tuple[int, int]:
        return self.turn, self.position.log_id


@frozen
class NamedPage:
    """Results of a search, and the cursor of the next page; None at the end."""

    found: tuple[ListedPublication, ...]
    after: tuple[int, int] | None


@frozen
class ProvenPublication:
    """A verified `published` or `observed` statement. `publisher` is an identity, or the node that observed. In an
    observation, `version` is the commit and `repository` begins with the upstream (`hf:`)."""

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


@frozen
class NewArtifact:
    """The number of a publication, in the order in which this node verified them, and its artifact."""

    number: int
    artifact: Digest


class ProvenTables:
    """Searches over verified statements in all logs of this node. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def identity(self, identity: Digest) -> IdentityFacts | None:
        """Returns an identity with a verified inception, or None."""
        wanted = select(_IDENTITY.id, _IDENTITY.home, _IDENTITY.display).where(_IDENTITY.id == identity)
        with self._database.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else IdentityFacts(*row)

    def identities(self, identities: Collection[Digest]) -> dict[Digest, IdentityFacts]:
        """Returns, by id, those of these identities (at most 1,000) that have a verified inception."""
        wanted = select(_IDENTITY.id, _IDENTITY.home, _IDENTITY.display).where(_IDENTITY.id.in_(identities))
        with self._database.reading() as connection:
            return {row.id: IdentityFacts(*row) for row in connection.execute(wanted)}

    def inception(self, identity: Digest) -> bytes | None:
        """Returns the line of an identity's verified inception, or None."""
        wanted = select(_ENTRY.line).join_from(
            schema.identities,
            schema.entries,
            and_(_ENTRY.log_id == _IDENTITY.log_id, _ENTRY.index == _IDENTITY.index),
        )
        with self._database.reading() as connection:
            return connection.execute(wanted.where(_IDENTITY.id == identity)).scalar_one_or_none()

    def rotations(self, identity: Digest) -> list[bytes]:
        """Returns the lines of an identity's verified rotations, on all branches. The intake limits their number."""
        wanted = select(_ENTRY.line).join_from(
            schema.rotations,
            schema.entries,
            and_(_ENTRY.log_id == _ROTATION.log_id, _ENTRY.index == _ROTATION.index),
        )
        wanted = wanted.where(_ROTATION.identity == identity).order_by(_ROTATION.statement)
        with self._database.reading() as connection:
            return list(connection.execute(wanted).scalars())

    def node_key(self, node: Digest) -> VerifyingKey | None:
        """Returns the online key of a node of a verified node-record, or None. Membership decides whose node it is."""
        with self._database.reading() as connection:
            key = connection.execute(select(_NODE.key).where(_NODE.id == node)).scalar_one_or_none()
        if key is None:
            return None
        try:
            return VerifyingKey.from_json(json.loads(key))
        except ValueError as error:
            raise schema.damaged_ledger("the key of a node in it is no JSON") from error

    def claimants(self, name: str, limit: int = 32) -> Page[NameClaimant]:
        """Returns who published under a repository name (case-insensitive), the earliest first: a later claimant never
        displaces an earlier one. For an upstream name (`hf:org/repo`), returns the nodes that observed it. A name that
        ends in `/` has no claimants (`repositories` lists the names below it). Raises Untrusted (LEDGER-CORRUPT) if the
        order contradicts what is proven (`claim_order`)."""
        _check(limit)
        with self._database.reading() as connection:
            found = first_claims(connection, fold_name(name), limit + 1)
        return Page(tuple(found[:limit]), len(found) > limit)

    def claims_of(self, name: str, publishers: Collection[Digest]) -> list[NameClaimant]:
        """Returns those of `publishers` who published or observed under a repository name."""
        here = select(_CLAIMANT.publisher, _CLAIMANT.number).where(_CLAIMANT.name == fold_name(name))
        with self._database.reading() as connection:
            some = (here.where(_CLAIMANT.publisher.in_(each)) for each in _chunks(list(publishers), 200))
            return [NameClaimant(*row) for wanted in some for row in connection.execute(wanted)]

    def names_claimed_by(self, publisher: Digest, limit: int = MAX_ANSWER) -> Page[str]:
        """Returns the folded repository names under which an identity published or a node observed, the earliest ones
        first in tens."""
        _check(limit)
        wanted = select(_CLAIMANT.name).where(_CLAIMANT.publisher == publisher)
        with self._database.reading() as connection:
            found = list(connection.execute(wanted.order_by(_CLAIMANT.part).limit(limit + 1)).scalars())
        return Page(tuple(found[:limit]), len(found) > limit)

    def claimed_by_others(self, claims: Collection[tuple[str, Digest]]) -> set[tuple[str, Digest]]:
        """Returns those of these repository names, each with one who uses it, that somebody else uses too."""
        with self._database.reading() as connection:
            return {
                (name, publisher)
                for name, publisher in claims
                if connection.execute(_CLAIMED_BESIDE, {"name": fold_name(name), "publisher": publisher}).first()
            }

    def publications(
        self, name: str, publisher: Digest, version: str | None = None, limit: int = MAX_ANSWER
    ) -> Page[ProvenPublication]:
        """Returns what one publisher published under a repository name (case-insensitive): one version, or all. A
        statement in several logs is returned once per log."""
        _check(limit)
        wanted = [_PUBLICATION.name == fold_name(name), _PUBLICATION.publisher == publisher]
        if version is not None:
            wanted.append(_PUBLICATION.version == version)
        with self._database.reading() as connection:
            return _publications(connection, wanted, limit)

    def publications_of(
        self, artifact: Digest, limit: int = MAX_ANSWER, precedence: Precedence = NOBODY
    ) -> Page[ProvenPublication]:
        """Returns the publications and observations of an artifact, in the order of `about`."""
        found = self.about(artifact, PUBLICATION_PREDICATES, limit, precedence)
        return Page(tuple(map(_publication, found.found)), found.limited)

    def first_publishers(self, artifact: Digest, most: int) -> tuple[Digest, ...]:
        """Returns those who published or observed an artifact first, as this node proved it, at most `most`."""
        with self._database.reading() as connection:
            return first_authors(connection, artifact, PUBLICATION_PREDICATES, most)

    def first_publishers_of_each(self, artifacts: Sequence[Digest], most: int) -> dict[Digest, tuple[Digest, ...]]:
        """Returns what `first_publishers` does, for each of these artifacts."""
        with self._database.reading() as connection:
            return first_authors_of_each(connection, artifacts, PUBLICATION_PREDICATES, most)

    def names_of(self, artifacts: Sequence[Digest], limit: int) -> dict[Digest, Page[NamedArtifact]]:
        """Returns the names of each of these artifacts, in the order of `publications_of`. Of an artifact with more
        than `limit` names, returns the first alone."""
        _check(limit)
        with self._database.reading() as connection:
            named = artifact_names(connection, artifacts, limit)
        return {
            artifact: Page(names.found[: 1 if names.limited else None], names.limited)
            for artifact, names in named.items()
        }

    def first_names(self, artifacts: Sequence[Digest]) -> dict[Digest, str]:
        """Returns the first name of each of these artifacts that has one, by which lists call it."""
        with self._database.reading() as connection:
            named = first_artifact_names(connection, artifacts)
        return {artifact: f"{repository}@{version}" for artifact, (repository, version) in named.items()}

    def observations(
        self, name: str, observers: Collection[Digest], commit: str | None = None, limit: int = 64
    ) -> Page[ProvenPublication]:
        """Returns what these nodes observed of an upstream repository (`hf:org/repo`), at most `limit` per observer."""
        _check(limit)
        found: list[ProvenPublication] = []
        limited = False
        with self._database.reading() as connection:
            for some in _chunks(list(observers), MAX_LOOKED_UP):
                key = (_CLAIMANT.name == fold_name(name), _CLAIMANT.publisher.in_(some))
                for observer in connection.execute(select(_CLAIMANT.publisher).where(*key)).scalars().all():
                    wanted = [_PUBLICATION.name == fold_name(name), _PUBLICATION.publisher == observer]
                    if commit is not None:
                        wanted.append(_PUBLICATION.version == commit)
                    answer = _publications(connection, wanted, limit)
                    found += answer.found
                    limited = limited or answer.limited
        return Page(tuple(found), limited)

    def newest_artifacts(self, name: str, publisher: Digest, limit: int, after: int | None = None) -> list[NewArtifact]:
        """Returns what one publisher published under a repository name, the newest first, after the number `after`. An
        artifact is returned once for each of its statements."""
        _check(limit)
        wanted = (
            _numbered()
            .where(_PUBLICATION.name == fold_name(name), _PUBLICATION.publisher == publisher)
            .order_by(_STATEMENT.number.desc())
            .limit(limit)
        )
        if after is not None:
            wanted = wanted.where(_STATEMENT.number < after)
        with self._database.reading() as connection:
            return [NewArtifact(*row) for row in connection.execute(wanted)]

    def artifacts_under(
        self, repositories: Collection[tuple[str, Digest]]
    ) -> dict[tuple[str, Digest], list[NewArtifact]]:
        """Returns what `newest_artifacts` does, to the end, for many repository names and publishers together; without
        those that have many statements, or that were asked for together with them."""
        found: dict[tuple[str, Digest], list[NewArtifact]] = {}
        with self._database.reading() as connection:
            for some in _chunks(list(repositories), TOGETHER):
                by_name = defaultdict[tuple[str, Digest], list[NewArtifact]](list)
                folded = [(fold_name(name), publisher) for name, publisher in some]
                most = VERSIONS_TOGETHER * len(some)
                wanted = (
                    _numbered(_PUBLICATION.name, _PUBLICATION.publisher)
                    .where(tuple_(_PUBLICATION.name, _PUBLICATION.publisher).in_(folded))
                    .limit(most + 1)
                )
                rows = list(connection.execute(wanted))
                if len(rows) > most:
                    continue
                for number, artifact, name, publisher in rows:
                    by_name[name, publisher].append(NewArtifact(number, artifact))
                for key, under in zip(some, folded, strict=True):
                    found[key] = sorted(by_name[under], key=lambda item: -item.number)
        return found

    def repositories(self, after: str = "", prefix: str = "", limit: int = MAX_ANSWER) -> list[str]:
        """Returns folded names of repositories after `after` that begin with `prefix`, in order."""
        _check(limit)
        before, least = fold_name(after), fold_name(prefix)
        # One lower bound: a database may choose the smaller one of two, and read every name between them.
        wanted = select(_CLAIMANT.name).where(_CLAIMANT.name >= least if before < least else _CLAIMANT.name > before)
        if least:
            wanted = wanted.where(_CLAIMANT.name < least + _LAST_CHARACTER)
        wanted = wanted.distinct()
        with self._database.reading() as connection:
            return list(connection.execute(wanted.order_by(_CLAIMANT.name).limit(limit)).scalars())

    def listed(self, after: tuple[int, int] | None, limit: int, kinds: Collection[str] = ()) -> list[ListedPublication]:
        """Returns publications after a cursor (turn, log id), in an order in which the publishers of each log take
        turns (`listing_turns`); only of artifacts of these kinds, if any are given."""
        place = tuple_(_PUBLICATION.turn, _PUBLICATION.log_id)
        wanted = select(*_LISTED).where(place > (after or (0, -1))).order_by(_PUBLICATION.turn, _PUBLICATION.log_id)
        each = [wanted.where(_PUBLICATION.kind == kind) for kind in sorted(kinds)] or [wanted]
        with self._database.reading() as connection:
            found = [[_listed(row) for row in connection.execute(one.limit(limit))] for one in each]
        return sorted(itertools.chain(*found), key=lambda item: item.place)[:limit]

    def names_in_turn(self, after: str, limit: int) -> list[str]:
        """Returns folded names of repositories, published or mirrored, each once and without `hf:`, after the name
        `after`, in an order in which publishers take turns (`listing_turns`)."""
        _check(limit)
        found: list[str] = []
        with self._database.reading() as connection:
            place = _name_places(connection, [after]).get(after, (0, "")) if after else (-1, "")
            later = tuple_(_CLAIMANT.part, _CLAIMANT.name)
            while len(found) < limit:
                wanted = select(_CLAIMANT.part, _CLAIMANT.name).where(later > place).distinct()
                rows = connection.execute(wanted.order_by(_CLAIMANT.part, _CLAIMANT.name).limit(limit)).all()
                if not rows:
                    break
                places = _name_places(connection, [row.name.removeprefix(UPSTREAM) for row in rows])
                for row in rows:
                    name = row.name.removeprefix(UPSTREAM)
                    if places[name] == (row.part, row.name) and len(found) < limit:
                        found.append(name)
                place = (rows[-1].part, rows[-1].name)
        return found

    def name_places(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Returns the places of these folded names in the order of `names_in_turn`."""
        with self._database.reading() as connection:
            return _name_places(connection, names)

    def named(
        self, words: Sequence[str], after: tuple[int, int] | None, limit: int, kinds: Collection[str] = ()
    ) -> NamedPage:
        """Returns at most `limit` publications after a cursor whose folded name with version contains all of `words`,
        in the order of `listed`; only of artifacts of these kinds, if any are given. Looks at `MAX_CANDIDATES` names at
        most: a page may be short and have a next one."""
        _check(limit)
        if not all(word.isprintable() for word in words):
            return NamedPage((), None)  # no name has such characters
        grams = grams_of(*words)[:MAX_GRAMS]
        if grams and kinds and self._are_few(after, kinds):
            grams = []  # more may have the words
        found: list[ListedPublication] = []
        looked_at, cursor = 0, after
        while looked_at < MAX_CANDIDATES:
            size = min(MAX_ANSWER, max(64, 2 * limit)) if grams or not words else MAX_ANSWER
            page = self._candidates(grams, cursor, size) if grams else self.listed(cursor, size, kinds)
            looked_at += len(page)
            for item in page:
                cursor = item.place
                if all(word in item.name for word in words) and (not kinds or item.kind in kinds):
                    found.append(item)
                    if len(found) == limit:
                        return NamedPage(tuple(found), cursor)
            if len(page) < size:
                return NamedPage(tuple(found), None)
        return NamedPage(tuple(found), cursor)

    def _are_few(self, after: tuple[int, int] | None, kinds: Collection[str]) -> bool:
        """Whether one search can look at all that are of these kinds."""
        later = tuple_(_PUBLICATION.turn, _PUBLICATION.log_id) > (after or (0, -1))
        wanted = select(_PUBLICATION.turn).where(_PUBLICATION.kind.in_(sorted(kinds)), later).limit(MAX_CANDIDATES)
        with self._database.reading() as connection:
            return len(connection.execute(wanted).all()) < MAX_CANDIDATES

    def names_with(self, words: Sequence[str], most: int) -> list[str] | None:
        """Returns the folded names (with `hf:` for an upstream) that contain all of `words`, in order; None if more
        than `most` publications may do so, or if no word is long enough to be looked up."""
        grams = grams_of(*words)[:MAX_GRAMS]
        if not all(word.isprintable() for word in words):
            return []
        if not grams:
            return None
        with self._database.reading() as connection:
            places = name_index(connection).find(connection, grams, (0, -1), most + 1)
            if len(places) > most:
                return None
            names = {name for _, _, _, name, *_ in _at_turns(connection, places)}
        return sorted(name for name in names if all(word in name for word in words))

    def _candidates(self, grams: Sequence[str], after: tuple[int, int] | None, limit: int) -> list[ListedPublication]:
        with self._database.reading() as connection:
            places = name_index(connection).find(connection, grams, after or (0, -1), limit)
            return [_listed(row) for row in _at_turns(connection, places)]

    def about(
        self,
        digest: Digest,
        kinds: Sequence[str] = ALL_KINDS,
        limit: int = MAX_ANSWER,
        precedence: Precedence = NOBODY,
    ) -> Selection[ProvenLine]:
        """Returns at most `limit` statements about a digest, in the order of `comity.rules.precedence`. A kind is a
        predicate that this version knows, or OTHER for all other predicates."""
        _check(limit)
        with self._database.reading() as connection:
            found = read_about(connection, digest, kinds, precedence, Bounds.within(limit))
            return _lines_of(connection, found)

    def claims_about(
        self, digest: Digest, precedence: Precedence, bounds: Bounds, kinds: Sequence[str] = WITHOUT_AUDITS
    ) -> Selection[ProvenPosition]:
        """Returns the positions of statements about a digest, in the order of `about`, to read them in parts. Without
        audits: their number grows with time, and no verdict needs them."""
        with self._database.reading() as connection:
            return read_about(connection, digest, kinds, precedence, bounds)

    def newest_about(self, digest: Digest, kind: str, limit: int) -> list[ProvenLine]:
        """Returns the newest statements of one kind about a digest: the last of each log, then the one before it, and
        so on."""
        _check(limit)
        here = (_SUBJECT.digest == digest, _SUBJECT.kind == kind)
        with self._database.reading() as connection:
            last = select(_SUBJECT.log_id, func.max(_SUBJECT.turn)).where(*here).group_by(_SUBJECT.log_id)
            turns = {log: turn for log, turn in connection.execute(last)}  # noqa: C416  # rows are no pairs for dict
            wanted = [(turn - back, log) for log, turn in turns.items() for back in range(min(turn + 1, limit))]
            wanted.sort(key=lambda place: (turns[place[1]] - place[0], place[1]))
            found = []
            for turn, log in wanted[:limit]:
                place = select(_SUBJECT.index).where(*here, _SUBJECT.log_id == log, _SUBJECT.turn == turn)
                found.append(ProvenPosition(log, connection.execute(place).scalar_one()))
            return _lines_at(connection, found)

    def lines(self, positions: Sequence[ProvenPosition]) -> list[ProvenLine]:
        """Returns the lines at these positions, in this order."""
        with self._database.reading() as connection:
            return _lines_at(connection, positions)

    def numbered(self, numbers: Collection[int]) -> list[ProvenLine]:
        """Returns the statements with these numbers (at most 1,000), in their order."""
        _check(max(1, len(numbers)))
        wanted = _lines().where(_STATEMENT.number.in_(numbers)).order_by(_STATEMENT.number)
        with self._database.reading() as connection:
            return [ProvenLine(*row) for row in connection.execute(wanted)]

    def since(
        self, number: int, predicates: Sequence[str], limit: int = 256, log: str | None = None
    ) -> list[ProvenLine]:
        """Returns statements with one of these predicates that were verified after the statement with this number, in
        that order; in one log (its verifier key) or all logs. Raises NotFound (NO-SUCH-LOG)."""
        _check(limit)
        found: list[ProvenLine] = []
        with self._database.reading() as connection:
            later = _SINCE if log is None else _SINCE_IN_LOG
            here = {} if log is None else {"log": find_log(connection, log).id}
            for predicate in predicates if number < last_number(connection) else ():
                asked = {"predicate": predicate, "after": number, "most": limit, **here}
                found += [ProvenLine(*row) for row in connection.execute(later, asked)]
        return sorted(found, key=lambda line: line.number)[:limit]

    def by(self, author: Digest, predicate: str, limit: int = MAX_ANSWER, log: str | None = None) -> Page[ProvenLine]:
        """Returns an author's statements with one predicate, by log and index; in one log (verifier key) or all."""
        _check(limit)
        wanted = _lines().where(_STATEMENT.by == author, _STATEMENT.predicate == predicate)
        if log is not None:
            wanted = wanted.where(_LOG.vkey == log)
        ordered = wanted.order_by(_STATEMENT.log_id, _STATEMENT.index).limit(limit + 1)
        with self._database.reading() as connection:
            rows = list(connection.execute(ordered))
        return Page(tuple(ProvenLine(*row) for row in rows[:limit]), len(rows) > limit)

    def last_by(self, author: Digest, predicate: str, log: str) -> bytes | None:
        """Returns the last statement of an author and predicate in a log (its key). Raises NotFound (NO-SUCH-LOG)."""
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
        """Returns the inception and rotations of an identity, at their first positions; empty for an unknown one."""
        return [line for _, line in self.each_key([author])]

    def each_key(self, authors: Iterable[Digest]) -> Iterator[tuple[Digest, ProvenLine]]:
        """Returns the identities and the lines of `keys_of`, in the order of `authors`. Reads a few lines at a time:
        the keys of an identity may have 36 MB."""
        for some in _chunks(list(dict.fromkeys(authors)), TOGETHER):
            positions: dict[Digest, list[ProvenPosition]] = {author: [] for author in some}
            with self._database.reading() as connection:
                for columns in (
                    select(_IDENTITY.id, _IDENTITY.log_id, _IDENTITY.index).where(_IDENTITY.id.in_(some)),
                    select(_ROTATION.identity, _ROTATION.log_id, _ROTATION.index).where(_ROTATION.identity.in_(some)),
                ):
                    for author, *place in connection.execute(columns):
                        positions[author].append(ProvenPosition(*place))
            every = [(author, position) for author, own in positions.items() for position in own]
            for part in _chunks(every, LINES_TOGETHER):
                with self._database.reading() as connection:
                    lines = _lines_or_none(connection, [position for _, position in part])
                yield from ((author, line) for (author, _), line in zip(part, lines, strict=True) if line is not None)

    def with_line(self, line: bytes) -> list[ProvenLine]:
        """Returns the position in one log of a statement that exactly this line proves."""
        statement = parse_entry(line).statement_digest
        wanted = _lines().where(_STATEMENT.statement == statement, _ENTRY.digest == sha256(line)).limit(1)
        with self._database.reading() as connection:
            return [ProvenLine(*row) for row in connection.execute(wanted)]

    def last_number_of(self, predicates: Sequence[str]) -> int:
        """Returns the number of the newest verified statement with one of these predicates; 0 if there is none."""
        newest = select(func.max(_STATEMENT.number))
        with self._database.reading() as connection:
            found = (connection.execute(newest.where(_STATEMENT.predicate == each)).scalar() for each in predicates)
            return max((number or 0 for number in found), default=0)

    def last_number(self) -> int:
        """Returns the number of the newest verified statement."""
        with self._database.reading() as connection:
            return last_number(connection)


def _name_places(connection: Connection, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The first part and stored name of each of these names, as one published or mirrored it."""
    found: dict[str, tuple[int, str]] = {}
    for some in _chunks(list(names), 200):
        stored = [each for name in some for each in (name, f"{UPSTREAM}{name}")]
        first = select(_CLAIMANT.name, func.min(_CLAIMANT.part)).where(_CLAIMANT.name.in_(stored))
        for name, part in connection.execute(first.group_by(_CLAIMANT.name)):
            key = name.removeprefix(UPSTREAM)
            found[key] = min(found.get(key, (part, name)), (part, name))
    return found


def _at_turns(connection: Connection, places: Sequence[tuple[int, int]]) -> list[Any]:
    """Publications as `_LISTED` has them, in the order of `places`."""
    found: dict[tuple[int, int], Any] = {}
    for some in _chunks(places, 200):
        here = tuple_(_PUBLICATION.log_id, _PUBLICATION.turn).in_([(log_id, turn) for turn, log_id in some])
        for row in connection.execute(select(*_LISTED).where(here)):
            found[row[0], row[1]] = row
    return [found[place] for place in places if place in found]


def _listed(row: Any) -> ListedPublication:
    turn, log_id, index, name, version, *about = row
    return ListedPublication(turn, ProvenPosition(log_id, index), named_version(name, version), *about)


def _lines_of(connection: Connection, positions: Selection[ProvenPosition]) -> Selection[ProvenLine]:
    lines = _lines_at(connection, positions.first), _lines_at(connection, positions.others)
    return Selection(tuple(lines[0]), tuple(lines[1]), positions.cut, positions.more_others)


def _lines_at(connection: Connection, positions: Sequence[ProvenPosition]) -> list[ProvenLine]:
    """Returns the lines at these positions, in this order."""
    # A position is missing if its row has changed to an earlier copy.
    return [line for line in _lines_or_none(connection, positions) if line is not None]


def _lines_or_none(connection: Connection, positions: Sequence[ProvenPosition]) -> list[ProvenLine | None]:
    found: dict[ProvenPosition, ProvenLine] = {}
    for some in _chunks(positions, LINES_TOGETHER):
        found |= _at_positions(connection, some)
    return [found.get(position) for position in positions]


def _at_positions(connection: Connection, positions: Sequence[ProvenPosition]) -> dict[ProvenPosition, ProvenLine]:
    named = tuple_(_STATEMENT.log_id, _STATEMENT.index).in_([(item.log_id, item.index) for item in positions])
    rows = connection.execute(_lines().add_columns(_STATEMENT.log_id).where(named))
    lines = ((log_id, ProvenLine(*line)) for *line, log_id in rows)
    return {ProvenPosition(log_id, line.index): line for log_id, line in lines}


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


def _numbered(*more: ColumnElement[Any]) -> Select[Any]:
    """Selects the number and the artifact of publications."""
    same = and_(_STATEMENT.log_id == _PUBLICATION.log_id, _STATEMENT.index == _PUBLICATION.index)
    return select(_STATEMENT.number, _PUBLICATION.artifact, *more).join(schema.statements, same)


def _publication(found: ProvenLine) -> ProvenPublication:
    facts = statement_facts(found.index, parse_entry(found.line))
    if facts is None or not isinstance(facts.detail, ClaimedName):
        raise corrupt_ledger(found.origin, f"entry {found.index} is no publication")
    named = facts.detail
    about = (facts.predicate, named.repository, named.version, facts.by, named.artifact)
    return ProvenPublication(*about, found.origin, found.vkey, found.index, found.line, found.number)


def _lines() -> Select[str, str, int, bytes, int]:
    """Selects the columns of `ProvenLine`."""
    return (
        select(_LOG.origin, _LOG.vkey, _STATEMENT.index, _ENTRY.line, _STATEMENT.number)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .join(schema.logs, _LOG.id == _STATEMENT.log_id)
    )


_SINCE: Final = (
    _lines()
    .where(_STATEMENT.predicate == bindparam("predicate"), _STATEMENT.number > bindparam("after"))
    .order_by(_STATEMENT.number)
    .limit(bindparam("most", type_=Integer))
)
"""Made once: every reader asks for each of its predicates whenever a log grows."""
_SINCE_IN_LOG: Final = _SINCE.where(_STATEMENT.log_id == bindparam("log"))
_CLAIMED_BESIDE: Final = (
    select(_CLAIMANT.number)
    .where(_CLAIMANT.name == bindparam("name"), _CLAIMANT.publisher != bindparam("publisher"))
    .limit(1)
)
"""Made once: asked for each publication."""


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _check(limit: int) -> None:
    if not 1 <= limit <= MAX_ANSWER:
        raise Malformed("bad limit", why=f"{limit} is not in 1 to {MAX_ANSWER}")
