"""Who may have words about the charter logged here and is no operator: members, and those whom drafts would admit.

Nobody needs anybody's leave to vote, to change keys, or to agree to a seat; so these lines are taken at the open door
and at the mutual one, whatever the operator says about publishing. What they may cost is bounded for each author, and
whether they are their author's is proven afterwards, as for all lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from comity.ledger.index import Query
from comity.node.core import Core
from comity.node.governance.chamber import Chamber
from comity.node.governance.hearing import SPOKEN
from comity.node.governance.witnesses import inception
from comity.trust.charter.proposing import CONSENTED
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest
from comity.trust.errors import OutOfSpace, Refused
from comity.trust.statement import Entry

INTRODUCTIONS: Final = ("inception", "rotated", "node-record")
MAX_LOGGED: Final = 256
"""Lines of one author that were taken at these doors, or by an operator: from then on only operators may log more."""


class Floor:
    """Says which entries are words about the charter that may be logged. Touched by the event loop only."""

    def __init__(self, core: Core, chamber: Chamber | None) -> None:
        self._core = core
        self._chamber = chamber

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission.

        Raises Refused (NOT-HOME) for a reading whose member keeps its readings elsewhere, and OutOfSpace
        (CHARTER-QUOTA) where its author has had enough logged here.
        """
        found = set()
        for entry in entries if self._chamber else ():
            if await self._may(entry):
                await self._require_quota(entry)
                found.add(entry.digest)
        return frozenset(found)

    async def _may(self, entry: Entry) -> bool:
        predicate, by = entry.statement.predicate, entry.statement.by
        if by is None or predicate not in (*SPOKEN, *INTRODUCTIONS, "addresses"):
            return False
        if predicate == "addresses":
            return self._core.membership.node(by) is not None
        seated = self._core.membership.member(by.id) is not None
        if predicate in (INTENT, RATIFIED):
            return seated and await self._is_home(entry)
        if predicate in SPOKEN:
            return seated or (predicate == CONSENTED and by.id in self._hopefuls)
        if seated or by.id in self._hopefuls:
            return True
        return predicate == "rotated" and await self._is_known(by.id)

    @property
    def _hopefuls(self) -> set[Digest]:
        """Who would get a seat by a draft that is open."""
        council = self._chamber.outlook.council if self._chamber else None
        return {seat.id for draft in council.drafts for seat in draft.body.members} if council else set()

    async def _is_known(self, identity: Digest) -> bool:
        return await self._core.pools.ledger(inception, self._core.ledger, identity) is not None

    async def _is_home(self, entry: Entry) -> bool:
        """Readings have their order in their member's home log, and are handed out from there: here they are taken if
        this is it, or if they stand in a log already."""
        member = entry.statement.by
        assert member is not None
        if member.id == self._core.seat.inception.id:
            return True
        if await self._core.pools.ledger(self._core.ledger.index.places, entry.digest):
            return True
        homes = sorted(peer.name for peer in self._core.membership.nodes_of(member.id))
        raise Refused(
            "this is not the home of that reading",
            why="a reading is logged by its own member's node before it is handed out",
            hint=f"send it to {' or '.join(homes) or 'its own node'}, or give it to an operator here",
            code="NOT-HOME",
        )

    async def _require_quota(self, entry: Entry) -> None:
        assert entry.statement.by is not None
        mine = Query(by=entry.statement.by.id, origin=self._core.log)
        if len(await self._core.pools.ledger(self._core.ledger.index.find, mine, limit=MAX_LOGGED)) >= MAX_LOGGED:
            why = f"{MAX_LOGGED} of its lines are logged here"
            raise OutOfSpace("enough said", why=why, hint="ask the operator of this node", code="CHARTER-QUOTA")
