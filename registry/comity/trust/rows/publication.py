"""The rows about the publication, its keys and its logs: *signatures* (3), *key policy* (4), *transparency* (5),
*cosigners* (6), *replicas* (7), *disputes and advisories* (13), *time* (14) and *crypto health* (15).

A key compromise changes *key policy*, *time* and *disputes and advisories*, not the rows about signatures and logs,
because more evidence never makes the result worse (I4).

An OpenSSF `model.sig` adds to *signatures* and can replace a publication. Claims and proofs affect it only through the
times at which its certificate may be valid; more times never make the result worse (I4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from comity.trust.bound_nodes import ProvenCosigner
from comity.trust.claims import RivalPublication, member_label, rivals
from comity.trust.encoding import Digest, format_moment, short
from comity.trust.evidence import Basis, Row, RowFact
from comity.trust.key_validity import (
    CompromiseNotice,
    CosignedTime,
    JudgedNotice,
    JudgedPublication,
    own_statements,
)
from comity.trust.model_signing.judging import ModelSignatureResult
from comity.trust.policy import PUBLISHER
from comity.trust.rows.findings import (
    Findings,
    coverage_facts,
    dispute_facts,
    identity_label,
    key_algorithms,
    remark_fact,
    verified_fact,
)
from comity.trust.statement import Entry
from comity.trust.statements import INFO, KEY_COMPROMISE, SEVERITIES, Advisory

ITS_PUBLISHER: Final = "its publisher"
AFTER_LOSS: Final = "signed after the publisher says its key was stolen"
SIGNED_AGAIN: Final = "take a version that the publisher signed with its new keys, or an older one: comity show REF"
COMPARE: Final = "compare the id with its publisher"
"""The first step before a publisher is bound by an id that came with the artifact."""


def signatures_row(found: Findings) -> Row:
    """Row (3): passes by a publication or a `model.sig`, unless the policy requires a `model.sig`. A `model.sig` that
    fails does not affect a valid publication."""
    row, result, required = _publication_row(found), found.model_sig, found.policy.model_signing.require
    if result is None:
        if not required:
            return row
        return replace(row, state="unknown", summary="the policy requires a model.sig; there is none", cause="missing")
    facts = (*row.facts, *_signer_facts(result))
    if result.state == "pass":
        text = f"{row.summary}; {result.text}" if row.state == "pass" else result.text
        return Row("signatures", "pass", text, row.step, facts=facts)
    if not required and row.state == "pass":
        return replace(row, facts=facts)
    if not required and not found.without_manifest and (row.state == "fail" or result.state != "fail"):
        return replace(row, summary=f"{row.summary}; {result.text}", facts=facts)
    hint = "" if result.state == "fail" else "comity verify DIR --policy FILE, where [model_signing] lists its key"
    return Row("signatures", result.state, result.text, row.step, result.cause, facts, hint)


def _publication_row(found: Findings) -> Row:
    """Row (3) without a `model.sig`."""
    claims, chosen = found.claims, found.chosen
    if chosen is not None and chosen.accepted is not False:
        text = (
            f"published by {identity_label(chosen.publication.publisher)}, {key_algorithms(chosen.publication.signer)}"
        )
        facts = (verified_fact(text, chosen.publication.entry.digest), *_other_statements(found, chosen))
        return Row("signatures", "pass", text, 3, facts=facts)
    if chosen is not None and chosen.named is not False:
        text = f"signed by {identity_label(chosen.publication.publisher)}: {chosen.key_validity.text}"
        facts = (verified_fact(text, chosen.publication.entry.digest),)
        if chosen.key_validity.accepted is None:
            return Row("signatures", "unknown", text, 3, "missing", facts, hint="comity pull REF")
        return Row("signatures", "fail", text, 3, "short", facts)
    if chosen is not None:
        publisher = identity_label(chosen.publication.publisher)
        text = f"signed by {publisher}, which is not the publisher that the policy names"
        return Row("signatures", "fail", text, 3, "short", (verified_fact(text, chosen.publication.entry.digest),))
    if claims.failed:
        text = "no published statement about this artifact verifies"
        return Row("signatures", "fail", text, 3, "false", (verified_fact(text),))
    if claims.unknown_publishers:
        text = f"the inception of publisher {short(claims.unknown_publishers[0])} is missing"
        return Row("signatures", "unknown", text, 3, "missing", hint="comity pull REF")
    return Row("signatures", "unknown", "no published statement about it", 3, "missing", hint="comity pull REF")


def _other_statements(found: Findings, chosen: JudgedPublication) -> Iterator[RowFact]:
    """Facts on the other statements of the publisher about these bytes: those that the chosen one replaces, and newer
    ones that pass fewer steps."""
    own = own_statements(found.judged, chosen)
    newer = own.index(chosen)
    for number, other in enumerate(own):
        if number == newer:
            continue
        published, where = other.publication.published, _home_entry(other)
        lineage = ", ".join(f"{parent.relation} of {parent.name}" for parent in published.lineage) or "no parent"
        text = f"{published.name}, licence {published.licence.spdx}, {lineage}{where}"
        if number < newer:
            text = f"a newer statement of its publisher passes fewer steps and does not count: {text}"
        else:
            text = f"an older statement of its publisher, replaced: {text}"
        yield verified_fact(text, other.publication.entry.digest)


def _home_entry(judged: JudgedPublication) -> str:
    """Where a statement is in its publisher's home logs: `, entry 5 of node-ch.example/log`; empty if it is in none."""
    position = judged.home_position
    if position is None:
        return ""
    logs = judged.home.ranks[position.rank]
    first = min((seen for seen in judged.witnessed if seen.log in logs), key=lambda seen: seen.index)
    return f", entry {first.index} of {first.origin}"


