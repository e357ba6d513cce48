"""The lines of logs: checked and hashed outside of any transaction, then written, cut and read inside of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from comity.ledger import intake, proving, schema
from comity.ledger.facts import fact
from comity.ledger.rows import LogRow
from comity.ledger.tree import corrupt
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.tiles import MAX_ENTRY

MAX_LINES: Final = 8192
"""Lines in one call; a longer stretch is staged in steps."""

WINDOW: Final = 256
"""Rows that a read holds at a time."""

_ENTRY = schema.entries.c


@dataclass(frozen=True, slots=True)
class Leaf:
    """A line on its way into a log. `entry` is what stands as proven at once: lines of this node's own log."""

    line: bytes
    digest: Digest
    hash: bytes
    entry: Entry | None


def own_leaves(lines: Sequence[bytes]) -> list[Leaf]:
    """Lines for a log of this node, which has proven them: each must be a statement. Raises Malformed."""
    _check_bounds(lines)
    return [_leaf(line, parse_entry(line)) for line in lines]


def foreign_leaves(lines: Sequence[bytes]) -> list[Leaf]:
    """Lines of another node's log, kept whatever they say. Raises Malformed beyond the bounds only."""
    _check_bounds(lines)
    return [_leaf(line, None) for line in lines]


def write(connection: Connection, log: LogRow, start: int, leaves: Sequence[Leaf]) -> None:
    """Put `leaves` at `start`, which must be free. Those of an own log stand as proven."""
    if not leaves:
        return
    connection.execute(
        insert(schema.entries),
        [
            {"log_id": log.id, "index": at, "line": leaf.line, "digest": leaf.digest}
            for at, leaf in enumerate(leaves, start)
        ],
    )
    if log.own:
        facts = (fact(at, leaf.entry) for at, leaf in enumerate(leaves, start) if leaf.entry is not None)
        proving.write(connection, log.id, [item for item in facts if item is not None])
        intake.move(connection, log, start, start + len(leaves))


def cut(connection: Connection, log: LogRow, start: int) -> None:
    """Remove what was staged from `start` on."""
    connection.execute(delete(schema.entries).where(_ENTRY.log_id == log.id, _ENTRY.index >= start))


def read(connection: Connection, log: LogRow, start: int, end: int) -> Iterator[bytes]:
    """The lines `start` up to `end`, in order. Raises Untrusted(code="LEDGER-CORRUPT") where one is missing."""
    inside = (_ENTRY.log_id == log.id, _ENTRY.index >= start, _ENTRY.index < end)
    found = connection.execute(select(_ENTRY.index, _ENTRY.line).where(*inside).order_by(_ENTRY.index))
    at = start
    for number, line in found.yield_per(WINDOW):
        if number != at:
            break
        yield line
        at += 1
    if at < end:
        raise corrupt(log.origin, f"entry {at} is missing")


def pick(connection: Connection, log: LogRow, indexes: Sequence[int]) -> dict[int, bytes]:
    """The lines at these indexes. Raises Untrusted(code="LEDGER-CORRUPT") where one is missing."""
    wanted = select(_ENTRY.index, _ENTRY.line).where(_ENTRY.log_id == log.id, _ENTRY.index.in_(indexes))
    found: dict[int, bytes] = {at: line for at, line in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)
    if missing := set(indexes) - found.keys():
        raise corrupt(log.origin, f"entry {min(missing)} is missing")
    return found


def _check_bounds(lines: Sequence[bytes]) -> None:
    if len(lines) > MAX_LINES:
        raise Malformed("too many entries", why=f"{len(lines)} in one call, at most {MAX_LINES}")
    longest = max(map(len, lines), default=0)
    if longest > MAX_ENTRY:
        raise Malformed("entry too large", why=f"{longest} bytes, at most {MAX_ENTRY}")


def _leaf(line: bytes, entry: Entry | None) -> Leaf:
    return Leaf(line, sha256(line), leaf_hash(line), entry)
