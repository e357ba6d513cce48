"""The rows of a verdict, one function each: a question, its state, and what the answer rests on.

The numbers are the steps of `verify`, which calls these in order and knows nothing about wording.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from comity.trust.claims import Advisory
from comity.trust.digest import Digest, sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import Evidence
from comity.trust.identity import Inception
from comity.trust.manifest import Manifest
from comity.trust.policy import Policy
from comity.trust.reading import Readings
from comity.trust.rotation import KeyState
from comity.trust.standing import Standing, prove_entry
from comity.trust.statement import Entry
from comity.trust.verdict import Fact, Row
from comity.trust.witnessing import Bound, Witnessed


def artifact_row(evidence: Evidence) -> tuple[Manifest | None, Row]:
    if evidence.manifest is None:
        return None, Row("artifact", "unknown", "no manifest", 1, "missing", hint="comity pull REF")
    try:
        manifest = Manifest.parse(evidence.manifest)
    except ComityError as error:
        return None, Row("artifact", "fail", f"the manifest is no manifest: {error}", 1, "false")
    summary = (
        f"sha256:{manifest.digest}, {len(manifest.files)} file{'s' * (len(manifest.files) != 1)}, {manifest.size} bytes"
    )
    return manifest, Row("artifact", "pass", summary, 1, facts=(_here(summary, manifest.digest),))


def bytes_row(evidence: Evidence, manifest: Manifest) -> Row:
    if evidence.files is None:
        return Row("bytes", "not-checked", "nobody looked at the files", 2, "missing")
    found = {file.path: file for file in evidence.files}
    wrong = [
        f"{entry.path}: {_difference(found[entry.path].kind, found[entry.path].size, entry.size)}"
        for entry in manifest.files
        if entry.path in found and (found[entry.path].sha256, found[entry.path].size) != (entry.sha256, entry.size)
    ]
    wrong += [f"{path}: not in the manifest" for path in found if path not in manifest.by_path]
    missing = [entry.path for entry in manifest.files if entry.path not in found]
    facts = tuple(_here(text) for text in wrong) + tuple(Fact(f"{p}: missing", "stale or absent") for p in missing)
    whole = f"{len(manifest.files) - len(missing)}/{len(manifest.files)} files hashed here"
    if wrong or (missing and not evidence.partial):
        first = wrong[0] if wrong else f"{missing[0]}: missing"
        return Row("bytes", "fail", f"{first} ({len(wrong)} differ, {len(missing)} missing)", 2, "false", facts)
    if missing:
        return Row("bytes", "unknown", f"{whole}; partial by request, {len(missing)} missing", 2, "partial", facts)
    return Row("bytes", "pass", f"{whole}, {manifest.size} bytes", 2, facts=(_here(whole, manifest.digest),))


def _difference(kind: str, size: int, expected: int) -> str:
    if kind != "file":
        return "a link out of the folder" if kind == "link" else "not a regular file"
    return f"{size} bytes instead of {expected}" if size != expected else "its bytes are not the published ones"


def signatures_row(readings: Readings, chosen: Standing | None) -> Row:
    if chosen is not None and chosen.accepted is not False:
        text = f"published by {_who(chosen.publication.publisher)}, {_algorithms(chosen.publication.signer)}"
        facts = (_here(text, chosen.publication.entry.digest),)
        return Row("signatures", "pass", text, 3, facts=facts)
    if chosen is not None and chosen.named is not False:
        text = f"signed by {_who(chosen.publication.publisher)}: {chosen.tenure.text}"
        facts = (_here(text, chosen.publication.entry.digest),)
        if chosen.tenure.accepted is None:
            return Row("signatures", "unknown", text, 3, "missing", facts, hint="comity pull REF")
        return Row("signatures", "fail", text, 3, "short", facts)
    if chosen is not None:
        text = f"signed by {_who(chosen.publication.publisher)}, who is not the publisher that the policy names"
        return Row("signatures", "fail", text, 3, "short", (_here(text, chosen.publication.entry.digest),))
    if readings.failed:
        text = "no published statement about this artifact verifies"
        return Row("signatures", "fail", text, 3, "false", (_here(text),))
    if readings.orphans:
        text = f"the record of publisher {short(readings.orphans[0])} is not here"
        return Row("signatures", "unknown", text, 3, "missing", hint="comity pull REF")
    return Row("signatures", "unknown", "nobody says that they published this", 3, "missing", hint="comity pull REF")


def key_policy_row(policy: Policy, chosen: Standing | None) -> Row:
    if chosen is None:
        return Row("key policy", "unknown", "no publisher to judge", 4, "missing")
    who, keys = _who(chosen.publication.publisher), _here(chosen.tenure.text)
    if chosen.named is False:
        return Row("key policy", "fail", f"{who} is not the publisher that the owner's trust names", 4, "short")
    if chosen.accepted is False:
        text = f"{who}: {chosen.tenure.text}"
        if chosen.tenure.accepted is None:
            return Row("key policy", "unknown", text, 4, "missing", (keys,))
        return Row("key policy", "fail", text, 4, "short", (keys,))
    if chosen.accepted is None:
        text = f"nobody is pinned for namespace {chosen.publication.published.name.namespace!r}; signer is {who}"
        return Row("key policy", "unknown", text, 4, "short", (keys,))
    text = f"{who} is the publisher that the owner's trust names"
    return Row("key policy", "pass", text, 4, facts=(_here(who), keys))


def transparency_row(policy: Policy, evidence: Evidence, chosen: Standing | None) -> Row:
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if best is not None:
        text = f"entry {best.index} of {best.origin}, the log of {_member(best)}"
        return Row("transparency", "pass", text, 5, facts=(_here(f"{text}; tree of {best.size} entries"),))
    return _unproven("transparency", 5, policy, evidence, chosen)


def cosigners_row(policy: Policy, evidence: Evidence, chosen: Standing | None) -> Row:
    best = chosen.best(policy) if chosen and chosen.accepted is not False else None
    if chosen is None or best is None:
        return _unproven("cosigners", 6, policy, evidence, chosen)
    rule, publisher = policy.cosigners, chosen.jurisdictions
    counted = best.counted(rule, publisher)
    facts = tuple(_here(f"{c.member.name} ({c.member.jurisdiction}) as {c.name}") for c in counted)
    names = ", ".join(f"{c.member.name} ({c.member.jurisdiction})" for c in counted) or "nobody"
    if best.satisfies(rule, publisher):
        return Row("cosigners", "pass", f"{len(counted)} of {rule.at_least} required: {names}", 6, facts=facts)
    if not best.cosigners and best.refused:
        return Row("cosigners", "fail", best.refused[0], 6, "false", tuple(_here(text) for text in best.refused))
    needed = f"{rule.at_least} required"
    needed += f" in {rule.jurisdictions} jurisdictions" if rule.jurisdictions > 1 else ""
    outside = f" outside {', '.join(rule.outside)}" if rule.outside else ""
    text = f"{len(counted)} counted, {needed}{outside}; have: {names}"
    return Row("cosigners", "fail", text, 6, "short", facts, hint="comity pull REF")


def _unproven(row: str, step: int, policy: Policy, evidence: Evidence, chosen: Standing | None) -> Row:
    if not policy.pins:
        return Row(row, "unknown", "no charter is pinned", step, "short", hint="comity trust pin FILE")
    if chosen is not None and chosen.accepted is False:
        return Row(row, "unknown", "no statement of the publisher that the policy names", step, "missing")
    if chosen is not None and chosen.broken:
        return Row(row, "fail", chosen.broken[0], step, "false", tuple(_here(text) for text in chosen.broken))
    if chosen is not None and chosen.unbound:
        return Row(row, "fail", chosen.unbound[0], step, "short", tuple(_here(text) for text in chosen.unbound))
    if evidence.proofs and chosen is not None:
        return Row(
            row, "unknown", "none of the proofs is about this statement", step, "missing", hint="comity pull REF"
        )
    return Row(row, "unknown", "no proof that it was logged", step, "missing", hint="comity pull REF")


def replicas_row(holds: tuple[tuple[Entry, Bound], ...], evidence: Evidence) -> Row:
    """A hold counts only as the node's own word, at its index in its own log."""
    holders = {node.member for entry, node in holds if prove_entry(entry, evidence.proofs, (node,))[0]}
    if not holders:
        return Row("replicas", "unknown", "no proven claim of a full copy here", 7, "missing")
    names = sorted(f"{member.name} ({member.jurisdiction})" for member in holders)
    facts = tuple(Fact(f"holds a full copy, in its own log: {name}", "claimed", name) for name in names)
    return Row("replicas", "pass", f"claimed by {', '.join(names)}", 7, facts=facts)


