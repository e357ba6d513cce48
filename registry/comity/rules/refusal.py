"""Why a verdict refuses an artifact, as an error: the same words wherever an artifact is refused.

The kind of error follows the exit status: what does not verify is Untrusted, a policy that is not met is PolicyNotMet,
missing evidence is Unavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comity.trust.errors import ComityError, PolicyNotMet, Unavailable, Untrusted
from comity.trust.evidence import Row, Verdict
from comity.trust.exit_statuses import OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED
from comity.trust.rows.approvals import APPROVALS_ROW


def failing_rows(verdict: Verdict) -> tuple[Row, ...]:
    """The rows that had to pass and did not."""
    needed = ("artifact", *verdict.required)
    return tuple(row for row in verdict.rows if row.name in needed and row.state != "pass")


def refusal(
    verdict: Verdict, title: str, policy: str, next_step: Callable[[Sequence[Row], str], str]
) -> ComityError | None:
    """Return the error that a refused artifact gives; None if it is accepted, or partly here.

    Args:
        title: the artifact, as readers know it.
        policy: what its owner calls the policy: `the policy`.
        next_step: what helps against rows that did not pass, for an artifact of this title; empty if nothing does.
    """
    if verdict.exit_status in (OK, PARTIAL):
        return None
    failing = failing_rows(verdict)
    why = "; ".join(f"{row.name}: {row.summary}" for row in failing) or verdict.row("policy").summary
    hint = next_step(failing, title)
    if verdict.exit_status == VERIFICATION_FAILED:
        return Untrusted(f"{title} does not verify", why=why, hint=hint, code="VERIFICATION-FAILED")
    if verdict.exit_status != POLICY_NOT_MET:
        return Unavailable(f"evidence about {title} is missing", why=why, hint=hint, code="EVIDENCE-MISSING")
    if any(row.name == APPROVALS_ROW for row in failing):
        return PolicyNotMet(f"{title} is not approved", why=why, hint=hint, code="NOT-APPROVED")
    return PolicyNotMet(f"{title} is authentic, but {policy} is not met", why=why, hint=hint)
