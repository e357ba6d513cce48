"""What outsiders have brought into this node's own log, by whom it was brought: entries and bytes, for ever.

A row stands for at least one entry that was let in, so there are at most as many as outsiders together may bring, and
they are charged to that. What is refused leaves no row.


Requests to join that wait here: one an identity, so many in all, and of no block of addresses more than of others.

    grows with                      bound       charged to               at the bound
    requests that wait              MAX_ASKS    the block of who asked   the oldest of the block with most of them goes
    those that an operator keeps    MAX_KEPT    the operator             ASKS-KEPT
    time                            EXPIRY      who asked                who does not ask again goes

Anybody can make identities, and has the addresses of few blocks. A block is whatever the caller is counted by: one of
addresses, a member whose node hands the request on, or the operators. What an operator keeps goes only when it is
admitted, dismissed, or not asked for again in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from comity.ledger import schema
from comity.ledger.database import Database, find_log
from comity.ledger.log_store import added_weight
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, OutOfSpace

ALL: Final = "all"
AUTHOR: Final = "author"
CALLER: Final = "caller"

_SHARE = schema.outside_shares.c


@dataclass(frozen=True, slots=True)
class OutsideAmount:
    """So many entries, and bytes of lines and objects that were not in the log before."""

    entries: int = 0
    bytes: int = 0

    def __add__(self, other: OutsideAmount) -> OutsideAmount:
        return OutsideAmount(self.entries + other.entries, self.bytes + other.bytes)

    def part(self, count: int) -> OutsideAmount:
        """One of `count` equal parts; of anything at least one."""
        return OutsideAmount(max(1, self.entries // count), max(1, self.bytes // count))

    def within(self, most: OutsideAmount) -> bool:
        return self.entries <= most.entries and self.bytes <= most.bytes


@dataclass(frozen=True, slots=True)
class OutsideShare:
    """What one outsider may bring in all. `kind` and `name` say who: an AUTHOR, a CALLER, or ALL of them."""

    kind: str
    name: str
    most: OutsideAmount


class OutsideShares:
    """The shares of a node's own log. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, log: str, lines: Sequence[bytes], shares: Sequence[OutsideShare]) -> OutsideAmount:
        """Charge what `lines` would add to `log` to each of `shares`, or to none; what that was.

        The look and the charge are one transaction: nobody's second call slips in between. Raises OutOfSpace
        (LOG-SHARE) where one of the shares does not have it.
        """
        with self._database.writing("share") as connection:
            amount = OutsideAmount(len(lines), added_weight(connection, find_log(connection, log).id, lines))
            for share in shares:
                self._charge(connection, share, amount)
        return amount

    def give_back(self, shares: Sequence[OutsideShare], amount: OutsideAmount) -> None:
        """What was charged was not logged after all."""
        with self._database.writing("share") as connection:
            for share in shares:
                had = _had(connection, share)
                if had is not None:
                    left = OutsideAmount(max(0, had.entries - amount.entries), max(0, had.bytes - amount.bytes))
                    _set(connection, share, left)

    def used(self, kind: str, name: str = "") -> OutsideAmount:
        with self._database.reading() as connection:
            return _had(connection, OutsideShare(kind, name, OutsideAmount())) or OutsideAmount()

    def _charge(self, connection: Connection, share: OutsideShare, amount: OutsideAmount) -> None:
        had = _had(connection, share)
        after = (had or OutsideAmount()) + amount
        if not after.within(share.most):
            whose = f"{share.kind} {share.name}" if share.name else "everybody outside"
            why = f"{whose} has {share.most.entries} entries and {share.most.bytes} bytes of it; this would make "
            raise OutOfSpace(
                "no room in this node's log",
                why=f"{why}{after.entries} and {after.bytes}",
                hint="publish at another node, or ask this node's operator to log it at its own socket",
                code="LOG-SHARE",
            )
        if had is None:
            connection.execute(
                insert(schema.outside_shares).values(
                    kind=share.kind, name=share.name, entries=after.entries, bytes=after.bytes
                )
            )
        else:
            _set(connection, share, after)


def _had(connection: Connection, share: OutsideShare) -> OutsideAmount | None:
    here = (_SHARE.kind == share.kind, _SHARE.name == share.name)
    row = connection.execute(select(_SHARE.entries, _SHARE.bytes).where(*here)).one_or_none()
    return None if row is None else OutsideAmount(row.entries, row.bytes)


def _set(connection: Connection, share: OutsideShare, amount: OutsideAmount) -> None:
    here = (_SHARE.kind == share.kind, _SHARE.name == share.name)
    changed = update(schema.outside_shares).where(*here).values(entries=amount.entries, bytes=amount.bytes)
    connection.execute(changed)