def licence_row(policy: Policy, evidence: Evidence, chosen: Standing | None) -> Row:
    if not policy.licences or chosen is None:
        claimed = chosen.publication.published.licence.spdx if chosen else "nothing"
        return Row("licence", "not-checked", f"the policy names no licences; claimed: {claimed}", 8)
    licence = chosen.publication.published.licence
    publisher = _who(chosen.publication.publisher)
    facts = [Fact(f"{licence.spdx}", "claimed", publisher)]
    if licence.text is not None:
        here = licence.text.digest in evidence.objects
        text = f"its text, sha256 {short(licence.text.digest)}, is {'here' if here else 'not here'}"
        facts.append(Fact(text, "verified here" if here else "stale or absent", evidence=licence.text.digest))
    if licence.spdx.lower() in policy.licences:
        return Row("licence", "pass", f"{licence.spdx}, as {publisher} claims", 8, facts=tuple(facts))
    return Row("licence", "fail", f"{licence.spdx} is not among those accepted", 8, "short", tuple(facts))


def advisories_row(
    advisories: tuple[Advisory, ...], disputes: Iterable[tuple[Entry, Entry]], chosen: Standing | None
) -> Row:
    name = "disputes and advisories"
    own = chosen.publication.publisher.id if chosen else None
    facts = tuple(
        Fact(f"{a.kind} ({a.severity}): {a.text}", "claimed", "its publisher" if a.by.id == own else short(a.by.id))
        for a in advisories
    )
    rivals = tuple(_here(_dispute(*pair), pair[0].digest) for pair in disputes)
    if not facts and not rivals:
        return Row(name, "unknown", "none here; nobody can prove offline that there is none", 9, "missing")
    first = f"{facts[0].text} says {facts[0].by}" if facts else rivals[0].text
    return Row(name, "fail", f"{first}; {len(facts + rivals)} in all", 9, "short", facts + rivals)