def _signer_facts(result: ModelSignatureResult) -> tuple[RowFact, ...]:
    signer, digest = result.signer, result.digest
    notices = (signer.text, *signer.remarks) if signer.state in ("pass", "fail") else ()
    unchecked = signer.unchecked if notices else (f"{signer.text}: not checked",)
    return (
        *(verified_fact(text, digest) for text in notices),
        *(RowFact(text, "stale or absent", evidence=digest) for text in unchecked),
        *coverage_facts(result),
    )


def key_policy_row(found: Findings) -> Row:
    """Row (4). With compromise notices it does not pass unless the statement is proven to be older, or the policy only
    reports lost keys."""
    chosen = found.chosen
    if chosen is None:
        return Row("key policy", "unknown", "no publisher to judge", 4, "missing")
    publisher = identity_label(chosen.publication.publisher)
    keys = verified_fact(chosen.key_validity.text, chosen.publication.entry.digest)
    notices = tuple(fact for notice in chosen.notices for fact in _notice_facts(notice, chosen))
    notices = (_id_fact(chosen), *notices)
    if chosen.named is False:
        text = f"{publisher} is not the publisher that the policy names"
        return Row("key policy", "fail", text, 4, "short", (verified_fact(text, found.policy.digest), keys, *notices))
    if chosen.accepted is False:
        text = f"{publisher}: {chosen.key_validity.text}"
        if chosen.key_validity.accepted is None:
            return Row("key policy", "unknown", text, 4, "missing", (keys, *notices))
        return Row("key policy", "fail", text, 4, "short", (keys, *notices))
    text = f"{publisher} is the publisher that the policy names"
    facts = (*((verified_fact(text, found.policy.digest),) if chosen.accepted else ()), keys, *notices)
    before = chosen.before_loss if found.policy.refuse_lost_keys else True
    if before is False:
        return Row("key policy", "fail", f"{publisher}: {AFTER_LOSS}", 4, "short", facts, SIGNED_AGAIN)
    if before is None:
        unproven = f"{publisher} says that its key was stolen; no proof here that this statement is older"
        return Row("key policy", "unknown", unproven, 4, "missing", facts, "comity pull REF")
    if chosen.publication.publisher.id in found.evidence.cut:
        unread = f"{publisher} made more statements than were read; one of them may say that its key was stolen"
        return Row("key policy", "unknown", unread, 4, "missing", facts)
    if chosen.accepted is None:
        namespace = chosen.publication.published.name.namespace
        text = f"no publisher is pinned for namespace {namespace!r}; the signer is {publisher}"
        hint = f"{COMPARE}, then: comity trust bind {namespace} {chosen.publication.publisher.id}"
        return Row("key policy", "unknown", text, 4, "short", facts, hint)
    return Row("key policy", "pass", text, 4, facts=facts)


def _id_fact(chosen: JudgedPublication) -> RowFact:
    """All digits of the publisher's id, as a policy or a binding needs them."""
    return verified_fact(f"the publisher's id is {chosen.publication.publisher.id}", chosen.publication.entry.digest)


def _notice_facts(judged: JudgedNotice, chosen: JudgedPublication) -> tuple[RowFact, RowFact]:
    line, origin = chosen.publication.entry.digest, judged.notice.origin
    if judged.before is None:
        absent = f"no proof of the index of this statement in {origin}"
        return _compromise_fact(judged.notice), RowFact(absent, "stale or absent")
    where = "below that entry" if judged.before else "at that entry or above it"
    return _compromise_fact(judged.notice), verified_fact(f"this statement is in {origin} {where}", line)


