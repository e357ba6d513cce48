"""Room in this node's log for what outsiders bring. The other nodes follow the log up to a quota, and half of it is
this node's own: nothing that anybody else hands in can use that up.

    what is handed in                              charged to                      each has at most
    by this node's operators, or by its member     nobody                          the whole log
    a word of a member that needs no permission    its author                      a part of the half
    by an author whom the operator accepts         its author, and all outsiders   a part of the half; the half
    anything else                                  its author, all, the caller     the same

A part is 1/16. What counts are entries, and bytes that were not in the log before, with side objects. They are charged
once the statements are proven to be their author's, for ever, and given back where nothing is logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from comity.ledger.shares import ALL, AUTHOR, CALLER, Amount, Share
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import Author, Entry
from comity.wire.doors import Caller

PARTS: Final = 16
"""Of what is for outsiders, one author and one caller (an address block, or a certificate) have a part each."""


@dataclass(slots=True)
class Charge:
    """What a submission is charged for; `logged` says that it stays so."""

    logged: bool = False

    @contextmanager
    def logging(self) -> Iterator[None]:
        """While its lines are logged. A caller who goes away in between does not get the charge back."""
        self.logged = True
        try:
            yield
        except ComityError:
            self.logged = False
            raise


class OutsideRoom:
    """The room that outsiders have, and what they have used of it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        limits = core.config.limits
        self._half = Amount(limits.entries_per_origin, limits.bytes_per_origin).part(2)

    @asynccontextmanager
    async def charged(
        self, caller: Caller, entries: Sequence[Entry], granted: Collection[Digest]
    ) -> AsyncIterator[Charge]:
        """Have proven entries charged while they are logged inside the block, and for ever if they were.

        Args:
            granted: digests of those that need no permission of the operator.

        Raises OutOfSpace (LOG-SHARE).
        """
        charge, made = Charge(), list[tuple[tuple[Share, ...], Amount]]()
        try:
            for shares, lines in self._bills(caller, entries, granted):
                amount = await self._core.pools.ledger(self._core.ledger.shares.charge, self._core.log, lines, shares)
                made.append((shares, amount))
            yield charge
        finally:
            if not charge.logged:
                for shares, amount in made:
                    await self._core.pools.ledger(self._core.ledger.shares.give_back, shares, amount)

    def _bills(
        self, caller: Caller, entries: Iterable[Entry], granted: Collection[Digest]
    ) -> list[tuple[tuple[Share, ...], list[bytes]]]:
        """Lines, by who is charged for them."""
        bills: dict[tuple[Share, ...], list[bytes]] = {}
        for entry in entries if not caller.operator else ():
            if shares := self._shares(caller, entry.statement.by, needs_none=entry.digest in granted):
                bills.setdefault(shares, []).append(entry.line)
        return list(bills.items())

    def _shares(self, caller: Caller, author: Author | None, *, needs_none: bool) -> tuple[Share, ...]:
        part = self._half.part(PARTS)
        seat, members = self._core.seat, self._core.membership
        if author is None:
            return (Share(ALL, "", self._half), Share(CALLER, caller.name, part))
        if author.id == seat.inception.id or author == seat.record.node:
            return ()
        own = Share(AUTHOR, author.id, part)
        if needs_none and (members.member(author.id) is not None or members.node(author) is not None):
            return (own,)
        accepted = self._core.config.publishing.accept
        if not isinstance(accepted, str) and author.id in accepted:
            return (own, Share(ALL, "", self._half))
        return (own, Share(ALL, "", self._half), Share(CALLER, caller.name, part))
