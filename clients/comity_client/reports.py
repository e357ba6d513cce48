"""Verdict reports: their meaning in sentences, a page of HTML, and the signature file.

The signature of `r.json` is `r.json.intoto.jsonl`, an in-toto bundle with one envelope per line: the inception and
rotations of the signer and the `verified` statement, as in a log. The report and this file can be checked offline. A
valid signature alone proves nothing: the signer must also be known to the reader (`check_signer`).

The HTML page is self-contained, has no script, fetches nothing and prints on A4. States are words; colour only repeats
them. Every untrusted text is escaped by `_escape`. The page names the report by digest, which is what a signature
covers.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.encoding import Digest, printable, sha256
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
from comity.trust.key_validity import judge_keys
from comity.trust.policy import ROWS
from comity.trust.report import MAX_BYTES, VerdictReport
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import VERIFIED, Verified, check_report, format_time, sign_verified, summarise_report
from comity.verifier import read_bounded
from comity_client.publishers import Publisher
from comity_client.trust_store import Bindings, TrustPin

STATES: Final = {"pass": "pass", "fail": "fail", "unknown": "unknown", "not-checked": "not checked"}
STATE_MEANS: Final = {
    "pass": "checked here, and valid",
    "fail": "checked here, and invalid or not enough",
    "unknown": "the evidence here does not decide it",
    "not-checked": "the policy has no rule for it",
}
BASIS_MEANS: Final = {
    "verified here": "this program computed it from the files and the evidence",
    "claimed": "a signed claim: the signature is verified, the truth of the claim is not",
    "stale or absent": "the evidence is too old, or not here",
}
QUESTIONS: Final = dict(
    zip(
        ROWS,
        (
            "What is it?",
            "Are these the bytes that were published?",
            "Is there a valid signature of a publisher?",
            "Is it the expected publisher?",
            "Is it in a public log?",
            "Who cosigned that log?",
            "Who claims to have a copy?",
            "What was it made from?",
            "Under which licence is it?",
            "Is there executable content, and do files match their formats?",
            "Which documents come with it?",
            "Did any evidence fail to verify?",
            "Are there advisories?",
            "How recent is the evidence?",
            "What is secure without classical cryptography?",
            "Is our policy met?",
        ),
        strict=True,
    )
)
_HEADLINES: Final = {
    OK: "ACCEPTED: every row that your policy requires passes",
    VERIFICATION_FAILED: "the bytes or signatures are not valid",
    POLICY_NOT_MET: "the artifact is authentic, but your policy is not met",
    EVIDENCE_MISSING: "evidence is missing",
    PARTIAL: "some files were omitted on request; those here are as published",
}
_ADVICE: Final = {
    OK: "Your policy allows use of the files. The policy covers who published them and who cosigned, "
    "not whether the model is good, safe or lawful.",
    VERIFICATION_FAILED: "Do not use these files. Keep them for an inquiry, and pull the artifact again from other "
    "nodes.",
    POLICY_NOT_MET: "The bytes are valid. Get the evidence that the policy requires, or ask the owner of the policy "
    "whether its rules are right.",
    EVIDENCE_MISSING: "No evidence is invalid, but some is missing. Pull again where there is a network.",
    PARTIAL: "Usable if a partial copy is enough; a loader that needs the other files will fail.",
}
_STEPS: Final = {
    VERIFICATION_FAILED: ("comity pull REF --to ELSEWHERE",),
    POLICY_NOT_MET: ("comity policy explain FILE",),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """A headline, advice, the rows that decided, failed rows that are not required, and the next commands."""

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
    """A report with a valid signature. `signer` is not yet known to be trusted."""

    report: VerdictReport
    verified: Verified
    entry: Entry
    signer: Inception
    chain: RotationChain


def signature_path(report: Path) -> Path:
    """Return the path of the signature of the report at `report`."""
    return report.with_name(report.name + SUFFIX)


def sign_report(report: VerdictReport, publisher: Publisher, time: int) -> Entry:
    """Sign as `publisher` that `report` was produced at `time` (seconds since 1970). Raises Malformed
    (UNSIGNABLE-REPORT) for a report without an artifact or a policy file, and as `Publisher.signer` does."""
    return sign_verified(summarise_report(report, publisher.id, time), publisher.signer())


def write_signature(path: Path, publisher: Publisher, entry: Entry) -> None:
    """Raises OutOfSpace, Unavailable."""
    data = b"".join(line + b"\n" for line in (*publisher.lines, entry.line))
    durable.write_file(path, data, mode=0o644, point="signature")


def read_signed(path: Path) -> SignedReport:
    """Return the report at `path` and verify its signature file.

    Raises NotFound, Malformed, and Untrusted (SIGNATURE, REPORT).
    """
    report = VerdictReport.parse(read_bounded(path, MAX_BYTES))
    try:
        bundle = read_bounded(signature_path(path), MAX_LINES * (MAX_LINE + 1))
    except NotFound as error:
        hint = "comity verify DIR --policy FILE --report FILE --sign-as LABEL"
        raise NotFound(f"{path} is not signed", why=f"there is no {signature_path(path).name}", hint=hint) from error
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
        raise Untrusted("report refused", why=f"the inception of {by[:12]} is missing", code="SIGNATURE")
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


def render_page(report: VerdictReport, signed: SignedReport | None = None) -> str:
    """Return the HTML document; the same report and signature always give the same document."""
    verdict = report.verdict
    subject = verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "an unknown artifact")
    parts = (
        f"<h1>Provenance report: {_escape(subject)}</h1>",
        _banner(meaning(verdict), accepted=verdict.accepted),
        _about(report),
        _signature(signed),
        _overview(verdict.rows, frozenset({"artifact", *verdict.required})),
        _evidence(verdict.rows),
        _glossary(),
        _footer(report),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Provenance report: {_escape(subject)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _banner(what: Meaning, *, accepted: bool) -> str:
    lines = [f"<p><strong>{_escape(what.headline)}</strong></p>", f"<p>{_escape(what.advice)}</p>"]
    lines += _listed("Deciding rows:", what.deciding)
    lines += _listed("Failed, but not required by the policy:", what.notable)
    if what.steps:
        lines.append("<p>Next: " + ", or ".join(f"<code>{_escape(step)}</code>" for step in what.steps) + "</p>")
    kind = "accepted" if accepted else "refused"
    return f'<section class="verdict {kind}" aria-label="Verdict">\n' + "\n".join(lines) + "\n</section>"


def _listed(title: str, rows: tuple[Row, ...]) -> list[str]:
    if not rows:
        return []
    items = "".join(f"<li>{_state(row)} {_escape(row.name)}: {_escape(row.summary)}</li>" for row in rows)
    return [f"<p>{title}</p>", f"<ul>{items}</ul>"]


def _about(report: VerdictReport) -> str:
    verdict = report.verdict
    facts = (
        ("Artifact", f'<span class="digest">sha256:{verdict.artifact}</span>' if verdict.artifact else "none"),
        ("Name, as its publisher claims", _escape(verdict.name or "none")),
        ("Policy", f'<span class="digest">sha256:{verdict.policy}</span>' if verdict.policy else "the owner's pins"),
        ("The policy requires", _escape(", ".join(verdict.required))),
        ("Exit status", str(verdict.exit_status)),
        ("Checked by", _escape(f"comity {report.version}, without network and clock")),
    )
    return _table("About", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _signature(signed: SignedReport | None) -> str:
    if signed is None:
        return "<p>This page has no signature. Only a signed report shows when and by whom it was checked.</p>"
    facts = (
        ("Signed by", _escape(f"{signed.signer.display} ({signed.signer.jurisdiction or 'no jurisdiction claimed'})")),
        ("Identity", f'<span class="digest">{signed.signer.id}</span>'),
        ("At, by the signer's clock", _escape(format_time(signed.verified.time))),
        ("Statement", f'<span class="digest">sha256:{signed.entry.digest}</span>'),
    )
    return _table("Signature", (), ((f'<th scope="row">{name}</th>', f"<td>{value}</td>") for name, value in facts))


def _overview(rows: tuple[Row, ...], required: frozenset[str]) -> str:
    def cells(row: Row) -> tuple[str, ...]:
        return (
            f'<td class="narrow">{row.step}</td>',
            f'<th scope="row">{_escape(row.name)}</th>',
            f"<td>{_state(row)}</td>",
            f'<td class="narrow">{"required" if row.name in required else ""}</td>',
            f'<td><span class="question">{_escape(QUESTIONS.get(row.name, ""))}</span><br>{_escape(row.summary)}</td>',
        )

    headers = ("No.", "Row", "State", "Policy", "Question and answer")
    return "<h2>The rows</h2>\n" + _table("All rows of the verdict", headers, map(cells, rows), "rows")


def _evidence(rows: tuple[Row, ...]) -> str:
    def cells(item: tuple[Row, RowFact]) -> tuple[str, ...]:
        row, fact = item
        evidence = f'<span class="digest">{fact.evidence}</span>' if fact.evidence else ""
        return (
            f'<th scope="row">{_escape(row.name)}</th>',
            f"<td>{_escape(fact.text)}</td>",
            f"<td>{_escape(_basis_text(fact))}</td>",
            f"<td>{evidence}</td>",
        )

    facts = ((row, fact) for row in rows for fact in row.facts)
    headers = ("Row", "Fact", "Basis", "Document, SHA-256")
    return "<h2>Evidence for the rows</h2>\n" + _table("Facts and their evidence", headers, map(cells, facts), "facts")


def _basis_text(fact: RowFact) -> str:
    return f"claimed by {fact.by}" if fact.basis == "claimed" and fact.by else fact.basis


def _glossary() -> str:
    states = {STATES[state]: means for state, means in STATE_MEANS.items()}
    terms = "".join(f"<dt>{term}</dt><dd>{_escape(means)}</dd>" for term, means in {**states, **BASIS_MEANS}.items())
    return f"<h2>Terms</h2>\n<dl>{terms}</dl>"


def _footer(report: VerdictReport) -> str:
    data = report.encode()
    return (
        f'<p>Rendered from the report of {len(data)} bytes with SHA-256 <span class="digest">{sha256(data)}</span>; '
        "that document is authoritative, not this page.</p>"
    )


def _table(caption: str, headers: tuple[str, ...], rows: Iterable[tuple[str, ...]], kind: str = "about") -> str:
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    head = f"<thead><tr>{head}</tr></thead>\n" if headers else ""
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<table class="{kind}">\n<caption>{caption}</caption>\n{head}<tbody>\n{body}\n</tbody>\n</table>'


def _state(row: Row) -> str:
    return f'<span class="state {row.state}">{STATES[row.state]}</span>'


def _escape(text: str) -> str:
    """Escape untrusted text: on one line, without control characters and markup."""
    return html.escape(printable(text), quote=True)


MIN_PREFIX = 16
"""Minimum number of digits of an abbreviated id."""


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """A report with a valid signature by a known signer; `known_as` says how the signer is known."""

    signed: SignedReport
    known_as: str


def check_signer(
    signed: SignedReport, by: str, own: Sequence[Publisher], pins: Sequence[TrustPin], bindings: Bindings
) -> CheckedReport:
    """Require that the signer is `by` (an id, or its first 16 or more digits); if that is empty, that this user trusts
    the signer: own identities, bindings, members and publishers of the pinned charters.

    Raises Malformed for `by`, PolicyNotMet (REPORT-SIGNER).
    """
    _check_keys(signed, bindings)
    identity = signed.signer.id
    if by:
        wanted = by.removeprefix("sha256:").lower()
        if len(wanted) < MIN_PREFIX:
            raise Malformed(f"{by!r} is too short", why=f"an id has 64 digits, at least {MIN_PREFIX} are needed")
        if not identity.startswith(wanted):
            raise _unknown(f"it is signed by {identity}, not by {by}")
        return CheckedReport(signed, "the signer that you named")
    known = next(_roles(identity, own, pins, bindings), None)
    if known is None:
        raise _unknown(
            f"{signed.signer.display} [{identity}] is not an own identity, not bound, and not a pinned member"
        )
    return CheckedReport(signed, known)


def _check_keys(signed: SignedReport, bindings: Bindings) -> None:
    """Refuse keys that a pinned rotation retired: offline, nothing proves that the signature was logged before."""
    pinned = bindings.rotations.get(signed.signer.id)
    kept = judge_keys(signed.entry, signed.chain, pinned, (), {})
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
    hint = "comity report check FILE --by ID   # the id of the signer, from another channel"
    return PolicyNotMet(
        "the signature is valid, but its signer is not known here", why=why, hint=hint, code="REPORT-SIGNER"
    )
