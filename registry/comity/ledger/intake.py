"""What a proven line says, as far as the tables of a ledger have columns for it. Whoever calls this has proven it.

Writing what is proven: each statement once a log, with what it says in the tables where that is looked up.

Called inside the transaction that lets the lines stand as proven. Whatever the order in which lines are proven, the
same rows come out, but for the numbers that count that order.


How far each log went through the intake, and the lines that wait for keys of their author.

Whoever proves lines (the node) reads a stretch of a log, and commits what came of it with the position that it stands
for, in one transaction: a crash leaves the old or the new state, and the intake goes on from there. Lines that nothing
known so far proves or refutes are parked: they cost a small row, are found again by their author, and nothing else.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Table, and_, delete, func, insert, select, tuple_, update

from comity.ledger import schema
from comity.ledger.database import Database, LogRow, find_log
from comity.trust.charter.equivocation import MISBEHAVIOUR
from comity.trust.charter.votes import ADOPTED, CONSENTED, DRAFT, INTENT, LEFT, RATIFIED
from comity.trust.encoding import Digest, canonical
from comity.trust.errors import ComityError, Conflict
from comity.trust.identity import Inception
from comity.trust.offers.accusing import OFFER_FAULT
from comity.trust.offers.chain import PREDICATES
from comity.trust.statement import Entry
from comity.trust.statements import DERIVED, VERIFIED, VOUCHED, Published, parse_node_record
from comity.trust.upstream import CHANGED, GONE, OBSERVED, Observed

PUBLISHED: Final = "published"
INCEPTION: Final = "inception"
ROTATED: Final = "rotated"
NODE_RECORD: Final = "node-record"
HOLD: Final = "hold"
ADVISORY: Final = "advisory"
ADDRESSES: Final = "addresses"

OTHER: Final = ""
"""The kind of statements whose type this version does not know."""
KNOWN: Final = frozenset(
    {PUBLISHED, OBSERVED, HOLD, ADVISORY, INCEPTION, ROTATED, NODE_RECORD, ADDRESSES, VERIFIED, VOUCHED, DERIVED}
    | {CHANGED, GONE, OFFER_FAULT, *PREDICATES}
    | {DRAFT, CONSENTED, LEFT, INTENT, RATIFIED, ADOPTED, MISBEHAVIOUR}
)
MAX_FOLDED: Final = 512


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """An identity whose inception is proven: the origin of its home log, and what it calls itself."""

    id: Digest
    home: str
    display: str


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's online key, of which `id` is the hash, as JSON."""

    id: Digest
    key: bytes


@dataclass(frozen=True, slots=True)
class ClaimedName:
    """An artifact under a name: what somebody published, or a node observed. `repository` is spelled as there."""

    repository: str
    version: str
    artifact: Digest


@dataclass(frozen=True, slots=True)
class StatementFacts:
    """A proven line of a log, and what its statement says that is looked up."""

    index: int
    statement: Digest
    predicate: str
    by: Digest
    subjects: tuple[Digest, ...]
    said: IdentityFacts | NodeKey | ClaimedName | None

    @property
    def kind(self) -> str:
        """The predicate, where this version knows it."""
        return self.predicate if self.predicate in KNOWN else OTHER


def fact(index: int, entry: Entry) -> StatementFacts | None:
    """What a proven entry at `index` says; None for a foreign type, which nobody can prove."""
    statement = entry.statement
    if statement.by is None:
        return None
    subjects = tuple(dict.fromkeys(subject.digest for subject in statement.subjects))
    return StatementFacts(index, entry.statement_digest, statement.predicate, statement.by.id, subjects, _said(entry))


def fold(name: str) -> str:
    """The form in which names are compared: without case, and short enough for any database's index."""
    return unicodedata.normalize("NFC", name).casefold()[:MAX_FOLDED]


