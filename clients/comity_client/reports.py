"""Reports as files: what a verdict means to people, a page of HTML, and the signature beside it.

What a verdict means to whoever has to decide, in sentences: the same on a terminal and on paper.

The signature beside a report: `r.json.intoto.jsonl`, an in-toto bundle, one envelope a line.

It holds the signer's inception and rotations, and the `verified` statement, exactly as a log would hold them. With the
report it is all that is needed to check both, offline; whether the signer is to be believed is the reader's to say.


A report as one HTML page that stands alone: styles inside, no script, nothing fetched, and it prints on A4.

States are words; colour only repeats them. Every word of a stranger goes through `_said`. The page is a rendering: its
last lines name the report by digest, and that is what a signature is about.


Whether a report's signer is somebody whom this user knows. A good signature by anybody at all proves nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.encoding import Digest, plain, sha256
from comity.trust.errors import Malformed, NotFound, PolicyNotMet, Untrusted
from comity.trust.evidence import (
    EVIDENCE_MISSING,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    VERIFICATION_FAILED,
    Row,
    RowFact,
    Verdict,
)
from comity.trust.identity import Inception, check_inception
from comity.trust.key_validity import tenure
from comity.trust.policy import ROWS
from comity.trust.report import MAX_BYTES, VerdictReport
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import VERIFIED, Verified, check_report, moment, sign_verified, summarise
from comity.verifier import read_bounded
from comity_client.publishers import Publisher
from comity_client.trust_store import Bindings, TrustPin

STATES: Final = {"pass": "pass", "fail": "fail", "unknown": "unknown", "not-checked": "not checked"}
STATE_MEANS: Final = {
    "pass": "checked here, and it holds",
    "fail": "checked here, and it does not hold or is too little",
    "unknown": "it cannot be told from what is here",
    "not-checked": "nobody asked: the policy has no rule for it",
}
BASIS_MEANS: Final = {
    "verified here": "this program computed it from the files and the evidence",
    "claimed": "somebody said so and signed it; that they said it is verified, that it is true is not",
    "stale or absent": "it is too old, or not here",
}
QUESTIONS: Final = dict(
    zip(
        ROWS,
        (
            "What is it?",
            "Are these the bytes that were published?",
            "Did somebody sign that they published it?",
            "Is that the publisher whom we expect?",
            "Does it stand in a public log?",
            "Who else saw it there?",
            "Who says that they keep a copy?",
            "What was it made from?",
            "Under which licence is it?",
            "What in it would run, and are its files what they seem?",
            "Which documents come with it?",
            "Did anything here not verify?",
            "Does anybody warn of it?",
            "How fresh is what was seen?",
            "What would be left without classical cryptography?",
            "Is our policy met?",
        ),
        strict=True,
    )
)
_HEADLINES: Final = {
    OK: "ACCEPTED: every row that your policy requires passes",
    VERIFICATION_FAILED: "the bytes or signatures are not what they should be",
    POLICY_NOT_MET: "what is here is authentic, your policy is not met",
    EVIDENCE_MISSING: "evidence is missing",
    PARTIAL: "some files were left out on request; those here are as published",
}
_ADVICE: Final = {
    OK: "The files may be used as far as your policy is concerned. It says who published them and who saw it, "
    "not that the model is good, safe or lawful.",
    VERIFICATION_FAILED: "Do not use these files. Keep them for an inquiry, and get the artifact again from other "
    "nodes.",
    POLICY_NOT_MET: "Nothing speaks against the bytes. Get what the policy asks for, or let its owner decide "
    "whether it asks for the right things.",
    EVIDENCE_MISSING: "Nothing speaks against the bytes, and too little for them. Carry more evidence: pull again "
    "where there is a network.",
    PARTIAL: "Fine for whoever knows that it is partial; a loader that needs the rest will fail.",
}
_STEPS: Final = {
    VERIFICATION_FAILED: ("comity pull REF --to ELSEWHERE",),
    POLICY_NOT_MET: ("comity policy explain FILE",),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A headline, what to make of it, the rows that decided, those worth a look although nobody required them, and
    the exact next commands."""

    headline: str
    advice: str
    deciding: tuple[Row, ...]
    notable: tuple[Row, ...]
    steps: tuple[str, ...]


