"""Which of two ledgers of one node may be opened while it is moved to another database (`comity storage migrate`).

The revision of the tables tells it, which every version of Comity reads before anything else:

    source       target
    0024         copying-0024    rows are copied, and copied again where they changed
    moved-0024   copying-0024    the source never opens again: all was compared while no other process could write it
    moved-0024   0024            the target is the ledger

So at most one of them opens after a crash at any moment, and no version of Comity can write to both. The table `marks`
of the source names the target that it was moved to, and that of the target the log that is copied into it: what is
half copied goes on with the same pair alone.
"""

from __future__ import annotations

from typing import Final

from comity.ledger.revisions import NEWEST
from comity.trust.errors import Refused

_COPYING, _MOVED = "copying-", "moved-"
COPYING: Final = _COPYING + NEWEST
MOVED: Final = _MOVED + NEWEST
"""Instead of the newest revision, in a target that is not complete, and in a source that was moved."""
COPY_OF: Final = "copy-of"
MOVED_TO: Final = "moved-to"
"""Names in the table `marks`: the digest of the key of the own log, in a target; the identity of the target, in a
source."""


def require_whole(revision: str) -> None:
    """Raises Refused (LEDGER-COPYING, LEDGER-MOVED) for a ledger that is not complete yet, and one that was moved."""
    if revision.startswith(_COPYING):
        raise Refused(
            "this ledger is not complete",
            why="it is the target of a move that has not ended",
            hint="comity storage migrate NEW.toml --node HOME; until it has ended, start the node where it was",
            code="LEDGER-COPYING",
        )
    if revision.startswith(_MOVED):
        raise ledger_moved("all that it has is in another database, which the node goes on with")


def ledger_moved(why: str) -> Refused:
    return Refused(
        "this ledger was moved",
        why=why,
        hint="start the node with the settings of the new place; if the move did not end, run it again: "
        "comity storage migrate NEW.toml --node HOME",
        code="LEDGER-MOVED",
    )
