"""Drill reports as files: `drill.json`, its signature `drill.json.intoto.jsonl`, and, where the statement is logged,
the proof `drill.json.tlog-proof`, which shows by when the report was there.

Who cosigned when is read by the nodes of the pinned charters: the member that writes the log does not count, so that
nobody vouches for its own clock.

The newest report of each service and kit is also kept in the home of this user, for the check of a plan:
`drills/<id>.json`, where the id is the SHA-256 of service and kit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.continuity.drill_report import (
    MAX_BYTES,
    Drilled,
    DrillReport,
    DrillTimes,
    check_drilled,
    check_times,
    summarise_drill,
)
from comity.rules.cosigned_times import newest_of_each, verified_cosigners
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, format_time, sha256
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Entry
from comity.trust.statement_kinds import DRILLED
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.trust.tlog.proof import MAX_PROOF, TlogProof

from comity_client.home import Home
from comity_client.publishers import Publisher
from comity_client.reports import page_template
from comity_client.signature_files import FileSignature, read_signature

PROOF_SUFFIX: Final = ".tlog-proof"
HOW_TO_SIGN: Final = "comity continuity drill SERVICE --plan FILE --sign-as LABEL"


@frozen
class SignedDrill:
    """A drill report with a valid signature. The signer is not yet known to be trusted.

    Attributes:
        times: between which times it took place, as far as members of the pinned charters cosigned.
        logged: whether there is a valid proof that the statement is in a log of a pinned node.
    """

    report: DrillReport
    said: Drilled
    signature: FileSignature
    times: DrillTimes
    logged: bool


def sign_drill(report: DrillReport, publisher: Publisher, time: int) -> Entry:
    """Sign as `publisher`, at `time` (seconds since 1970). Raises as `Publisher.signer` does."""
    return sign_content(summarise_drill(report, publisher.id, time), publisher.signer())


def proof_path(file: Path) -> Path:
    """The path of the proof that the signature of a file is logged."""
    return file.with_name(file.name + PROOF_SUFFIX)


def read_drill(path: Path, records: Sequence[NodeRecord]) -> SignedDrill:
    """Return the report at `path`, and verify its signature and its times by the clocks of cosigners.

    Raises NotFound, Malformed, and Untrusted (SIGNATURE, DRILL-REPORT, DRILL-TIME, and those of notes and proofs).

    Args:
        records: those of the nodes whose logs and cosignatures count.
    """
    report = DrillReport.parse(read_bounded(path, MAX_BYTES))
    signature = read_signature(path, DRILLED, HOW_TO_SIGN)
    said = check_drilled(signature.entry, report)
    before = cosigned_note(SignedNote.parse(report.before.encode()), records) if report.before else None
    logged = _logged(path, signature.entry, records)
    times = check_times(report, before.times.values() if before else (), logged.times.values() if logged else ())
    return SignedDrill(report, said, signature, times, logged is not None)


@frozen
class CosignedNote:
    """A checkpoint of a known log, and for each member that cosigned it and does not write it the newest time (seconds
    since 1970, by its clock)."""

    checkpoint: Checkpoint
    log: VerifierKey
    times: Mapping[Digest, int]


def cosigned_note(note: SignedNote, records: Sequence[NodeRecord]) -> CosignedNote | None:
    """None for a checkpoint of a log that no known node writes. Raises Malformed, Untrusted (NOTE-SIGNATURE,
    COSIGNATURE)."""
    found = next((record for record in records if any(line.by(record.log) for line in note.signatures)), None)
    if found is None:
        return None
    checkpoint = open_checkpoint(note, found.log)
    others = [record for record in records if record.member != found.member]
    times = [
        (record.member, at)
        for record in others
        for at in verified_cosigners(note, record.cosigners, checkpoint).values()
        if at
    ]
    return CosignedNote(checkpoint, found.log, newest_of_each(times))


def _logged(path: Path, entry: Entry, records: Sequence[NodeRecord]) -> CosignedNote | None:
    """What the proof beside a report shows; None if there is none, or of a log that no known node writes. Raises
    Malformed, and Untrusted for a proof of anything else."""
    try:
        proof = TlogProof.parse(read_bounded(proof_path(path), MAX_PROOF))
    except NotFound:
        return None
    found = cosigned_note(proof.checkpoint, records)
    if found is not None:
        proof.verify(entry.line, found.log)
    return found


def render_drill_report(report: DrillReport, signed: SignedDrill | None = None) -> str:
    """The page for officials: self-contained HTML without a script."""
    return page_template("drill-report.html").render(
        report=report,
        signed=signed,
        digest=sha256(report.encode()),
        time=format_time,
        failed=next((phase for phase in report.phases if not phase.passed), None),
    )


def keep_drill(home: Home, report: DrillReport) -> None:
    """Keep a report in place of the one before. Raises OutOfSpace, Unavailable."""
    home.ensure(home.drills)
    path = _kept_path(home, report.service, report.kit_artifact)
    durable.write_file(path, report.encode(), mode=0o600, point="drill")


def last_drill(home: Home, service: str, kit: Digest) -> DrillReport | None:
    """The newest drill in which a service was replaced by the kit with this digest. Raises Malformed, Unavailable."""
    try:
        return DrillReport.parse(read_bounded(_kept_path(home, service, kit), MAX_BYTES))
    except NotFound:
        return None


def _kept_path(home: Home, service: str, kit: Digest) -> Path:
    key = sha256(f"{service}\n{kit}\n".encode())
    return home.drills / f"{key}.json"
