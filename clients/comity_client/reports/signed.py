"""The signature beside a report: `r.json.intoto.jsonl`, an in-toto bundle, one envelope a line.

It holds the signer's inception and rotations, and the `verified` statement, exactly as a log would hold them. With the
report it is all that is needed to check both, offline; whether the signer is to be believed is the reader's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.dsse import MAX_LINE
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.identity import Inception, check_inception
from comity.trust.report import MAX_BYTES, Report
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements.verified import VERIFIED, Verified, check_report, sign_verified, summarise
from comity.verifier import read_bounded

from comity_client.owner.publishers import Publisher

SUFFIX: Final = ".intoto.jsonl"
MAX_LINES: Final = 64


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report and a signature that holds. `signer` is who signed; nothing says yet that the reader trusts them."""

    report: Report
    verified: Verified
    entry: Entry
    signer: Inception
    chain: Chain


def beside(report: Path) -> Path:
    """Where the signature of the report at `report` is."""
    return report.with_name(report.name + SUFFIX)


def sign_report(report: Report, publisher: Publisher, time: int) -> Entry:
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
    report = Report.parse(read_bounded(path, MAX_BYTES))
    try:
        bundle = read_bounded(beside(path), MAX_LINES * (MAX_LINE + 1))
    except NotFound as error:
        hint = "comity verify DIR --policy FILE --report FILE --sign-as LABEL"
        raise NotFound(f"{path} is not signed", why=f"no {beside(path).name} beside it", hint=hint) from error
    return check_bundle(report, bundle)


def check_bundle(report: Report, bundle: bytes) -> SignedReport:
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
