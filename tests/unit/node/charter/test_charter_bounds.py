"""The bounds of charter votes and grants in docs/security.md are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.ledger.quotas import EXPIRY, MAX_ASKS, MAX_KEPT
from comity.node.charter.admission import (
    MAX_NEWCOMER,
    MAX_NEWEST,
    MAX_OF_A_KIND,
    MAX_ROTATIONS_SUBMITTED,
    ROTATION_RATE,
)
from comity.node.charter.follower import MAX_REPORTS
from comity.node.charter.inbox import (
    HOME_LOG,
    MAX_ENVELOPES,
    MAX_NEWCOMER_STATEMENTS,
    MAX_OVER_QUOTA,
    OTHER_LOG,
)
from comity.node.offers.admission import (
    MAX_REQUESTS_PER_IDENTITY,
    MAX_REQUESTS_WITHOUT_SEAT,
    MAX_STATEMENTS_PER_GRANT,
    REQUEST_RATE,
)
from comity.rules.tally import MAX_BODIES, MAX_BODY_BYTES_READ
from comity.trust.authorship import MAX_KEPT_ROTATIONS
from comity.wire import limits

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "security.md").read_text("utf-8")
MiB, KiB, DAY = 1024 * 1024, 1024, 86_400

ROWS = {
    "statements of a member about the next charter, in its own nodes' logs": (
        f"{HOME_LOG.statements} and {HOME_LOG.size // MiB} MiB a log, drafts of {HOME_LOG.drafted // MiB} MiB"
    ),
    "the same, in each other log": (
        f"{OTHER_LOG.statements} and {OTHER_LOG.size // KiB} KiB, drafts of {OTHER_LOG.drafted // MiB} MiB"
    ),
    "votes checked beyond that": f"{MAX_OVER_QUOTA:,} an author and log",
    "envelopes of one statement in one log": f"{MAX_ENVELOPES} are judged",
    "rotations of one identity in one log": f"{MAX_KEPT_ROTATIONS} are kept",
    "what a newcomer says in one log": f"{MAX_NEWCOMER_STATEMENTS} statements",
    "bodies that one member names": f"{MAX_BODIES} are read; beyond two, {MAX_BODY_BYTES_READ // MiB} MiB in all",
    "proofs of conflicting votes of one member": f"{MAX_REPORTS} are kept and published",
    "statements of a member logged at another's node without approval": (
        f"{MAX_NEWEST} about the newest charter, {MAX_OF_A_KIND} of each other kind"
    ),
    "lines of an identity that a draft would admit": f"{MAX_NEWCOMER}",
    "rotations of others logged without approval": (
        f"{MAX_ROTATIONS_SUBMITTED} an identity; {ROTATION_RATE.burst}, then one a minute, a caller"
    ),
    "requests to join": (
        f"{MAX_ASKS}, of which {MAX_KEPT} kept by an operator; {limits.ASK_BYTES // KiB} KiB each; {EXPIRY // DAY} days"
    ),
    "unanswered requests for an offer": (
        f"{MAX_REQUESTS_PER_IDENTITY} an identity; {MAX_REQUESTS_WITHOUT_SEAT} of all without a seat; "
        f"{REQUEST_RATE.burst}, then one a minute, a caller"
    ),
    "a grantee's statements about a grant": f"{MAX_STATEMENTS_PER_GRANT} of each kind",
}


@pytest.mark.parametrize("row", ROWS)
def test_each_bound_is_documented(row: str) -> None:
    assert f"| {row} | {ROWS[row]} |" in PAGE
