"""Notices what another process commits to a ledger, by looking about once a second.

A look tells which transactions the database shows now; while that is the same, all reads return the same. No message
from the writer is needed, so a writer of an earlier version is followed too, and a lost connection loses nothing. Each
look also compares the database with the one of the first look: its identity, the revision of its tables, and its logs,
which only grow. After a difference the process has to end, because what it computed before is of another ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from comity.ledger.ledger import Ledger
from comity.ledger.read_only import ReadBacking, replaced, require_revision


class LedgerFollower:
    """Notices what another process commits to `ledger`. Blocking; not thread-safe.

    Attributes:
        writer: whether a process held the writer's lock at the last look.
    """

    def __init__(self, ledger: Ledger, backing: ReadBacking) -> None:
        self._ledger = ledger
        self._backing = backing
        self._visible = ""
        self._heads: Mapping[str, tuple[int, bytes]] = {}
        self.writer = False

    def look(self) -> bool:
        """Look once. Returns whether another process has committed since the last look; then the ledger forgets the
        results that it keeps.

        Raises Unavailable(code="LEDGER-FAILED") if the database does not answer. Raises Unavailable(
        code="LEDGER-REPLACED") and Refused(code="LEDGER-OLDER" or "LEDGER-NEWER") if this process has to end.
        """
        found = self._backing.look()
        if found.identity != self._ledger.identity:
            raise replaced("the address leads to another server, timeline, database or table than before")
        require_revision(found.revision)
        self.writer = found.writer
        if found.visible == self._visible:
            return False
        self._require_growth(self._ledger.logs.heads())
        self._visible = found.visible
        self._ledger.changed_elsewhere()
        return True

    def _require_growth(self, heads: Mapping[str, tuple[int, bytes]]) -> None:
        """Raises Unavailable(code="LEDGER-REPLACED") unless the logs continue those of the last look."""
        for log, (size, root) in self._heads.items():
            now, now_root = heads.get(log, (-1, b""))
            if now < size or (now == size and now_root != root):
                raise replaced(f"of the {size} entries of {log.partition('+')[0]} some are missing or changed")
        self._heads = heads
