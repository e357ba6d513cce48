"""Write a verdict as a report and an HTML page, sign the report, and log it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comity
from comity.trust.evidence import Verdict

from comity_cli.following import follow
from comity_cli.output import Output

if TYPE_CHECKING:
    from comity.trust.report import VerdictReport
    from comity.trust.statement import Entry
    from comity_client.client import Client
    from comity_client.publish import PublishReceipt
    from comity_client.publishers import Publisher


@dataclass(frozen=True, slots=True)
class Filed:
    """Paths of the report, its page and its signature, and the receipt of the log."""

    report: Path | None
    page: Path | None
    signature: Path | None
    receipt: PublishReceipt | None

    def to_json(self) -> dict[str, Any]:
        logged = self.receipt.logged if self.receipt else ()
        return {
            "report": str(self.report) if self.report else None,
            "html": str(self.page) if self.page else None,
            "signature": str(self.signature) if self.signature else None,
            "logged": [{"node": each.node, "origin": each.origin, "index": each.index} for each in logged],
        }


def file_report(
    out: Output,
    api: Client,
    verdict: Verdict,
    report: Path | None,
    page: Path | None,
    publisher: Publisher | None,
    nodes: Sequence[str],
) -> Filed | None:
    """Return None if no output was requested. Written files stay if logging fails."""
    if report is None and page is None:
        return None
    from comity.content import durable
    from comity.trust.report import VerdictReport
    from comity_client.reports import read_signed, signature_path, write_signature
    from comity_client.reports import render_page as render

    made = VerdictReport.of(verdict, comity.__version__)
    signed = entry = None
    if report is not None:
        durable.write_file(report, made.encode(), mode=0o644, point="report")
        out.say(f"Report: {report}")
    if report is not None and publisher is not None and verdict.artifact is None:
        out.warn("not signed: without a manifest there is no artifact to sign for")
    elif report is not None and publisher is not None:
        entry = api.sign_report(made, publisher)
        write_signature(signature_path(report), publisher, entry)
        signed = read_signed(report)
        out.done(f"signed by {publisher.label} [{publisher.id[:12]}]: {signature_path(report)}")
    if page is not None:
        durable.write_file(page, render(made, signed).encode(), mode=0o644, point="page")
        out.say(f"Page: {page}")
    receipt = _logged(out, api, made, entry, publisher, nodes) if entry and publisher and nodes else None
    return Filed(report, page, signature_path(report) if report and signed else None, receipt)


def _logged(
    out: Output, api: Client, report: VerdictReport, entry: Entry, publisher: Publisher, nodes: Sequence[str]
) -> PublishReceipt:
    with follow(out, "logging") as on_event:
        receipt = api.log_report(report, entry, publisher, nodes=nodes, on_event=on_event)
    for logged in receipt.logged:
        out.done(f"logged at {logged.node}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
    return receipt
