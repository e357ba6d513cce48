"""What docs/security.md says of the bounds of governance and grants is what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.ledger.quotas import EXPIRY, MAX_ASKS, MAX_KEPT
from comity.node.charter.admission import MAX_HOPEFUL, MAX_OF_A_KIND, MAX_ROTATIONS_SUBMITTED, MAX_WORDS, ROTATING
from comity.node.charter.follower import MAX_ACCUSATIONS
from comity.node.charter.inbox import (
    AT_HOME,
    ELSEWHERE,
    LOOKED_AT,
    MAX_BEYOND,
    MAX_ENVELOPES,
    MAX_NEWCOMING,
    MAX_ROTATIONS_A_LOG,
)
from comity.node.offers.provider import ASKING, MAX_ABOUT, MAX_ASKED, MAX_WAITING
from comity.trust.charter.tally import MAX_BODIES, MAX_READ
from comity.wire import limits

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text("utf-8")
MiB, KiB, DAY = 1024 * 1024, 1024, 86_400
HOME, ELSEWHERE = AT_HOME, ELSEWHERE

ROWS = {
    "statements of a member about the next charter, in its own nodes' logs": (
        f"{HOME.statements} and {HOME.size // MiB} MiB a log, drafts of {HOME.drafted // MiB} MiB"
    ),
    "the same, in each other log": (
        f"{ELSEWHERE.statements} and {ELSEWHERE.size // KiB} KiB, drafts of {ELSEWHERE.drafted // MiB} MiB"
    ),
    "readings weighed beyond that": f"{MAX_BEYOND:,} an author and log",
    "envelopes of one statement in one log": f"{MAX_ENVELOPES} are judged",
    "rotations of one identity in one log": (f"{MAX_ROTATIONS_A_LOG} of a member, {LOOKED_AT} of others are looked at"),
    "what a newcomer says in one log": f"{MAX_NEWCOMING} statements",
    "bodies that one member names": f"{MAX_BODIES} are read; beyond two, {MAX_READ // MiB} MiB in all",
    "proven lies of one member": f"{MAX_ACCUSATIONS} are kept and said",
    "words of a member logged at another's node without leave": (
        f"{MAX_WORDS} about the newest charter, {MAX_OF_A_KIND} of each other kind"
    ),
    "lines of one whom a draft would admit": f"{MAX_HOPEFUL}",
    "rotations of others logged without leave": (
        f"{MAX_ROTATIONS_SUBMITTED} an identity; {ROTATING.burst}, then one a minute, a caller"
    ),
    "requests to join": (
        f"{MAX_ASKS}, of which {MAX_KEPT} kept by an operator; {limits.ASK_BYTES // KiB} KiB each; {EXPIRY // DAY} days"
    ),
    "unanswered requests for an offer": (
        f"{MAX_ASKED} an identity; {MAX_WAITING} of all without a seat; {ASKING.burst}, then one a minute, a caller"
    ),
    "a grantee's statements about a grant": f"{MAX_ABOUT} of each kind",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bound_is_written_down_as_it_is(row: str) -> None:
    assert f"| {row} | {ROWS[row]} |" in PAGE
