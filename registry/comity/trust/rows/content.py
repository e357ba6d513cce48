"""The rows about content: *artifact* (1), *bytes* (2), *lineage* (8), *licence* (9), *file safety* (10) and *documents*
(11).

A folder with an OpenSSF `model.sig` and no manifest is also judged: the artifact is the one that publishing these files
would make, and *bytes* passes if a listed signer signed these files. The rows about publishers, logs and cosigners stay
unknown. Mirror statements of pinned members' nodes add facts to *artifact*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from comity.trust.artifact import RESERVED, FileEntry, Manifest
from comity.trust.claims import MirrorEvidence, Vouch, member_counts
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import KINDS, MODEL_SIG, Cause, Evidence, FoundFile, Inspection, Row, RowFact, kind_of
from comity.trust.lineage import LineageEdge, LineageGraph, LineageNode
from comity.trust.model_signing.judging import ModelSignatureResult
from comity.trust.policy import SafetyRule
from comity.trust.rows.findings import (
    Findings,
    change_text,
    coverage_facts,
    has_only_model_sig,
    identity_label,
    member_names,
    observed_text,
    verified_fact,
)
from comity.trust.statement import SideObject
from comity.trust.statements import DOCUMENTS, Derived


def identify(evidence: Evidence) -> Manifest | Row:
    """Return the manifest, or the row (1) that says why there is none. If only a `model.sig` lists the files, the
    manifest is the one that publishing the found files would make."""
    if has_only_model_sig(evidence):
        try:
            return _manifest_of_files(evidence)
        except ComityError as error:
            return Row("artifact", "fail", f"no manifest can list these files: {error}", 1, "false")
    if evidence.manifest is None:
        return Row("artifact", "unknown", "no manifest", 1, "missing", hint="comity pull REF")
    try:
        return Manifest.parse(evidence.manifest)
    except ComityError as error:
        return Row("artifact", "fail", f"the manifest is not valid: {error}", 1, "false")


def _manifest_of_files(evidence: Evidence) -> Manifest:
    reserved = tuple(f"{folder}/" for folder in RESERVED)
    manifest = Manifest.of(
        FileEntry(file.path, file.size, file.sha256)
        for file in evidence.files or ()
        if file.sha256 is not None and not f"{file.path}/".startswith(reserved)
    )
    manifest.encode()  # raises Malformed if all files together have a size that no manifest can state
    return manifest


def artifact_row(found: Findings) -> Row:
    """Row (1), with mirror facts; `short` if the policy requires more members than mirrored the artifact."""
    manifest, mirroring, needed = found.manifest, found.mirroring, found.policy.upstream.corroborated
    count = len(manifest.files)
    text = f"sha256:{manifest.digest}, {count} file{'s' * (count != 1)}, {manifest.size} bytes"
    text += ", as found here, without a manifest" if found.without_manifest else ""
    facts = (verified_fact(text, manifest.digest), *_mirroring_facts(mirroring))
    # An accepted publisher, whichever gets furthest (I4), says what the bytes are, but not which commit has them.
    named = not found.commit and any(judged.accepted is True for judged in found.judged)
    members = len(mirroring.corroborating(found.commit)) if found.commit else mirroring.corroborated
    if named or members >= needed:
        return Row("artifact", "pass", text, 1, facts=facts)
    text = f"{members} member{'s' * (members != 1)} mirrored it from its upstream, {needed} required"
    return Row("artifact", "unknown", text, 1, "short", facts, hint="comity pull REF")


def _mirroring_facts(mirroring: MirrorEvidence) -> Iterator[RowFact]:
    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            who = member_names(members)
            yield verified_fact(
                f"{name}: corroborated {len(members)}: these members signed that they fetched it: {who}"
            )
    for seen in mirroring.seen:
        yield RowFact(observed_text(seen), "claimed", member_names(seen.members), seen.entry.digest)
    for entry, change, members in mirroring.changes:
        yield RowFact(change_text(change), "claimed", member_names(members), entry.digest)


def bytes_row(found: Findings) -> Row:
    evidence, manifest = found.evidence, found.manifest
    if evidence.files is None:
        return Row("bytes", "not-checked", "the files were not read", 2, "missing")
    if found.without_manifest and found.model_sig is not None:
        return _bytes_by_model_sig(found.model_sig)
    here = {file.path: file for file in evidence.files}
    differing = (
        (here[entry.path], entry.size)
        for entry in manifest.files
        if entry.path in here and (here[entry.path].sha256, here[entry.path].size) != (entry.sha256, entry.size)
    )
    wrong = [
        verified_fact(f"{file.path}: {_difference(file.kind, file.size, size)}", file.sha256)
        for file, size in differing
    ]
    added = _added_model_sig(evidence, manifest)
    unlisted = (file for file in evidence.files if file.path not in manifest.by_path and file not in added)
    wrong += [verified_fact(f"{file.path}: not in the manifest", file.sha256) for file in unlisted]
    missing = [entry.path for entry in manifest.files if entry.path not in here]
    facts = (*wrong, *(RowFact(f"{path}: missing", "stale or absent") for path in missing))
    facts += tuple(
        verified_fact(f"{file.path}: beside the artifact, not one of its files", file.sha256) for file in added
    )
    whole = f"{len(manifest.files) - len(missing)}/{len(manifest.files)} files hashed here"
    if wrong or (missing and not evidence.partial):
        first = wrong[0].text if wrong else f"{missing[0]}: missing"
        return Row("bytes", "fail", f"{first} ({len(wrong)} differ, {len(missing)} missing)", 2, "false", facts)
    if missing:
        return Row("bytes", "unknown", f"{whole}; partial by request, {len(missing)} missing", 2, "partial", facts)
    return Row(
        "bytes", "pass", f"{whole}, {manifest.size} bytes", 2, facts=(verified_fact(whole, manifest.digest), *facts)
    )


def _bytes_by_model_sig(result: ModelSignatureResult) -> Row:
    """Step (2) without a manifest: compare the files with the signed list."""
    coverage, digest = result.coverage, result.digest
    if result.statement is None or coverage is None:
        return Row("bytes", "unknown", "there is no list of files", 2, "missing")
    facts = coverage_facts(result)
    if coverage.false or (coverage.missing and not result.partial):
        first = (*coverage.false, *coverage.missing)[0]
        text = f"{first} ({len(coverage.false)} wrong, {len(coverage.missing)} missing)"
        return Row("bytes", "fail", text, 2, "false", facts)
    whole = f"{coverage.right}/{len({r.path for r in result.statement.resources})} files as model.sig lists them"
    if coverage.tolerated:
        whole += f", {len(coverage.tolerated)} unsigned that the policy allows"
    if coverage.unchecked:
        return Row("bytes", "not-checked", f"{whole}; {coverage.unchecked[0]}", 2, "missing", facts)
    if result.signer.state != "pass":
        return Row("bytes", "unknown", f"{whole}, but the policy does not list the signer", 2, "missing", facts)
    if coverage.missing:
        return Row("bytes", "unknown", f"{whole}; partial by request", 2, "partial", facts)
    return Row("bytes", "pass", whole, 2, facts=(verified_fact(whole, digest), *facts))


def _added_model_sig(evidence: Evidence, manifest: Manifest) -> tuple[FoundFile, ...]:
    """A `model.sig` that was added later: it is not listed in the manifest, and has exactly the bytes that were
    read."""
    if evidence.model_sig is None or MODEL_SIG in manifest.by_path:
        return ()
    signature = FoundFile(MODEL_SIG, len(evidence.model_sig), sha256(evidence.model_sig))
    return tuple(file for file in evidence.files or () if replace(file, inspection=None) == signature)


def _difference(kind: str, size: int, expected: int) -> str:
    if kind != "file":
        return "a link out of the folder" if kind == "link" else "not a regular file"
    return f"{size} bytes instead of {expected}" if size != expected else "the hash does not match the manifest"


FILE_SAFETY_ROW = "file safety"
FILE_SAFETY_STEP = 10


def safety_row(found: Findings) -> Row:
    """Row (10): fails with cause `short` for content that the policy does not allow, never with `false`."""
    if found.evidence.files is None:
        return Row(FILE_SAFETY_ROW, "not-checked", "the files were not read", FILE_SAFETY_STEP, "missing")
    files, rule = [file for file in found.evidence.files if file.kind == "file"], found.policy.safety
    inspected = [(file, file.inspection) for file in files if file.inspection is not None]
    refusals = tuple(
        verified_fact(f"{file.path}: {text}", file.sha256)
        for file, _ in inspected
        for text in refused_content(rule, file)
    )
    allowed = tuple(fact for file, seen in inspected for fact in _allowed(rule, file, seen))
    format_counts = _format_counts([seen for _, seen in inspected])
    facts = (*refusals, *allowed, verified_fact(format_counts))
    if refusals:
        return Row(
            FILE_SAFETY_ROW,
            "fail",
            f"{refusals[0].text}; {len(refusals)} in all",
            FILE_SAFETY_STEP,
            "short",
            facts,
            hint="comity scan DIR",
        )
    if len(inspected) < len(files):
        text = f"{len(files) - len(inspected)} of {len(files)} files were not inspected"
        return Row(FILE_SAFETY_ROW, "unknown", text, FILE_SAFETY_STEP, "missing", facts)
    if missing := {entry.path for entry in found.manifest.files} - {file.path for file in files}:
        cause: Cause = "partial" if found.evidence.partial else "missing"
        return Row(
            FILE_SAFETY_ROW,
            "unknown",
            f"{format_counts}; {len(missing)} files are missing",
            FILE_SAFETY_STEP,
            cause,
            facts,
        )
    shown = f"; allowed: {', '.join(dict.fromkeys(_kinds(inspected)))}" if allowed else "; no active content"
    return Row(FILE_SAFETY_ROW, "pass", f"{format_counts}{shown}", FILE_SAFETY_STEP, facts=facts)


def refused_content(rule: SafetyRule, file: FoundFile) -> Iterator[str]:
    """Yield descriptions of the content that `rule` refuses in an inspected file."""
    seen = file.inspection
    if seen is None or rule.exempts(file.path, file.sha256):
        return
    for active in seen.active:
        if not rule.accepts(active):
            yield f"{active} ({KINDS.get(kind_of(active), 'unknown kind')})"
    yield from seen.malformed
    if not rule.accepts_format(seen.format):
        yield f"{seen.format}, a format that the policy does not allow"


def _allowed(rule: SafetyRule, file: FoundFile, seen: Inspection) -> Iterator[RowFact]:
    exempt = rule.exempts(file.path, file.sha256)
    for text in (*seen.active, *(seen.malformed if exempt else ())):
        if exempt or rule.accepts(text):
            yield verified_fact(f"{file.path}: {text}{_ALLOWED}", file.sha256)


_ALLOWED = ", which the policy allows"


def refused_files(row: Row) -> tuple[Digest, ...]:
    """The digests of the files that the policy refuses, by the row that says so."""
    refused = (fact.evidence for fact in row.facts if not fact.text.endswith(_ALLOWED))
    return tuple(dict.fromkeys(digest for digest in refused if digest is not None))


def _kinds(inspected: list[tuple[FoundFile, Inspection]]) -> Iterator[str]:
    return (kind_of(active) for _, seen in inspected for active in seen.active)


def _format_counts(inspections: list[Inspection]) -> str:
    counts = Counter(seen.format for seen in inspections)
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts)) or "no files"


DOCUMENTS_ROW = "documents"
DOCUMENTS_STEP = 11


def documents_row(found: Findings) -> Row:
    """Row (11): passes if the publisher names the required documents and they are present. Their content is not
    read."""
    chosen, required = found.chosen, found.policy.documents
    named = chosen.publication.published.documents if chosen else {}
    evaluations = (fact for judged in found.announced for fact in judged.facts())
    facts = (*_documents(found), *(_vouch_fact(vouch, found) for vouch in found.vouches), *evaluations)
    counts = member_counts(found.vouches).items()
    counts_text = "".join(f"; {kind}, by {n} member{'s' * (n != 1)}" for kind, n in counts)
    if not required:
        text = f"the policy requires none; named by the publisher: {', '.join(named) or 'none'}{counts_text}"
        return Row(DOCUMENTS_ROW, "not-checked", text, DOCUMENTS_STEP, facts=facts)
    if unnamed := [kind for kind in required if kind not in named]:
        text = f"the publisher names no {' and no '.join(unnamed)}{counts_text}"
        return Row(
            DOCUMENTS_ROW,
            "fail" if chosen else "unknown",
            text,
            DOCUMENTS_STEP,
            "short" if chosen else "missing",
            facts,
        )
    if absent := [kind for kind in required if not _is_present(named[kind], found)]:
        text = f"named but missing: {', '.join(absent)}{counts_text}"
        return Row(DOCUMENTS_ROW, "unknown", text, DOCUMENTS_STEP, "missing", facts, hint="comity pull REF")
    return Row(DOCUMENTS_ROW, "pass", f"present: {', '.join(required)}{counts_text}", DOCUMENTS_STEP, facts=facts)


def _documents(found: Findings) -> Iterator[RowFact]:
    if found.chosen is None:
        return
    publication = found.chosen.publication
    for kind in DOCUMENTS:
        item = publication.published.documents.get(kind)
        if item is None:
            yield RowFact(f"no {kind} is named", "stale or absent")
            continue
        text = f"{kind}, sha256 {short(item.digest)}, {item.size} bytes"
        yield RowFact(f"{text}: named", "claimed", identity_label(publication.publisher), publication.entry.digest)
        present = _is_present(item, found)
        state = "present" if present else "missing"
        yield RowFact(f"{text}: {state}", "verified here" if present else "stale or absent", "", item.digest)


def _vouch_fact(vouch: Vouch, found: Findings) -> RowFact:
    vouched = vouch.vouched
    document = ""
    if vouched.document is not None:
        state = "present" if _is_present(vouched.document, found) else "missing"
        document = f"; document {short(vouched.document.digest)} {state}"
    return RowFact(
        f"{vouched.kind}{': ' * bool(vouched.text)}{vouched.text}{document}",
        "claimed",
        vouch.by.name,
        vouch.entry.digest,
    )


def _is_present(item: SideObject, found: Findings) -> bool:
    """Whether the evidence has the object, as a side object or as a file of the artifact."""
    if (data := found.evidence.objects.get(item.digest)) is not None:
        return len(data) == item.size
    return any((file.sha256, file.size) == (item.digest, item.size) for file in found.evidence.files or ())


LINEAGE_ROW = "lineage"
LINEAGE_STEP = 8
LINEAGE_HINT = "comity lineage REF"


def lineage_row(found: Findings) -> Row:
    """Row (8): passes if every ancestor that publishers name is named by digest and described by a proven statement, up
    to artifacts without parents. It fails only for requirements of the policy. What others say that they derived is
    shown, and decides nothing."""
    graph, claimed, rule = found.lineage, found.claimed, found.policy.lineage
    if found.chosen is None:
        return Row(
            LINEAGE_ROW, "unknown", "no publication names its parents", LINEAGE_STEP, "missing", hint="comity pull REF"
        )
    facts = (*_lineage_facts(graph), *_conflict_facts(graph))
    own = [edge for edge in graph.edges if edge.child == graph.root.key]
    without_digest = [graph.node(edge.parent) for edge in own if graph.node(edge.parent).digest is None]
    if rule.by_digest and without_digest:
        text = f"its parent {without_digest[0].title} is named without a digest"
        return Row(LINEAGE_ROW, "fail", text, LINEAGE_STEP, "short", facts, LINEAGE_HINT)
    if rule.no_conflicts and claimed.conflicts:
        return Row(LINEAGE_ROW, "fail", _conflicts(claimed)[0], LINEAGE_STEP, "short", facts, LINEAGE_HINT)
    if not graph.edges:
        claim = found.chosen.publication
        fact = RowFact("no parent is named", "claimed", claim.publisher.display, claim.entry.digest)
        return Row(LINEAGE_ROW, "pass", "the publisher names no parent", LINEAGE_STEP, facts=(fact,))
    text = ", ".join(
        f"{_relation(edge)} of {graph.node(edge.parent).title} ({_edge_evidence(edge)})" for edge in own[:3]
    )
    text += f" and {len(own) - 3} more" if len(own) > 3 else ""
    if open_end := _open_end(claimed):
        return Row(LINEAGE_ROW, "unknown", f"{text}; {open_end}", LINEAGE_STEP, "missing", facts, LINEAGE_HINT)
    return Row(LINEAGE_ROW, "pass", text, LINEAGE_STEP, facts=facts)


def _conflict_facts(graph: LineageGraph) -> Iterator[RowFact]:
    """Licence conflicts along the lineage: claimed licences, compared by Comity's own table."""
    for text, (child, _, _) in zip(_conflicts(graph), graph.conflicts, strict=True):
        yield RowFact(text, "claimed", ", ".join(child.publishers))


