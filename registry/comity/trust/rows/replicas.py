"""Who says that they keep a full copy."""

from __future__ import annotations

from comity.trust.rows.findings import Findings
from comity.trust.standing import prove_entry
from comity.trust.verdict import Fact, Row


def replicas_row(found: Findings) -> Row:
    """A hold counts only as the node's own word, at its index in its own log."""
    holders = {node.member for entry, node in found.holds if prove_entry(entry, found.evidence.proofs, (node,))[0]}
    if not holders:
        return Row("replicas", "unknown", "no proven claim of a full copy here", 7, "missing")
    names = sorted(f"{member.name} ({member.jurisdiction})" for member in holders)
    facts = tuple(Fact(f"holds a full copy, in its own log: {name}", "claimed", name) for name in names)
    return Row("replicas", "pass", f"claimed by {', '.join(names)}", 7, facts=facts)
