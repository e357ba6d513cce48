"""What docs/security.md says of the bounds of governance and grants is what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.ledger import asks
from comity.node.allocation import counter
from comity.node.governance import floor, hearing, proceedings, witnesses, word
from comity.trust.charter import council
from comity.wire import limits

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text("utf-8")
MiB, KiB, DAY = 1024 * 1024, 1024, 86_400
HOME, ELSEWHERE = hearing.AT_HOME, hearing.ELSEWHERE

ROWS = {
    "statements of a member about the next charter, in its own nodes' logs": (
        f"{HOME.statements} and {HOME.size // MiB} MiB a log, drafts of {HOME.drafted // MiB} MiB"
    ),
    "the same, in each other log": (
        f"{ELSEWHERE.statements} and {ELSEWHERE.size // KiB} KiB, drafts of {ELSEWHERE.drafted // MiB} MiB"
    ),
    "readings weighed beyond that": f"{hearing.MAX_BEYOND:,} an author and log",
    "envelopes of one statement in one log": f"{hearing.MAX_ENVELOPES} are judged",
    "rotations of one identity in one log": (
        f"{proceedings.MAX_ROTATIONS} of a member, {witnesses.LOOKED_AT} of others are looked at"
    ),
    "what a newcomer says in one log": f"{proceedings.MAX_NEWCOMING} statements",
    "bodies that one member names": f"{council.MAX_BODIES} are read; beyond two, {council.MAX_READ // MiB} MiB in all",
    "proven lies of one member": f"{word.MAX_ACCUSATIONS} are kept and said",
    "words of a member logged at another's node without leave": (
        f"{floor.MAX_WORDS} about the newest charter, {floor.MAX_OF_A_KIND} of each other kind"
    ),
    "lines of one whom a draft would admit": f"{floor.MAX_HOPEFUL}",
    "rotations of others logged without leave": (
        f"{floor.MAX_ROTATIONS} an identity; {floor.ROTATING.burst}, then one a minute, a caller"
    ),
    "requests to join": (
        f"{asks.MAX_ASKS}, of which {asks.MAX_KEPT} kept by an operator; {limits.ASK_BYTES // KiB} KiB each; "
        f"{asks.EXPIRY // DAY} days"
    ),
    "unanswered requests for an offer": (
        f"{counter.MAX_ASKED} an identity; {counter.MAX_WAITING} of all without a seat; "
        f"{counter.ASKING.burst}, then one a minute, a caller"
    ),
    "a grantee's statements about a grant": f"{counter.MAX_ABOUT} of each kind",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bound_is_written_down_as_it_is(row: str) -> None:
    assert f"| {row} | {ROWS[row]} |" in PAGE
