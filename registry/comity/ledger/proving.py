"""Writing what is proven: each statement once a log, with what it says in the tables where that is looked up.

Called inside the transaction that lets the lines stand as proven. Whatever the order in which lines are proven, the
same rows come out, but for the numbers that count that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, func, insert, select, update

from comity.ledger import schema
from comity.ledger.facts import PUBLISHED, ROTATED, Fact, Identity, Named, NodeKey, fold
from comity.trust.digest import Digest
from comity.trust.upstream.observed import OBSERVED

_STATEMENT, _SUBJECT, _PUBLICATION = schema.statements.c, schema.subjects.c, schema.publications.c
_PARKED, _REVISIT = schema.parked.c, schema.revisits.c


def write(connection: Connection, log_id: int, facts: Iterable[Fact]) -> int:
    """Let lines of a log stand as proven; how many of them say something that the log had not said before.

    Of the copies of one statement in one log the first stands, also where a later one was proven before it.
    """
    once: dict[Digest, Fact] = {}
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


def _move(connection: Connection, log_id: int, index: int, item: Fact) -> None:
    """Let the statement at `index` stand where an earlier copy of it does."""
    to = {"index": item.index}
    place = (_STATEMENT.log_id == log_id, _STATEMENT.index == index)
    connection.execute(update(schema.statements).where(*place).values(to))
    about = (_SUBJECT.digest.in_(item.subjects), _SUBJECT.kind == item.kind, _SUBJECT.log_id == log_id)
    connection.execute(update(schema.subjects).where(*about, _SUBJECT.index == index).values(to))
    if isinstance(item.said, Named):
        named = (_PUBLICATION.name == fold(item.said.repository), _PUBLICATION.publisher == item.by)
        here = (_PUBLICATION.log_id == log_id, _PUBLICATION.index == index)
        connection.execute(update(schema.publications).where(*named, *here).values(to))


def _add(connection: Connection, log_id: int, facts: Sequence[Fact]) -> None:
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


def _add_subjects(connection: Connection, log_id: int, facts: Sequence[Fact]) -> None:
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


def _add_publications(connection: Connection, log_id: int, numbered: Sequence[tuple[int, Fact]]) -> None:
    named = [(number, item, item.said) for number, item in numbered if isinstance(item.said, Named)]
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


def _add_keys(connection: Connection, log_id: int, item: Fact) -> None:
    """What makes it known by which keys somebody speaks."""
    place = {"log_id": log_id, "index": item.index}
    if isinstance(item.said, Identity):
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
