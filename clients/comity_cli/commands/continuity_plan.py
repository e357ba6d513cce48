"""`comity continuity new|sign|check|show`: the plan, its signature, and what of it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click
from comity.rules.continuity.links import STATES
from comity.trust.encoding import Digest, format_time
from comity.trust.errors import ComityError, Conflict
from comity.trust.exit_statuses import FAILED, OK, PARTIAL, WARNED
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.commands.publish import show_receipt
from comity_cli.document import document
from comity_cli.files import FILE, FOLDER, NEW_FILE
from comity_cli.nodes import nodes_option

if TYPE_CHECKING:
    from comity.rules.continuity.check import FallbackChecked, PlanChecked, ServiceChecked
    from comity.rules.continuity.facts import PastCheck, PastDrill
    from comity.rules.continuity.links import Link
    from comity_client.client import Client
    from comity_client.continuity.gather import ContinuityChecker
    from comity_client.home import Home
    from comity_client.webhook_events import WebhookReceiver

    from comity_cli.output import Output

EXIT: Final = {"green": OK, "amber": PARTIAL, "red": WARNED}
_State = Annotated[str, {"enum": list(STATES)}]


@frozen
class LinkItem:
    """One thing that must hold. `kind` is empty where it does; `by`: who says it; `hint`: the next command."""

    subject: str
    kind: str
    state: _State
    text: str
    basis: str
    by: str
    hint: str

    @classmethod
    def of(cls, link: Link) -> LinkItem:
        return cls(link.subject, link.kind, link.state, link.text, link.basis, link.by, link.hint)


@frozen
class FallbackItem:
    """A fallback. `minutes` is what the last passed drill took to the first verified answer."""

    number: int
    kit: str
    artifact: Digest
    state: _State
    minutes: int | None
    links: tuple[LinkItem, ...]

    @classmethod
    def of(cls, found: FallbackChecked) -> FallbackItem:
        kit = found.fallback.kit
        links = tuple(map(LinkItem.of, found.links))
        return cls(found.number, kit.name, kit.artifact, found.state, found.minutes, links)


@frozen
class CheckedServiceItem:
    """A service. `replaced_by` is the number of the fallback that would be used, `where` on which machines;
    `longest_outage` in minutes; `links` are those of the plan and of the service itself."""

    name: str
    state: _State
    used_by: tuple[str, ...]
    longest_outage: int
    replaced_by: int
    where: str
    links: tuple[LinkItem, ...]
    fallbacks: tuple[FallbackItem, ...]


@document("continuity-check")
class ContinuityCheckDocument:
    """What of a continuity plan holds, as `comity continuity check --json` prints it.

    `told`: services whose new colour the receiver of notifications took; `untold_because`: why it did not. `kept`: the
    file in a node's home with this result, for its console.
    """

    plan: Digest
    owner: Digest
    name: str
    until: str
    at: str
    state: _State
    services: tuple[CheckedServiceItem, ...]
    told: tuple[str, ...]
    untold_because: str
    kept: Path | None
    exit_status: int


@frozen
class Reported:
    """To whom a check was told, why it was not, and where its result is kept."""

    told: tuple[str, ...]
    problem: str
    kept: Path | None


@document("continuity-plan-signed")
class PlanSignedDocument:
    """A signed continuity plan, as `comity continuity sign --json` prints it. `logged`: where."""

    plan: Digest
    owner: Digest
    name: str
    until: str
    signature: Path
    logged: tuple[str, ...]


@document("continuity-plan-begun")
class PlanBegunDocument:
    """A plan to fill in, as `comity continuity new --json` prints it."""

    file: Path
    owner: Digest
    service: str


@frozen
class PlannedServiceItem:
    """A service in a plan; `must_survive` are parties, `longest_outage` minutes, `kits` those of its fallbacks."""

    name: str
    used_by: tuple[str, ...]
    must_survive: tuple[str, ...]
    longest_outage: int
    kits: tuple[str, ...]


@document("continuity-plan")
class PlanDocument:
    """A continuity plan, as `comity continuity show --json` prints it: nothing was checked."""

    plan: Digest
    owner: Digest
    name: str
    until: str
    services: tuple[PlannedServiceItem, ...]


@frozen
class CheckOutputs:
    """What a check writes besides the table, and who is told."""

    page: Path | None
    metrics: Path | None
    keep: Path | None
    notify: str | None
    secret: Path | None


@examples(
    "comity continuity new --as 'Ministry of the Interior' --service chat --kit org/smollm2-chat@v1 --out plan.toml",
)
@click.command(cls=Command, name="new", short_help="Begin a plan: a commented file to fill in.")
@click.option("--as", "owner", required=True, metavar="LABEL", help="The identity whose plan it is; it will sign it.")
@click.option("--service", required=True, help="The service to replace: small letters, digits and ._-")
@click.option("--kit", metavar="REF", help="The kit that replaces it; its digest is asked at nodes.")
@click.option("--out", "target", type=NEW_FILE, default=Path("plan.toml"), show_default=True, help="The file.")
def new(owner: str, service: str, kit: str | None, target: Path) -> None:
    """Write a plan for one service, with a comment at each key. What only you can decide says REPLACE-THIS, and until
    all of that is replaced every command refuses the plan."""
    from comity.content import durable
    from comity_client.continuity.plan_files import TO_FILL_IN, new_plan

    if target.exists():
        raise Conflict(f"{target} is there already", hint="give another name with --out")
    out, api = output(), client()
    publisher = api.publisher(owner)
    found = api.resolve(kit) if kit else None
    until = (datetime.now(UTC) + timedelta(days=365)).date().isoformat()
    name, artifact = (found.title, found.artifact) if found else ("", None)
    text = new_plan(target, publisher, service, until, name, artifact)
    durable.write_file(target, text.encode(), mode=0o644, point="plan")
    out.done(f"plan begun: {target}")
    out.hint(f"replace each {TO_FILL_IN}, then: comity continuity sign {target}")
    out.answer(PlanBegunDocument(target, publisher.id, service))


@examples("comity continuity sign plan.toml", "comity continuity sign plan.toml --node node-ch")
@click.command(cls=Command, name="sign", short_help="Sign a plan as its owner.")
@click.argument("file", type=FILE)
@nodes_option("Log at this node that the plan was signed, and until when it counts; not what is in it.", old=("--log",))
def sign(file: Path, nodes: tuple[str, ...]) -> int:
    """Sign FILE with the keys of its owner, one of your identities. The signature is beside the file, in
    FILE.intoto.jsonl. Sign again after each change.

    Exit status: 0 signed; 8 signed, and one of the nodes did not log it.
    """
    from comity_client.continuity.plan_files import owner_of, read_plan, sign_plan
    from comity_client.signature_files import signature_path

    out, api = output(), client()
    owner = owner_of(read_plan(file), api.publishers())
    plan, entry = sign_plan(file, owner, int(time.time()))
    out.done(f"signed by {owner.label} [{owner.id[:12]}]: {signature_path(file)}")
    status, logged = OK, list[str]()
    if nodes:
        receipt = api.log_plan(plan, entry, owner, nodes=nodes)
        status = show_receipt(out, receipt, nodes, alone=False)
        logged += [each.node for each in receipt.logged]
    until = plan.until.isoformat()
    out.answer(PlanSignedDocument(plan.digest, plan.owner, plan.name, until, signature_path(file), tuple(logged)))
    return status


@examples("comity continuity show plan.toml")
@click.command(cls=Command, name="show", short_help="Show what a plan says.")
@click.argument("file", type=FILE)
def show(file: Path) -> None:
    """Show the services of FILE, whom each must survive, and what replaces it. Nothing is checked."""
    from comity_client.continuity.plan_files import read_plan

    out, plan = output(), read_plan(file)
    out.fact("plan of", f"{plan.name} [{plan.owner[:12]}]")
    out.fact("until", plan.until.isoformat())
    items = tuple(
        PlannedServiceItem(
            each.name,
            each.used_by,
            tuple(map(str, each.must_survive)),
            each.longest_outage,
            tuple(fallback.kit.name for fallback in each.fallbacks),
        )
        for each in plan.services
    )
    rows = [
        (each.name, f"{each.longest_outage} min", ", ".join(each.must_survive), ", then ".join(each.kits))
        for each in items
    ]
    out.table(("service", "outage", "must survive", "replaced by"), rows)
    out.warn("this is what the plan says: comity continuity check says what of it holds")
    out.answer(PlanDocument(plan.digest, plan.owner, plan.name, plan.until.isoformat(), items))


@examples(
    "comity continuity check plan.toml",
    "comity continuity check plan.toml --html continuity.html",
    "comity continuity check plan.toml --metrics /var/lib/node-exporter/continuity.prom",
    "comity continuity check plan.toml --keep /var/lib/comity",
    "comity continuity check plan.toml --notify https://alerts.example.org/comity --secret notify.secret",
)
@click.command(cls=Command, name="check", short_help="Say of each service whether its replacement holds.")
@click.argument("file", type=FILE)
@click.option("--policy", type=FILE, help="Judge kits with this policy (TOML), not with the plan's.")
@click.option("--html", "page", type=NEW_FILE, help="Write a page for people who decide, to read and to print.")
@click.option("--metrics", type=NEW_FILE, help="Write counts there, for the textfile collector of Prometheus.")
@click.option("--keep", type=FOLDER, metavar="HOME", help="Keep the result in this node's home, for its console.")
@click.option("--notify", metavar="URL", help="Post there when a service has another colour, as a signed CloudEvent.")
@click.option("--secret", type=FILE, help="The secret of these signatures: whsec_ and base64, in a file of mode 0600.")
@options_as("outputs", CheckOutputs)
def check(file: Path, policy: Path | None, outputs: CheckOutputs) -> int:
    """Ask nodes, and this machine, for everything that FILE relies on, and judge it: green where the first fallback of
    a service holds wholly, amber where it has gaps or only a later one works, red where none does. What is unknown is
    never green. Nothing is pulled, run or declared: `comity continuity drill` does that.

    Exit status: 0 all services are green; 8 one is amber; 10 one is red; 1 all are green, and the receiver of
    notifications did not answer. If no node answers: 5.
    """
    from comity_client.continuity.results import metrics_text, render_checked
    from comity_client.webhook_events import WebhookReceiver

    if (outputs.notify is None) != (outputs.secret is None):
        raise click.UsageError("--notify needs --secret, and --secret needs --notify")
    out, api = output(), client()
    receiver = WebhookReceiver.of(outputs.notify, outputs.secret) if outputs.notify and outputs.secret else None
    checked = checker_of(api, file, policy).check()
    _write(outputs.page, lambda: render_checked(checked))
    _write(outputs.metrics, lambda: metrics_text(checked))
    kept = _keep(outputs.keep, checked)
    told, problem = _tell(receiver, checked)
    _show_checked(out, checked)
    if problem:
        out.warn(f"not delivered: {problem}")
    status = EXIT[checked.state] or (FAILED if problem else OK)
    out.answer(_document(checked, Reported(told, problem, kept), status))
    return status


def checker_of(api: Client, file: Path, policy: Path | None) -> ContinuityChecker:
    """What checks a plan with this policy, else with the plan's own, else with the default one."""
    from comity_client.continuity.gather import ContinuityChecker
    from comity_client.continuity.plan_files import read_plan

    plan = read_plan(file)
    own = file.parent / plan.policy.name if plan.policy else None
    judged_by = api.policy(policy or (own if own is not None and own.exists() else None))
    return ContinuityChecker(api.user, api.offers(), file, plan, judged_by, KeptTries(api.home), _locked)


