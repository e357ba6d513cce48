"""The intake of log lines: verified statements are written to the tables that index them.

The node verifies lines. It reads a batch of a log, and commits the results together with the new position in one
transaction: after a crash the intake continues from the old or the new state. Each statement is stored once per log.
The rows do not depend on the order in which lines are verified, except the numbers that count that order.

A line is parked if no key known so far verifies or refutes it. A parked line costs one small row, is found by its
author, and has no other effect. When more keys of an author become known, the parked lines of the author are verified
again.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final, TypeVar

from sqlalchemy import Connection, Table, and_, delete, func, insert, select, tuple_, update

from comity.ledger import schema
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.listing_turns import PublicationTurns, name_parts
from comity.ledger.name_search import NamedPlace, name_index
from comity.ledger.stated_kinds import write_kinds
from comity.ledger.subject_reads import OTHER, next_round
from comity.trust.encoding import Digest, canonical
from comity.trust.errors import ComityError, Conflict
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Entry
from comity.trust.statement_kinds import (
    ARTIFACT_KIND,
    INCEPTION,
    KNOWN_PREDICATES,
    NODE_RECORD,
    OBSERVED,
    OFFER_PREDICATES,
    PUBLISHED,
    ROTATED,
)
from comity.trust.statements import Published
from comity.trust.upstream import Observed

MAX_FOLDED: Final = 512

T = TypeVar("T")


@frozen
class IdentityFacts:
    """An identity with a verified inception: its id, the origin of its home log, and its display name."""

    id: Digest
    home: str
    display: str


@frozen
class NodeKey:
    """The online key of a node as JSON. `id` is the hash of the key."""

    id: Digest
    key: bytes


@frozen
class ClaimedName:
    """An artifact with a name that an identity published or a node observed. `repository` has its original spelling."""

    repository: str
    version: str
    artifact: Digest


@frozen
class StatementFacts:
    """A verified line of a log, and the fields of its statement that are indexed."""

    index: int
    statement: Digest
    predicate: str
    by: Digest
    subjects: tuple[Digest, ...]
    detail: IdentityFacts | NodeKey | ClaimedName | None

    @property
    def kind(self) -> str:
        """The predicate if this version knows it, otherwise OTHER."""
        return self.predicate if self.predicate in KNOWN_PREDICATES else OTHER


def statement_facts(index: int, entry: Entry) -> StatementFacts | None:
    """Returns the indexed fields of a verified entry; None for a foreign type, which cannot be verified."""
    statement = entry.statement
    if statement.by is None:
        return None
    subjects = tuple(dict.fromkeys(subject.digest for subject in statement.subjects))
    return StatementFacts(index, entry.statement_digest, statement.predicate, statement.by.id, subjects, _detail(entry))


def fold_name(name: str) -> str:
    """Returns the form of a name for comparison: NFC and case-folded, at most MAX_FOLDED characters."""
    return unicodedata.normalize("NFC", name).casefold()[:MAX_FOLDED]


def named_version(name: str, version: str) -> str:
    """Returns a name with its version, both folded: in it the words of a search are looked for."""
    return f"{fold_name(name)}@{fold_name(version)}"


def _detail(entry: Entry) -> IdentityFacts | NodeKey | ClaimedName | None:
    statement = entry.statement
    try:
        if statement.predicate == INCEPTION:
            inception = Inception.from_json(statement.body.get("record"))
            return IdentityFacts(inception.id, inception.home, inception.display)
        if statement.predicate == NODE_RECORD:
            record = NodeRecord.parse(entry.statement)
            return NodeKey(record.node.id, canonical(record.online.to_json()))
        if statement.predicate == PUBLISHED:
            published = Published.parse(statement)
            return ClaimedName(published.name.repository, published.name.version, published.artifact)
        if statement.predicate == OBSERVED:
            observed = Observed.parse(statement)
            repository, _, commit = observed.name.rpartition("@")
            return ClaimedName(repository, commit, observed.artifact)
    except ComityError:
        pass  # an own log in a test may hold entries that cannot be verified
    return None


_STATEMENT = schema.statements.c
_SUBJECT = schema.subjects.c
_PUBLICATION = schema.publications.c
_CLAIMANT = schema.claimants.c
_PARKED = schema.parked.c
_REVISIT = schema.revisits.c


def write_facts(connection: Connection, log_id: int, facts: Iterable[StatementFacts]) -> int:
    """Store verified lines of a log. Returns how many statements are new in that log.

    If a log has several copies of a statement, the row has the lowest index, even if a later copy was verified first.
    """
    first_copies: dict[Digest, StatementFacts] = {}
    for item in facts:
        known = first_copies.get(item.statement)
        if known is None or item.index < known.index:
            first_copies[item.statement] = item
    stored = statement_indexes(connection, log_id, list(first_copies))
    fresh = []
    for item in first_copies.values():
        index = stored.get(item.statement)
        if index is None:
            fresh.append(item)
        elif item.index < index:
            _move_index(connection, log_id, index, item)
    insert_facts(connection, log_id, fresh)
    return len(fresh)


def revisit(connection: Connection, log_id: int, author: Digest) -> None:
    """Queue all parked lines of an author for verification, because more keys of the author are known."""
    if connection.execute(select(_PARKED.index).where(_PARKED.author == author).limit(1)).first() is None:
        return
    here = (_REVISIT.log_id == log_id, _REVISIT.author == author)
    again = update(schema.revisits).where(*here).values(after_log=-1, after_index=-1, round=_REVISIT.round + 1)
    if not connection.execute(again).rowcount:
        row = {"log_id": log_id, "author": author, "after_log": -1, "after_index": -1, "round": 0}
        connection.execute(insert(schema.revisits).values(row))


def key_counts(connection: Connection, authors: Sequence[Digest]) -> dict[Digest, int]:
    """Returns the number of key records of each author. The number only grows."""
    known = dict.fromkeys(authors, 0)
    tables = (schema.identities.c.id, schema.nodes.c.id, schema.rotations.c.identity)
    for some in _pages(authors):
        for column in tables:
            wanted = select(column, func.count()).where(column.in_(some)).group_by(column)
            for author, count in connection.execute(wanted):
                known[author] += count
    return known


def last_number(connection: Connection) -> int:
    """Returns the number of the newest verified statement; 0 if there is none."""
    return connection.execute(select(func.max(_STATEMENT.number))).scalar() or 0


def statement_indexes(connection: Connection, log_id: int, statements: Sequence[Digest]) -> dict[Digest, int]:
    """Returns the index in a log of each of these statements that is verified there."""
    found: dict[Digest, int] = {}
    for some in _pages(statements):
        wanted = select(_STATEMENT.statement, _STATEMENT.index).where(_STATEMENT.statement.in_(some))
        found |= {name: index for name, index in connection.execute(wanted.where(_STATEMENT.log_id == log_id))}  # noqa: C416
    return found


def _move_index(connection: Connection, log_id: int, index: int, item: StatementFacts) -> None:
    """Change the index of a stored statement from `index` to the index of its earlier copy."""
    to = {"index": item.index}
    place = (_STATEMENT.log_id == log_id, _STATEMENT.index == index)
    connection.execute(update(schema.statements).where(*place).values(to))
    about = (_SUBJECT.digest.in_(item.subjects), _SUBJECT.kind == item.kind, _SUBJECT.log_id == log_id)
    connection.execute(update(schema.subjects).where(*about, _SUBJECT.index == index).values(to))
    if isinstance(item.detail, ClaimedName):
        named = (_PUBLICATION.name == fold_name(item.detail.repository), _PUBLICATION.publisher == item.by)
        here = (_PUBLICATION.log_id == log_id, _PUBLICATION.index == index)
        connection.execute(update(schema.publications).where(*named, *here).values(to))


def insert_facts(connection: Connection, log_id: int, facts: Sequence[StatementFacts]) -> None:
    """Store verified lines whose statements the log does not have yet, each statement once."""
    if not facts:
        return
    first = last_number(connection) + 1
    numbered = list(enumerate(facts, first))
    rows = [
        {
            "log_id": log_id,
            "index": item.index,
            "number": number,
            "statement": item.statement,
            "predicate": item.predicate,
            "by": item.by,
        }
        for number, item in numbered
    ]
    connection.execute(insert(schema.statements), rows)
    _insert_subjects(connection, log_id, facts)
    _insert_publications(connection, log_id, numbered)
    write_kinds(
        connection,
        (
            (digest, item.by)
            for item in facts
            if item.predicate in (PUBLISHED, ARTIFACT_KIND)
            for digest in item.subjects
        ),
    )
    for item in facts:
        _insert_keys(connection, log_id, item)


def _insert_subjects(connection: Connection, log_id: int, facts: Sequence[StatementFacts]) -> None:
    about: dict[str, set[Digest]] = {}
    for item in facts:
        about.setdefault(item.kind, set()).update(item.subjects)
    turns = {
        (digest, kind): turn
        for kind, digests in about.items()
        for digest, turn in _last_turns(connection, log_id, kind, sorted(digests)).items()
    }
    known, rounds = frozenset(turns), dict[tuple[Digest, str, Digest], int]()
    rows = []
    for item in facts:
        for digest in item.subjects:
            of_author = digest, item.kind, item.by
            if of_author not in rounds:
                here = (digest, item.kind) in known
                rounds[of_author] = next_round(connection, digest, item.by, item.kind, log_id) if here else 0
            turn = turns[digest, item.kind] = _next_turn(turns.get((digest, item.kind)))
            place = {"digest": digest, "kind": item.kind, "log_id": log_id, "turn": turn, "index": item.index}
            rows.append(place | {"by": item.by, "round": rounds[of_author]})
            rounds[of_author] += 1
    if rows:
        connection.execute(insert(schema.subjects), rows)


def _last_turns(connection: Connection, log_id: int, kind: str, digests: Sequence[Digest]) -> dict[Digest, int]:
    """The last turn of each of these digests that has rows. Most digests have none: they are found without a query of
    their own, because turns begin at 0. A digest can have many rows, so its last turn is never computed from all."""
    here = (_SUBJECT.kind == kind, _SUBJECT.log_id == log_id)
    last: dict[Digest, int] = {}
    for some in _pages(digests):
        known = select(_SUBJECT.digest).where(_SUBJECT.digest.in_(some), *here, _SUBJECT.turn == 0)
        for digest in connection.scalars(known).all():
            newest = select(_SUBJECT.turn).where(_SUBJECT.digest == digest, *here).order_by(_SUBJECT.turn.desc())
            last[digest] = connection.execute(newest.limit(1)).scalar() or 0
    return last


def _insert_publications(connection: Connection, log_id: int, numbered: Sequence[tuple[int, StatementFacts]]) -> None:
    named = [(number, item, item.detail) for number, item in numbered if isinstance(item.detail, ClaimedName)]
    if not named:
        return
    turns = PublicationTurns(connection, log_id)
    placed = [(turns.next(item.by), item, detail) for _, item, detail in named]
    rows = [
        {
            "log_id": log_id,
            "turn": turn,
            "index": item.index,
            "predicate": OBSERVED if item.predicate == OBSERVED else PUBLISHED,
            "name": fold_name(detail.repository),
            "publisher": item.by,
            "version": detail.version,
            "repository": detail.repository,
            "artifact": detail.artifact,
        }
        for turn, item, detail in placed
    ]
    connection.execute(insert(schema.publications), rows)
    places = [NamedPlace(turn, log_id, named_version(d.repository, d.version)) for turn, _, d in placed]
    name_index(connection).add(connection, places)
    first: dict[tuple[str, Digest], int] = {}
    for number, item, detail in named:
        first.setdefault((fold_name(detail.repository), item.by), number)
    _insert_claimants(connection, first)


def _insert_claimants(connection: Connection, first: Mapping[tuple[str, Digest], int]) -> None:
    """Store the names with their publishers that are new, and the number of the first statement of each."""
    known = set[tuple[str, Digest]]()
    for some in _pages(list(first)):
        here = tuple_(_CLAIMANT.name, _CLAIMANT.publisher).in_(some)
        known.update(
            (name, publisher)
            for name, publisher in connection.execute(select(_CLAIMANT.name, _CLAIMANT.publisher).where(here))
        )
    new = [key for key in first if key not in known]
    parts = name_parts(connection, [publisher for _, publisher in new])
    rows = [
        {"name": name, "publisher": publisher, "number": first[name, publisher], "part": part}
        for (name, publisher), part in zip(new, parts, strict=True)
    ]
    if rows:
        connection.execute(insert(schema.claimants), rows)


def _insert_keys(connection: Connection, log_id: int, item: StatementFacts) -> None:
    """Store the key records in a statement: inception, node-record or rotation."""
    place = {"log_id": log_id, "index": item.index}
    if isinstance(item.detail, IdentityFacts):
        key: dict[str, object] = {"id": item.detail.id}
        if _is_new(connection, schema.identities, key):
            row = key | place | {"home": item.detail.home, "display": item.detail.display}
            connection.execute(insert(schema.identities).values(row))
            revisit(connection, log_id, item.detail.id)
    elif isinstance(item.detail, NodeKey):
        key = {"id": item.detail.id}
        if _is_new(connection, schema.nodes, key):
            connection.execute(insert(schema.nodes).values(key | {"key": item.detail.key}))
            revisit(connection, log_id, item.detail.id)
    elif item.predicate == ROTATED:
        key = {"identity": item.by, "statement": item.statement}
        if _is_new(connection, schema.rotations, key):
            connection.execute(insert(schema.rotations).values(key | place))
            revisit(connection, log_id, item.by)


def _is_new(connection: Connection, table: Table, key: dict[str, object]) -> bool:
    wanted = select(func.count()).select_from(table).where(*(table.c[name] == value for name, value in key.items()))
    return connection.execute(wanted).scalar() == 0


def _next_turn(turn: int | None) -> int:
    return 0 if turn is None else turn + 1


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that are small enough for one query."""
    return (items[start : start + MAX_LINES] for start in range(0, len(items), MAX_LINES))


