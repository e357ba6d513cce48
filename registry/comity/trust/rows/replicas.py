"""Who says that they keep a full copy."""

from __future__ import annotations

from comity.trust.digest import Digest
from comity.trust.judging.standing import prove_entry
from comity.trust.rows.findings import Findings
from comity.trust.verdict import Fact, Row


def replicas_row(found: Findings) -> Row:
    """A hold counts only as the node's own word, at its index in its own log."""
    holders: dict[str, Digest] = {}
    for entry, node in sorted(found.holds, key=lambda hold: hold[0].digest):
        if prove_entry(entry, found.evidence.proofs, (node,))[0]:
            holders.setdefault(f"{node.member.name} ({node.member.jurisdiction})", entry.digest)
    if not holders:
        return Row("replicas", "unknown", "no proven claim of a full copy here", 7, "missing")
    names = sorted(holders)
    facts = tuple(
        Fact(f"holds a full copy, in its own log: {name}", "claimed", name, evidence=holders[name]) for name in names
    )
    return Row("replicas", "pass", f"claimed by {', '.join(names)}", 7, facts=facts)
