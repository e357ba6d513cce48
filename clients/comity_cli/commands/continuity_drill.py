"""`comity continuity drill`: a service is cut off on purpose, and its plan replaces it."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Untrusted
from comity.trust.exit_statuses import FAILED
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.following import follow
from comity_cli.nodes import nodes_option

if TYPE_CHECKING:
    from comity.rules.continuity.drill_report import DrillPhase, DrillReport
    from comity_client.client import Client
    from comity_client.continuity.drill import DrillOrder
    from comity_client.kits.engine import RunningEngine
    from comity_client.publishers import Publisher

    from comity_cli.output import Output


@document("continuity-drill")
class ContinuityDrillDocument:
    """What happened in a drill, as `comity continuity drill --json` prints it.

    `answered` and `quality`: seconds from the cut to the first verified answer and to the agreed quality, or null.
    `proof`: of the log, where the signed report was logged.
    """

    report: DrillReport
    digest: Digest
    answered: int | None
    quality: int | None
    file: str
    signature: str | None
    proof: str | None
    html: str | None


@frozen
class DrillOptions:
    """What is rehearsed, and what is written."""

    plan: Path
    fallback: int
    file: Path
    html: Path | None
    sign_as: str
    nodes: tuple[str, ...]
    serve: bool
    port: int


@examples(
    "comity continuity drill chat --plan plan.toml",
    "comity continuity drill chat --plan plan.toml --sign-as Ministry --node node-es --html drill.html",
    "comity continuity drill chat --plan plan.toml --serve --port 8080",
)
@click.command(cls=Command, name="drill", short_help="Cut a service off on purpose, and replace it by its plan.")
@click.argument("service", metavar="SERVICE")
@click.option("--plan", required=True, type=FILE, help="The continuity plan.")
@click.option("--fallback", default=1, show_default=True, help="The number of the fallback in the plan.")
@click.option("--out", "file", type=NEW_FILE, default=Path("drill.json"), show_default=True, help="The report.")
@click.option("--html", type=NEW_FILE, help="Write the report as a page for officials.")
@click.option("--sign-as", default="", metavar="LABEL", help="Sign the report with this identity of yours.")
@nodes_option("Log the signed report at this node. Repeatable.", old=("--log",))
@click.option("--serve", is_flag=True, help="Serve until stopped by Ctrl-C or SIGTERM; then the drill ends.")
@click.option("--port", default=0, help="Serve at this port of 127.0.0.1. Default: a free one.")
@options_as("options", DrillOptions)
def command(service: str, options: DrillOptions) -> int:
    """Rehearse the loss of SERVICE. The nodes that fall with the parties of the plan are not asked; the kit of the
    fallback is pulled from those that are left, verified, and installed without a network; its engine runs in an empty
    network namespace; its self-test and the samples of its evaluation are asked again. The report says in how many
    seconds it answered. The drill fails at the first step that fails, and ends what it started. It stops no node.

    Exit status: 0 the drill passed, 1 it failed, 2 the plan or its service is wrong.
    """
    if options.nodes and not options.sign_as:
        raise click.UsageError("--node needs --sign-as: only a signed report is logged")
    out, api = output(), client()
    publisher = api.publisher(options.sign_as) if options.sign_as else None
    order = _order(api, service, options)
    report = _rehearse(out, api, order, serve=options.serve)
    written = _write(out, api, report, options, publisher)
    out.answer(written)
    if not report.passed:
        out.warn(f"FAILED: {report.reason}")
        return FAILED
    quality = f", the agreed quality after {report.quality} s" if report.quality is not None else ""
    out.done(f"The first verified answer came after {report.answered} s{quality}.")
    out.hint(f"comity continuity report check {options.file}")
    return 0


def _end(until: asyncio.Future[None]) -> None:
    if not until.done():
        until.set_result(None)


def _order(api: Client, service: str, options: DrillOptions) -> DrillOrder:
    from comity.bounded_file import read_bounded
    from comity.rules.continuity.plan import parse_plan
    from comity.rules.toml_table import MAX_BYTES
    from comity_client.continuity.drill import order_drill

    plan = parse_plan(read_bounded(options.plan, MAX_BYTES))
    order = replace(order_drill(plan, service, options.fallback), port=options.port)
    if plan.policy is None:
        return order
    policy = options.plan.with_name(plan.policy.name)
    if sha256(read_bounded(policy, MAX_BYTES)) != plan.policy.sha256:
        raise Untrusted(f"{policy} is not the policy of the plan", why="its SHA-256 is another", code="PLAN-POLICY")
    return replace(order, policy=api.policy(policy))


def _rehearse(out: Output, api: Client, order: DrillOrder, *, serve: bool) -> DrillReport:
    from comity_client.continuity.drill import rehearse

    def on_phase(phase: DrillPhase) -> None:
        text = f"{phase.phase:<9} {phase.seconds:6.1f} s  {phase.said}"
        (out.done if phase.passed else out.warn)(text)

    def served(engine: RunningEngine) -> asyncio.Future[None]:
        """Done when a signal stops the service."""
        loop = asyncio.get_running_loop()
        until = loop.create_future()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, _end, until)
        out.say(f"serving at {engine.base_url}/v1; stop it with Ctrl-C")
        return until

    cut = ", ".join(map(str, order.service.must_survive))
    out.say(f"{order.service.name} is cut off with {cut}; {order.chosen.kit.name} replaces it")
    with follow(out, "pulling") as on_event:
        return rehearse(api, order, serve=served if serve else None, on_phase=on_phase, on_event=on_event)


def _write(
    out: Output, api: Client, report: DrillReport, options: DrillOptions, publisher: Publisher | None
) -> ContinuityDrillDocument:
    """Write the report, keep it for the check of the plan, sign it and log it, as asked."""
    from comity.content import durable
    from comity_client.continuity.drill import log_drill
    from comity_client.continuity.drill_files import proof_path, read_drill, render_drill_report, sign_drill
    from comity_client.continuity.kept_drills import keep_drill
    from comity_client.signature_files import signature_path, write_signature

    path, signed, proof = options.file, None, b""
    durable.write_file(path, report.encode(), mode=0o644, point="report")
    keep_drill(api.home, report)
    out.say(f"Report: {path}")
    signature_path(path).unlink(missing_ok=True)
    proof_path(path).unlink(missing_ok=True)
    if publisher is not None:
        entry = sign_drill(report, publisher, int(time.time()))
        write_signature(path, publisher, entry)
        out.done(f"signed by {publisher.label} [{publisher.id[:12]}]: {signature_path(path)}")
        if options.nodes:
            with follow(out, "logging") as on_event:
                proof = log_drill(api, report, entry, publisher, options.nodes, on_event)
            durable.write_file(proof_path(path), proof, mode=0o644, point="proof")
            out.done(f"logged at {', '.join(options.nodes)}: {proof_path(path)}")
        signed = read_drill(path, [node.record for pin in api.pins() for node in pin.federation.nodes])
    if options.html is not None:
        page = render_drill_report(report, signed)
        durable.write_file(options.html, page.encode(), mode=0o644, point="page")
        out.say(f"Page: {options.html}")
    return ContinuityDrillDocument(
        report=report,
        digest=sha256(report.encode()),
        answered=report.answered,
        quality=report.quality,
        file=str(path),
        signature=str(signature_path(path)) if publisher is not None else None,
        proof=str(proof_path(path)) if proof else None,
        html=str(options.html) if options.html is not None else None,
    )