def _dispute(first: Entry, second: Entry) -> str:
    who = short(first.statement.by.id) if first.statement.by else "nobody"
    return f"{who} has two rotations of one state, {short(first.digest)} and {short(second.digest)}"


def time_row(policy: Policy, chosen: Standing | None) -> Row:
    if policy.freshness is None:
        return Row("time", "not-checked", "the policy names no moment to judge", 10)
    best = chosen.best(policy) if chosen else None
    counted = best.counted(policy.cosigners, chosen.jurisdictions) if chosen and best else ()
    needed = max(policy.cosigners.at_least, 1)
    if len(counted) < needed:
        return Row("time", "unknown", "too few cosignatures that tell a time", 10, "missing")
    newest = sorted((cosigner.timestamp for cosigner in counted), reverse=True)[needed - 1]
    age = policy.freshness.as_of - newest
    text = f"{needed} cosigners saw it at most {max(age, 0) // 86_400} days before as_of"
    fact = Fact(text, "claimed" if age <= policy.freshness.max_age else "stale or absent", "its cosigners' clocks")
    if age <= policy.freshness.max_age:
        return Row("time", "pass", text, 10, facts=(fact,))
    return Row("time", "fail", text, 10, "short", (fact,), hint="comity pull REF")


def crypto_health_row(policy: Policy, chosen: Standing | None) -> Row:
    """What would be left without classical cryptography: it has to be enough for the policy."""
    best = chosen.best(policy) if chosen else None
    if chosen is None or best is None:
        return Row("crypto health", "unknown", "no logged signature to judge", 11, "missing")
    rule = replace(policy.cosigners, post_quantum=True)
    counted = best.counted(policy.cosigners, chosen.jurisdictions)
    strong = best.counted(rule, chosen.jurisdictions)
    weak = [] if chosen.publication.post_quantum else ["the publisher's signature"]
    if len(strong) < len(counted) and not best.satisfies(rule, chosen.jurisdictions):
        weak.append(f"{len(counted) - len(strong)} of {len(counted)} cosigners")
    keys = _here(chosen.tenure.text)
    if weak:
        text = f"classical only: {' and '.join(weak)}"
        facts = (*(_here(f"classical only: {link}") for link in weak), keys)
        return Row("crypto health", "fail", text, 11, "short", facts)
    text = f"publisher hybrid, {len(strong)} cosigners with ML-DSA-44; the log's own signature is Ed25519"
    return Row("crypto health", "pass", text, 11, facts=(_here(text), keys))


