"""`comity continuity drill`: a service is cut off on purpose, and its plan replaces it."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.rules.continuity.links import LINK_KINDS
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Untrusted
from comity.trust.exit_statuses import FAILED
from comity.trust.frozen import frozen

from comity_cli.command import Command, agree, client, examples, options_as, output
from comity_cli.commands.continuity_plan import checker_of
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.following import follow
from comity_cli.nodes import nodes_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comity.rules.continuity.drill_report import DrillPhase, DrillReport
    from comity.rules.continuity.links import Link
    from comity_client.client import Client
    from comity_client.continuity.drill import DrillOrder
    from comity_client.kits.engine import RunningEngine
    from comity_client.offers.pact_drill import DeclaredDrill
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
    declare: bool
    yes: bool


@examples(
    "comity continuity drill chat --plan plan.toml",
    "comity continuity drill chat --plan plan.toml --sign-as Ministry --node node-es --html drill.html",
    "comity continuity drill chat --plan plan.toml --serve --port 8080",
    "comity continuity drill chat --plan plan.toml --declare --node node-es --sign-as Ministry",
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
@click.option("--declare", is_flag=True, help="Declare the pact of the machines, marked as a drill, and end that.")
@click.option("--yes", is_flag=True, help="Declare without a question. What is declared is still shown.")
@options_as("options", DrillOptions)
def command(service: str, options: DrillOptions) -> int:
    """Rehearse the loss of SERVICE. The nodes that fall with the parties of the plan are not asked. What holds of the
    plan is checked at those that are left: a link that is red ends the drill, and one that is amber is in the report.
    Then the kit of the fallback is pulled from them, verified, and installed without a network; its engine runs in an
    empty network namespace; its self-test and the samples of its evaluation are asked again. The report says in how
    many seconds it answered. The drill fails at the first step that fails, and ends what it started. It stops no node.

    With --declare the owner of the plan declares itself cut off, for the pact that the fallback names, in the log of
    the first --node, else of its home node. It is marked as a drill: nothing can be redeemed by it. When the drill
    ends, however it does, that is logged too.

    Exit status: 0 the drill passed, 1 it failed, 2 the command line is wrong. What is refused before anything is cut
    off has the status of its error.
    """
    if options.nodes and not options.sign_as:
        raise click.UsageError("--node needs --sign-as: only a signed report is logged")
    from comity.rules.continuity.check import next_command

    out, api = output(), client()
    publisher = api.publisher(options.sign_as) if options.sign_as else None
    order = _order(api, service, options)
    if options.declare:
        order = replace(order, declaration=_declaration(out, api, order, options))
    report = _rehearse(out, api, order, serve=options.serve)
    written = _write(out, api, report, options, publisher)
    out.answer(written)
    if not report.passed:
        out.warn(f"FAILED at {report.link}: {report.reason}")
        out.hint(next_command(report.link, str(options.plan), order.service, order.chosen))
        return FAILED
    quality = f", the agreed quality after {report.quality} s" if report.quality is not None else ""
    out.done(f"The first verified answer came after {report.answered} s{quality}.")
    out.hint(f"comity continuity report check {options.file}")
    return 0


def _end(until: asyncio.Future[None]) -> None:
    if not until.done():
        until.set_result(None)


def _order(api: Client, service: str, options: DrillOptions) -> DrillOrder:
    from comity_client.continuity.drill import order_drill
    from comity_client.continuity.gather import policy_state
    from comity_client.continuity.plan_files import read_plan

    def judge(cut: Client) -> Sequence[Link]:
        return checker_of(cut, options.plan, None).links(order.service, order.chosen)

    plan = read_plan(options.plan)
    order = replace(order_drill(plan, service, options.fallback, judge), port=options.port)
    if plan.policy is None:
        return order
    found = policy_state(plan, options.plan)
    if found != "same":
        kind = LINK_KINDS["policy-changed" if found == "changed" else "policy-missing"]
        raise Untrusted(kind.means, why=plan.policy.name, hint=kind.hint.format(plan=options.plan), code="PLAN-POLICY")
    return replace(order, policy=api.policy(options.plan.with_name(plan.policy.name)))


def _declaration(out: Output, api: Client, order: DrillOrder, options: DrillOptions) -> DeclaredDrill:
    """What the drill will declare, once the user agreed. Raises Refused (DRILL-PACT), NotFound."""
    from comity_client.continuity.drill import pact_of
    from comity_client.continuity.plan_files import owner_of
    from comity_client.identity_signer import IdentitySigner
    from comity_client.offers.pact_drill import DeclaredDrill

    pact, owner = pact_of(order.chosen), owner_of(order.plan, api.publishers())
    declared = DeclaredDrill(pact, IdentitySigner.of_publisher(owner), next(iter(options.nodes), ""))
    out.say(f"{owner.label} declares itself cut off, marked as a drill, and that the drill has ended:")
    out.fact("pact", f"sha256:{pact}")
    out.fact("logged at", declared.node or f"the home node, {owner.home}")
    agree("Declare this?", yes=options.yes)
    return declared


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
    from comity_client.continuity.drill_files import keep_drill, proof_path, read_drill, render_drill_report, sign_drill
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