def _conflicts(graph: LineageGraph) -> list[str]:
    return [
        f"licence conflict: {child.title} ({child.licence}) comes from {parent.title} ({parent.licence}): {fit.why}"
        for child, parent, fit in graph.conflicts
    ]


def _lineage_facts(graph: LineageGraph) -> Iterator[RowFact]:
    for edge in graph.edges:
        child, parent = graph.node(edge.child), graph.node(edge.parent)
        for by, line in edge.claimed_by:
            yield RowFact(f"{child.title} is a {_relation(edge)} of {_node_label(parent)}", "claimed", by, line)
        for derivation in edge.derivations:
            text = f"{child.title} from {_node_label(parent)}: {derivation_text(derivation.derived)}"
            yield RowFact(text, "claimed", derivation.by, derivation.line)
        if edge.closes_cycle:
            yield verified_fact(f"{child.title} and {parent.title} are claimed to be made from one another")
    for node in graph.missing:
        yield RowFact(f"{_node_label(node)}: no statement of its publisher is here", "stale or absent")
    if graph.truncation:
        yield RowFact(f"more is claimed than was read: {graph.truncation}", "stale or absent")


def derivation_text(derived: Derived) -> str:
    """Describe a `derived` statement for people."""
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"all {derived.tensors.total} tensors reproduced bit for bit ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same" + (f" ({steps})" if steps else "")


