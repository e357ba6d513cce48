"""In whose log it stands, and which other members saw it there.

How fresh the cosignatures are, and what would be left of the signatures without classical cryptography.

Who says that they keep a full copy.

Other claimants of the name, as facts of the row about disputes.

Who warns of it, and which keys are in dispute."""

from __future__ import annotations

from dataclasses import replace

from comity.trust.claims import RivalPublication, rivals
from comity.trust.encoding import Digest, short
from comity.trust.evidence import Basis, Row, RowFact
from comity.trust.key_validity import prove_entry
from comity.trust.rows.findings import Findings, here, member, noted, who
from comity.trust.rows.signatures import mirror_disputes
from comity.trust.statement import Entry
from comity.trust.statements import SEVERITIES, Advisory


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
    fact = RowFact(text, basis, "its cosigners' clocks", best.proof if best else None)
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
        RowFact(f"holds a full copy, in its own log: {name}", "claimed", name, evidence=holders[name]) for name in names
    )
    return Row("replicas", "pass", f"claimed by {', '.join(names)}", 7, facts=facts)


def with_rivals(row: Row, found: Findings) -> Row:
    """It fails where nothing that the owner pinned says whose name it is, or where its publisher contradicts itself."""
    chosen = found.chosen
    others = rivals(found.readings, chosen.publication) if chosen else ()
    if chosen is None or not others:
        return row
    facts = tuple(_fact(rival, chosen.publication.publisher.id) for rival in others)
    bound = chosen.named is True and all(rival.publisher.id != chosen.publication.publisher.id for rival in others)
    if bound:
        return row.joined(facts)
    text = f"{facts[0].text}; {len(row.facts + facts)} in all"
    return Row(row.name, "fail", row.summary if row.state == "fail" else text, row.step, "short", row.facts + facts)


def _fact(rival: RivalPublication, publisher: str) -> RowFact:
    name, artifact = rival.published.name, short(rival.published.artifact)
    if rival.publisher.id == publisher:
        return here(f"its publisher gave {name} to other bytes as well: sha256:{artifact}", rival.entry.digest)
    return here(f"{who(rival.publisher)} claims {name} too, for sha256:{artifact}", rival.entry.digest)


def advisories_row(found: Findings) -> Row:
    chosen = found.chosen
    name = "disputes and advisories"
    own = chosen.publication.publisher.id if chosen else None
    facts = tuple(
        RowFact(f"{said.kind} ({said.severity}): {said.text}", "claimed", _issuer(said, own), entry.digest)
        for entry, said in sorted(found.advisories, key=lambda told: _rank(found, told[1]))
    )
    rivals = tuple(here(_dispute(*pair), pair[0].digest) for pair in found.disputes) + mirror_disputes(found)
    if not facts and not rivals:
        return Row(name, "unknown", "none here; nobody can prove offline that there is none", 13, "missing")
    first = f"{facts[0].text} says {facts[0].by}" if facts else rivals[0].text
    return Row(name, "fail", f"{first}; {len(facts + rivals)} in all", 13, "short", facts + rivals)


def _rank(found: Findings, said: Advisory) -> tuple[int, int]:
    """Whom the owner lists comes first, then its publisher, then members and their nodes: strangers can flood a list,
    and shall not hide them. Among equals the gravest."""
    own = found.chosen.publication.publisher.id if found.chosen else None
    known = {seat.id for body in found.policy.pins for seat in body.members}
    known |= {node.record.node.id for node in found.bound}
    places = (said.by.id in found.policy.refuse_from, said.by.id == own, said.by.id in known, True)
    return places.index(True), -SEVERITIES.index(said.severity)


def _issuer(said: Advisory, publisher: Digest | None) -> str:
    return "its publisher" if said.by.id == publisher else short(said.by.id)


def _dispute(first: Entry, second: Entry) -> str:
    who = short(first.statement.by.id) if first.statement.by else "nobody"
    return f"{who} has two rotations of one state, {short(first.digest)} and {short(second.digest)}"
