"""A charter on the screen."""

from __future__ import annotations

from comity.trust.charter.document import Body
from comity.trust.encoding import syllables

from comity_cli.output import Output, plural


def show_charter(out: Output, body: Body) -> None:
    """The members with the words to compare, and what they promise one another."""
    rows = [(m.name, m.jurisdiction, syllables(m.id), m.id[:16]) for m in body.members]
    out.say(f"Charter of {plural(len(body.members), 'member')}, epoch {body.epoch}, sha256:{body.digest}")
    out.table(("member", "jurisdiction", "on the phone", "id"), rows)
    policy = body.policy
    out.say(
        f"It changes by {policy.quorum_change} of {len(body.active)} members; asks for {policy.min_copies} copies in "
        f"{policy.min_jurisdictions} jurisdictions."
    )
    out.document(
        "charter",
        {
            "federation": body.federation,
            "body": body.digest,
            "epoch": body.epoch,
            "predecessor": body.predecessor,
            "members": [{"id": m.id, "name": m.name, "jurisdiction": m.jurisdiction} for m in body.members],
            "quorum_change": policy.quorum_change,
        },
    )