MAX_LINES: Final = 256
"""Lines of a batch, if the caller wants no more, and digests in one query."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a batch."""

_LOG = schema.logs.c
_ENTRY = schema.entries.c
_INTAKE = schema.intake.c


@frozen
class IntakeBatch:
    """The next lines of a log for the intake. `start` is the index of the first; `more`: lines follow."""

    log: str
    start: int
    lines: tuple[bytes, ...]
    more: bool


@frozen
class ParkedLine:
    """A line that waits for keys of its author. `log` is the verifier key of its log."""

    log: str
    index: int
    line: bytes


@frozen
class Revisit:
    """The next parked lines of an author to verify again, because of a line in `log`. Empty `lines`: all are done."""

    log: str
    author: Digest
    round: int
    lines: tuple[ParkedLine, ...]


@frozen
class IntakeResult:
    """The results for lines of one log: verified lines, and lines to park with their authors. Others prove nothing."""

    log: str
    proven: tuple[StatementFacts, ...] = ()
    waiting: tuple[tuple[int, Digest], ...] = ()
    seen: Mapping[Digest, int] = field(default_factory=dict)
    """The result of `key_counts` for the authors in `waiting` when their lines were verified."""
    refused: tuple[int, ...] = ()
    """Parked lines that can never be verified."""


