"""Whose statement a list of new statements shows: the groups of `comity.rules.precedence` for lists about everything.

NAMED     members, their nodes, publishers to whom the charter binds a namespace, and those whom the policy of this
          node names
MEMBERS   a publisher about its own artifact, and an identity about itself
OTHERS    everybody else
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from comity.ledger.proven import ProvenTables
from comity.node.members import Membership
from comity.rules.precedence import MEMBERS, NAMED, OTHERS
from comity.trust.encoding import Digest
from comity.trust.statement import Statement

PUBLISHERS: Final = 8
"""Publishers and observers of an artifact, the earliest, to whom it belongs in lists."""


class StatementGroups:
    """Args:
    named: returns those whom the policy of this node names now.
    """

    def __init__(
        self, proven: ProvenTables, membership: Membership, named: Callable[[], Collection[Digest]] = tuple
    ) -> None:
        self._proven = proven
        self._membership = membership
        self._named = named

    def of(self, statement: Statement) -> int:
        """Blocking. The group of a proven statement."""
        by = statement.by
        if by is None:
            return OTHERS
        if by.id in self._membership.precedence.members or by.id in self._named():
            return NAMED
        about = {subject.digest for subject in statement.subjects}
        own = by.id in about or any(by.id in self._proven.first_publishers(digest, PUBLISHERS) for digest in about)
        return MEMBERS if own else OTHERS
