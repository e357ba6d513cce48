"""Every row of many verdicts, word for word, as `verdict_rows.json` beside this script has them.

`PYTHONPATH=tests python -m support.verdict_rows` writes the file again; a test fails where it differs. Digests differ
from run to run where a signature is randomised, so each is written as `#`, and those of the row *lineage* are sorted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.evidence import MODEL_SIG, Evidence, FoundFile, InclusionEvidence, Inspection, Row, Verdict
from comity.trust.model_signing.judging import ModelSigningRule
from comity.trust.policy import Policy
from comity.trust.report import VerdictReport, summarise_report
from comity.trust.rotation import parse_rotation
from comity.trust.statement import SideObject, sign_statement
from comity.trust.statements import Advisory, Compromise, Parent, Vouched
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import Changed, Gone, Upstream
from comity.trust.verify import verify
from support import model_sig
from support.case import CARD, FILES, LICENCE_TEXT, Case, advisory, case, filled, nodes, release
from support.derivations import derived_line
from support.observations import COMMIT, observation
from support.rotations import of
from support.world import NOW, Identity, found, identity, node, seat

PATH: Final = Path(__file__).with_suffix(".json")
CH, SG, ES, KR = nodes(4)
GOOD = case()
OWNER, RIVAL, LAB = identity("Swiss AI", "CH"), identity("Rival", "SG"), identity("Checking lab", "ES")
REST = GOOD.claims[-4:]
"""The holds."""
RULE = '[cosigners]\nat_least = 2\njurisdictions = 2\noutside = ["publisher"]\n'


def on(evidence: Evidence, **changed: Any) -> Verdict:
    return verify(replace(evidence, **changed), GOOD.policy)


def files_with(**changed: Any) -> Verdict:
    """The first file found otherwise."""
    first, *others = GOOD.evidence.files or ()
    return on(GOOD.evidence, files=(replace(first, **changed), *others))


def fewer_files(count: int, partial: bool = False) -> Verdict:
    return on(GOOD.evidence, files=(GOOD.evidence.files or ())[count:], partial=partial)


def inspected(*inspections: Inspection | None, policy: str = "") -> Verdict:
    """The files with these findings of an inspection on the first ones."""
    files = list(GOOD.evidence.files or ())
    for place, seen in enumerate(inspections):
        files[place] = replace(files[place], inspection=seen)
    changed = GOOD.demanding("[rows]", f"[safety]\n{policy}\n[rows]") if policy else GOOD
    return verify(replace(GOOD.evidence, files=tuple(files)), changed.policy)


def proven(*proofs: InclusionEvidence) -> Case:
    """Only these proofs of the publication, and those of the holds."""
    kept = tuple(proof for proof in GOOD.proofs if proof.line != sha256(GOOD.publication.line))
    return replace(GOOD, proofs=(*kept, *proofs))


def changed_proof(change: Callable[[TlogProof], TlogProof]) -> InclusionEvidence:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    return replace(proof, data=change(TlogProof.parse(proof.data)).encode())


def forged_cosignatures(proof: TlogProof) -> TlogProof:
    own, *others = proof.checkpoint.signatures
    forged = [replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1])) for line in others]
    return replace(proof, checkpoint=SignedNote(proof.checkpoint.text, (own, *forged)))


def notice(index: int, origin: str = CH.origin) -> bytes:
    lost = Compromise(OWNER.signer.public.id, origin, index)
    said = Advisory(OWNER.inception.author, OWNER.id, "key-compromise", "critical", "the laptop is gone", lost)
    return sign_content(said, OWNER.signer).line


def advice(by: Identity, severity: str, kind: str = "malware") -> tuple[bytes, bytes]:
    said = Advisory(by.inception.author, GOOD.artifact, kind, severity, f"says {by.inception.label}")
    return by.entry.line, sign_content(said, by.signer).line


def rival(by: Identity, name: str = "swiss-ai/tiny@v1", files: Mapping[str, bytes] | None = None) -> tuple[bytes, ...]:
    return by.entry.line, release(files or {**FILES, "LICENSE": b"other"}, by=by, name=name)[1].line


def checked(by: Identity, good: Case) -> bytes:
    return sign_content(summarise_report(VerdictReport.of(good.verdict(), "1.0"), by.id, NOW), by.signer).line


def unbound(good: Case = GOOD, federation_nodes: Any = None) -> Case:
    free = good.demanding(f'accept = ["{OWNER.id}"]', "accept = []")
    return replace(free, federation=found(federation_nodes or nodes()))


SECOND, ROTATED = of(OWNER).to("Swiss AI second", cut=[])
NUMBER_ONE = parse_rotation(ROTATED)[0].digest
PIN = f'[publishers.rotations]\n"{OWNER.id}" = "{NUMBER_ONE}"\n[cosigners]\n'
BASE_ENTRY, BASE_MANIFEST = release({"base": b"base"}, name="swiss-ai/base@v1", spdx="CC-BY-NC-4.0")[1:3]
BASE = sha256(BASE_MANIFEST)
CHILD = case(lineage=(Parent("quantized", "swiss-ai/base@v1", BASE),))


def of_parents(count: int) -> Case:
    return case(lineage=tuple(Parent("merge", f"lab/{number}@v1", sha256(b"%d" % number)) for number in range(count)))


MANY = of_parents(5)
MIDDLE_ENTRY, MIDDLE_MANIFEST = release(
    {"middle": b"middle"}, name="swiss-ai/middle@v1", lineage=(Parent("finetune", "swiss-ai/base@v1"),)
)[1:3]
CHILD_OF_CHILD = case(lineage=(Parent("merge", "swiss-ai/middle@v1", sha256(MIDDLE_MANIFEST)),)).saying(
    MIDDLE_ENTRY.line
)
NAMED = case(lineage=(Parent("finetune", "swiss-ai/base@v1"), Parent("adapter", "swiss-ai/base@v1")))


def lineage(good: Case, rule: str) -> Case:
    return good.demanding("[rows]", f"[lineage]\n{rule} = true\n[rows]")


def documents(required: str, good: Case = GOOD) -> Case:
    return good.demanding('require = ["card"]', f"require = {required}")


def vouched(by: Any, statement: str, text: str = "", document: bytes | None = None) -> bytes:
    said = Vouched(by.inception.author, GOOD.artifact, statement, text, SideObject.of(document) if document else None)
    return sign_content(said, by.signer).line


ALONE = ModelSigningRule(keys=(model_sig.PUBLIC,))


def model_signed(
    files: Mapping[str, bytes] = model_sig.FILES,
    rule: ModelSigningRule = ALONE,
    *,
    data: bytes | None = None,
    partial: bool = False,
    **changed: Any,
) -> Verdict:
    """A folder with nothing but a `model.sig`."""
    data = model_sig.signed() if data is None else data
    policy = Policy(model_signing=rule, require=("artifact", "bytes", "signatures"), **changed)
    seen = model_sig.found({**files, MODEL_SIG: data})
    return verify(Evidence(None, seen, model_sig=data, partial=partial), policy)


def beside(rule: ModelSigningRule, good: Case = GOOD, *, listed: Mapping[str, bytes] | None = None) -> Verdict:
    """A publication with a `model.sig` that was added later."""
    data = model_sig.signed(listed or good.files)
    files = (*(good.evidence.files or ()), FoundFile(MODEL_SIG, len(data), sha256(data)))
    policy = replace(good.policy, model_signing=rule)
    return verify(replace(good.evidence, files=files, model_sig=data), policy)


def news() -> tuple[bytes, ...]:
    by, upstream = CH.record.node.id, Upstream("https://hub.example", "org/tiny", COMMIT, "main")
    lost = [
        sign_content(Gone(by, upstream, GOOD.artifact, what, 6), CH.online).line for what in ("repository", "access")
    ]
    return (sign_content(Changed(by, upstream, GOOD.artifact, "2e" * 20, 5), CH.online).line, *lost)


def corroborated(count: int, good: Case = GOOD) -> Case:
    return good.demanding("[rows]", f"[upstream]\ncorroborated = {count}\n[rows]")


NOT_PUBLISHED = replace(GOOD, claims=tuple(line for line in GOOD.claims if line != GOOD.publication.line))
WITHOUT_INCEPTION = replace(GOOD, claims=GOOD.claims[1:])
FORGED = NOT_PUBLISHED.saying(sign_statement(GOOD.publication.statement, RIVAL.signer).line)
TINY_MANIFEST = Manifest.of([FileEntry("one", 1, sha256(b"1"))]).encode()

VERDICTS: Final[Mapping[str, Callable[[], Verdict]]] = {
    "good": GOOD.verdict,
    "no manifest": lambda: on(GOOD.evidence, manifest=None),
    "a manifest that is none": lambda: on(GOOD.evidence, manifest=b"{}"),
    "a manifest of one file": lambda: on(GOOD.evidence, manifest=TINY_MANIFEST),
    "no files read": lambda: on(GOOD.evidence, files=None),
    "no files": lambda: on(GOOD.evidence, files=()),
    "one file missing": lambda: fewer_files(1),
    "two files missing by request": lambda: fewer_files(2, partial=True),
    "other bytes": lambda: files_with(sha256=sha256(b"other")),
    "another size": lambda: files_with(size=7, sha256=sha256(b"other")),
    "a link": lambda: files_with(kind="link", sha256=None, inspection=None),
    "a device": lambda: files_with(kind="special", sha256=None, inspection=None),
    "one file more": lambda: on(GOOD.evidence, files=(*(GOOD.evidence.files or ()), FoundFile("x", 1, sha256(b"x")))),
    "other pieces": lambda: on(GOOD.evidence, pieces=b"other"),
    "no pieces": lambda: on(GOOD.evidence, pieces=None),
    "left out": lambda: on(GOOD.evidence, left_out=("too many claims",)),
    "not published": NOT_PUBLISHED.verdict,
    "an unknown publisher": WITHOUT_INCEPTION.verdict,
    "a forged publication": FORGED.verdict,
    "another publisher": lambda: GOOD.demanding(OWNER.id, RIVAL.id).verdict(),
    "a publisher that nobody names": lambda: unbound().verdict(),
    "a publisher that the charter does not name": lambda: replace(
        unbound(), federation=found(nodes(), {"swiss-ai": RIVAL.id})
    ).verdict(),
    "retired keys": lambda: GOOD.saying(ROTATED.line).verdict(),
    "retired keys that the policy pins": lambda: GOOD.saying(ROTATED.line).demanding("[cosigners]\n", PIN).verdict(),
    "a pinned rotation that is missing": lambda: GOOD.demanding("[cosigners]\n", PIN).verdict(),
    "two rotations": lambda: GOOD.saying(ROTATED.line, of(OWNER).to("thief")[1].line).verdict(),
    "no pin": lambda: GOOD.demanding('[[pin]]\nfile = "federation.json"\n', "").verdict(),
    "no proofs": lambda: replace(GOOD, proofs=()).verdict(),
    "no proof of the publication": lambda: proven().verdict(),
    "a proof that does not verify": lambda: proven(changed_proof(lambda it: replace(it, index=1))).verdict(),
    "a proof of an unknown log": lambda: proven(_elsewhere().proof(GOOD.publication.line, (SG, ES))).verdict(),
    "forged cosignatures": lambda: proven(changed_proof(forged_cosignatures)).verdict(),
    "one cosigner": lambda: case(cosigners=(SG,)).verdict(),
    "one cosigner of one": lambda: (
        case(cosigners=(SG,)).demanding(RULE, "[cosigners]\nat_least = 1\njurisdictions = 1\noutside = []\n").verdict()
    ),
    "no cosigner": lambda: case(cosigners=()).verdict(),
    "no cosigner of none": lambda: (
        case(cosigners=()).demanding(RULE, "[cosigners]\nat_least = 0\njurisdictions = 0\noutside = []\n").verdict()
    ),
    "too few jurisdictions": lambda: (
        GOOD.demanding(RULE, '[cosigners]\nat_least = 1\njurisdictions = 2\noutside = ["ES", "SG"]\n')
        .demanding('"transparency", "cosigners"', '"transparency"')
        .verdict()
    ),
    "no outside": lambda: (
        case(cosigners=()).demanding(RULE, "[cosigners]\nat_least = 2\njurisdictions = 1\noutside = []\n").verdict()
    ),
    "post-quantum cosigners": lambda: GOOD.demanding(RULE, f"{RULE}post_quantum = true\n").verdict(),
    "cosigned long ago": lambda: case(time=NOW - 40 * 86_400).verdict(),
    "cosigned as long ago as may be": lambda: _aged(30 * 86_400).verdict(),
    "cosigned a second too long ago": lambda: _aged(30 * 86_400 + 1).verdict(),
    "cosigned after the moment": lambda: _aged(-86_400).verdict(),
    "no moment": lambda: GOOD.demanding("[time]\nas_of = 2026-11-24T00:00:00Z\nmax_age_days = 30\n", "").verdict(),
    "a classical publisher": lambda: case(publisher=identity("Classical", "CH", algs=("ed25519",))).verdict(),
    "no holds": lambda: replace(GOOD, claims=tuple(line for line in GOOD.claims if line not in REST)).verdict(),
    "a parent that is missing": CHILD.verdict,
    "a parent that is known": lambda: CHILD.saying(BASE_ENTRY.line).verdict(),
    "a parent without a digest": NAMED.verdict,
    "a parent without a digest that is refused": lambda: lineage(NAMED, "parents_by_digest").verdict(),
    "licences in conflict": lambda: lineage(CHILD.saying(BASE_ENTRY.line), "refuse_licence_conflicts").verdict(),
    "many parents": MANY.verdict,
    "three parents": lambda: of_parents(3).verdict(),
    "four parents": lambda: of_parents(4).verdict(),
    "digests required and named": lambda: lineage(CHILD.saying(BASE_ENTRY.line), "parents_by_digest").verdict(),
    "conflicts refused, and none": lambda: lineage(CHILD, "refuse_licence_conflicts").verdict(),
    "a parent that has a parent": lambda: CHILD_OF_CHILD.verdict(),
    "a parent that has a parent, digests required": lambda: lineage(CHILD_OF_CHILD, "parents_by_digest").verdict(),
    "derived": lambda: CHILD.saying(
        BASE_ENTRY.line,
        LAB.entry.line,
        derived_line(CHILD.artifact, BASE),
        derived_line(CHILD.artifact, BASE, exact=False),
    ).verdict(),
    "derived, as only others say": lambda: GOOD.saying(
        BASE_ENTRY.line, LAB.entry.line, derived_line(GOOD.artifact, BASE, exact=False)
    ).verdict(),
    "a licence that is not accepted": lambda: GOOD.demanding('["apache-2.0"]', '["mit"]').verdict(),
    "no licences": lambda: GOOD.demanding('[licences]\naccept = ["apache-2.0"]\n', "").verdict(),
    "the licence is not here": lambda: replace(
        GOOD, objects={digest: data for digest, data in GOOD.objects.items() if data != LICENCE_TEXT}
    ).verdict(),
    "not inspected": lambda: inspected(None, None),
    "active content": lambda: inspected(Inspection("pickle", ("pickle",)), Inspection("gguf", ("nothing known",))),
    "malformed content": lambda: inspected(Inspection("gguf", (), ("the header ends early",))),
    "allowed content": lambda: inspected(
        Inspection("pickle", ("pickle",)),
        Inspection("gguf", ("chat-template",)),
        policy='allow = ["pickle", "chat-template"]',
    ),
    "exempted content": lambda: inspected(
        Inspection("pickle", ("pickle",), ("malformed",)), policy='allow = ["LICENS*", "*.x"]'
    ),
    "a format that is not allowed": lambda: inspected(Inspection("unknown"), policy='formats = ["json"]'),
    "no documents required": lambda: documents("[]").verdict(),
    "a document that is not named": lambda: documents('["training-summary", "evaluation"]').verdict(),
    "a document that is not here": lambda: replace(GOOD, objects={}).verdict(),
    "documents of nobody": lambda: NOT_PUBLISHED.verdict(),
    "vouched with a document that is here": lambda: replace(
        GOOD.saying(LAB.entry.line, vouched(LAB, "evaluated", "", b"scores")),
        objects={**GOOD.objects, sha256(b"scores"): b"scores"},
    ).verdict(),
    "a document that is a file": lambda: replace(
        case(files={"README.md": CARD, "model.bin": b"x"}), objects={}
    ).verdict(),
    "vouched": lambda: GOOD.saying(
        LAB.entry.line,
        vouched(LAB, "evaluated", "on our benchmark", b"scores"),
        vouched(LAB, "rehashed"),
        vouched(ES.seat, "evaluated"),
        vouched(KR.seat, "evaluated"),
        vouched(SG.seat, "rehashed"),
    ).verdict(),
    "junk": lambda: GOOD.saying(b"junk", b"{}").verdict(),
    "a node that is not listed": lambda: GOOD.saying(
        node(seat("BR")).entry.line, node(seat("IN")).entry.line
    ).verdict(),
    "junk and a node that is not listed": lambda: GOOD.saying(b"junk", node(seat("BR")).entry.line).verdict(),
    "an advisory": lambda: GOOD.saying(*advisory(GOOD)).verdict(),
    "an advisory for information": lambda: GOOD.saying(*advice(LAB, "info", "yank")).verdict(),
    "many advisories": lambda: GOOD.saying(
        *advice(LAB, "critical"),
        *advice(RIVAL, "low"),
        *advice(OWNER, "info", "yank"),
        *advice(SG.seat, "high"),
        *advice(KR.seat, "critical"),
    ).verdict(),
    "an advisory that refuses": lambda: (
        GOOD.saying(*advice(LAB, "low"), *advice(SG.seat, "critical"))
        .demanding("refuse_from = []", f'refuse_from = ["{LAB.id}"]')
        .verdict()
    ),
    "a rival": lambda: GOOD.saying(*rival(RIVAL)).verdict(),
    "a rival where nobody is named": lambda: unbound(GOOD.saying(*rival(RIVAL))).verdict(),
    "a publisher that contradicts itself": lambda: GOOD.saying(*rival(OWNER)).verdict(),
    "a rival and an advisory": lambda: GOOD.saying(*rival(OWNER), *advisory(GOOD)).verdict(),
    "compromised after": lambda: GOOD.saying(notice(6)).verdict(),
    "compromised before": lambda: GOOD.saying(notice(5), notice(3)).verdict(),
    "compromised somewhere": lambda: GOOD.saying(notice(5, SG.origin)).verdict(),
    "compromised and advised against": lambda: GOOD.saying(notice(5), *advisory(GOOD)).verdict(),
    "mirrored": lambda: GOOD.saying(
        observation(CH, GOOD.artifact).line,
        observation(SG, GOOD.artifact).line,
        observation(ES, GOOD.artifact, how="cache").line,
        observation(KR, GOOD.artifact, how="carried").line,
        *news(),
    ).verdict(),
    "mirrored with other bytes": lambda: GOOD.saying(
        observation(CH, GOOD.artifact).line,
        observation(SG, sha256(b"other")).line,
        observation(ES, sha256(b"other")).line,
    ).verdict(),
    "mirrored by too few": lambda: corroborated(2, NOT_PUBLISHED.saying(observation(CH, GOOD.artifact).line)).verdict(),
    "carried by one": lambda: GOOD.saying(observation(KR, GOOD.artifact, how="carried").line).verdict(),
    "published, and mirrored by nobody": lambda: corroborated(3).verdict(),
    "published by another, and mirrored by nobody": lambda: corroborated(
        3, GOOD.demanding(OWNER.id, RIVAL.id)
    ).verdict(),
    "mirrored by nobody": lambda: corroborated(3, NOT_PUBLISHED).verdict(),
    "checked": lambda: GOOD.saying(
        LAB.entry.line,
        SG.seat.entry.line,
        checked(LAB, GOOD),
        checked(
            SG.seat, GOOD.demanding('["apache-2.0"]', '["mit"]').demanding('"cosigners"]', '"cosigners", "licence"]')
        ),
    ).verdict(),
    "model.sig": model_signed,
    "model.sig of nobody": lambda: model_signed(rule=ModelSigningRule()),
    "model.sig of another file": lambda: model_signed({**model_sig.FILES, "config.json": b"x"}),
    "model.sig and a file more": lambda: model_signed({**model_sig.FILES, "more.txt": b"x"}),
    "model.sig and a file more that is allowed": lambda: model_signed(
        {**model_sig.FILES, "more.txt": b"x"}, replace(ALONE, unsigned=("more.txt",))
    ),
    "model.sig and a file less": lambda: model_signed(_less(1)),
    "model.sig and two files less by request": lambda: model_signed(_less(2), partial=True),
    "model.sig that is junk": lambda: model_signed(data=b"junk"),
    "model.sig that is forged": lambda: model_signed(data=model_sig.flipped(model_sig.signed())),
    "model.sig of a folder that cannot be listed": lambda: model_signed({"a\nb": b"x"}),
    "model.sig required and absent": lambda: verify(
        GOOD.evidence, replace(GOOD.policy, model_signing=replace(ALONE, require=True))
    ),
    "model.sig beside a publication": lambda: beside(ALONE),
    "model.sig beside a publication, of nobody": lambda: beside(ModelSigningRule()),
    "model.sig beside a publication, required": lambda: beside(replace(ALONE, require=True)),
    "model.sig beside a publication, required, of nobody": lambda: beside(replace(ModelSigningRule(), require=True)),
    "model.sig beside no publication": lambda: beside(ALONE, NOT_PUBLISHED),
    "model.sig beside no publication, of nobody": lambda: beside(ModelSigningRule(), NOT_PUBLISHED),
    "model.sig beside a publication, of other files": lambda: beside(ALONE, listed={"other": b"x"}),
    "model.sig beside no publication, of other files": lambda: beside(ALONE, NOT_PUBLISHED, listed={"other": b"x"}),
}


def _less(count: int) -> dict[str, bytes]:
    return dict(list(model_sig.FILES.items())[count:])


def _elsewhere() -> Any:
    log = filled(node(seat("BR")))
    log.append(GOOD.publication.line)
    return log


def _aged(seconds: int) -> Case:
    """Cosigned so long before the time of the policy, by all but the newest cosigner."""
    freshness = GOOD.policy.freshness
    assert freshness is not None
    return case(time=freshness.as_of - seconds)


def read(verdict: Verdict) -> dict[str, Any]:
    """A verdict without its digests."""
    document = {
        "name": verdict.name,
        "exit_status": verdict.exit_status,
        "rows": {row.name: _row(row) for row in verdict.rows},
    }
    masked = re.sub(r"\b[0-9a-f]{8,}\b|\b[0-9a-f]{6}…[0-9a-f]{4}\b", "#", json.dumps(document, ensure_ascii=False))
    found: dict[str, Any] = json.loads(masked)
    return found


def _row(row: Row) -> dict[str, Any]:
    facts = [f"{fact.basis} | {fact.by} | {fact.text}" for fact in row.facts]
    said = {"state": row.state, "step": row.step, "cause": row.cause, "summary": row.summary, "hint": row.hint}
    return {**said, "facts": sorted(facts) if row.name == "lineage" else facts}


def differing(verdict: dict[str, Any], good: dict[str, Any]) -> dict[str, Any]:
    """The verdict with only those rows that differ from those of `good`."""
    return {**verdict, "rows": {name: row for name, row in verdict["rows"].items() if row != good["rows"][name]}}


def table() -> dict[str, Any]:
    good = read(GOOD.verdict())
    others = {name: differing(read(made()), good) for name, made in VERDICTS.items() if name != "good"}
    return {"good": good, **others}


def written(verdicts: Mapping[str, Any]) -> str:
    """As JSON, one row on a line."""

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for name, verdict in verdicts.items():
        rows = ",\n".join(f"   {line(row)}: {line(said)}" for row, said in verdict["rows"].items())
        head = f' {line(name)}: {{"name": {line(verdict["name"])}, "exit_status": {verdict["exit_status"]}, "rows": {{'
        blocks.append(f"{head}\n{rows}\n }}}}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(written(table()), "utf-8")
