"""The rows about logs and other members: *transparency* (5), *cosigners* (6), *replicas* (7), *disputes and advisories*
(13, with rival publications of the name), *time* (14) and *crypto health* (15)."""

from __future__ import annotations

from dataclasses import replace

from comity.trust.claims import RivalPublication, member_label, rivals
from comity.trust.encoding import Digest, short
from comity.trust.evidence import Basis, Row, RowFact
from comity.trust.key_validity import prove_entry
from comity.trust.rows.findings import Findings, identity_label, log_member, remark_fact, verified_fact
from comity.trust.rows.signatures import mirror_disputes
from comity.trust.statement import Entry
from comity.trust.statements import SEVERITIES, Advisory


def transparency_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if best is not None:
        text = f"entry {best.index} of {best.origin}, the log of {log_member(best)}"
        return Row(
            "transparency", "pass", text, 5, facts=(verified_fact(f"{text}; tree of {best.size} entries", best.proof),)
        )
    return _unproven("transparency", 5, found)


def cosigners_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if chosen is None or best is None:
        return _unproven("cosigners", 6, found)
    rule, publisher = policy.cosigners, chosen.jurisdictions
    counted = best.counted(rule, publisher)
    facts = tuple(verified_fact(f"{member_label(c.member)} as {c.name}", best.proof) for c in counted)
    names = ", ".join(member_label(c.member) for c in counted) or "nobody"
    if best.satisfies(rule, publisher):
        return Row("cosigners", "pass", f"{len(counted)} of {rule.at_least} required: {names}", 6, facts=facts)
    if not best.cosigners and best.refused:
        return Row(
            "cosigners",
            "fail",
            best.refused[0],
            6,
            "false",
            tuple(verified_fact(text, best.proof) for text in best.refused),
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
        return Row(row, "unknown", "no statement by the publisher that the policy names", step, "missing")
    if chosen is not None and chosen.broken:
        return Row(row, "fail", chosen.broken[0].text, step, "false", tuple(map(remark_fact, chosen.broken)))
    if chosen is not None and chosen.unbound:
        return Row(row, "fail", chosen.unbound[0].text, step, "short", tuple(map(remark_fact, chosen.unbound)))
    if found.evidence.proofs and chosen is not None:
        return Row(
            row, "unknown", "none of the proofs is about this statement", step, "missing", hint="comity pull REF"
        )
    return Row(row, "unknown", "no proof that it was logged", step, "missing", hint="comity pull REF")


def time_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if policy.freshness is None:
        return Row("time", "not-checked", "the policy sets no time.as_of", 14)
    best = chosen.best(policy) if chosen else None
    counted = best.counted(policy.cosigners, chosen.jurisdictions) if chosen and best else ()
    needed = max(policy.cosigners.at_least, 1)
    if len(counted) < needed:
        return Row("time", "unknown", "too few cosignatures with a time", 14, "missing")
    newest = sorted((cosigner.timestamp for cosigner in counted), reverse=True)[needed - 1]
    age = policy.freshness.as_of - newest
    text = f"{needed} cosigners saw it at most {max(age, 0) // 86_400} days before as_of"
    basis: Basis = "claimed" if age <= policy.freshness.max_age else "stale or absent"
    fact = RowFact(text, basis, "its cosigners' clocks", best.proof if best else None)
    if age <= policy.freshness.max_age:
        return Row("time", "pass", text, 14, facts=(fact,))
    return Row("time", "fail", text, 14, "short", (fact,), hint="comity pull REF")


def crypto_health_row(found: Findings) -> Row:
    """Row (15): passes if the post-quantum signatures alone satisfy the policy."""
    policy, chosen = found.policy, found.chosen
    best = chosen.best(policy) if chosen else None
    if chosen is None or best is None:
        return Row("crypto health", "unknown", "no logged signature to judge", 15, "missing")
    rule = replace(policy.cosigners, post_quantum=True)
    counted = best.counted(policy.cosigners, chosen.jurisdictions)
    post_quantum = best.counted(rule, chosen.jurisdictions)
    classical_only = [] if chosen.publication.post_quantum else ["the publisher's signature"]
    if len(post_quantum) < len(counted) and not best.satisfies(rule, chosen.jurisdictions):
        classical_only.append(f"{len(counted) - len(post_quantum)} of {len(counted)} cosigners")
    keys = verified_fact(chosen.key_validity.text, chosen.publication.entry.digest)
    if classical_only:
        text = f"classical only: {' and '.join(classical_only)}"
        facts = (*(verified_fact(f"classical only: {link}", best.proof) for link in classical_only), keys)
        return Row("crypto health", "fail", text, 15, "short", facts)
    text = f"publisher hybrid, {len(post_quantum)} cosigners with ML-DSA-44; the log's own signature is Ed25519"
    return Row("crypto health", "pass", text, 15, facts=(verified_fact(text, best.proof), keys))


def replicas_row(found: Findings) -> Row:
    """Row (7): a hold counts only if it is in the node's own log."""
    holders: dict[str, Digest] = {}
    for entry, node in sorted(found.holds, key=lambda hold: hold[0].digest):
        if prove_entry(entry, found.evidence.proofs, (node,), found.reader)[0]:
            holders.setdefault(member_label(node.member), entry.digest)
    if not holders:
        return Row("replicas", "unknown", "no proven claim of a full copy here", 7, "missing")
    names = sorted(holders)
    facts = tuple(
        RowFact(f"holds a full copy, in its own log: {name}", "claimed", name, evidence=holders[name]) for name in names
    )
    return Row("replicas", "pass", f"claimed by {', '.join(names)}", 7, facts=facts)


def advisories_with_rivals(row: Row, found: Findings) -> Row:
    """Add rival publications to row (13). The row fails if the name is not bound to the publisher, or if the publisher
    gave the name to other bytes."""
    chosen = found.chosen
    others = rivals(found.claims, chosen.publication) if chosen else ()
    if chosen is None or not others:
        return row
    facts = tuple(_fact(rival, chosen.publication.publisher.id) for rival in others)
    bound = chosen.named is True and all(rival.publisher.id != chosen.publication.publisher.id for rival in others)
    if bound:
        return row.with_facts(facts)
    text = f"{facts[0].text}; {len(row.facts + facts)} in all"
    return Row(row.name, "fail", row.summary if row.state == "fail" else text, row.step, "short", row.facts + facts)


def _fact(rival: RivalPublication, publisher: str) -> RowFact:
    name, artifact = rival.published.name, short(rival.published.artifact)
    if rival.publisher.id == publisher:
        return verified_fact(f"its publisher also gave {name} to other bytes: sha256:{artifact}", rival.entry.digest)
    return verified_fact(
        f"{identity_label(rival.publisher)} also claims {name}, for sha256:{artifact}", rival.entry.digest
    )


def advisories_row(found: Findings) -> Row:
    chosen = found.chosen
    name = "disputes and advisories"
    own = chosen.publication.publisher.id if chosen else None
    facts = tuple(
        RowFact(
            f"{advisory.kind} ({advisory.severity}): {advisory.text}", "claimed", _issuer(advisory, own), entry.digest
        )
        for entry, advisory in sorted(found.advisories, key=lambda item: _rank(found, item[1]))
    )
    rivals = tuple(verified_fact(_dispute(*pair), pair[0].digest) for pair in found.disputes) + mirror_disputes(found)
    if not facts and not rivals:
        return Row(name, "unknown", "none here; their absence cannot be proven offline", 13, "missing")
    first = f"{facts[0].text} says {facts[0].by}" if facts else rivals[0].text
    return Row(name, "fail", f"{first}; {len(facts + rivals)} in all", 13, "short", facts + rivals)


def _rank(found: Findings, advisory: Advisory) -> tuple[int, int]:
    """Sort key: issuers in `refuse_from` first, then the publisher, then members and their nodes, so that many
    advisories of unknown issuers cannot hide these. Then by severity, the highest first."""
    own = found.chosen.publication.publisher.id if found.chosen else None
    known = {member.id for body in found.policy.pins for member in body.members}
    known |= {node.record.node.id for node in found.bound}
    ranks = (advisory.by.id in found.policy.refuse_from, advisory.by.id == own, advisory.by.id in known, True)
    return ranks.index(True), -SEVERITIES.index(advisory.severity)


def _issuer(advisory: Advisory, publisher: Digest | None) -> str:
    return "its publisher" if advisory.by.id == publisher else short(advisory.by.id)


def _dispute(first: Entry, second: Entry) -> str:
    who = short(first.statement.by.id) if first.statement.by else "nobody"
    return f"{who} has two rotations of one state, {short(first.digest)} and {short(second.digest)}"
