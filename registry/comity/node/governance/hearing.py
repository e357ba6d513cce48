"""What is said about the successor of one body: proven lines, a bounded share for each log that holds them.

Nobody's flood costs another member anything but reading time: what goes beyond a log's share is not kept, and lines of
whoever has no seat are not kept at all (what newcomers say is looked up by their ids, in `witnesses`). The share is the
log's, never the author's: what a member says counts in whichever log it stands, so that one who floods its own log
cannot take away a line on which another rests. What is kept of a log depends on that log alone, and is the same
everywhere. An honest log stays far below: its member says two lines a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from comity.trust.charter import MAX_BYTES
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT
from comity.trust.charter.readings import INTENT, RATIFIED
from comity.trust.digest import Digest, bare_digest
from comity.trust.errors import Malformed
from comity.trust.statement import Entry, Statement

SPOKEN: Final = (DRAFT, INTENT, RATIFIED, CONSENTED, LEFT)
"""What members say about the next epoch."""
MAX_LINES: Final = 512
MAX_SAID: Final = 4 * 1024 * 1024
"""Bytes of lines of one log."""
MAX_DRAFTED: Final = 2 * MAX_BYTES
"""Bytes of charter bodies that are put forward in one log."""


@dataclass(slots=True)
class Share:
    """What one log has used of its share."""

    lines: int = 0
    said: int = 0
    drafted: int = 0
    full: bool = False

    def takes(self, entry: Entry) -> bool:
        """Whether the entry fits; then it is counted."""
        drafted = sum(item.size for item in entry.statement.objects) if entry.statement.predicate == DRAFT else 0
        lines, said, drafted = self.lines + 1, self.said + len(entry.line), self.drafted + drafted
        self.full = self.full or lines > MAX_LINES or said > MAX_SAID
        if self.full or drafted > MAX_DRAFTED:
            return False
        self.lines, self.said, self.drafted = lines, said, drafted
        return True


@dataclass(slots=True)
class Hearing:
    """The lines about one body's successor, by their digests."""

    entries: dict[Digest, Entry] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)

    def full(self, log: str) -> bool:
        return log in self.shares and self.shares[log].full

    def put(self, log: str, entry: Entry) -> bool:
        """Keep a proven line within the share of a log where it stands; whether it was kept and new."""
        if not self.shares.setdefault(log, Share()).takes(entry) or entry.digest in self.entries:
            return False
        self.entries[entry.digest] = entry
        return True

    def read_again(self) -> None:
        """Logs are read from their beginning: what they have used of their shares is counted anew."""
        self.shares.clear()

    def named(self) -> Iterator[Digest]:
        """Digests of the bodies that were put forward, or read for."""
        for entry in self.entries.values():
            if entry.statement.predicate != LEFT:
                yield entry.statement.subject


def about(statement: Statement) -> Digest | None:
    """The body whose successor a statement is about; None where it does not say so."""
    name = "body" if statement.predicate == LEFT else "prev"
    try:
        return bare_digest(statement.body.get(name))
    except Malformed:
        return None
