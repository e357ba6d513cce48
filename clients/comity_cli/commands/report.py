"""`comity report check|show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import format_time
from comity.trust.report import RESULTS

from comity_cli import verdicts
from comity_cli.command import Group, client, examples, output
from comity_cli.files import FILE, NEW_FILE

if TYPE_CHECKING:
    from comity.trust.report import VerdictReport
    from comity_client.reports import SignedReport


@examples("comity report check evidence.json", "comity report show evidence.json --html evidence.html")
@click.group(cls=Group, name="report", short_help="Check and read reports.")
def command() -> None:
    """Check and show reports of `comity verify --report`. The signature is beside the report, in FILE.intoto.jsonl."""


@examples("comity report check evidence.json", "comity report check evidence.json --by 51aa0f6e…")
@command.command("check", short_help="Check the signature and the signer of a report.")
@click.argument("file", type=FILE)
@click.option("--by", default="", metavar="ID", help="The required signer: an id, or its first 16 digits.")
@click.option("--html", "page", type=NEW_FILE, help="Write an HTML page to this file.")
def check(file: Path, by: str, page: Path | None) -> None:
    """Check the signature beside FILE, offline: it is valid, it is about exactly this report, and its signer is yours,
    bound by you, a pinned member, or the one of --by.

    Exit status: 0 valid, 3 the signature or the report is wrong, 4 the signer is not known here. The status is not the
    reported result, which is printed: a correctly signed report of a refusal also gives 0.
    """
    out, checked = output(), client().check_report(file, by=by)
    signed = checked.signed
    verified, signer = signed.verified, signed.signer
    out.done(f"signed by {signer.display} [{signer.id[:12]}], {checked.known_as}; the report is unchanged")
    out.fact("reported", f"{RESULTS[verified.passed]}, exit status {signed.report.verdict.exit_status}")
    out.fact("about", f"{verified.name or 'an artifact'}  sha256:{verified.artifact}")
    out.fact("policy", f"sha256:{verified.policy}")
    out.fact("at", f"{format_time(verified.time)}, by the signer's clock")
    out.fact("with", f"comity {verified.version}")
    if page is not None:
        _write_page(page, signed.report, signed)
        out.say(f"Page: {page}")
    out.document(
        "checked-report",
        {
            "signer": signer.id,
            "label": signer.label,
            "known_as": checked.known_as,
            "artifact": verified.artifact,
            "name": verified.name,
            "policy": verified.policy,
            "time": format_time(verified.time),
            "result": RESULTS[verified.passed],
            "exit_status": signed.report.verdict.exit_status,
            "report": verified.report.digest,
            "html": str(page) if page else None,
        },
    )


@examples("comity report show evidence.json", "comity report show evidence.json --html evidence.html")
@command.command("show", short_help="Show a report, or write it as a page.")
@click.argument("file", type=FILE)
@click.option("--html", "page", type=NEW_FILE, help="Write an HTML page to this file.")
@click.option("--facts", is_flag=True, help="Show the facts of each row.")
def show(file: Path, page: Path | None, facts: bool) -> None:
    """Show the content of FILE. Nothing is checked: use `comity report check`, or `comity verify` for the files."""
    from comity.bounded_file import read_bounded
    from comity.trust.report import MAX_BYTES, VerdictReport

    out, report = output(), VerdictReport.parse(read_bounded(file, MAX_BYTES))
    verdicts.show(out, report.verdict, facts=facts)
    out.warn("this is the content of the file; its signature was not checked")
    if page is not None:
        _write_page(page, report)
        out.say(f"Page: {page}")
    out.document("report-shown", {"report": report.verdict.to_json(), "html": str(page) if page else None})


def _write_page(path: Path, report: VerdictReport, signed: SignedReport | None = None) -> None:
    from comity.content import durable
    from comity_client.reports import render_page

    durable.write_file(path, render_page(report, signed).encode(), mode=0o644, point="page")