def meaning(verdict: Verdict) -> Meaning:
    status = verdict.exit_status
    headline = _HEADLINES.get(status, f"exit status {status}")
    if not verdict.accepted:
        headline = f"NOT ACCEPTED (exit {status}): {headline}"
    required = {"artifact", *verdict.required}
    if status == VERIFICATION_FAILED:
        required.add("bytes")
    deciding = tuple(row for row in verdict.rows if row.name in required and row.state != "pass")
    notable = tuple(row for row in verdict.rows[:-1] if row.name not in required and row.state == "fail")
    hints = [row.hint for row in deciding if row.hint]
    return Meaning(
        headline, _ADVICE.get(status, ""), deciding, notable, tuple(dict.fromkeys([*hints, *_STEPS.get(status, ())]))
    )


SUFFIX: Final = ".intoto.jsonl"
MAX_LINES: Final = 64


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report and a signature that holds. `signer` is who signed; nothing says yet that the reader trusts them."""

    report: VerdictReport
    verified: Verified
    entry: Entry
    signer: Inception
    chain: RotationChain


def beside(report: Path) -> Path:
    """Where the signature of the report at `report` is."""
    return report.with_name(report.name + SUFFIX)


def sign_report(report: VerdictReport, publisher: Publisher, time: int) -> Entry:
    """`publisher` says that it came to `report` at `time` (seconds since 1970). Raises Malformed (UNSIGNABLE-REPORT)
    for a report without an artifact or a policy file, and as `Publisher.signer` does."""
    return sign_verified(summarise(report, publisher.id, time), publisher.signer())


def write_signature(path: Path, publisher: Publisher, entry: Entry) -> None:
    """Raises OutOfSpace, Unavailable."""
    data = b"".join(line + b"\n" for line in (*publisher.lines, entry.line))
    durable.write_file(path, data, mode=0o644, point="signature")


def read_signed(path: Path) -> SignedReport:
    """The report at `path`, and the signature beside it, which holds.

    Raises NotFound, Malformed, and Untrusted with code SIGNATURE or REPORT.
    """
    report = VerdictReport.parse(read_bounded(path, MAX_BYTES))
    try:
        bundle = read_bounded(beside(path), MAX_LINES * (MAX_LINE + 1))
    except NotFound as error:
        hint = "comity verify DIR --policy FILE --report FILE --sign-as LABEL"
        raise NotFound(f"{path} is not signed", why=f"no {beside(path).name} beside it", hint=hint) from error
    return check_bundle(report, bundle)


def check_bundle(report: VerdictReport, bundle: bytes) -> SignedReport:
    """Raises Malformed, Untrusted."""
    lines = bundle.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_LINES:
        raise Malformed("signature is malformed", why=f"more than {MAX_LINES} lines")
    entries = [parse_entry(line) for line in lines]
    said = [entry for entry in entries if entry.statement.predicate == VERIFIED]
    if len(said) != 1:
        raise Malformed("signature is malformed", why=f"{len(said)} verified statements instead of one")
    by = Verified.parse(said[0].statement).by
    known = [check_inception(entry) for entry in entries if entry.statement.predicate == "inception"]
    signer = next((inception for inception in known if inception.id == by), None)
    if signer is None:
        raise Untrusted("report refused", why=f"the inception of {by[:12]} is not among its lines", code="SIGNATURE")
    chain = follow(KeyState.of_inception(signer), entries)
    return SignedReport(report, check_report(said[0], chain, report), said[0], signer, chain)


_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 1.75rem 0 .5rem; }
code, .digest { font-family: ui-monospace, monospace; font-size: .85em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border: 1px solid #767676;
  overflow-wrap: anywhere; }
thead th { background: #eee; } thead th, tbody th, .narrow { white-space: nowrap; } tbody th { font-weight: 600; }
tbody th { width: 14rem; } .rows tbody th, .facts tbody th { width: auto; } .question { color: #4a4a4a; }
.verdict { border: 2px solid; border-left-width: .75rem; padding: .75rem 1rem; margin: 1rem 0; }
.verdict p { margin: .25rem 0; } .verdict strong { font-size: 1.1rem; }
.accepted { border-color: #1b5e20; background: #f1f8f1; } .refused { border-color: #8e1111; background: #fdf3f3; }
.state { font-weight: 700; white-space: nowrap; } .pass { color: #1b5e20; } .fail { color: #8e1111; }
.unknown { color: #6b4a00; } .not-checked { color: #4a4a4a; }
dt { font-weight: 600; } dd { margin: 0 0 .35rem 1.25rem; }
@page { size: A4; margin: 14mm; }
@media print { body { font-size: 10.5px; max-width: none; margin: 0; padding: 0; } tr, .verdict { break-inside: avoid; }
  thead { display: table-header-group; } h2 { break-after: avoid; } }
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: VerdictReport, signed: SignedReport | None = None) -> str:
    """The whole document; the same for the same report and signature."""
    verdict = report.verdict
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "an unknown artifact")
    parts = (
        f"<h1>Provenance report: {_said(subject)}</h1>",
        _banner(meaning(verdict), accepted=verdict.accepted),
        _about(report),
        _signature(signed),
        _overview(verdict.rows, frozenset({"artifact", *verdict.required})),
        _evidence(verdict.rows),
        _words(),
        _footer(report),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Provenance report: {_said(subject)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _banner(what: Meaning, *, accepted: bool) -> str:
    lines = [f"<p><strong>{_said(what.headline)}</strong></p>", f"<p>{_said(what.advice)}</p>"]
    lines += _listed("What decided:", what.deciding)
    lines += _listed("Not required by the policy, and worth a look:", what.notable)
    if what.steps:
        lines.append("<p>Next: " + ", or ".join(f"<code>{_said(step)}</code>" for step in what.steps) + "</p>")
    kind = "accepted" if accepted else "refused"
    return f'<section class="verdict {kind}" aria-label="Verdict">\n' + "\n".join(lines) + "\n</section>"


def _listed(title: str, rows: tuple[Row, ...]) -> list[str]:
    if not rows:
        return []
    items = "".join(f"<li>{_state(row)} {_said(row.name)}: {_said(row.summary)}</li>" for row in rows)
    return [f"<p>{title}</p>", f"<ul>{items}</ul>"]


def _about(report: VerdictReport) -> str:
    verdict = report.verdict
    facts = (
        ("Artifact", f'<span class="digest">sha256:{verdict.artifact}</span>' if verdict.artifact else "none"),
        ("Name, as its publisher claims", _said(verdict.name or "none")),
        ("Policy", f'<span class="digest">sha256:{verdict.policy}</span>' if verdict.policy else "the owner's pins"),
        ("The policy requires", _said(", ".join(verdict.required))),
        ("Exit status", str(verdict.exit_status)),
        ("Checked by", _said(f"comity {report.version}, without network and clock")),
    )
    return _table("About", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _signature(signed: SignedReport | None) -> str:
    if signed is None:
        return "<p>This page bears no signature. When it was checked, and by whom, says only a signed report.</p>"
    facts = (
        ("Signed by", _said(f"{signed.signer.display} ({signed.signer.jurisdiction or 'no jurisdiction claimed'})")),
        ("Identity", f'<span class="digest">{signed.signer.id}</span>'),
        ("At, by the signer's clock", _said(moment(signed.verified.time))),
        ("Statement", f'<span class="digest">sha256:{signed.entry.digest}</span>'),
    )
    return _table("Signature", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _overview(rows: tuple[Row, ...], required: frozenset[str]) -> str:
    def cells(row: Row) -> tuple[str, ...]:
        return (
            f'<td class="narrow">{row.step}</td>',
            f'<th scope="row">{_said(row.name)}</th>',
            f"<td>{_state(row)}</td>",
            f'<td class="narrow">{"required" if row.name in required else ""}</td>',
            f'<td><span class="question">{_said(QUESTIONS.get(row.name, ""))}</span><br>{_said(row.summary)}</td>',
        )

    headers = ("No.", "Row", "State", "Policy", "Question and answer")
    return "<h2>The rows</h2>\n" + _table("All rows of the verdict", headers, map(cells, rows), "rows")


def _evidence(rows: tuple[Row, ...]) -> str:
    def cells(item: tuple[Row, RowFact]) -> tuple[str, ...]:
        row, fact = item
        evidence = f'<span class="digest">{fact.evidence}</span>' if fact.evidence else ""
        return (
            f'<th scope="row">{_said(row.name)}</th>',
            f"<td>{_said(fact.text)}</td>",
            f"<td>{_said(_basis(fact))}</td>",
            f"<td>{evidence}</td>",
        )

    facts = ((row, fact) for row in rows for fact in row.facts)
    headers = ("Row", "Fact", "Basis", "Document, SHA-256")
    return "<h2>What the rows rest on</h2>\n" + _table(
        "Facts, and what each rests on", headers, map(cells, facts), "facts"
    )


def _basis(fact: RowFact) -> str:
    return f"claimed by {fact.by}" if fact.basis == "claimed" and fact.by else fact.basis


def _words() -> str:
    states = {STATES[state]: means for state, means in STATE_MEANS.items()}
    terms = "".join(f"<dt>{term}</dt><dd>{_said(means)}</dd>" for term, means in {**states, **BASIS_MEANS}.items())
    return f"<h2>Words</h2>\n<dl>{terms}</dl>"


def _footer(report: VerdictReport) -> str:
    data = report.encode()
    return (
        f'<p>Rendered from the report of {len(data)} bytes with SHA-256 <span class="digest">{sha256(data)}</span>; '
        "that document counts, not this page.</p>"
    )


def _table(caption: str, headers: tuple[str, ...], rows: Iterable[tuple[str, ...]], kind: str = "about") -> str:
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    head = f"<thead><tr>{head}</tr></thead>\n" if headers else ""
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<table class="{kind}">\n<caption>{caption}</caption>\n{head}<tbody>\n{body}\n</tbody>\n</table>'


def _state(row: Row) -> str:
    return f'<span class="state {row.state}">{STATES[row.state]}</span>'


def _said(text: str) -> str:
    """A stranger's words: on one line, without what a reader's eye or browser would obey."""
    return html.escape(plain(text), quote=True)


MIN_PREFIX = 16
"""Digits of an id that a person may leave it at."""


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A signed report that holds, by a signer who is known here, and as what."""

    signed: SignedReport
    known_as: str