@frozen
class KnownStatements:
    """Statements that are verified already: the index of each in one log, and the digests of the lines that prove them
    in any log."""

    indexes: dict[Digest, int]
    lines: frozenset[Digest]


class IntakeStore:
    """The intake state of all logs. Thread-safe. One caller commits at a time; own logs may grow meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unparked: Counter[str] = Counter()

    def position(self, log: str) -> int:
        """Returns the position below which the intake processed all entries. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            return position(connection, find_log(connection, log))

    def pending_logs(self) -> list[str]:
        """Returns the verifier keys of logs with unprocessed entries or queued parked lines."""
        done = func.coalesce(_INTAKE.position, 0)
        wanted = select(_LOG.vkey).outerjoin_from(schema.logs, schema.intake, _INTAKE.log_id == _LOG.id)
        again = select(_REVISIT.author).where(_REVISIT.log_id == _LOG.id).exists()
        with self._database.reading() as connection:
            return list(connection.execute(wanted.where((done < _LOG.size) | again).order_by(_LOG.id)).scalars())

    def entries_processed(self) -> tuple[int, int]:
        """Returns how many entries of all logs the intake processed, and how many there are."""
        wanted = select(func.coalesce(func.sum(_INTAKE.position), 0), func.coalesce(func.sum(_LOG.size), 0))
        with self._database.reading() as connection:
            done, total = connection.execute(wanted.outerjoin_from(schema.logs, schema.intake)).one()
        return int(done), int(total)

    def next_batch(self, log: str, most: int = MAX_LINES) -> IntakeBatch:
        """Returns the next lines of a log, at most `most`. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            start = position(connection, row)
            lines = tuple(_next_lines(connection, row, start, most))
            return IntakeBatch(row.vkey, start, lines, start + len(lines) < row.size)

    def commit(self, batch: IntakeBatch, result: IntakeResult) -> int:
        """Store the result of a batch. Returns the number of new statements.

        Raises Conflict (LOG-MOVED) if the batch was committed concurrently.
        """
        with self._database.writing("intake") as connection:
            log = find_log(connection, batch.log)
            if position(connection, log) != batch.start:
                raise Conflict("the intake already processed these entries", why=log.origin, code="LOG-MOVED")
            _park(connection, log, result.waiting)
            new = write_facts(connection, log.id, result.proven)
            authors = list(dict.fromkeys(author for _, author in result.waiting))
            for author, known in key_counts(connection, authors).items():
                if known != result.seen.get(author, 0):
                    revisit(connection, log.id, author)
            advance_position(connection, log, batch.start, batch.start + len(batch.lines))
            return new

    def next_revisit(self, log: str) -> Revisit | None:
        """Returns parked lines to verify again because a line of this log added keys of their author; None if there are
        none."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            due = select(schema.revisits).where(_REVISIT.log_id == row.id).order_by(_REVISIT.author).limit(1)
            found = connection.execute(due).one_or_none()
            if found is None:
                return None
            after = tuple_(_PARKED.log_id, _PARKED.index) > (found.after_log, found.after_index)
            wanted = (
                select(_LOG.vkey, _PARKED.index, _ENTRY.line)
                .select_from(schema.parked)
                .join(schema.entries, and_(_ENTRY.log_id == _PARKED.log_id, _ENTRY.index == _PARKED.index))
                .join(schema.logs, _LOG.id == _PARKED.log_id)
                .where(_PARKED.author == found.author, after)
                .order_by(_PARKED.log_id, _PARKED.index)
                .limit(MAX_LINES)
            )
            lines = _bounded(ParkedLine(*each) for each in connection.execute(wanted))
            return Revisit(row.vkey, found.author, found.round, tuple(lines))

    def commit_revisit(self, revisit: Revisit, results: Sequence[IntakeResult]) -> int:
        """Store the results for parked lines, one per log. Returns the number of new statements.

        If more keys of the author became known meanwhile, its parked lines are verified again from the first.
        """
        new, unparked = 0, Counter[str]()
        with self._database.writing("revisit") as connection:
            for item in results:
                log = find_log(connection, item.log)
                new += write_facts(connection, log.id, item.proven)
                unparked[log.vkey] = sum(proven.predicate in OFFER_PREDICATES for proven in item.proven)
                processed = [*(proven.index for proven in item.proven), *item.refused]
                parked = (_PARKED.log_id == log.id, _PARKED.index.in_(processed))
                connection.execute(delete(schema.parked).where(*parked))
            by = find_log(connection, revisit.log)
            here = (_REVISIT.log_id == by.id, _REVISIT.author == revisit.author, _REVISIT.round == revisit.round)
            if revisit.lines:
                last = find_log(connection, revisit.lines[-1].log)
                place = {"after_log": last.id, "after_index": revisit.lines[-1].index}
                connection.execute(update(schema.revisits).where(*here).values(place))
            else:
                connection.execute(delete(schema.revisits).where(*here))
        self._unparked += unparked
        return new

    def unparked(self, log: str) -> int:
        """Returns how many parked lines about offers of a log (its verifier key) were verified since the ledger was
        opened. A reader that reads these in order must restart when the number changes; lines of other predicates
        count nothing, because a caller that may log any line could make it restart for ever."""
        return self._unparked[log]

    def revisit(self, log: str, authors: Sequence[Digest]) -> None:
        """Queue the parked lines of these authors for verification, because of a line in `log`."""
        with self._database.writing("revisit") as connection:
            row = find_log(connection, log)
            for author in authors:
                revisit(connection, row.id, author)

    def key_counts(self, authors: Sequence[Digest]) -> dict[Digest, int]:
        """Returns the number of key records of each author. The number only grows."""
        with self._database.reading() as connection:
            return key_counts(connection, authors)

    def known(self, log: str, statements: Sequence[Digest]) -> KnownStatements:
        """Returns what is verified already of these statements."""
        indexes, lines = dict[Digest, int](), set[Digest]()
        with self._database.reading() as connection:
            log_id = find_log(connection, log).id
            for some in _pages(statements):
                wanted = (
                    select(_STATEMENT.statement, _STATEMENT.log_id, _STATEMENT.index, _ENTRY.digest)
                    .select_from(schema.statements)
                    .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
                    .where(_STATEMENT.statement.in_(some))
                )
                for statement, where, index, line in connection.execute(wanted):
                    lines.add(line)
                    if where == log_id:
                        indexes[statement] = index
        return KnownStatements(indexes, frozenset(lines))

    def parked_count(self) -> int:
        """Returns the number of parked lines."""
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(schema.parked)).scalar() or 0


