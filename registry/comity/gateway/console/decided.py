"""The decided changes of the charter, as pages show them: what changed, by whose votes, and since when cosigners know.

Votes are those of the certificates that this node verified. Statements have no time: an epoch is dated by the members
that cosigned the log of this node with its statement that it follows that epoch, by their clocks. This date becomes
later as the log grows, because the newest cosignatures are kept; when this node had verified its statement does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from comity.gateway.console.proposals import MAX_CHANGES, CharterDifference, differences, member_name
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.node.epochs import EpochStore
from comity.node.members import Membership
from comity.rules.cosigned_times import time_of_quorum
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import ADOPTED, RATIFIED

MAX_SHOWN: Final = 20
"""Epochs on the page; `comity proposal ls --decided` lists all."""


@frozen
class DecidedChange:
    """An epoch that was decided. `seen`: POSIX seconds by which enough members had cosigned this node's statement that
    it follows the epoch; None if they have not, or this node followed a later one first. `known_since`: when this node
    followed it, by its own clock; None if it followed a later one first."""

    epoch: int
    body: Digest
    changes: tuple[CharterDifference, ...]
    voters: tuple[str, ...]
    seen: int | None
    known_since: int | None = None


class DecidedChanges:
    """The newest decided changes. Each is read from the ledger until it is dated. Blocking."""

    def __init__(self, ledger: Ledger, membership: Membership) -> None:
        self._ledger = ledger
        self._membership = membership
        self._dated: dict[Digest, DecidedChange] = {}

    def newest(self, epochs: EpochStore) -> list[DecidedChange]:
        """At most `MAX_SHOWN`, the newest first; a founding is none."""
        shown = range(len(epochs.digests) - 1, max(0, len(epochs.digests) - 1 - MAX_SHOWN), -1)
        found = [self._dated.get(epochs.digests[epoch]) or self._read(epochs, epoch) for epoch in shown]
        self._dated = {change.body: change for change in found if change.seen is not None}
        return found

    def _read(self, epochs: EpochStore, epoch: int) -> DecidedChange:
        certificate, before = epochs.certificate(epoch), epochs.certificate(epoch - 1).body
        return DecidedChange(
            epoch,
            certificate.body.digest,
            tuple(islice(differences(before, certificate.body), MAX_CHANGES)),
            tuple(sorted(_voters(certificate.lines, before))),
            *self._dates(certificate.body),
        )

    def _dates(self, body: Body) -> tuple[int | None, int | None]:
        """By when cosigners had seen that this node follows `body`, and when it did."""
        own = self._membership.own_node
        log = str(own.record.log)
        query = EntryQuery(subject=body.digest, predicate=ADOPTED, by=own.record.node.id, origin=log)
        for entry in self._ledger.index.find(query, limit=1):
            numbers = [line.number for line in self._ledger.proven.with_line(entry.line) if line.vkey == log]
            known = min(self._ledger.proven_times.verified_at(numbers).values(), default=None)
            try:
                note = self._ledger.cosignatures.best_note(log, entry.index)
            except NotFound:
                return None, known
            times = self._membership.cosigned_times(note)
            times.pop(own.inception.id, None)
            return time_of_quorum(times.values(), body.policy.cosigner_quorum), known
        return None, None


def _voters(lines: Iterable[bytes], before: Body) -> set[str]:
    entries = (parse_entry(line) for line in lines)
    votes = (entry.statement for entry in entries if entry.statement.predicate == RATIFIED)
    return {member_name(before, vote.by.id) for vote in votes if vote.by is not None}
