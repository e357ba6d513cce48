"""From a verdict to an error that says what to do, in the exit statuses of protocol section 10."""

from __future__ import annotations

from comity.trust.errors import ComityError, PolicyNotMet, Unavailable, Untrusted
from comity.trust.verdict import OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED, Verdict


def refusal(verdict: Verdict, title: str) -> ComityError | None:
    """Why what was judged must not be placed; None where it may be."""
    if verdict.exit_status in (OK, PARTIAL):
        return None
    failing = [row for row in verdict.rows if row.name in verdict.required and row.state != "pass"]
    why = "; ".join(f"{row.name}: {row.summary}" for row in failing) or verdict.row("policy").summary
    if verdict.exit_status == VERIFICATION_FAILED:
        return Untrusted(f"{title} does not verify", why=why, hint="comity status", code="VERIFICATION-FAILED")
    if verdict.exit_status == POLICY_NOT_MET:
        unsafe = any(row.name == "file safety" and row.state == "fail" for row in failing)
        first = "look at what is in it" if unsafe else "wait for more cosignatures"
        hint = f"{first}, or write down what you accept: comity pull {title} --policy FILE"
        return PolicyNotMet(f"{title} is authentic, but the policy is not met", why=why, hint=hint)
    hint = f"try again in a minute: comity pull {title}"
    return Unavailable(f"evidence about {title} is missing", why=why, hint=hint, code="EVIDENCE-MISSING")
