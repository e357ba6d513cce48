"""What happens to grants by itself: an acceptance is recorded, what is given back returns, and who does not accept in
time lapses. The clock is the node's; each step is one transaction, so that one who dies between two loses neither."""

from __future__ import annotations

from typing import Final

import structlog

from comity.node.allocation.allocator import Allocator
from comity.node.allocation.register import Register
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, OutOfSpace, Unavailable
from comity.trust.offers import Acceptance, Commitment, GivingBack, Said
from comity.trust.offers.book import ACCEPTED, GRANTED

A_TURN: Final = 64
"""Records that are made in one turn."""
PUT_OFF: Final = 60.0
"""Seconds after which a statement that did not hold is looked at again."""
MAX_PUT_OFF: Final = 10_000

_log: Final = structlog.get_logger("comity.node.offers")


class Clock:
    """Looks at every open grant of this node. Touched by the event loop only."""

    def __init__(self, core: Core, allocator: Allocator, register: Register) -> None:
        self._core = core
        self._allocator = allocator
        self._register = register
        self._later: dict[Digest, float] = {}

    async def turn(self) -> bool:
        """Record what is due, as far as the register has read; whether there may be more."""
        due = list(self._due())
        for grant, statement in due[:A_TURN]:
            try:
                await self._record(grant, statement)
            except (OutOfSpace, Unavailable):
                raise
            except ComityError as error:  # one statement that does not hold keeps no other grant waiting
                _log.warning("not recorded", grant=grant.digest, why=str(error), code=error.code)
                if statement is not None:
                    self._put_off(statement)
        return len(due) > A_TURN

    async def _record(self, grant: Commitment, statement: Digest | None) -> None:
        if grant.state == ACCEPTED:
            await self._allocator.release(grant.digest)
        elif statement is not None:
            await self._allocator.accept(statement)
        else:
            await self._allocator.lapse(grant.digest)

    def _due(self) -> list[tuple[Commitment, Digest | None]]:
        """Open grants about which something is to be recorded, and the grantee's statement where there is one."""
        now = int(self._core.clock())
        due: list[tuple[Commitment, Digest | None]] = []
        for chain in self._register.own.chains.values():
            for held in (chain.book.grants[digest] for digest in chain.book.open):
                statement = self._said(held, Acceptance if held.state == GRANTED else GivingBack)
                if statement is not None or (held.state == GRANTED and now > held.grant.accept_by):
                    due.append((held, statement))
        return due

    def _said(self, held: Commitment, kind: type[Said]) -> Digest | None:
        """The grantee's own statement of this kind about a grant, in whichever log it stands."""
        now = self._core.clock()
        said = [
            told.stated
            for told in self._register.about(held.digest)
            if isinstance(told.stated.said, kind)
            and told.stated.said.by == held.grant.grantee
            and self._later.get(told.stated.line, 0) <= now
        ]
        return min(said, key=lambda stated: not stated.proven).line if said else None

    def _put_off(self, statement: Digest) -> None:
        """What does not hold now may later, when its author's new keys are known here."""
        if len(self._later) >= MAX_PUT_OFF:
            self._later.clear()
        self._later[statement] = self._core.clock() + PUT_OFF
