"""What the artifact is, and whether these are its bytes.

What in its files would run when somebody loads it, and whether they are what they seem.

Which documents its publisher put beside it, whether they are here, and what others say on their own account.

What it was made from: who says so, what of it somebody made again, and where licences conflict.

Under which licence it is, as its publisher claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from comity.trust.artifact import Manifest
from comity.trust.claims import Vouch, members_behind
from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import KINDS, MODEL_SIG, Cause, Evidence, FoundFile, Inspection, Row, RowFact, kind_of
from comity.trust.lineage import LineageEdge, LineageGraph, LineageNode
from comity.trust.policy import SafetyRule
from comity.trust.rows.findings import Findings, here, who
from comity.trust.statement import SideObject
from comity.trust.statements import DOCUMENTS, Derived


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
    return manifest, Row("artifact", "pass", summary, 1, facts=(here(summary, manifest.digest),))


def bytes_row(evidence: Evidence, manifest: Manifest) -> Row:
    if evidence.files is None:
        return Row("bytes", "not-checked", "nobody looked at the files", 2, "missing")
    found = {file.path: file for file in evidence.files}
    differing = (
        (found[entry.path], entry.size)
        for entry in manifest.files
        if entry.path in found and (found[entry.path].sha256, found[entry.path].size) != (entry.sha256, entry.size)
    )
    wrong = [here(f"{file.path}: {_difference(file.kind, file.size, size)}", file.sha256) for file, size in differing]
    beside = _beside(evidence, manifest)
    unlisted = (file for file in evidence.files if file.path not in manifest.by_path and file not in beside)
    wrong += [here(f"{file.path}: not in the manifest", file.sha256) for file in unlisted]
    missing = [entry.path for entry in manifest.files if entry.path not in found]
    facts = (*wrong, *(RowFact(f"{path}: missing", "stale or absent") for path in missing))
    facts += tuple(here(f"{file.path}: beside the artifact, not one of its files", file.sha256) for file in beside)
    whole = f"{len(manifest.files) - len(missing)}/{len(manifest.files)} files hashed here"
    if wrong or (missing and not evidence.partial):
        first = wrong[0].text if wrong else f"{missing[0]}: missing"
        return Row("bytes", "fail", f"{first} ({len(wrong)} differ, {len(missing)} missing)", 2, "false", facts)
    if missing:
        return Row("bytes", "unknown", f"{whole}; partial by request, {len(missing)} missing", 2, "partial", facts)
    return Row("bytes", "pass", f"{whole}, {manifest.size} bytes", 2, facts=(here(whole, manifest.digest), *facts))


def _beside(evidence: Evidence, manifest: Manifest) -> tuple[FoundFile, ...]:
    """A `model.sig` that its signer put there afterwards: no byte of the artifact, and exactly what was read of it."""
    if evidence.model_sig is None or MODEL_SIG in manifest.by_path:
        return ()
    signature = FoundFile(MODEL_SIG, len(evidence.model_sig), sha256(evidence.model_sig))
    return tuple(file for file in evidence.files or () if replace(file, inspection=None) == signature)


def _difference(kind: str, size: int, expected: int) -> str:
    if kind != "file":
        return "a link out of the folder" if kind == "link" else "not a regular file"
    return f"{size} bytes instead of {expected}" if size != expected else "its bytes are not the published ones"


FILE_SAFETY_ROW = "file safety"
FILE_SAFETY_STEP = 10


def safety_row(found: Findings) -> Row:
    """It fails for what the policy does not allow; nothing in a file makes it a failed verification."""
    if found.evidence.files is None:
        return Row(FILE_SAFETY_ROW, "not-checked", "nobody looked at the files", FILE_SAFETY_STEP, "missing")
    files, rule = [file for file in found.evidence.files if file.kind == "file"], found.policy.safety
    looked = [(file, file.inspection) for file in files if file.inspection is not None]
    refusals = tuple(here(f"{file.path}: {text}", file.sha256) for file, _ in looked for text in refused(rule, file))
    allowed = tuple(fact for file, seen in looked for fact in _allowed(rule, file, seen))
    census = _census([seen for _, seen in looked])
    strange = tuple(here(f"{file.path}: its format is not known here", file.sha256) for file in _strange(looked))
    facts = (*refusals, *allowed, *strange, here(census))
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
    if len(looked) < len(files):
        text = f"{len(files) - len(looked)} of {len(files)} files were not looked into"
        return Row(FILE_SAFETY_ROW, "unknown", text, FILE_SAFETY_STEP, "missing", facts)
    if missing := {entry.path for entry in found.manifest.files} - {file.path for file in files}:
        cause: Cause = "partial" if found.evidence.partial else "missing"
        return Row(
            FILE_SAFETY_ROW, "unknown", f"{census}; {len(missing)} files are not here", FILE_SAFETY_STEP, cause, facts
        )
    shown = f"; allowed: {', '.join(dict.fromkeys(_kinds(looked)))}" if allowed else "; nothing active"
    return Row(FILE_SAFETY_ROW, "pass", f"{census}{shown}", FILE_SAFETY_STEP, facts=facts)


def refused(rule: SafetyRule, file: FoundFile) -> Iterator[str]:
    """What the rule refuses about a file that was looked into."""
    seen = file.inspection
    if seen is None or rule.exempts(file.path, file.sha256):
        return
    for active in seen.active:
        if not rule.accepts(active):
            yield f"{active} ({KINDS.get(kind_of(active), 'not known here')})"
    yield from seen.malformed
    if not rule.accepts_format(seen.format):
        yield f"{seen.format}, a format that the policy does not name"


def _allowed(rule: SafetyRule, file: FoundFile, seen: Inspection) -> Iterator[RowFact]:
    exempt = rule.exempts(file.path, file.sha256)
    for text in (*seen.active, *(seen.malformed if exempt else ())):
        if exempt or rule.accepts(text):
            yield here(f"{file.path}: {text}, which the policy allows", file.sha256)


def _strange(looked: list[tuple[FoundFile, Inspection]]) -> Iterator[FoundFile]:
    return (file for file, seen in looked if seen.format == "unknown")


def _kinds(looked: list[tuple[FoundFile, Inspection]]) -> Iterator[str]:
    return (kind_of(active) for _, seen in looked for active in seen.active)


def _census(inspections: list[Inspection]) -> str:
    counts = Counter(seen.format for seen in inspections)
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts)) or "no files"


DOCUMENTS_ROW = "documents"
DOCUMENTS_STEP = 11


def documents_row(found: Findings) -> Row:
    """What the policy asks for has to be named by the publisher, and be here. Nobody reads what is in it."""
    chosen, required = found.chosen, found.policy.documents
    named = chosen.publication.published.documents if chosen else {}
    facts = (*_documents(found), *(_vouched(vouch, found) for vouch in found.vouches))
    counts = members_behind(found.vouches).items()
    behind = "".join(f"; {kind}, {f'say {n} members' if n > 1 else 'says one member'}" for kind, n in counts)
    if not required:
        text = f"the policy names none; named by the publisher: {', '.join(named) or 'none'}{behind}"
        return Row(DOCUMENTS_ROW, "not-checked", text, DOCUMENTS_STEP, facts=facts)
    if lacking := [kind for kind in required if kind not in named]:
        text = f"its publisher names no {' and no '.join(lacking)}{behind}"
        return Row(
            DOCUMENTS_ROW,
            "fail" if chosen else "unknown",
            text,
            DOCUMENTS_STEP,
            "short" if chosen else "missing",
            facts,
        )
    if absent := [kind for kind in required if not _here(named[kind], found)]:
        text = f"named and not here: {', '.join(absent)}{behind}"
        return Row(DOCUMENTS_ROW, "unknown", text, DOCUMENTS_STEP, "missing", facts, hint="comity pull REF")
    return Row(DOCUMENTS_ROW, "pass", f"here: {', '.join(required)}{behind}", DOCUMENTS_STEP, facts=facts)


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
        yield RowFact(f"{text}: named", "claimed", who(publication.publisher), publication.entry.digest)
        here = _here(item, found)
        yield RowFact(
            f"{text}: {'here' if here else 'not here'}", "verified here" if here else "stale or absent", "", item.digest
        )


def _vouched(vouch: Vouch, found: Findings) -> RowFact:
    said = vouch.said
    document = ""
    if said.document is not None:
        document = f"; document {short(said.document.digest)} {'here' if _here(said.document, found) else 'not here'}"
    return RowFact(
        f"{said.statement}{': ' * bool(said.text)}{said.text}{document}", "claimed", vouch.by.name, vouch.entry.digest
    )


def _here(item: SideObject, found: Findings) -> bool:
    """Whether its bytes are among the objects, or a file of the artifact has them."""
    if (data := found.evidence.objects.get(item.digest)) is not None:
        return len(data) == item.size
    return any((file.sha256, file.size) == (item.digest, item.size) for file in found.evidence.files or ())


LINEAGE_ROW = "lineage"
LINEAGE_STEP = 8
HINT = "comity lineage REF"


def lineage_row(found: Findings) -> Row:
    """It passes where all that it comes from is named by digest, and described by somebody, up to those that name no
    parent; it fails only for what the policy asks."""
    graph, rule = found.lineage, found.policy.lineage
    if found.chosen is None:
        return Row(
            LINEAGE_ROW, "unknown", "nobody says what it was made from", LINEAGE_STEP, "missing", hint="comity pull REF"
        )
    facts = tuple(_lineage_facts(graph))
    own = [edge for edge in graph.edges if edge.child == graph.root.key]
    nameless = [graph.node(edge.parent) for edge in own if graph.node(edge.parent).digest is None]
    if rule.by_digest and nameless:
        text = f"its parent {nameless[0].title} is named without a digest"
        return Row(LINEAGE_ROW, "fail", text, LINEAGE_STEP, "short", facts, HINT)
    if rule.no_conflicts and graph.conflicts:
        return Row(LINEAGE_ROW, "fail", _conflicts(graph)[0], LINEAGE_STEP, "short", facts, HINT)
    if not graph.edges:
        claim = found.chosen.publication
        fact = RowFact("no parent is named", "claimed", claim.publisher.display, claim.entry.digest)
        return Row(LINEAGE_ROW, "pass", "its publisher names no parent", LINEAGE_STEP, facts=(fact,))
    text = ", ".join(f"{_relation(edge)} of {graph.node(edge.parent).title} ({_standing(edge)})" for edge in own[:3])
    text += f" and {len(own) - 3} more" if len(own) > 3 else ""
    if open_end := _open_end(graph):
        return Row(LINEAGE_ROW, "unknown", f"{text}; {open_end}", LINEAGE_STEP, "missing", facts, HINT)
    return Row(LINEAGE_ROW, "pass", text, LINEAGE_STEP, facts=facts)


def conflict_facts(found: Findings) -> tuple[RowFact, ...]:
    """Conflicts of licences along the lineage, for the row about licences: claims both, by a table that is ours."""
    return tuple(_conflict_facts(found.lineage))


def _conflict_facts(graph: LineageGraph) -> Iterator[RowFact]:
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
            yield RowFact(f"{child.title} is a {_relation(edge)} of {_named(parent)}", "claimed", by, line)
        for word in edge.words:
            text = f"{child.title} from {_named(parent)}: {said_to_be_derived(word.derived)}"
            yield RowFact(text, "claimed", word.by, word.line)
        if edge.closes:
            yield here(f"{child.title} and {parent.title} are said to be made from one another")
    for node in graph.missing:
        yield RowFact(f"{_named(node)}: nothing that its publisher says is here", "stale or absent")
    yield from _conflict_facts(graph)
    if graph.cut:
        yield RowFact(f"more is claimed than is read: {graph.cut}", "stale or absent")


def said_to_be_derived(derived: Derived) -> str:
    """What a `derived` statement says, in words."""
    steps = ", ".join(f"{count} {step}" for step, count in derived.steps.items())
    if derived.exact:
        return f"all {derived.tensors.total} tensors made again, bit for bit ({steps})"
    return f"{derived.tensors.equal} of {derived.tensors.total} tensors are the same" + (f" ({steps})" if steps else "")


def _relation(edge: LineageEdge) -> str:
    return " and ".join(edge.relations)


def _named(node: LineageNode) -> str:
    return f"{node.title}, sha256 {short(node.digest)}" if node.digest else f"{node.title}, without a digest"


def _standing(edge: LineageEdge) -> str:
    """On whose word an edge stands."""
    exact = [word.by for word in edge.words if word.derived.exact]
    if not edge.claimed_by:
        return f"which its publisher does not name; {_first(exact or [word.by for word in edge.words])} derived it"
    return f"claimed; derived bit for bit by {_first(exact)}, as they say" if exact else "claimed"


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _open_end(graph: LineageGraph) -> str:
    """Why not all of it is known here; empty where it is."""
    if circle := next((edge for edge in graph.edges if edge.closes), None):
        return f"the claims about {graph.node(circle.child).title} go in a circle"
    if nameless := [node for node in graph.nodes if node.digest is None]:
        return f"{nameless[0].title} is named without a digest"
    if graph.missing:
        return f"nothing about {graph.missing[0].title} is here"
    return graph.cut


def licence_row(found: Findings) -> Row:
    policy, chosen = found.policy, found.chosen
    if not policy.licences or chosen is None:
        claimed = chosen.publication.published.licence.spdx if chosen else "nothing"
        text = f"the policy names no licences; claimed: {claimed}"
        return Row("licence", "not-checked", text, 9, facts=conflict_facts(found))
    licence = chosen.publication.published.licence
    publisher = who(chosen.publication.publisher)
    facts = [RowFact(licence.spdx, "claimed", publisher, chosen.publication.entry.digest)]
    if licence.text is not None:
        here = licence.text.digest in found.evidence.objects
        text = f"its text, sha256 {short(licence.text.digest)}, is {'here' if here else 'not here'}"
        facts.append(RowFact(text, "verified here" if here else "stale or absent", evidence=licence.text.digest))
    facts += conflict_facts(found)
    if licence.spdx.lower() in policy.licences:
        return Row("licence", "pass", f"{licence.spdx}, as {publisher} claims", 9, facts=tuple(facts))
    return Row("licence", "fail", f"{licence.spdx} is not among those accepted", 9, "short", tuple(facts))
