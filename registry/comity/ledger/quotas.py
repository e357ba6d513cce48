"""Quotas for callers that are not members: usage of this node's own log, and requests to join.

Log usage is counted for ever, in entries and bytes, by author and by caller. A row counts at least one accepted entry,
so the quota for all outsiders also bounds the number of rows. A refused submission leaves no row.

Join requests: one per identity, with these bounds.

    grows with                bound       charged to               at the bound
    waiting requests          MAX_ASKS    the requester's block    evicts the oldest of the block that has most
    requests that are kept    MAX_KEPT    the operator             ASKS-KEPT
    time                      EXPIRY      the requester            deletes requests that were not repeated

Identities are free, but a requester has addresses in few blocks. A block is a block of addresses, a member whose node
forwards the request, or the operators. A request that an operator keeps is deleted only when it is admitted, dismissed
or expired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from comity.ledger import schema
from comity.ledger.database import Database, find_log
from comity.ledger.entry_rows import added_weight
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, OutOfSpace
from comity.trust.frozen import frozen

ALL: Final = "all"
AUTHOR: Final = "author"
CALLER: Final = "caller"

_QUOTA = schema.outside_shares.c


@frozen
class OutsideAmount:
    """A number of entries, and the bytes of their lines and of objects that are new in the log."""

    entries: int = 0
    bytes: int = 0

    def __add__(self, other: OutsideAmount) -> OutsideAmount:
        return OutsideAmount(self.entries + other.entries, self.bytes + other.bytes)

    def part(self, count: int) -> OutsideAmount:
        """Returns one of `count` equal parts, at least 1 entry and 1 byte."""
        return OutsideAmount(max(1, self.entries // count), max(1, self.bytes // count))

    def within(self, limit: OutsideAmount) -> bool:
        return self.entries <= limit.entries and self.bytes <= limit.bytes


@frozen
class OutsideQuota:
    """The quota of one outsider. `kind` and `name` identify an AUTHOR, a CALLER, or ALL outsiders."""

    kind: str
    name: str
    limit: OutsideAmount


class OutsideUsageTable:
    """The usage of a node's own log by outsiders. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, log: str, lines: Sequence[bytes], quotas: Sequence[OutsideQuota]) -> OutsideAmount:
        """Charge what `lines` would add to `log` to each of `quotas`, or to none. Returns the charged amount.

        Check and charge are one transaction. Raises OutOfSpace (LOG-SHARE) if one of the quotas is exceeded.
        """
        with self._database.writing("share") as connection:
            amount = OutsideAmount(len(lines), added_weight(connection, find_log(connection, log).id, lines))
            for quota in quotas:
                self._charge(connection, quota, amount)
        return amount

    def release(self, quotas: Sequence[OutsideQuota], amount: OutsideAmount) -> None:
        """Undo a charge for lines that were not logged."""
        with self._database.writing("share") as connection:
            for quota in quotas:
                used = _usage(connection, quota)
                if used is not None:
                    left = OutsideAmount(max(0, used.entries - amount.entries), max(0, used.bytes - amount.bytes))
                    _set_usage(connection, quota, left)

    def used(self, kind: str, name: str = "") -> OutsideAmount:
        with self._database.reading() as connection:
            return _usage(connection, OutsideQuota(kind, name, OutsideAmount())) or OutsideAmount()

    def _charge(self, connection: Connection, quota: OutsideQuota, amount: OutsideAmount) -> None:
        used = _usage(connection, quota)
        after = (used or OutsideAmount()) + amount
        if not after.within(quota.limit):
            whose = f"{quota.kind} {quota.name}" if quota.name else "the group of all outsiders"
            why = f"{whose} may add {quota.limit.entries} entries and {quota.limit.bytes} bytes; this needs "
            raise OutOfSpace(
                "the quota in this node's log is exceeded",
                why=f"{why}{after.entries} and {after.bytes}",
                hint="publish at another node, or ask the operator to publish at this node's Unix socket",
                code="LOG-SHARE",
            )
        if used is None:
            connection.execute(
                insert(schema.outside_shares).values(
                    kind=quota.kind, name=quota.name, entries=after.entries, bytes=after.bytes
                )
            )
        else:
            _set_usage(connection, quota, after)


def _usage(connection: Connection, quota: OutsideQuota) -> OutsideAmount | None:
    here = (_QUOTA.kind == quota.kind, _QUOTA.name == quota.name)
    row = connection.execute(select(_QUOTA.entries, _QUOTA.bytes).where(*here)).one_or_none()
    return None if row is None else OutsideAmount(row.entries, row.bytes)


def _set_usage(connection: Connection, quota: OutsideQuota, amount: OutsideAmount) -> None:
    here = (_QUOTA.kind == quota.kind, _QUOTA.name == quota.name)
    changed = update(schema.outside_shares).where(*here).values(entries=amount.entries, bytes=amount.bytes)
    connection.execute(changed)


MAX_ASKS: Final = 256
MAX_KEPT: Final = 64
EXPIRY: Final = 90 * 86_400
"""Seconds after which a request is deleted unless it was repeated."""

_ASK = schema.asks.c