def _compromise_fact(notice: CompromiseNotice) -> RowFact:
    text = f"key {short(notice.key)} is compromised from entry {notice.index} of {notice.origin} on: {notice.text}"
    return RowFact(text, "claimed", ITS_PUBLISHER, notice.entry.digest)


def transparency_row(found: Findings) -> Row:
    best = found.best
    if best is not None and found.chosen is not None and found.chosen.accepted is not False:
        text = f"entry {best.index} of {best.origin}, the log of {member_label(best.writer)}"
        return Row(
            "transparency", "pass", text, 5, facts=(verified_fact(f"{text}; tree of {best.size} entries", best.proof),)
        )
    return _unproven("transparency", 5, found)


def cosigners_row(found: Findings) -> Row:
    chosen, best, rule = found.chosen, found.best, found.policy.cosigners
    if chosen is None or best is None or chosen.accepted is False:
        return _unproven("cosigners", 6, found)
    publisher = chosen.jurisdictions
    counted = best.counted(rule, publisher)
    facts = tuple(verified_fact(f"{member_label(c.member)} as {c.name}", best.proof) for c in counted)
    facts += tuple(map(_reach_fact, best.cosigners)) if rule.declared or {*rule.outside} - {PUBLISHER} else ()
    names = ", ".join(member_label(c.member) for c in counted) or "nobody"
    if best.satisfies(rule, publisher):
        return Row("cosigners", "pass", f"{len(counted)} ({rule.at_least} required): {names}", 6, facts=facts)
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


def _reach_fact(cosigner: ProvenCosigner) -> RowFact:
    """What a member declares about the machines of a cosigner, where the policy asks for it."""
    who, machines = member_label(cosigner.member), f"the machines of {cosigner.name}"
    if not cosigner.reach:
        return RowFact(f"{who} declares no place of {machines}", "stale or absent")
    return RowFact(f"the law of {', '.join(cosigner.reach)} reaches {machines}, of {who}", "claimed", who)


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


def replicas_row(found: Findings) -> Row:
    """Row (7): a hold counts only if it is in the node's own log, and the node has not withdrawn it there later."""
    holding = {claim.member: claim.line for claim in found.copies if not claim.withdrawn}
    facts = [
        RowFact(f"holds a full copy, in its own log: {name}", "claimed", name, evidence=holding[name])
        for name in sorted(holding)
    ]
    facts += [
        RowFact(f"withdrew its copy, in its own log: {claim.withdrawn}", "claimed", claim.member, evidence=claim.line)
        for claim in sorted(found.copies, key=lambda claim: claim.member)
        if claim.withdrawn and claim.member not in holding
    ]
    if not holding:
        return Row("replicas", "unknown", "no proven claim of a full copy here", 7, "missing", tuple(facts))
    return Row("replicas", "pass", f"claimed by {', '.join(sorted(holding))}", 7, facts=tuple(facts))


def advisories_row(found: Findings) -> Row:
    """Row (13): fails for advisories and disputes, for compromise notices, which count as advisories of the publisher,
    and for rival publications, unless the name is bound to a publisher that gave it to these bytes only. Advisories of
    severity `info` are listed and fail nothing."""
    name = "disputes and advisories"
    own = found.chosen.publication.publisher.id if found.chosen else None
    ranked = sorted(found.advisories, key=lambda item: _rank(found, item[1], own))
    advisories = tuple(
        RowFact(_advice(each), "claimed", ITS_PUBLISHER if each.by.id == own else each.by.id, entry.digest)
        for entry, each in ranked
    )
    disputes = tuple(verified_fact(_dispute(*pair), pair[0].digest) for pair in found.disputes)
    disputes += dispute_facts(found.mirroring)
    claimants, disputed = _rival_facts(found)
    notices = tuple(
        RowFact(f"{KEY_COMPROMISE} ({each.severity}): {each.text}", "claimed", ITS_PUBLISHER, each.entry.digest)
        for each in found.compromised
    )
    unread = RowFact("more statements about it than were read", "stale or absent")
    facts = (*advisories, *disputes, *claimants, *notices, *([unread] if found.evidence.cut else []))
    first = f"{_advice(ranked[0][1])} says {_issuer(ranked[0][1], own)}" if ranked else ""
    if disputes or any(each.severity != INFO for _, each in ranked):
        text = f"{first or disputes[0].text}; {len(advisories + disputes)} in all"
        return Row(name, "fail", text, 13, "short", facts)
    if disputed is not None:
        return Row(name, "fail", f"{disputed}; {len(claimants)} in all", 13, "short", facts)
    if notices:
        text = f"{notices[0].text} says {notices[0].by}; {len(notices)} in all"
        return Row(name, "fail", text, 13, "short", facts)
    if ranked:
        return Row(name, "unknown", f"{first}; {len(advisories)} in all, for information", 13, "missing", facts)
    return Row(name, "unknown", "none here; their absence cannot be proven offline", 13, "missing", facts)