def position(connection: Connection, log: LogRow) -> int:
    """`IntakeStore.position`, inside a transaction."""
    wanted = select(_INTAKE.position).where(_INTAKE.log_id == log.id)
    return connection.execute(wanted).scalar_one_or_none() or 0


def advance_position(connection: Connection, log: LogRow, start: int, end: int) -> None:
    """Advance the intake position from `start` to `end`; no effect if the position is not `start`."""
    if start == end or position(connection, log) != start:
        return
    moved = update(schema.intake).where(_INTAKE.log_id == log.id).values(position=end)
    if not connection.execute(moved).rowcount:
        connection.execute(insert(schema.intake).values(log_id=log.id, position=end))


def _park(connection: Connection, log: LogRow, waiting: Sequence[tuple[int, Digest]]) -> None:
    if waiting:
        rows = [{"log_id": log.id, "index": index, "author": author} for index, author in waiting]
        connection.execute(insert(schema.parked), rows)


def _next_lines(connection: Connection, log: LogRow, start: int, most: int) -> Iterator[bytes]:
    end = min(log.size, start + most)
    inside = (_ENTRY.log_id == log.id, _ENTRY.index >= start, _ENTRY.index < end)
    size = 0
    for line in connection.execute(select(_ENTRY.line).where(*inside).order_by(_ENTRY.index)).scalars():
        size += len(line)
        if size > MAX_BYTES:
            return
        yield line


def _bounded(lines: Iterator[ParkedLine]) -> Iterator[ParkedLine]:
    size = 0
    for item in lines:
        size += len(item.line)
        if size > MAX_BYTES:
            return
        yield item
