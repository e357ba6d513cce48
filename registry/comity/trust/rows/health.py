"""How fresh the cosignatures are, and what would be left of the signatures without classical cryptography."""

from __future__ import annotations

from dataclasses import replace

from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here
from comity.trust.verdict import Basis, Fact, Row


def time_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if policy.freshness is None:
        return Row("time", "not-checked", "the policy names no moment to judge", 14)
    best = chosen.best(policy) if chosen else None
    counted = best.counted(policy.cosigners, chosen.jurisdictions) if chosen and best else ()
    needed = max(policy.cosigners.at_least, 1)
    if len(counted) < needed:
        return Row("time", "unknown", "too few cosignatures that tell a time", 14, "missing")
    newest = sorted((cosigner.timestamp for cosigner in counted), reverse=True)[needed - 1]
    age = policy.freshness.as_of - newest
    text = f"{needed} cosigners saw it at most {max(age, 0) // 86_400} days before as_of"
    basis: Basis = "claimed" if age <= policy.freshness.max_age else "stale or absent"
    fact = Fact(text, basis, "its cosigners' clocks", best.proof if best else None)
    if age <= policy.freshness.max_age:
        return Row("time", "pass", text, 14, facts=(fact,))
    return Row("time", "fail", text, 14, "short", (fact,), hint="comity pull REF")


def crypto_health_row(found: Findings) -> Row:
    """What would be left without classical cryptography: it has to be enough for the policy."""
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen else None
    if chosen is None or best is None:
        return Row("crypto health", "unknown", "no logged signature to judge", 15, "missing")
    rule = replace(policy.cosigners, post_quantum=True)
    counted = best.counted(policy.cosigners, chosen.jurisdictions)
    strong = best.counted(rule, chosen.jurisdictions)
    weak = [] if chosen.publication.post_quantum else ["the publisher's signature"]
    if len(strong) < len(counted) and not best.satisfies(rule, chosen.jurisdictions):
        weak.append(f"{len(counted) - len(strong)} of {len(counted)} cosigners")
    keys = here(chosen.tenure.text, chosen.publication.entry.digest)
    if weak:
        text = f"classical only: {' and '.join(weak)}"
        facts = (*(here(f"classical only: {link}", best.proof) for link in weak), keys)
        return Row("crypto health", "fail", text, 15, "short", facts)
    text = f"publisher hybrid, {len(strong)} cosigners with ML-DSA-44; the log's own signature is Ed25519"
    return Row("crypto health", "pass", text, 15, facts=(here(text, best.proof), keys))