def _relation(edge: LineageEdge) -> str:
    return " and ".join(edge.relations)


def _node_label(node: LineageNode) -> str:
    return f"{node.title}, sha256 {short(node.digest)}" if node.digest else f"{node.title}, without a digest"


def _edge_evidence(edge: LineageEdge) -> str:
    """The evidence for an edge: the publisher's claim, and `derived` statements."""
    exact = [derivation.by for derivation in edge.derivations if derivation.derived.exact]
    if not edge.claimed_by:
        authors = exact or [derivation.by for derivation in edge.derivations]
        return f"which its publisher does not name; {_first_and_count(authors)} derived it"
    return f"claimed; derived bit for bit, as claimed by {_first_and_count(exact)}" if exact else "claimed"


def _first_and_count(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _open_end(graph: LineageGraph) -> str:
    """Why the lineage is not completely known; empty if it is."""
    if cycle := next((edge for edge in graph.edges if edge.closes_cycle), None):
        return f"the claims about {graph.node(cycle.child).title} form a cycle"
    if without_digest := [node for node in graph.nodes if node.digest is None]:
        return f"{without_digest[0].title} is named without a digest"
    if graph.missing:
        return f"no statement about {graph.missing[0].title} is here"
    return graph.truncation


def _spellings(spdx: str) -> tuple[str, ...]:
    """A licence as policies may write it: without case, or by its older SPDX name (`gpl-3.0`, `gpl-3.0+`)."""
    name = spdx.lower()
    return name, name.removesuffix("-only"), name.removesuffix("-or-later") + "+" * name.endswith("-or-later")


def licence_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if not policy.licences or chosen is None:
        claimed = chosen.publication.published.licence.spdx if chosen else "nothing"
        text = f"the policy lists no licences; claimed: {claimed}"
        return Row("licence", "not-checked", text, 9, facts=tuple(_conflict_facts(found.claimed)))
    licence = chosen.publication.published.licence
    publisher = identity_label(chosen.publication.publisher)
    facts = [RowFact(licence.spdx, "claimed", publisher, chosen.publication.entry.digest)]
    if licence.text is not None:
        present = licence.text.digest in found.evidence.objects
        text = f"its text, sha256 {short(licence.text.digest)}, is {'present' if present else 'missing'}"
        facts.append(RowFact(text, "verified here" if present else "stale or absent", evidence=licence.text.digest))
    facts += _conflict_facts(found.claimed)
    if not policy.licences.isdisjoint(_spellings(licence.spdx)):
        return Row("licence", "pass", f"{licence.spdx}, as {publisher} claims", 9, facts=tuple(facts))
    return Row("licence", "fail", f"{licence.spdx} is not an accepted licence", 9, "short", tuple(facts))
