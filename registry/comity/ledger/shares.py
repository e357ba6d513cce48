"""What outsiders have brought into this node's own log, by whom it was brought: entries and bytes, for ever.

A row stands for at least one entry that was let in, so there are at most as many as outsiders together may bring, and
they are charged to that. What is refused leaves no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select, update

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.rows import find_log
from comity.ledger.weights import cost
from comity.trust.errors import OutOfSpace

ALL: Final = "all"
AUTHOR: Final = "author"
CALLER: Final = "caller"

_SHARE = schema.outside_shares.c


@dataclass(frozen=True, slots=True)
class Amount:
    """So many entries, and bytes of lines and objects that were not in the log before."""

    entries: int = 0
    bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.entries + other.entries, self.bytes + other.bytes)

    def part(self, count: int) -> Amount:
        """One of `count` equal parts; of anything at least one."""
        return Amount(max(1, self.entries // count), max(1, self.bytes // count))

    def within(self, most: Amount) -> bool:
        return self.entries <= most.entries and self.bytes <= most.bytes


@dataclass(frozen=True, slots=True)
class Share:
    """What one outsider may bring in all. `kind` and `name` say who: an AUTHOR, a CALLER, or ALL of them."""

    kind: str
    name: str
    most: Amount


class OutsideShares:
    """The shares of a node's own log. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, log: str, lines: Sequence[bytes], shares: Sequence[Share]) -> Amount:
        """Charge what `lines` would add to `log` to each of `shares`, or to none; what that was.

        The look and the charge are one transaction: nobody's second call slips in between. Raises OutOfSpace
        (LOG-SHARE) where one of the shares does not have it.
        """
        with self._database.writing("share") as connection:
            amount = Amount(len(lines), cost(connection, find_log(connection, log).id, lines))
            for share in shares:
                self._charge(connection, share, amount)
        return amount

    def give_back(self, shares: Sequence[Share], amount: Amount) -> None:
        """What was charged was not logged after all."""
        with self._database.writing("share") as connection:
            for share in shares:
                had = _had(connection, share)
                if had is not None:
                    left = Amount(max(0, had.entries - amount.entries), max(0, had.bytes - amount.bytes))
                    _set(connection, share, left)

    def used(self, kind: str, name: str = "") -> Amount:
        with self._database.reading() as connection:
            return _had(connection, Share(kind, name, Amount())) or Amount()

    def _charge(self, connection: Connection, share: Share, amount: Amount) -> None:
        had = _had(connection, share)
        after = (had or Amount()) + amount
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


def _had(connection: Connection, share: Share) -> Amount | None:
    here = (_SHARE.kind == share.kind, _SHARE.name == share.name)
    row = connection.execute(select(_SHARE.entries, _SHARE.bytes).where(*here)).one_or_none()
    return None if row is None else Amount(row.entries, row.bytes)


def _set(connection: Connection, share: Share, amount: Amount) -> None:
    here = (_SHARE.kind == share.kind, _SHARE.name == share.name)
    changed = update(schema.outside_shares).where(*here).values(entries=amount.entries, bytes=amount.bytes)
    connection.execute(changed)