def _said(entry: Entry) -> IdentityFacts | NodeKey | ClaimedName | None:
    statement = entry.statement
    try:
        if statement.predicate == INCEPTION:
            inception = Inception.from_json(statement.body.get("record"))
            return IdentityFacts(inception.id, inception.home, inception.display)
        if statement.predicate == NODE_RECORD:
            record = parse_node_record(entry)
            return NodeKey(record.node.id, canonical(record.online.to_json()))
        if statement.predicate == PUBLISHED:
            published = Published.parse(statement)
            return ClaimedName(published.name.repository, published.name.version, published.artifact)
        if statement.predicate == OBSERVED:
            observed = Observed.parse(statement)
            repository, _, commit = observed.name.rpartition("@")
            return ClaimedName(repository, commit, observed.artifact)
    except ComityError:
        pass  # an own log of a test may hold what nobody could prove
    return None


_STATEMENT = schema.statements.c
_SUBJECT = schema.subjects.c
_PUBLICATION = schema.publications.c
_PARKED = schema.parked.c
_REVISIT = schema.revisits.c


def write_facts(connection: Connection, log_id: int, facts: Iterable[StatementFacts]) -> int:
    """Let lines of a log stand as proven; how many of them say something that the log had not said before.

    Of the copies of one statement in one log the first stands, also where a later one was proven before it.
    """
    once: dict[Digest, StatementFacts] = {}
    for item in facts:
        known = once.get(item.statement)
        if known is None or item.index < known.index:
            once[item.statement] = item
    standing = _standing(connection, log_id, list(once))
    fresh = []
    for item in once.values():
        index = standing.get(item.statement)
        if index is None:
            fresh.append(item)
        elif item.index < index:
            _move(connection, log_id, index, item)
    if fresh:
        _add(connection, log_id, fresh)
    return len(fresh)


def revisit(connection: Connection, log_id: int, author: Digest) -> None:
    """Have the parked lines of an author looked at again, from the first: more of its keys are known."""
    if connection.execute(select(_PARKED.index).where(_PARKED.author == author).limit(1)).first() is None:
        return
    here = (_REVISIT.log_id == log_id, _REVISIT.author == author)
    again = update(schema.revisits).where(*here).values(after_log=-1, after_index=-1, round=_REVISIT.round + 1)
    if not connection.execute(again).rowcount:
        row = {"log_id": log_id, "author": author, "after_log": -1, "after_index": -1, "round": 0}
        connection.execute(insert(schema.revisits).values(row))


def keys_known(connection: Connection, authors: Sequence[Digest]) -> dict[Digest, int]:
    """How much is known of the keys of these authors, at most 256: a number that rises with whatever becomes known."""
    known = dict.fromkeys(authors, 0)
    tables = (schema.identities.c.id, schema.nodes.c.id, schema.rotations.c.identity)
    for column in tables:
        wanted = select(column, func.count()).where(column.in_(authors)).group_by(column)
        for author, count in connection.execute(wanted):
            known[author] += count
    return known


def last_number(connection: Connection) -> int:
    """The number of the statement that was proven last; 0 before the first."""
    return connection.execute(select(func.max(_STATEMENT.number))).scalar() or 0


def _standing(connection: Connection, log_id: int, statements: Sequence[Digest]) -> dict[Digest, int]:
    found: dict[Digest, int] = {}
    for start in range(0, len(statements), 256):
        some = statements[start : start + 256]
        wanted = select(_STATEMENT.statement, _STATEMENT.index).where(_STATEMENT.statement.in_(some))
        found |= {name: index for name, index in connection.execute(wanted.where(_STATEMENT.log_id == log_id))}  # noqa: C416
    return found