def notes_row(readings: Readings, others: Iterable[str], standings: list[Standing], strangers: tuple[str, ...]) -> Row:
    """Material that did not verify: it counted for nothing, and whoever carried it should know. Nodes of members that
    no pinned charter lists (`strangers`) count for nothing either, but nothing speaks against them."""
    notes = [*readings.notes, *others]
    for standing in standings:
        notes += [*standing.broken, *standing.unbound]
        notes += [text for seen in standing.witnessed for text in seen.refused]
    notes = list(dict.fromkeys(notes))
    unknown = tuple(_here(f"no pinned charter lists the member of {name!r}") for name in dict.fromkeys(strangers))
    if not notes and unknown:
        text = f"{unknown[0].text} ({len(unknown)} in all); it counts for nothing here"
        return Row("notes", "unknown", text, 12, "missing", unknown, "comity trust diff")
    if not notes:
        return Row("notes", "pass", "everything here verified", 12)
    return Row(
        "notes", "fail", f"{notes[0]} ({len(notes)} in all)", 12, "short", (*(_here(note) for note in notes), *unknown)
    )


def policy_row(rows: tuple[Row, ...], policy: Policy, refusals: tuple[Advisory, ...]) -> Row:
    short_of = [row.name for row in rows if row.name in ("artifact", *policy.require) and row.state != "pass"]
    if refusals:
        return Row(
            "policy", "fail", f"an issuer that the owner listed advises against it: {refusals[0].kind}", 13, "short"
        )
    if short_of:
        return Row("policy", "fail", f"not met: {', '.join(short_of)}", 13, "short")
    return Row("policy", "pass", f"required and passed: {', '.join(policy.require)}", 13)


def pieces_note(evidence: Evidence, chosen: Standing | None) -> tuple[str, ...]:
    """The piece index decides nothing, since whole files are hashed here; a puller would stumble over a wrong one."""
    named = chosen.publication.published.pieces.digest if chosen else None
    if evidence.pieces is None or named is None or sha256(evidence.pieces) == named:
        return ()
    return (f"pieces.json is not the piece index that was published, {short(named)}, and counts for nothing",)


def _here(text: str, evidence: Digest | None = None) -> Fact:
    return Fact(text, "verified here", evidence=evidence)


def _who(identity: Inception) -> str:
    return f"{identity.display} [{identity.id[:12]}]"


def _member(seen: Witnessed) -> str:
    return f"{seen.writer.name} ({seen.writer.jurisdiction})"


def _algorithms(signer: KeyState) -> str:
    algorithms = sorted({half.alg for key in signer.keys.keys for half in key.halves})
    return f"{signer.keys.threshold} of {len(signer.keys.keys)} keys ({' + '.join(algorithms)})"