@frozen
class KeptTries:
    """Checks of kits and drills, as they are kept in the home of the user."""

    home: Home

    def check(self, kit: Digest) -> PastCheck | None:
        from comity.rules.continuity.facts import PastCheck
        from comity_client.kits.kept_checks import last_check

        last = last_check(self.home, kit)
        return PastCheck(last.state, last.at, last.last_passed) if last else None

    def drill(self, service: str, artifact: Digest) -> PastDrill | None:
        from comity.rules.continuity.facts import PastDrill
        from comity_client.continuity.drill_files import last_drill

        last = last_drill(self.home, service, artifact)
        if last is None:
            return None
        return PastDrill(last.passed, last.ended, last.answered, last.reason, last.plan, last.cut_off)


def _locked(data: bytes) -> Mapping[Digest, str]:
    from comity_client.kits.lock import parse_lock

    return {wheel: each.title for each in parse_lock(data) for wheel in each.wheels}


def _write(path: Path | None, text: Callable[[], str]) -> None:
    from comity.content import durable

    if path is not None:
        durable.write_file(path, text().encode(), mode=0o644, point="continuity")


def _keep(home: Path | None, checked: PlanChecked) -> Path | None:
    from comity.content.kept_plan_checks import keep_plan_check
    from comity_client.node_home import read_settings

    if home is None:
        return None
    read_settings(home)  # of a node, or it is refused
    return keep_plan_check(home, checked)