@frozen
class StoredJoinRequest:
    """A request to join: the identity, the time of its first request (POSIX seconds), and the lines of its card.

    `block` is the block that the request counts for; `kept` is true if an operator keeps the request.
    """

    member: Digest
    since: int
    lines: tuple[bytes, ...]
    block: str = ""
    kept: bool = False


class JoinRequestTable:
    """The waiting requests to join. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def put(
        self, member: Digest, lines: Sequence[bytes], block: str = ""
    ) -> tuple[StoredJoinRequest, StoredJoinRequest | None]:
        """Store a card; replaces an older card of the same identity. Returns the request, and the request that was
        evicted for it.

        A request that came from two blocks counts for the block with fewer requests, so another caller cannot repeat
        it from a full block to have it evicted.
        """
        card, now = b"\n".join(lines), int(self._clock())
        with self._database.writing("ask") as connection:
            connection.execute(delete(schema.asks).where(_ASK.asked < now - EXPIRY))
            row = connection.execute(select(schema.asks).where(_ASK.member == member)).one_or_none()
            waiting = _waiting(connection)
            if row is not None:
                smaller = min(row.block, block, key=lambda name: waiting.get(name, 0) - (name == row.block))
                changed = {"card": card, "asked": now, "block": smaller}
                connection.execute(update(schema.asks).where(_ASK.member == member).values(**changed))
                return StoredJoinRequest(member, row.since, tuple(lines), smaller, row.kept), None
            evicted = _evict(connection, waiting, block)
            added = {"member": member, "since": now, "asked": now, "block": block, "kept": False, "card": card}
            connection.execute(insert(schema.asks).values(**added))
            return StoredJoinRequest(member, now, tuple(lines), block), evicted

    def keep(self, member: Digest) -> None:
        """Protect a request from eviction. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        with self._database.writing("ask") as connection:
            kept = connection.scalar(select(func.count()).select_from(schema.asks).where(_ASK.kept)) or 0
            if kept >= MAX_KEPT:
                why = f"at most {MAX_KEPT}"
                raise OutOfSpace(
                    "too many requests are kept", why=why, hint="comity member dismiss ID", code="ASKS-KEPT"
                )
            found = connection.execute(update(schema.asks).where(_ASK.member == member).values(kept=True))
            _require(found.rowcount, member)

    def dismiss(self, member: Digest) -> None:
        """Delete a request; the identity may ask again. Raises NotFound (NO-ASK)."""
        with self._database.writing("ask") as connection:
            _require(connection.execute(delete(schema.asks).where(_ASK.member == member)).rowcount, member)

    def drop(self, member: Digest) -> None:
        """Delete the request of an identity that was admitted. No effect if there is none."""
        with self._database.writing("ask") as connection:
            connection.execute(delete(schema.asks).where(_ASK.member == member))

    def waiting(self) -> list[Digest]:
        """Returns the identities that wait: kept requests first, then in the order of the requests."""
        after = int(self._clock()) - EXPIRY
        with self._database.reading() as connection:
            wanted = select(_ASK.member).where(_ASK.asked >= after).order_by(_ASK.kept.desc(), _ASK.id)
            return list(connection.scalars(wanted))

    def get(self, member: Digest) -> StoredJoinRequest | None:
        """Returns the request of an identity, or None. All cards together may have 64 MiB, so read them one by one."""
        with self._database.reading() as connection:
            row = connection.execute(select(schema.asks).where(_ASK.member == member)).one_or_none()
            return None if row is None else _from_row(row)

    def count(self) -> int:
        after = int(self._clock()) - EXPIRY
        with self._database.reading() as connection:
            wanted = select(func.count()).select_from(schema.asks).where(_ASK.asked >= after)
            return connection.scalar(wanted) or 0


def _waiting(connection: Connection) -> dict[str, int]:
    """Returns the number of requests that are not kept, by block."""
    counted = select(_ASK.block, func.count()).where(~_ASK.kept).group_by(_ASK.block)
    return {block: count for block, count in connection.execute(counted)}  # noqa: C416 (rows are no pairs)


def _evict(connection: Connection, waiting: dict[str, int], block: str) -> StoredJoinRequest | None:
    """If the table is full, delete the oldest request of the block that has most, and return it. If the caller's own
    block has as many as any other, it is chosen; otherwise, among equals, the block with the oldest request."""
    total = connection.scalar(select(func.count()).select_from(schema.asks)) or 0
    if total < MAX_ASKS:
        return None
    most = max(waiting.values())
    largest = [block] if waiting.get(block, 0) == most else [name for name, count in waiting.items() if count == most]
    oldest = select(schema.asks).where(~_ASK.kept, _ASK.block.in_(largest)).order_by(_ASK.since, _ASK.id).limit(1)
    row = connection.execute(oldest).one()
    connection.execute(delete(schema.asks).where(_ASK.id == row.id))
    return _from_row(row)


def _from_row(row: Row[tuple[object, ...]]) -> StoredJoinRequest:
    return StoredJoinRequest(
        row.member, row.since, tuple(row.card.split(b"\n")) if row.card else (), row.block, row.kept
    )


def _require(found: int, member: Digest) -> None:
    if not found:
        why = f"{member[:16]} has no request here"
        raise NotFound("no such request to join", why=why, hint="comity member asks", code="NO-ASK")
