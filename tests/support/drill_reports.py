"""Drill reports: one that passed, and one that failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from comity.rules.continuity.drill_report import (
    CHECK,
    CUT,
    INSTALL,
    PULL,
    RESTORE,
    SAMPLES,
    SELF_TEST,
    START,
    VERIFY,
    CaseCounts,
    DrillFinding,
    DrillPhase,
    DrillReport,
    LeftOut,
    summarise_drill,
)
from comity.rules.parties import Party
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity_client.continuity.drill_files import proof_path
from comity_client.signature_files import signature_path
from support.case import nodes
from support.world import Identity, Log, identity

STARTED: Final = 1_796_156_000
CH: Final = Party("reach", "CH")
_PASSED: Final = (CUT, PULL, VERIFY, CHECK, INSTALL, START, SELF_TEST, SAMPLES, RESTORE)


def phases(*names: str) -> tuple[DrillPhase, ...]:
    """Phases of 900 ms each, with pauses of 100 ms."""
    return tuple(DrillPhase(name, n * 1000, n * 1000 + 900, True, f"{name} done") for n, name in enumerate(names))


def a_drill_report() -> DrillReport:
    return DrillReport(
        plan=sha256(b"plan"),
        owner=sha256(b"owner"),
        service="chat",
        fallback=1,
        kit="org/chat@v1",
        kit_artifact=sha256(b"kit"),
        cut_off=(CH, Party("package-index", "")),
        asked=("node-es",),
        left_out=(LeftOut("node-ch", CH),),
        findings=(DrillFinding("never-drilled", "amber", "the service was never drilled", "unknown", ""),),
        isolation="an empty network namespace",
        phases=phases(*_PASSED),
        self_test=CaseCounts(2, 2),
        samples=CaseCounts(10, 9, ("capital",)),
        threshold="0.9",
        passed=True,
        link="",
        reason="",
        started=STARTED,
        ended=STARTED + 10,
        before="",
        tool="1.0",
    )


def a_failed_drill_report() -> DrillReport:
    """The engine did not start."""
    ran = phases(CUT, PULL, VERIFY, CHECK, INSTALL, START, RESTORE)
    failed = tuple(replace(each, passed=each.phase != START) for each in ran)
    nothing = CaseCounts(0, 0)
    reason, link = "the last check of the kit failed: it ended at once", "check-failed"
    return replace(
        a_drill_report(), phases=failed, self_test=nothing, samples=nothing, passed=False, link=link, reason=reason
    )


OFFICER: Final = identity("Continuity desk")


def cosigned_checkpoint(time: int) -> str:
    """The note of an empty log of the first node, cosigned by the others at `time`."""
    writer, *others = nodes()
    checkpoint = Log(writer.origin, writer.log).checkpoint()
    cosigned = [line for node in others for line in node.cosign(checkpoint, time)]
    return checkpoint.signed(writer.log).with_signatures(*cosigned).encode().decode()


def write_drill(folder: Path, report: DrillReport, *, by: Identity = OFFICER, logged_at: int | None = None) -> Path:
    """Write a report, its signature and, if it was logged, the proof; as a drill does."""
    path, entry = folder / "drill.json", sign_content(summarise_drill(report, by.id, report.ended + 1), by.signer)
    path.write_bytes(report.encode())
    signature_path(path).write_bytes(by.entry.line + b"\n" + entry.line + b"\n")
    proof_path(path).unlink(missing_ok=True)
    if logged_at is not None:
        writer, *others = nodes()
        log = Log(writer.origin, writer.log)
        log.append(entry.line)
        proof_path(path).write_bytes(log.proof(entry.line, others, logged_at).data)
    return path