def check_signer(
    signed: SignedReport, by: str, own: Sequence[Publisher], pins: Sequence[TrustPin], bindings: Bindings
) -> CheckedReport:
    """Hold the signer to `by` (an id, or 16 or more of its first digits), or, where that is empty, to what this user
    trusts: their own identities, their bindings, and the members and publishers of the pinned charters.

    Raises Malformed for `by`, PolicyNotMet with code REPORT-SIGNER.
    """
    _check_keys(signed, bindings)
    identity = signed.signer.id
    if by:
        wanted = by.removeprefix("sha256:").lower()
        if len(wanted) < MIN_PREFIX:
            raise Malformed(f"{by!r} is too short", why=f"an id has 64 digits, at least {MIN_PREFIX} are needed")
        if not identity.startswith(wanted):
            raise _unknown(f"it is signed by {identity}, not by {by}")
        return CheckedReport(signed, "the one whom you named")
    known = next(_roles(identity, own, pins, bindings), None)
    if known is None:
        raise _unknown(f"{signed.signer.display} [{identity}] is neither yours, nor bound, nor a pinned member")
    return CheckedReport(signed, known)


def _check_keys(signed: SignedReport, bindings: Bindings) -> None:
    """Keys that a pinned rotation retired sign nothing that was not logged before; offline there is no such proof."""
    pinned = bindings.rotations.get(signed.signer.id)
    kept = tenure(signed.entry, signed.chain, pinned, (), {})
    if not kept.accepted:
        raise _unknown(kept.text)


def _roles(identity: Digest, own: Sequence[Publisher], pins: Sequence[TrustPin], bindings: Bindings) -> Iterator[str]:
    yield from (f"your own identity {each.label}" for each in own if each.id == identity)
    yield from (f"bound by you to {name}" for name, bound in bindings.publishers.items() if bound == identity)
    for pin in pins:
        body = pin.federation.body
        seat = body.member(identity)
        if seat is not None:
            yield f"member {seat.name} ({seat.jurisdiction}) of a pinned charter"
        yield from (
            f"publisher of {name} in a pinned charter" for name, who in body.namespaces.items() if who == identity
        )


def _unknown(why: str) -> PolicyNotMet:
    hint = "comity report check FILE --by ID   # the officer's id, as they tell you by another way"
    return PolicyNotMet(
        "the signature holds, and its signer is not known here", why=why, hint=hint, code="REPORT-SIGNER"
    )