def _tell(receiver: WebhookReceiver | None, checked: PlanChecked) -> tuple[tuple[str, ...], str]:
    """Post which services have another colour than was told. Returns those, or why it was not delivered."""
    from comity_client.continuity.results import colour_changes, event_of, keep_told, read_told
    from comity_client.home import Home
    from comity_client.webhook_events import deliver

    if receiver is None:
        return (), ""
    home = Home.default()
    changes = colour_changes(read_told(home, checked), checked)
    try:
        if changes:
            deliver(receiver, event_of(checked, changes))
    except ComityError as error:
        return (), str(error)
    keep_told(home, checked)
    return tuple(change.service for change in changes), ""


def _show_checked(out: Output, checked: PlanChecked) -> None:
    rows = [(each.service.name, each.state, each.chosen.fallback.kit.name, _minutes(each)) for each in checked.services]
    out.table(("service", "state", "replaced by", "minutes"), rows, shorten=("replaced by",))
    for each in checked.services:
        for link in each.problems:
            out.warn(f"{each.service.name}: {link.state}: {link.text} ({link.basis}{_by(link)})")
            if link.hint:
                out.hint(link.hint)


def _minutes(service: ServiceChecked) -> str:
    minutes = service.chosen.minutes
    return f"{'?' if minutes is None else minutes} of {service.service.longest_outage}"


def _by(link: Link) -> str:
    return f" by {link.by}" if link.by else ""


def _document(checked: PlanChecked, reported: Reported, status: int) -> ContinuityCheckDocument:
    plan = checked.plan
    services = tuple(
        CheckedServiceItem(
            each.service.name,
            each.state,
            each.service.used_by,
            each.service.longest_outage,
            each.chosen.number,
            each.where,
            tuple(map(LinkItem.of, each.links)),
            tuple(map(FallbackItem.of, each.fallbacks)),
        )
        for each in checked.services
    )
    until, at = plan.until.isoformat(), format_time(checked.at)
    return ContinuityCheckDocument(
        plan=plan.digest,
        owner=plan.owner,
        name=plan.name,
        until=until,
        at=at,
        state=checked.state,
        services=services,
        told=reported.told,
        untold_because=reported.problem,
        kept=reported.kept,
        exit_status=status,
    )
