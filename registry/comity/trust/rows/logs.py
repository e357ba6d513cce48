"""In whose log it stands, and which other members saw it there."""

from __future__ import annotations

from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import here, member, noted
from comity.trust.verdict import Row


def transparency_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if best is not None:
        text = f"entry {best.index} of {best.origin}, the log of {member(best)}"
        return Row("transparency", "pass", text, 5, facts=(here(f"{text}; tree of {best.size} entries", best.proof),))
    return _unproven("transparency", 5, found)


def cosigners_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if chosen is None or best is None:
        return _unproven("cosigners", 6, found)
    rule, publisher = policy.cosigners, chosen.jurisdictions
    counted = best.counted(rule, publisher)
    facts = tuple(here(f"{c.member.name} ({c.member.jurisdiction}) as {c.name}", best.proof) for c in counted)
    names = ", ".join(f"{c.member.name} ({c.member.jurisdiction})" for c in counted) or "nobody"
    if best.satisfies(rule, publisher):
        return Row("cosigners", "pass", f"{len(counted)} of {rule.at_least} required: {names}", 6, facts=facts)
    if not best.cosigners and best.refused:
        return Row(
            "cosigners", "fail", best.refused[0], 6, "false", tuple(here(text, best.proof) for text in best.refused)
        )
    needed = f"{rule.at_least} required"
    needed += f" in {rule.jurisdictions} jurisdictions" if rule.jurisdictions > 1 else ""
    outside = f" outside {', '.join(rule.outside)}" if rule.outside else ""
    text = f"{len(counted)} counted, {needed}{outside}; have: {names}"
    return Row("cosigners", "fail", text, 6, "short", facts, hint="comity pull REF")


def _unproven(row: str, step: int, found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if not policy.pins:
        return Row(row, "unknown", "no charter is pinned", step, "short", hint="comity trust pin FILE")
    if chosen is not None and chosen.accepted is False:
        return Row(row, "unknown", "no statement of the publisher that the policy names", step, "missing")
    if chosen is not None and chosen.broken:
        return Row(row, "fail", chosen.broken[0].text, step, "false", tuple(map(noted, chosen.broken)))
    if chosen is not None and chosen.unbound:
        return Row(row, "fail", chosen.unbound[0].text, step, "short", tuple(map(noted, chosen.unbound)))
    if found.evidence.proofs and chosen is not None:
        return Row(
            row, "unknown", "none of the proofs is about this statement", step, "missing", hint="comity pull REF"
        )
    return Row(row, "unknown", "no proof that it was logged", step, "missing", hint="comity pull REF")