def _move(connection: Connection, log_id: int, index: int, item: StatementFacts) -> None:
    """Let the statement at `index` stand where an earlier copy of it does."""
    to = {"index": item.index}
    place = (_STATEMENT.log_id == log_id, _STATEMENT.index == index)
    connection.execute(update(schema.statements).where(*place).values(to))
    about = (_SUBJECT.digest.in_(item.subjects), _SUBJECT.kind == item.kind, _SUBJECT.log_id == log_id)
    connection.execute(update(schema.subjects).where(*about, _SUBJECT.index == index).values(to))
    if isinstance(item.said, ClaimedName):
        named = (_PUBLICATION.name == fold(item.said.repository), _PUBLICATION.publisher == item.by)
        here = (_PUBLICATION.log_id == log_id, _PUBLICATION.index == index)
        connection.execute(update(schema.publications).where(*named, *here).values(to))


def _add(connection: Connection, log_id: int, facts: Sequence[StatementFacts]) -> None:
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
    _add_subjects(connection, log_id, facts)
    _add_publications(connection, log_id, numbered)
    for item in facts:
        _add_keys(connection, log_id, item)


def _add_subjects(connection: Connection, log_id: int, facts: Sequence[StatementFacts]) -> None:
    turns: dict[tuple[Digest, str], int] = {}
    rows = []
    for item in facts:
        for digest in item.subjects:
            if (digest, item.kind) not in turns:
                here = (_SUBJECT.digest == digest, _SUBJECT.kind == item.kind, _SUBJECT.log_id == log_id)
                last = select(_SUBJECT.turn).where(*here).order_by(_SUBJECT.turn.desc()).limit(1)
                turns[digest, item.kind] = _next(connection.execute(last).scalar())
            turn = turns[digest, item.kind]
            turns[digest, item.kind] = turn + 1
            rows.append(
                {"digest": digest, "kind": item.kind, "log_id": log_id, "turn": turn, "index": item.index},
            )
    if rows:
        connection.execute(insert(schema.subjects), rows)


def _add_publications(connection: Connection, log_id: int, numbered: Sequence[tuple[int, StatementFacts]]) -> None:
    named = [(number, item, item.said) for number, item in numbered if isinstance(item.said, ClaimedName)]
    if not named:
        return
    last = select(_PUBLICATION.turn).where(_PUBLICATION.log_id == log_id).order_by(_PUBLICATION.turn.desc()).limit(1)
    turn = _next(connection.execute(last).scalar())
    rows = [
        {
            "log_id": log_id,
            "turn": at,
            "index": item.index,
            "predicate": OBSERVED if item.predicate == OBSERVED else PUBLISHED,
            "name": fold(said.repository),
            "publisher": item.by,
            "version": said.version,
            "repository": said.repository,
            "artifact": said.artifact,
        }
        for at, (_, item, said) in enumerate(named, turn)
    ]
    connection.execute(insert(schema.publications), rows)
    for number, item, said in named:
        row: dict[str, object] = {"name": fold(said.repository), "publisher": item.by}
        if _is_new(connection, schema.claimants, row):
            connection.execute(insert(schema.claimants).values(row | {"number": number}))


def _add_keys(connection: Connection, log_id: int, item: StatementFacts) -> None:
    """What makes it known by which keys somebody speaks."""
    place = {"log_id": log_id, "index": item.index}
    if isinstance(item.said, IdentityFacts):
        key: dict[str, object] = {"id": item.said.id}
        if _is_new(connection, schema.identities, key):
            row = key | place | {"home": item.said.home, "display": item.said.display}
            connection.execute(insert(schema.identities).values(row))
            revisit(connection, log_id, item.said.id)
    elif isinstance(item.said, NodeKey):
        key = {"id": item.said.id}
        if _is_new(connection, schema.nodes, key):
            connection.execute(insert(schema.nodes).values(key | {"key": item.said.key}))
            revisit(connection, log_id, item.said.id)
    elif item.predicate == ROTATED:
        key = {"identity": item.by, "statement": item.statement}
        if _is_new(connection, schema.rotations, key):
            connection.execute(insert(schema.rotations).values(key | place))
            revisit(connection, log_id, item.by)


