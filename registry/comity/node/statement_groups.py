"""Whose statement a list of new statements shows: the groups of `comity.rules.precedence` for lists about everything.

NAMED     members, their nodes, publishers to whom the charter binds a namespace, and those whom the policy of this
          node names
MEMBERS   a publisher about its own artifact, and an identity about itself
OTHERS    everybody else
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
        return self.of_each([statement])[0]

    def of_each(self, statements: Sequence[Statement]) -> list[int]:
        """Blocking. The group of each of these proven statements."""
        sure, named = self._membership.precedence.members, self._named()
        asked = [
            each for each in statements if each.by is not None and each.by.id not in sure and each.by.id not in named
        ]
        about = dict.fromkeys(subject.digest for each in asked for subject in each.subjects)
        first = self._proven.first_publishers_of_each(list(about), PUBLISHERS) if about else {}

        def group(statement: Statement) -> int:
            by = statement.by
            if by is None:
                return OTHERS
            if by.id in sure or by.id in named:
                return NAMED
            own = any(by.id == each.digest or by.id in first[each.digest] for each in statement.subjects)
            return MEMBERS if own else OTHERS

        return [group(each) for each in statements]
