"""Answers questions about the copies of all artifacts, a page at a time.

Claims are read together, and assessed once for each different set of them in a page: so a page costs what its different
sets cost, and little for each artifact. Names are read for listed artifacts, if the question asks for them.
"""

from __future__ import annotations

from typing import Final

from comity.node.copies.counter import CopyAssessor
from comity.node.copies.index import ClaimsPage, CopiesIndex
from comity.node.threads import AsyncLedger
from comity.rules.copy_counts import CopyPolicy
from comity.rules.copy_questions import CopyFold, CopyFolder, CopyQuestion
from comity.trust.encoding import Digest
from comity.wire import limits

LEAST_SHARE: Final = 8
"""An answer is complete when fewer artifacts can be added to it than this part of those that it may list."""


class CopyFolds:
    """Thread-safe as its parts are."""

    def __init__(self, ledger: AsyncLedger, index: CopiesIndex) -> None:
        self._ledger = ledger
        self._index = index

    async def page(
        self, question: CopyQuestion, after: Digest | None, assessor: CopyAssessor, own: Digest, policy: CopyPolicy
    ) -> tuple[CopyFold, bool]:
        """The answer about the next artifacts after `after`, at most `limits.FOLD_ARTIFACTS` of which
        `limits.FOLD_LISTED` are listed; and whether others follow.

        Args:
            own: the member of this node. policy: what the charter asks for.
        """
        folder, more = CopyFolder(question, own, policy), True
        least = limits.FOLD_LISTED // LEAST_SHARE
        while more and (room := folder.room(limits.FOLD_ARTIFACTS, limits.FOLD_LISTED)) > least:
            claims = await self._ledger.run(self._index.claims, folder.last or after, room)
            await self._ledger.run(_fold, claims, folder, assessor)
            more = claims.more
        names: tuple[str, ...] = ()
        if question.named and folder.listed:
            found = await self._ledger.run(self._ledger.tables.proven.first_names, folder.listed)
            names = tuple(found.get(artifact, "") for artifact in folder.listed)
        return folder.fold(names), more


def _fold(claims: ClaimsPage, folder: CopyFolder, assessor: CopyAssessor) -> None:
    known: dict[int, int] = {}
    """The numbers of sets by the identity of their claims: to compare these costs more than to count an artifact."""
    for artifact, found in claims.found:
        if (number := known.get(id(found))) is None:
            number = known[id(found)] = folder.number(assessor.assess(found)[: limits.COPIES])
        folder.add(artifact, number)
