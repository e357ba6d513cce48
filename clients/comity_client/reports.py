"""Verdict reports: their meaning in sentences, a page of HTML, and their signature beside them (`signature_files`).

The HTML page is self-contained, has no script, fetches nothing and prints on A4. States are words; colour only repeats
them. Jinja2 escapes every value. The page names the report by digest, which is what a signature covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.bounded_file import read_bounded
from comity.rules.signing import sign_content
from comity.trust.encoding import format_time, printable, sha256
from comity.trust.evidence import Row, Verdict
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK, PARTIAL, POLICY_NOT_MET, VERIFICATION_FAILED
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.policy import ROWS
from comity.trust.report import MAX_BYTES, VerdictReport, Verified, check_report, summarise_report
from comity.trust.rows.publication import COMPARE
from comity.trust.statement import Entry
from comity.trust.statement_kinds import VERIFIED

from comity_client.publishers import Publisher
from comity_client.signature_files import FileSignature, read_signature

if TYPE_CHECKING:
    from jinja2 import Environment, Template

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
            "Who approved its use?",
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
_NO_MANIFEST: Final = (
    "There is no manifest beside these files. Verify the folder to which an artifact was pulled, or adopt or pull it."
)


@frozen
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
    advice = _ADVICE.get(status, "")
    required = {"artifact", *verdict.required}
    if status == VERIFICATION_FAILED:
        required.add("bytes")
    if status == EVIDENCE_MISSING and verdict.artifact is None:
        required, advice = {"artifact"}, _NO_MANIFEST
    deciding = tuple(row for row in verdict.rows if row.name in required and row.state != "pass")
    notable = tuple(row for row in verdict.rows[:-1] if row.name not in required and row.state == "fail")
    return Meaning(headline, advice, deciding, notable, _next_steps(verdict, deciding))


def _next_steps(verdict: Verdict, deciding: Sequence[Row]) -> tuple[str, ...]:
    steps = [row.hint for row in deciding if row.hint]
    if verdict.exit_status == VERIFICATION_FAILED:
        return *dict.fromkeys(steps), f"comity pull {verdict.name or 'REF'} --out ELSEWHERE"
    keys = next((row for row in verdict.rows if row.name == "key policy"), None)
    if keys is not None and keys.state == "unknown" and keys.hint.startswith(COMPARE):
        steps.append(keys.hint)
    if verdict.exit_status == POLICY_NOT_MET and verdict.policy is not None:  # the default policy has no file
        steps.append("comity policy explain FILE")
    return tuple(dict.fromkeys(steps))


@frozen
class SignedReport:
    """A report with a valid signature. `signer` is not yet known to be trusted."""

    report: VerdictReport
    verified: Verified
    signature: FileSignature

    @property
    def signer(self) -> Inception:
        return self.signature.signer


def sign_report(report: VerdictReport, publisher: Publisher, time: int) -> Entry:
    """Sign as `publisher` that `report` was produced at `time` (seconds since 1970). Raises Malformed
    (UNSIGNABLE-REPORT) for a report without an artifact or a policy file, and as `Publisher.signer` does."""
    return sign_content(summarise_report(report, publisher.id, time), publisher.signer())


def read_signed(path: Path) -> SignedReport:
    """Return the report at `path` and verify its signature file.

    Raises NotFound, Malformed, and Untrusted (SIGNATURE, REPORT).
    """
    report = VerdictReport.parse(read_bounded(path, MAX_BYTES))
    hint = "comity verify DIR --policy FILE --report FILE --sign-as LABEL"
    signature = read_signature(path, VERIFIED, hint)
    return SignedReport(report, check_report(signature.entry, signature.chain, report), signature)


def render_page(report: VerdictReport, signed: SignedReport | None = None) -> str:
    """Return the HTML document; the same report and signature always give the same document."""
    verdict, data = report.verdict, report.encode()
    return page_template("report.html").render(
        verdict=verdict,
        version=report.version,
        subject=verdict.name or (f"sha256:{verdict.artifact}" if verdict.artifact else "an unknown artifact"),
        what=meaning(verdict),
        signed=signed,
        signed_at=format_time(signed.verified.time) if signed else "",
        states=STATES,
        questions=QUESTIONS,
        terms={**{STATES[state]: means for state, means in STATE_MEANS.items()}, **BASIS_MEANS},
        size=len(data),
        sha256=sha256(data),
    )


def page_template(name: str) -> Template:
    """Return a template of this package by its file name; see `_pages`."""
    return _pages().get_template(name)


@cache
def _pages() -> Environment:
    """The templates of pages. Every value is escaped, and is printed on one line without control characters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("comity_client", "pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if hasattr(value, "__html__") else printable(str(value)),
    )


@frozen
class CheckedReport:
    """A report with a valid signature by a known signer; `known_as` says how the signer is known."""

    signed: SignedReport
    known_as: str
