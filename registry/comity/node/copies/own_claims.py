"""What this node's own log says about its copy of an artifact: its holds and its withdrawals, in the log's order.

The statements of the own log are proven in the transaction that logs them, so what is logged counts at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.node.own_log import iterate_entries
from comity.trust.copies import HOLD_PREDICATES, HOLD_WITHDRAWN, hold_of, parse_hold_withdrawn
from comity.trust.encoding import Digest
from comity.trust.statement import SideObject, Statement, parse_entry


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A hold at `index` of this node's log that was not withdrawn later."""

    index: int
    manifest: SideObject
    pieces: SideObject


class OwnClaims:
    """Blocking; thread-safe.

    Args:
        node: the id of this node. log: the verifier key of its log.
    """

    def __init__(self, ledger: Ledger, node: Digest, log: str) -> None:
        self._ledger = ledger
        self._node = node
        self._log = log

    def hold(self, artifact: Digest, pieces: Digest | None = None) -> StandingHold | None:
        """The newest claim of a copy of an artifact, with the piece index `pieces` if one is given; None if it was
        withdrawn later."""
        withdrawn = max((index for index, _ in self._about(artifact, HOLD_WITHDRAWN)), default=-1)
        found: StandingHold | None = None
        for predicate in HOLD_PREDICATES:
            for index, statement in self._about(artifact, predicate):
                hold = hold_of(statement, artifact)
                named = hold is not None and pieces in (None, hold.pieces.digest)
                if hold is not None and named and index > (found.index if found else withdrawn):
                    found = StandingHold(index, hold.manifest, hold.pieces)
        return found

    def keeps(self, artifact: Digest) -> bool:
        """Whether the last withdrawal of an artifact says that its bytes are kept."""
        withdrawals = [statement for _, statement in self._about(artifact, HOLD_WITHDRAWN)]
        return bool(withdrawals) and parse_hold_withdrawn(withdrawals[-1]).kept

    def _about(self, artifact: Digest, predicate: str) -> Iterator[tuple[int, Statement]]:
        for item in iterate_entries(self._ledger, EntryQuery(artifact, predicate, self._node, self._log)):
            yield item.index, parse_entry(item.line).statement