MAX_ASKS: Final = 256
MAX_KEPT: Final = 64
EXPIRY: Final = 90 * 86_400
"""Seconds after which a request goes that was not made again."""

_ASK = schema.asks.c


@dataclass(frozen=True, slots=True)
class StoredJoinRequest:
    """A request to join: who asks, since when (POSIX seconds), and the card, a line each.

    `block` is what the caller was counted by; `kept`, whether an operator keeps it.
    """

    member: Digest
    since: int
    lines: tuple[bytes, ...]
    block: str = ""
    kept: bool = False


class JoinRequestTable:
    """The list of those who ask to join. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def put(
        self, member: Digest, lines: Sequence[bytes], block: str = ""
    ) -> tuple[StoredJoinRequest, StoredJoinRequest | None]:
        """Note a card, in place of an older one of the same identity; and the request that had to go for it.

        Asked for from two blocks it counts for the one with fewer requests: nobody draws it into a crowd.
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
            gone = _make_room(connection, waiting, block)
            added = {"member": member, "since": now, "asked": now, "block": block, "kept": False, "card": card}
            connection.execute(insert(schema.asks).values(**added))
            return StoredJoinRequest(member, now, tuple(lines), block), gone

    def keep(self, member: Digest) -> None:
        """Let no other request take its place. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT)."""
        with self._database.writing("ask") as connection:
            kept = connection.scalar(select(func.count()).select_from(schema.asks).where(_ASK.kept)) or 0
            if kept >= MAX_KEPT:
                why = f"{MAX_KEPT} requests are kept"
                raise OutOfSpace("too many are kept", why=why, hint="comity member dismiss ID", code="ASKS-KEPT")
            found = connection.execute(update(schema.asks).where(_ASK.member == member).values(kept=True))
            _require(found.rowcount, member)

    def dismiss(self, member: Digest) -> None:
        """Let a request go; who made it may ask again. Raises NotFound (NO-ASK)."""
        with self._database.writing("ask") as connection:
            _require(connection.execute(delete(schema.asks).where(_ASK.member == member)).rowcount, member)

    def drop(self, member: Digest) -> None:
        """Somebody waits no longer: admitted. A no-op where nobody of that id waits."""
        with self._database.writing("ask") as connection:
            connection.execute(delete(schema.asks).where(_ASK.member == member))

    def waiting(self) -> list[Digest]:
        """Who waits: those that are kept, then in the order of asking."""
        after = int(self._clock()) - EXPIRY
        with self._database.reading() as connection:
            wanted = select(_ASK.member).where(_ASK.asked >= after).order_by(_ASK.kept.desc(), _ASK.id)
            return list(connection.scalars(wanted))

    def get(self, member: Digest) -> StoredJoinRequest | None:
        """The request of an identity; a list of all cards may take 64 MiB, so they are had one by one."""
        with self._database.reading() as connection:
            row = connection.execute(select(schema.asks).where(_ASK.member == member)).one_or_none()
            return None if row is None else _kept(row)

    def count(self) -> int:
        after = int(self._clock()) - EXPIRY
        with self._database.reading() as connection:
            wanted = select(func.count()).select_from(schema.asks).where(_ASK.asked >= after)
            return connection.scalar(wanted) or 0


def _waiting(connection: Connection) -> dict[str, int]:
    """How many requests that nobody keeps wait, by block."""
    counted = select(_ASK.block, func.count()).where(~_ASK.kept).group_by(_ASK.block)
    return {block: count for block, count in connection.execute(counted)}  # noqa: C416 (rows are no pairs)


def _make_room(connection: Connection, waiting: dict[str, int], block: str) -> StoredJoinRequest | None:
    """Where the list is full, let the oldest request of the block with most of them go: of the caller's own block, if
    none has more; else, among equals, of the one whose oldest is oldest."""
    total = connection.scalar(select(func.count()).select_from(schema.asks)) or 0
    if total < MAX_ASKS:
        return None
    most = max(waiting.values())
    crowded = [block] if waiting.get(block, 0) == most else [name for name, count in waiting.items() if count == most]
    oldest = select(schema.asks).where(~_ASK.kept, _ASK.block.in_(crowded)).order_by(_ASK.since, _ASK.id).limit(1)
    row = connection.execute(oldest).one()
    connection.execute(delete(schema.asks).where(_ASK.id == row.id))
    return _kept(row)


def _kept(row: Row[tuple[object, ...]]) -> StoredJoinRequest:
    return StoredJoinRequest(
        row.member, row.since, tuple(row.card.split(b"\n")) if row.card else (), row.block, row.kept
    )


def _require(found: int, member: Digest) -> None:
    if not found:
        why = f"{member[:16]} does not wait here"
        raise NotFound("nobody asks to join under that id", why=why, hint="comity member asks", code="NO-ASK")
