"""Rows of log entries: write, read and delete them, and the weight that they add to their log.

The weight of a log is its storage use: the bytes of its lines, of each side object that they name, counted once, and
`LINE_OVERHEAD` for each line. `logs.weight` has the first two, and changes in the same transaction as the entries.
`log_objects` has the counted objects and the entry that names each first. Its rows are charged to the quota of their
log, together with the bytes of the object.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from sqlalchemy import Connection, LargeBinary, delete, func, insert, select, type_coerce

from comity.ledger import intake, schema
from comity.ledger.database import LogRow
from comity.ledger.intake import insert_facts, statement_facts
from comity.ledger.stored_lines import line_size
from comity.ledger.tree import corrupt_ledger
from comity.rules.tiles import MAX_ENTRY
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.tlog.merkle import leaf_hash

MAX_LINES: Final = 8192
"""Lines or entries in one call. Stage more in several steps."""

LINE_OVERHEAD: Final = 1024
"""Bytes that a line costs beside its own: at most 400 for its rows here, and 560 more for those of a verified
publication, measured in SQLite. Without it, short lines would use several times their quota."""

WINDOW: Final = 256
"""Rows that a read holds in memory."""

PAGE: Final = 500
"""Objects in one query."""

REMEMBERED_LINES: Final = 8192
"""Lines whose side objects are kept: those of two steps of mirroring, with at most 2 kB and 20 objects each."""
REMEMBERED_BYTES: Final = 2048

_PAYLOAD: Final = b'{"payload":"'

_ENTRY = schema.entries.c
_OBJECT = schema.log_objects.c


@frozen
class NewEntry:
    """A line to write, and the side objects that it names: found before the transaction, which others wait for.

    `parsed` is set for lines of an own log, which are verified already.
    """

    line: bytes
    digest: Digest
    hash: bytes
    parsed: Entry | None
    objects: tuple[SideObject, ...]


def parse_own_entries(lines: Sequence[bytes]) -> list[NewEntry]:
    """Parse lines for an own log, which the node has verified. Raises Malformed if a line is no statement."""
    _check_bounds(lines)
    return [_new_entry(line, parse_entry(line)) for line in lines]


def hash_mirrored_entries(lines: Sequence[bytes]) -> list[NewEntry]:
    """Hash lines for a mirrored log, which may be no statements. Raises Malformed above the size limits."""
    _check_bounds(lines)
    return [_new_entry(line, None) for line in lines]


def write_entries(connection: Connection, log: LogRow, start: int, entries: Sequence[NewEntry]) -> None:
    """Insert `entries` at `start`, which must be free. Entries of an own log are indexed as verified; their
    statements are new in it."""
    if not entries:
        return
    connection.execute(
        insert(schema.entries),
        [
            {"log_id": log.id, "index": at, "line": entry.line, "digest": entry.digest}
            for at, entry in enumerate(entries, start)
        ],
    )
    if log.own:
        parsed = ((at, entry.parsed) for at, entry in enumerate(entries, start))
        facts = (statement_facts(at, entry) for at, entry in parsed if entry is not None)
        insert_facts(connection, log.id, [item for item in facts if item is not None])
        intake.advance_position(connection, log, start, start + len(entries))


def delete_entries(connection: Connection, log: LogRow, start: int) -> None:
    """Delete the staged entries from `start`."""
    connection.execute(delete(schema.entries).where(_ENTRY.log_id == log.id, _ENTRY.index >= start))


def read_entries(connection: Connection, log: LogRow, start: int, end: int) -> Iterator[bytes]:
    """Yields the lines from `start` to before `end`. Raises Untrusted(code="LEDGER-CORRUPT") if a line is missing."""
    inside = (_ENTRY.log_id == log.id, _ENTRY.index >= start, _ENTRY.index < end)
    found = connection.execute(select(_ENTRY.index, _ENTRY.line).where(*inside).order_by(_ENTRY.index))
    at = start
    for number, line in found.yield_per(WINDOW):
        if number != at:
            break
        yield line
        at += 1
    if at < end:
        raise corrupt_ledger(log.origin, f"entry {at} is missing")


def pick_entries(connection: Connection, log: LogRow, indexes: Sequence[int]) -> dict[int, bytes]:
    """Returns the lines at these indexes. Raises Untrusted(code="LEDGER-CORRUPT") if a line is missing."""
    wanted = select(_ENTRY.index, _ENTRY.line).where(_ENTRY.log_id == log.id, _ENTRY.index.in_(indexes))
    found: dict[int, bytes] = {at: line for at, line in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)
    if missing := set(indexes) - found.keys():
        raise corrupt_ledger(log.origin, f"entry {min(missing)} is missing")
    return found


def _check_bounds(lines: Sequence[bytes]) -> None:
    if len(lines) > MAX_LINES:
        raise Malformed("too many entries", why=f"{len(lines)} in one call, at most {MAX_LINES}")
    longest = max(map(len, lines), default=0)
    if longest > MAX_ENTRY:
        raise Malformed("entry too large", why=f"{longest} bytes, at most {MAX_ENTRY}")


def _new_entry(line: bytes, entry: Entry | None) -> NewEntry:
    objects = named_objects(line) if entry is None else entry.statement.objects
    return NewEntry(line, sha256(line), leaf_hash(line), entry, objects)


def entries_weight(connection: Connection, log_id: int, start: int, entries: Sequence[NewEntry]) -> int:
    """Record the side objects of `entries`, which were written at `start`. Returns what they add to `logs.weight`."""
    first: dict[Digest, tuple[int, SideObject]] = {}
    for index, entry in enumerate(entries, start):
        for item in entry.objects:
            first.setdefault(item.digest, (index, item))
    fresh = _unknown(connection, log_id, {digest: item for digest, (_, item) in first.items()})
    if fresh:
        rows = [
            {"log_id": log_id, "digest": item.digest, "index": first[item.digest][0], "size": item.size}
            for item in fresh.values()
        ]
        connection.execute(insert(schema.log_objects), rows)
    return sum(len(entry.line) for entry in entries) + sum(item.size for item in fresh.values())


def freed_weight(connection: Connection, log_id: int, start: int) -> int:
    """Delete the side object rows of entries from `start`, which are deleted next. Returns what `logs.weight`
    loses by it."""
    stored = select(type_coerce(_ENTRY.line, LargeBinary)).where(_ENTRY.log_id == log_id, _ENTRY.index >= start)
    total = sum(line_size(line) for line in connection.execute(stored).yield_per(WINDOW).scalars())
    objects = select(func.coalesce(func.sum(_OBJECT.size), 0))
    later = (_OBJECT.log_id == log_id, _OBJECT.index >= start)
    total += connection.scalar(objects.where(*later)) or 0
    if total:
        connection.execute(delete(schema.log_objects).where(*later))
    return int(total)


def added_weight(connection: Connection, log_id: int, lines: Iterable[bytes]) -> int:
    """Returns the weight that `lines` would add."""
    lines = list(lines)
    named = {item.digest: item for line in lines for item in named_objects(line)}
    fresh = _unknown(connection, log_id, named)
    return sum(len(line) + LINE_OVERHEAD for line in lines) + sum(item.size for item in fresh.values())


def named_objects(line: bytes) -> tuple[SideObject, ...]:
    """Returns the side objects that a line names; none if the line is no statement. Each line of a log is asked about
    several times while it is mirrored, so that those of the last short lines are kept."""
    return _remembered_objects(line) if len(line) <= REMEMBERED_BYTES else _parsed_objects(line)


def _parsed_objects(line: bytes) -> tuple[SideObject, ...]:
    if _has_no_objects(line):
        return ()
    try:
        return parse_entry(line).statement.objects
    except Malformed:
        return ()


def _has_no_objects(line: bytes) -> bool:
    """Whether it is seen without parsing that a line names no side objects: nowhere in its payload is their member's
    name, nor an escape that could write it. False is no answer."""
    if not line.startswith(_PAYLOAD):
        return False
    try:
        payload = binascii.a2b_base64(line[len(_PAYLOAD) : line.index(b'"', len(_PAYLOAD))])
    except ValueError:
        return False
    return b"objects" not in payload and b"\\u" not in payload


_remembered_objects: Final = lru_cache(REMEMBERED_LINES)(_parsed_objects)


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
