"""What a log costs to keep: its lines, and the side objects that they name, each once however often it is named.

`logs.weight` is the sum, moved in the transaction that moves the entries; `log_objects` has the objects that are in it,
and where each was named first. A row of it is charged to the quota of its log, with the bytes of the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from comity.ledger import schema
from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.statement import SideObject, parse_entry

PAGE: Final = 500
"""Objects asked about in one statement."""

_ENTRY, _OBJECT = schema.entries.c, schema.log_objects.c


def added(connection: Connection, log_id: int, start: int, lines: Sequence[bytes]) -> int:
    """Count `lines`, which now stand at `start`; what they cost."""
    first: dict[Digest, tuple[int, SideObject]] = {}
    for index, line in enumerate(lines, start):
        for item in _named(line):
            first.setdefault(item.digest, (index, item))
    fresh = _unknown(connection, log_id, {digest: item for digest, (_, item) in first.items()})
    if fresh:
        rows = [
            {"log_id": log_id, "digest": item.digest, "index": first[item.digest][0], "size": item.size}
            for item in fresh.values()
        ]
        connection.execute(insert(schema.log_objects), rows)
    return sum(map(len, lines)) + sum(item.size for item in fresh.values())


def freed(connection: Connection, log_id: int, start: int) -> int:
    """Take out of the count what stands from `start` on and is about to go; what it had cost."""
    lines = select(func.coalesce(func.sum(func.length(_ENTRY.line)), 0))
    objects = select(func.coalesce(func.sum(_OBJECT.size), 0))
    later = (_OBJECT.log_id == log_id, _OBJECT.index >= start)
    total = connection.scalar(lines.where(_ENTRY.log_id == log_id, _ENTRY.index >= start)) or 0
    total += connection.scalar(objects.where(*later)) or 0
    if total:
        connection.execute(delete(schema.log_objects).where(*later))
    return int(total)


def cost(connection: Connection, log_id: int, lines: Iterable[bytes]) -> int:
    """What `lines` would cost more than is counted."""
    lines = list(lines)
    named = {item.digest: item for line in lines for item in _named(line)}
    fresh = _unknown(connection, log_id, named)
    return sum(map(len, lines)) + sum(item.size for item in fresh.values())


def _named(line: bytes) -> tuple[SideObject, ...]:
    """The objects that a line of anybody's log names; it may say anything."""
    try:
        return parse_entry(line).statement.objects
    except Malformed:
        return ()


def _unknown(connection: Connection, log_id: int, named: Mapping[Digest, SideObject]) -> dict[Digest, SideObject]:
    known = set[Digest]()
    for page in _pages(named):
        found = select(_OBJECT.digest).where(_OBJECT.log_id == log_id, _OBJECT.digest.in_(page))
        known.update(connection.scalars(found))
    return {digest: item for digest, item in named.items() if digest not in known}


def _pages(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    left = iter(digests)
    while page := list(islice(left, PAGE)):
        yield page