def _advice(advisory: Advisory) -> str:
    return f"{advisory.kind} ({advisory.severity}): {advisory.text}"


def _rival_facts(found: Findings) -> tuple[tuple[RowFact, ...], str | None]:
    """Facts on rival publications of the name, and the text of the first one if they are a dispute: the name is not
    bound to the publisher, or the publisher gave it to other bytes too."""
    chosen = found.chosen
    others = rivals(found.claims, chosen.publication) if chosen else ()
    if chosen is None or not others:
        return (), None
    own = chosen.publication.publisher.id
    disputed = chosen.named is not True or any(rival.publisher.id == own for rival in others)
    facts = tuple(verified_fact(_rival(rival, own, rival.publisher.id), rival.entry.digest) for rival in others)
    return facts, _rival(others[0], own, others[0].publisher.id[:12]) if disputed else None


def _rival(rival: RivalPublication, publisher: str, digits: str) -> str:
    """The text about a rival publication, with so many digits of the id of its publisher."""
    name, artifact = rival.published.name, short(rival.published.artifact)
    if rival.publisher.id == publisher:
        return f"its publisher also gave {name} to other bytes: sha256:{artifact}"
    return f"{rival.publisher.display} [{digits}] also claims {name}, for sha256:{artifact}"


def _rank(found: Findings, advisory: Advisory, own: Digest | None) -> tuple[int, int]:
    """Sort key: issuers in `refuse_from` first, then the publisher, then members and their nodes, so that many
    advisories of unknown issuers cannot hide these. Then by severity, the highest first."""
    known = {member.id for body in found.policy.pins for member in body.members}
    known |= {node.record.node.id for node in found.bound}
    ranks = (advisory.by.id in found.policy.refuse_from, advisory.by.id == own, advisory.by.id in known, True)
    return ranks.index(True), -SEVERITIES.index(advisory.severity)


def _issuer(advisory: Advisory, publisher: Digest | None) -> str:
    return ITS_PUBLISHER if advisory.by.id == publisher else short(advisory.by.id)


def _dispute(first: Entry, second: Entry) -> str:
    who = short(first.statement.by.id) if first.statement.by else "nobody"
    return f"{who} has two rotations of one state, {short(first.digest)} and {short(second.digest)}"


def time_row(found: Findings) -> Row:
    """Row (14); compromise notices add facts, and do not change its state, which is about freshness."""
    notices = tuple(map(_compromise_fact, found.compromised))
    policy = found.policy
    if policy.freshness is None:
        return Row("time", "not-checked", "the policy sets no time.as_of", 14, facts=notices)
    newest = found.chosen.newest_cosigned(policy) if found.chosen else None
    if newest is None:
        return Row("time", "unknown", "too few cosignatures with a time", 14, "missing", notices)
    age = policy.freshness.as_of - newest.time
    basis: Basis = "claimed" if age <= policy.freshness.max_age else "stale or absent"
    text = _time_text(newest, age)
    facts = (RowFact(text, basis, "its cosigners' clocks", newest.proof), *notices)
    if age <= policy.freshness.max_age:
        return Row("time", "pass", text, 14, facts=facts)
    return Row("time", "fail", text, 14, "short", facts, hint="comity pull REF")


def _time_text(newest: CosignedTime, age: int) -> str:
    who = f"{newest.cosigners} cosigner{'s' * (newest.cosigners != 1)} saw it"
    if age >= 0:
        return f"{who} at most {age // 86_400} days before as_of"
    return f"{who} after as_of, by their clocks on {format_moment(newest.time, '%Y-%m-%d')}"


def crypto_health_row(found: Findings) -> Row:
    """Row (15): passes if the post-quantum signatures alone, in any proof, satisfy the policy."""
    policy, chosen, best = found.policy, found.chosen, found.best
    if chosen is None or best is None:
        return Row("crypto health", "unknown", "no logged signature to judge", 15, "missing")
    rule = replace(policy.cosigners, post_quantum=True)
    best = next((seen for seen in chosen.witnessed if seen.satisfies(rule, chosen.jurisdictions)), best)
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
    text = f"publisher hybrid, cosigners with ML-DSA-44: {len(post_quantum)}; the log's own signature is Ed25519"
    return Row("crypto health", "pass", text, 15, facts=(verified_fact(text, best.proof), keys))
