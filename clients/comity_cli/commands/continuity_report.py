"""`comity continuity report check|show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest, format_time, sha256
from comity.trust.errors import Untrusted
from comity.trust.exit_statuses import EVIDENCE_MISSING
from comity.trust.frozen import frozen
from comity.trust.report import RESULTS

from comity_cli.command import Group, client, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE

if TYPE_CHECKING:
    from comity.rules.continuity.drill_report import DrillReport
    from comity_client.continuity.drill_files import SignedDrill

    from comity_cli.output import Output


@document("checked-drill-report")
class CheckedDrillDocument:
    """A drill report with a valid signature, as `comity continuity report check --json` prints it.

    `begun_after` and `logged_by`: times that members' cosignatures prove, or null. `answered` and `quality`: seconds.
    """

    signer: Digest
    label: str
    known_as: str
    report: Digest
    plan: Digest
    kit: Digest
    service: str
    passed: bool
    reason: str
    answered: int | None
    quality: int | None
    started: str
    ended: str
    begun_after: str | None
    logged: bool
    logged_by: str | None
    html: str | None


@document("drill-report-shown")
class DrillReportDocument:
    """The content of a drill report, as `comity continuity report show --json` prints it: nothing was checked.

    The times of phases are in milliseconds since the start.
    """

    report: DrillReport
    html: str | None


@frozen
class ReportOptions:
    """What a report must be about, and whether its times must be proven."""

    by: str
    plan: Path | None
    kit: str
    proven_times: bool


@examples("comity continuity report check drill.json")
@click.group(cls=Group, name="report", short_help="Check and read reports of drills.")
def command() -> None:
    """Check and show reports of `comity continuity drill`. The signature is beside the report, in FILE.intoto.jsonl; if
    it is logged, the proof is in FILE.tlog-proof."""


@examples(
    "comity continuity report check drill.json",
    "comity continuity report check drill.json --plan plan.toml --by 51aa0f6e… --proven-times",
)
@command.command("check", short_help="Check the signature, the signer and the times of a report.")
@click.argument("file", type=FILE)
@click.option("--by", default="", metavar="ID", help="The required signer: an id, or its first 16 digits.")
@click.option("--plan", type=FILE, help="The report must be about exactly this plan.")
@click.option("--kit", default="", metavar="DIGEST", help="The report must be about exactly this artifact.")
@click.option("--proven-times", is_flag=True, help="Require that cosigners prove when the drill took place.")
@click.option("--html", "page", type=NEW_FILE, help="Write an HTML page to this file.")
@options_as("options", ReportOptions)
def check(file: Path, page: Path | None, options: ReportOptions) -> int:
    """Check the report in FILE, offline: its signature is valid, it is about exactly this report, and its signer is
    yours, bound by you, a pinned member, or the one of --by. A report is refused if it says that it began before the
    checkpoint that it contains was cosigned, or if it was logged a day or more after it says that it ended.

    Exit status: 0 valid, 3 the signature, the report or its times are wrong, or it is about another plan or kit, 4 the
    signer is not known here, 5 valid, but with --proven-times its times are not proven. The status is not the reported
    result, which is printed: a correctly signed report of a failed drill also gives 0.
    """
    from comity_client.continuity.drill_files import read_drill

    out, api = output(), client()
    signed = read_drill(file, [node.record for pin in api.pins() for node in pin.federation.nodes])
    report, known_as = signed.report, api.known_signer(signed.signature, options.by)
    _require_subject(report, options)
    signer = signed.signature.signer
    out.done(f"signed by {signer.display} [{signer.id[:12]}], {known_as}; the report is unchanged")
    _say_result(out, report)
    _say_times(out, signed)
    if page is not None:
        _write_page(page, report, signed)
        out.say(f"Page: {page}")
    out.answer(_document(signed, known_as, page))
    proven = signed.times.begun_after is not None and signed.times.logged_by is not None
    if options.proven_times and not proven:
        out.warn("its times are the signer's claims: not enough members' cosignatures prove them")
        return EVIDENCE_MISSING
    return 0


@examples("comity continuity report show drill.json", "comity continuity report show drill.json --html drill.html")
@command.command("show", short_help="Show a report, or write it as a page.")
@click.argument("file", type=FILE)
@click.option("--html", "page", type=NEW_FILE, help="Write an HTML page to this file.")
def show(file: Path, page: Path | None) -> None:
    """Show the content of FILE. Nothing is checked: use `comity continuity report check`."""
    from comity.bounded_file import read_bounded
    from comity.rules.continuity.drill_report import MAX_BYTES, DrillReport

    out, report = output(), DrillReport.parse(read_bounded(file, MAX_BYTES))
    _say_result(out, report)
    out.table(
        ("step", "seconds", "", ""),
        [
            (each.phase, f"{each.seconds:.1f}", "passed" if each.passed else "failed", each.said)
            for each in report.phases
        ],
    )
    out.warn("this is the content of the file; its signature was not checked")
    if page is not None:
        _write_page(page, report)
        out.say(f"Page: {page}")
    out.answer(DrillReportDocument(report, str(page) if page else None))


def _require_subject(report: DrillReport, options: ReportOptions) -> None:
    """Raises Untrusted (DRILL-SUBJECT) for a report about something else, such as one that is shown again for another
    plan."""
    from comity.bounded_file import read_bounded
    from comity.rules.toml_table import MAX_BYTES
    from comity.trust.names import parse_id

    if options.plan is not None:
        found = sha256(read_bounded(options.plan, MAX_BYTES))
        if found != report.plan:
            raise _other(f"{options.plan} is sha256:{found}, and the report is about plan sha256:{report.plan}")
    if options.kit and parse_id(options.kit) != report.kit_artifact:
        raise _other(f"the report is about {report.kit}, sha256:{report.kit_artifact}")


def _other(why: str) -> Untrusted:
    return Untrusted("the report is about something else", why=why, code="DRILL-SUBJECT")


def _say_result(out: Output, report: DrillReport) -> None:
    out.fact("service", f"{report.service}, cut off with {', '.join(map(str, report.cut_off))}")
    out.fact("replaced by", f"{report.kit}  sha256:{report.kit_artifact}")
    out.fact("plan", f"sha256:{report.plan}, fallback {report.fallback}")
    if report.passed:
        quality = f", the agreed quality after {report.quality} s" if report.quality is not None else ""
        out.fact("reported", f"{RESULTS[True]}: the first verified answer after {report.answered} s{quality}")
    else:
        out.fact("reported", f"{RESULTS[False]} at {report.link}: {report.reason}")
    for each in report.findings:
        out.fact(f"{each.state} before", f"{each.said} ({each.basis}{f' by {each.by}' if each.by else ''})")


def _say_times(out: Output, signed: SignedDrill) -> None:
    report, times = signed.report, signed.times
    out.fact("began", f"{format_time(report.started)}, as it says; {_proven('not before', times.begun_after)}")
    logged = _proven("logged by", times.logged_by) if signed.logged else "not logged: it may have been made later"
    out.fact("ended", f"{format_time(report.ended)}, as it says; {logged}")


def _proven(what: str, time: int | None) -> str:
    return f"{what} {format_time(time)}, as members cosigned" if time is not None else "no two members prove it"


def _document(signed: SignedDrill, known_as: str, page: Path | None) -> CheckedDrillDocument:
    report, said, times, signer = signed.report, signed.said, signed.times, signed.signature.signer
    return CheckedDrillDocument(
        signer=signer.id,
        label=signer.label,
        known_as=known_as,
        report=said.report.digest,
        plan=said.plan,
        kit=said.artifact,
        service=said.service,
        passed=said.passed,
        reason=report.reason,
        answered=said.answered,
        quality=said.quality,
        started=format_time(report.started),
        ended=format_time(report.ended),
        begun_after=format_time(times.begun_after) if times.begun_after is not None else None,
        logged=signed.logged,
        logged_by=format_time(times.logged_by) if times.logged_by is not None else None,
        html=str(page) if page else None,
    )


def _write_page(path: Path, report: DrillReport, signed: SignedDrill | None = None) -> None:
    from comity.content import durable
    from comity_client.continuity.drill_files import render_drill_report

    durable.write_file(path, render_drill_report(report, signed).encode(), mode=0o644, point="page")
