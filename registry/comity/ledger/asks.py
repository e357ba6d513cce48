"""Requests to join that wait here: one an identity, so many in all, and of no block of addresses more than of others.

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
from comity.ledger.database import Database
from comity.trust.digest import Digest
from comity.trust.errors import NotFound, OutOfSpace

MAX_ASKS: Final = 256
MAX_KEPT: Final = 64
EXPIRY: Final = 90 * 86_400
"""Seconds after which a request goes that was not made again."""

_ASK = schema.asks.c


@dataclass(frozen=True, slots=True)
class KeptAsk:
    """A request to join: who asks, since when (POSIX seconds), and the card, a line each.

    `block` is what the caller was counted by; `kept`, whether an operator keeps it.
    """

    member: Digest
    since: int
    lines: tuple[bytes, ...]
    block: str = ""
    kept: bool = False


class Asks:
    """The list of those who ask to join. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def put(self, member: Digest, lines: Sequence[bytes], block: str = "") -> tuple[KeptAsk, KeptAsk | None]:
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
                return KeptAsk(member, row.since, tuple(lines), smaller, row.kept), None
            gone = _make_room(connection, waiting, block)
            added = {"member": member, "since": now, "asked": now, "block": block, "kept": False, "card": card}
            connection.execute(insert(schema.asks).values(**added))
            return KeptAsk(member, now, tuple(lines), block), gone

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

    def get(self, member: Digest) -> KeptAsk | None:
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


def _make_room(connection: Connection, waiting: dict[str, int], block: str) -> KeptAsk | None:
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


def _kept(row: Row[tuple[object, ...]]) -> KeptAsk:
    return KeptAsk(row.member, row.since, tuple(row.card.split(b"\n")) if row.card else (), row.block, row.kept)


def _require(found: int, member: Digest) -> None:
    if not found:
        why = f"{member[:16]} does not wait here"
        raise NotFound("nobody asks to join under that id", why=why, hint="comity member asks", code="NO-ASK")