def _is_new(connection: Connection, table: Table, key: dict[str, object]) -> bool:
    wanted = select(func.count()).select_from(table).where(*(table.c[name] == value for name, value in key.items()))
    return connection.execute(wanted).scalar() == 0


def _next(turn: int | None) -> int:
    return 0 if turn is None else turn + 1


MAX_LINES: Final = 256
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one stretch."""

_LOG = schema.logs.c
_ENTRY = schema.entries.c
_INTAKE = schema.intake.c


@dataclass(frozen=True, slots=True)
class IntakeBatch:
    """The next lines of a log for the intake, the first at `start`; `behind` where the log has more after them."""

    log: str
    start: int
    lines: tuple[bytes, ...]
    behind: bool


@dataclass(frozen=True, slots=True)
class ParkedLine:
    """A line that waits for its author's keys. `log` is the verifier key of the log where it stands."""

    log: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Revisit:
    """An author whose parked lines are to be looked at again on behalf of a log, and the next of them; none are left
    where `lines` is empty."""

    log: str
    author: Digest
    round: int
    lines: tuple[ParkedLine, ...]


@dataclass(frozen=True, slots=True)
class JudgedLines:
    """What came of lines of one log: what is proven, and what waits, with its author; the rest proves nothing."""

    log: str
    proven: tuple[StatementFacts, ...] = ()
    waiting: tuple[tuple[int, Digest], ...] = ()
    seen: Mapping[Digest, int] = field(default_factory=dict)
    """How much was known of the keys of those that wait when their lines were judged (`keys_known`)."""
    refused: tuple[int, ...] = ()
    """Parked lines that can never be proven."""


class IntakeStore:
    """Thread-safe. One caller commits at a time; own logs may be appended to between."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken: Counter[str] = Counter()

    def position(self, log: str) -> int:
        """Every entry of a log below it went through the intake. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            return position(connection, find_log(connection, log))

    def behind(self) -> list[str]:
        """The logs that have more for the intake, or parked lines to look at again, by verifier key."""
        done = func.coalesce(_INTAKE.position, 0)
        wanted = select(_LOG.vkey).outerjoin_from(schema.logs, schema.intake, _INTAKE.log_id == _LOG.id)
        again = select(_REVISIT.author).where(_REVISIT.log_id == _LOG.id).exists()
        with self._database.reading() as connection:
            return list(connection.execute(wanted.where((done < _LOG.size) | again).order_by(_LOG.id)).scalars())

    def stretch(self, log: str) -> IntakeBatch:
        """The next lines of a log. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            start = position(connection, row)
            lines = tuple(_next_lines(connection, row, start))
            return IntakeBatch(row.vkey, start, lines, start + len(lines) < row.size)

    def commit(self, stretch: IntakeBatch, judged: JudgedLines) -> int:
        """Let what came of a stretch stand; how many statements are new.

        Raises Conflict (LOG-MOVED) where another one committed the stretch meanwhile.
        """
        with self._database.writing("intake") as connection:
            log = find_log(connection, stretch.log)
            if position(connection, log) != stretch.start:
                raise Conflict("this stretch went through the intake", why=log.origin, code="LOG-MOVED")
            _park(connection, log, judged.waiting)
            new = write_facts(connection, log.id, judged.proven)
            authors = list(dict.fromkeys(author for _, author in judged.waiting))
            for author, known in keys_known(connection, authors).items():
                if known != judged.seen.get(author, 0):
                    revisit(connection, log.id, author)
            move(connection, log, stretch.start, stretch.start + len(stretch.lines))
            return new

    def next_revisit(self, log: str) -> Revisit | None:
        """An author whose parked lines are to be looked at again since a line of this log proved more of its keys."""
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

    def commit_revisit(self, revisit: Revisit, judged: Sequence[JudgedLines]) -> int:
        """Let what came of parked lines stand, log by log; how many statements are new.

        Where more of the author's keys became known meanwhile, its lines are looked at once more, from the first.
        """
        new, woken = 0, Counter[str]()
        with self._database.writing("revisit") as connection:
            for item in judged:
                log = find_log(connection, item.log)
                woken[log.vkey] = write_facts(connection, log.id, item.proven)
                new += woken[log.vkey]
                gone = [*(proven.index for proven in item.proven), *item.refused]
                parked = (_PARKED.log_id == log.id, _PARKED.index.in_(gone))
                connection.execute(delete(schema.parked).where(*parked))
            by = find_log(connection, revisit.log)
            here = (_REVISIT.log_id == by.id, _REVISIT.author == revisit.author, _REVISIT.round == revisit.round)
            if revisit.lines:
                last = find_log(connection, revisit.lines[-1].log)
                place = {"after_log": last.id, "after_index": revisit.lines[-1].index}
                connection.execute(update(schema.revisits).where(*here).values(place))
            else:
                connection.execute(delete(schema.revisits).where(*here))
        self._woken += woken
        return new

    def woken(self, log: str) -> int:
        """How many parked lines of a log (its verifier key) came to stand since the ledger was opened: whoever reads a
        log in its own order begins anew when that number rises."""
        return self._woken[log]

    def revisit(self, log: str, authors: Sequence[Digest]) -> None:
        """Have parked lines of these authors looked at again, on behalf of a log."""
        with self._database.writing("revisit") as connection:
            row = find_log(connection, log)
            for author in authors:
                revisit(connection, row.id, author)

    def keys_known(self, authors: Sequence[Digest]) -> dict[Digest, int]:
        """How much is known of the keys of these authors, at most 256: a number that rises with all that becomes
        known."""
        with self._database.reading() as connection:
            return keys_known(connection, authors)

    def known(self, log: str, statements: Sequence[Digest]) -> dict[Digest, int]:
        """Which of these statements, at most 256, are proven in a log, and where they stand there."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            here = (_STATEMENT.statement.in_(statements), _STATEMENT.log_id == row.id)
            rows = connection.execute(select(_STATEMENT.statement, _STATEMENT.index).where(*here))
            return {name: index for name, index in rows}  # noqa: C416 (rows are no pairs)

    def proven_lines(self, statements: Sequence[Digest]) -> frozenset[Digest]:
        """Digests of the lines by which these statements, at most 256, are proven in whichever logs."""
        wanted = (
            select(_ENTRY.digest)
            .select_from(schema.statements)
            .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
            .where(_STATEMENT.statement.in_(statements))
            .distinct()
        )
        with self._database.reading() as connection:
            return frozenset(connection.execute(wanted).scalars())

    def parked(self) -> int:
        """How many lines wait for keys of their author."""
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(schema.parked)).scalar() or 0


def position(connection: Connection, log: LogRow) -> int:
    """As `Intake.position`, inside a transaction."""
    wanted = select(_INTAKE.position).where(_INTAKE.log_id == log.id)
    return connection.execute(wanted).scalar_one_or_none() or 0


def move(connection: Connection, log: LogRow, start: int, end: int) -> None:
    """Take note that the entries from `start` to `end` went through the intake, where those before them did."""
    if start == end or position(connection, log) != start:
        return
    moved = update(schema.intake).where(_INTAKE.log_id == log.id).values(position=end)
    if not connection.execute(moved).rowcount:
        connection.execute(insert(schema.intake).values(log_id=log.id, position=end))


def _park(connection: Connection, log: LogRow, waiting: Sequence[tuple[int, Digest]]) -> None:
    if waiting:
        rows = [{"log_id": log.id, "index": index, "author": author} for index, author in waiting]
        connection.execute(insert(schema.parked), rows)


def _next_lines(connection: Connection, log: LogRow, start: int) -> Iterator[bytes]:
    end = min(log.size, start + MAX_LINES)
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
