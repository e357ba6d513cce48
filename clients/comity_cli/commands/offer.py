"""`comity offer`: post and find machines that partners lend each other."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from comity.bounded_file import read_bounded
from comity.content import durable
from comity.installed_addons import from_addons
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict

from comity_cli.command import Group, examples, options_as, output
from comity_cli.document import ABSENT, document, members
from comity_cli.files import FILE, FOLDER, NEW_FILE, out_option
from comity_cli.nodes import home_option
from comity_cli.offers import evidence, rendering
from comity_cli.offers.arguments import Search, offer_query
from comity_cli.offers.context import (
    OfferContext,
    now,
    provider_options,
    reading_options,
    recording_options,
)
from comity_cli.offers.own_grant import request_allocations, request_options

if TYPE_CHECKING:
    from comity.rules.offers.offer import Offer
    from comity_client.offers.attestation import OfferHardware

    from comity_cli.output import Output


@document("offer-template")
class OfferTemplateDocument:
    """The file that `comity offer new --json` has written.

    A compute offer, to be filled in.
    """

    file: Path


@document("offer-check")
class OfferCheckDocument:
    """An offer as it would be posted, as `comity offer check --json` prints it."""

    offer: Digest
    document: Annotated[Mapping[str, object], {"$ref": "../offer.json"}]
    remarks: tuple[str, ...]


@document("offer-post")
class OfferPostDocument:
    """A logged offer and the command to request it, as `comity offer post --json` prints it."""

    offer: Digest
    chain: Digest
    line: Digest
    next: str


@document("offer-withdrawn")
class OfferWithdrawnDocument:
    """The record that withdraws an offer, as `comity offer withdraw --json` prints it."""

    chain: Digest
    line: Digest


MAX_TOML = 65_536
MAX_BALANCE_OFFERS = 1000
"""Maximum offers that a balance counts."""


@examples(
    "comity offer ls --accelerator H100 --jurisdiction EU --without-legal-reach US",
    "comity offer request 9f2c41aa --want big:2 --node node-es",
)
@click.group(cls=Group, name="offer", short_help="Lend machines to partners, and find machines they lend.")
def command() -> None:
    """Offers are signed statements in the provider's log; requests and grants follow in that log. Everybody can verify
    that no grant exceeds its offer. Comity runs no jobs: Slurm, Kubernetes, SkyPilot or SSH does."""


@examples("comity offer new", "comity offer new --for node-ch --out offer.toml")
@command.command("new", short_help="Write a commented offer to fill in.")
@click.option("--for", "home", type=FOLDER, metavar="HOME", help="Your node: who runs the machines, and where.")
@click.option("--jurisdiction", help="Location of the machines. Default: that of the node, else CH.")
@out_option("offer.toml")
def new(home: Path | None, jurisdiction: str | None, target: Path) -> None:
    """Write an offer with a comment for each setting. With --for it passes `comity offer check`, and what is left to
    decide is printed. Nothing is signed or sent."""
    from comity_client.offers.offer_file import own_location, template

    if target.exists():
        raise Conflict(f"{target} exists", why="it is not overwritten", hint="comity offer new --out OTHER.toml")
    operator, where = own_location(home) if home else ("", "CH")
    text = template(jurisdiction or where, now(), operator)
    durable.write_file(target, text.encode(), mode=0o644, point="offer")
    out = output()
    out.done(f"{target}: written, to be filled in")
    if home:
        _say_decisions(out)
    out.answer(OfferTemplateDocument(target))
    out.hint(f"comity offer check {shlex.quote(str(target))} --node {shlex.quote(str(home or 'HOME'))}")


def _say_decisions(out: Output) -> None:
    """Say what only the owner of the machines can decide about a new offer."""
    out.say("Decide, and change the file where you disagree:")
    out.fact("machines", "[[slices]]: 4 nodes with 8 H100 each are an example")
    out.fact("time", "[window]: the next calendar month")
    out.fact("who", "[eligibility]: every member of the federation")
    out.fact("price", "[terms]: free")
    out.fact("law", "[location] legal_reach: that of the place alone; add that of the cloud's parent")


measured_option = click.option(
    "--measured",
    multiple=True,
    type=(str, FILE),
    metavar="SLICE FILE",
    help="Add the figures of `comity offer measure` to a slice.",
)


@examples("comity offer measure --out measured.json", "comity offer measure --backend numpy --out measured.json")
@command.command("measure", short_help="Measure this machine for an offer.")
@click.option("--backend", default="", type=click.Choice(["", "torch", "cupy", "numpy"]),
              help="The library. Default: the first that is installed.")  # fmt: skip
@out_option("measured.json")
def measure(backend: str, target: Path) -> None:
    """Run a short benchmark, comity-measure/1, on a machine that you lend: memory bandwidth and matrix rate. `offer
    check` and `offer post` take the file with --measured and sign the figures with the offer. They are your claim."""
    from comity_client.offers.measure import find_backend
    from comity_client.offers.measure import measure as run

    out, found = output(), find_backend(backend)
    out.say(f"measuring with {found.label}")
    day = datetime.fromtimestamp(now(), UTC).strftime("%Y-%m-%d")
    figures = run(found, time.perf_counter, day)
    durable.write_file(target, figures.encode(), mode=0o644, point="offer")
    for name, value in figures.describe():
        out.fact(name, value)
    out.done(f"{target}: figures of this machine")
    out.document("offer-measured", {"file": str(target), "attributes": figures.attributes()})
    out.hint(f"comity offer check offer.toml --measured SLICE {shlex.quote(str(target))} --node HOME")


@examples("comity offer check offer.toml --node node-ch", "comity offer check offer.toml --node node-ch --json")
@command.command("check", short_help="Check an offer file.")
@click.argument("file", type=FILE)
@measured_option
@home_option("The node that would grant it, by its home. Default: here.")
def check(file: Path, measured: Sequence[tuple[str, Path]], home: Path) -> None:
    """Read FILE as it would be posted, and report errors and unusual values. Nothing is signed or sent."""
    from comity_client.offers.offer_file import offer_warnings

    out, offer = output(), _read(file, measured, home)
    _show_document(out, offer)
    unusual = offer_warnings(offer, now())
    for warning in unusual:
        out.warn(warning)
    out.done(f"{file} is a valid offer")
    out.answer(OfferCheckDocument(offer.id, offer.to_json(), unusual))
    figures = "".join(f" --measured {shlex.quote(name)} {shlex.quote(str(path))}" for name, path in measured)
    out.hint(f"comity offer post {shlex.quote(str(file))}{figures} --node {shlex.quote(str(home))}")


@examples(
    "comity offer post offer.toml --node node-ch",
    "comity offer post offer.toml --measured big measured.json --node node-ch --out offer.bundle",
)
@command.command("post", short_help="Log an offer at your node.")
@click.argument("file", type=FILE)
@measured_option
@recording_options
def post(file: Path, measured: Sequence[tuple[str, Path]], **options: Any) -> None:
    """Log the offer in FILE at your node. Other nodes mirror it, and everybody can read it."""
    from comity.wire.offer import Post
    from comity_client.offers.offer_file import offer_warnings

    context, out = OfferContext(**options), output()
    offer = _read(file, measured, context.home)
    _show_document(out, offer)
    for warning in offer_warnings(offer, now()):
        out.warn(warning)
    recorded = context.record(Post(offer.encode()), "Log this offer publicly?")
    chain = recorded.entry.statement.subject
    next_command = (
        f"comity offer request {chain[:12]} --want {offer.slices[0].name}:{offer.granularity.nodes} --node HOME"
    )
    out.done(f"logged: offer {chain[:12]}, proven by a checkpoint")
    out.answer(OfferPostDocument(offer.id, chain, recorded.entry.digest, next_command))
    out.hint(f"to request it: {next_command}")


@examples(
    "comity offer ls",
    "comity offer ls --accelerator H100 --min-hours 500 --jurisdiction EU --without-legal-reach US",
    "comity offer ls --artifact sha256:9f2c… --engine slurm --json",
    "comity offer ls --accelerator H100 --attested",
)
@command.command("ls", short_help="List offers.")
@click.option("--accelerator", default="", metavar="NAME", help="By SkyPilot's name, such as H100.")
@click.option("--min-hours", default=0, type=click.IntRange(0), help="Minimum amount left, in the offer's measure.")
@click.option(
    "--measure", default="", type=click.Choice(["", "accelerator-hours", "node-hours"]), help="Unit of amounts."
)
@click.option("--jurisdiction", multiple=True, metavar="CODE", help="Location of the machines; EU for its members.")
@click.option(
    "--without-legal-reach", "beyond", multiple=True, metavar="CODE", help="No court of it can order the provider."
)
@click.option("--artifact", default="", metavar="REF", help="This model is stored near the machines.")
@click.option(
    "--engine",
    default="",
    type=click.Choice(["", "slurm", "kubernetes", "skypilot", "ssh"]),
    help="Only for this engine.",
)
@click.option("--attested", is_flag=True, help="Only if every accelerator has evidence that is verified here.")
@click.option("--partly-attested", is_flag=True, help="Also if only some accelerators have; shows how many.")
@click.option("--closed", is_flag=True, help="Include offers that are over, withdrawn or faulty.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="Maximum number.")
@options_as("search", Search)
@reading_options
def ls(search: Search, limit: int, attested: bool, partly_attested: bool, **options: Any) -> None:
    """List offers from all reachable nodes, also if their provider does not answer. Each chain is computed again here:
    *proven* means that its newest record is proven to be in the provider's log, *claimed* that there is no proof.

    Of an offer without accelerators, --attested and --partly-attested count its nodes."""
    out, context = output(), OfferContext(**options)
    found, more = context.offer_client.offers(offer_query(search), limit)
    hardware: dict[str, OfferHardware] = {}
    if attested or partly_attested:
        wanted = ("verified", "partly verified") if partly_attested else ("verified",)
        appraised = zip(found, context.attestations(found), strict=True)
        hardware = {seen.view.state.chain: shown for seen, shown in appraised if shown.state in wanted}
        found = [seen for seen in found if seen.view.state.chain in hardware]
    rows = [
        (
            seen.view.state.chain[:12],
            seen.view.identities.name(seen.view.offer.provider),
            rendering.machines(seen.view.offer),
            rendering.left(seen.view),
            rendering.when(seen.view.offer.window.end),
            rendering.describe_status(seen, now()),
            *([str(hardware[seen.view.state.chain].coverage)] if hardware else []),
        )
        for seen in found
    ]
    if rows:
        columns = ("offer", "lent by", "machines", "left", "until", "known how", *(["attested"] if hardware else []))
        out.table(columns, rows)
    else:
        out.say("No reachable node knows a matching offer.")
    if more:
        out.warn(f"{more} more match; raise --limit")
    listed = []
    for seen in found:
        shown = hardware.get(seen.view.state.chain)
        attested_part = rendering.HardwareItem(shown.state, shown.coverage) if shown else ABSENT
        listed.append(rendering.ListedOffer(rendering.OfferItem.of(seen), attested_part))
    out.answer(rendering.OffersDocument(tuple(listed), more))
    if found:
        out.hint(f"comity offer show {found[0].view.state.chain[:12]}")


@examples(
    "comity offer show 9f2c41aa",
    "comity offer show offer.bundle --offline",
    "comity offer show 9f2c41aa --html hardware.html",
    "comity offer show 9f2c41aa --json",
)
@command.command("show", short_help="Show one offer and the state of its chain.")
@click.argument("offer", metavar="OFFER")
@click.option("--out", type=NEW_FILE, help="Write a bundle file with its lines and proofs.")
@click.option("--html", "page", type=NEW_FILE, help="Write the appraisal of its hardware evidence as an HTML page.")
@reading_options
def show(offer: str, out: Path | None, page: Path | None, bundles: Sequence[Path], offline: bool) -> None:
    """Show OFFER, given by the first digits of its id or a bundle file."""
    printed, context = output(), OfferContext(bundles=bundles, offline=offline)
    seen = context.offer(offer)
    rendering.show_offer(printed, seen, now())
    (hardware,) = context.attestations([seen])
    evidence.show_hardware(printed, hardware)
    for digest, grant_state in seen.view.state.grants.items():
        printed.say(f"  {'pact' if grant_state.grant.pact else 'grant'} {digest[:12]}  {grant_state.state}, to "
                    f"{seen.view.identities.name(grant_state.grant.grantee)}")  # fmt: skip
    next_command = (
        f"comity offer request {seen.view.state.chain[:12]} --want {seen.view.offer.slices[0].name}:1 --node HOME"
    )
    if out is not None:
        seen.view.bundle.write(out, f"comity offer show {out.name} --offline")
        printed.done(f"{out}: its lines and proofs")
    if page is not None:
        evidence.write_page(page, seen.view, hardware, now())
        printed.done(f"{page}: the appraisal, with the basis and the digest of each row")
    grants = [
        members(rendering.GrantItem.of(seen.view, grant_state)) for grant_state in seen.view.state.grants.values()
    ]
    appraised = {
        "attested": members(rendering.HardwareItem(hardware.state, hardware.coverage)),
        "hardware": [evidence.attestation_json(each) for each in hardware.attestations],
    }
    printed.document(
        "offer", {**members(rendering.OfferItem.of(seen)), **appraised, "grants": grants, "next": next_command}
    )
    printed.hint(next_command)


@examples("comity offer withdraw 9f2c41aa --node node-ch --text 'the machines are broken'")
@command.command("withdraw", short_help="Withdraw your offer: grant no more.")
@click.argument("offer", metavar="OFFER")
@click.option("--text", default="", help="Reason. Public.")
@provider_options
def withdraw(offer: str, text: str, **options: Any) -> None:
    """Withdraw an offer of yours. Its grants stay valid: an accepted grant cannot be revoked."""
    from comity.wire.offer import Withdraw

    context, out = OfferContext(**options), output()
    seen = context.offer(offer)
    rendering.show_offer(out, seen, now())
    recorded = context.record(Withdraw(seen.view.offer.id, text), "Withdraw this offer?")
    out.done(f"withdrawn: {recorded.entry.digest[:12]}; {len(seen.view.state.grants)} grants stay valid")
    out.answer(OfferWithdrawnDocument(seen.view.state.chain, recorded.entry.digest))


@examples(
    "comity offer request 9f2c41aa --want big:2 --from-time 2027-01-04 --until 2027-01-11 --node node-es",
    "comity offer request 9f2c41aa --want big:2:300 --publisher 'BSC AI' --node node-es",
    "comity offer request offer.bundle --offline --want big:1 --node node-es --out request.bundle",
)
@command.command("request", short_help="Request machines of an offer.")
@click.argument("offer", metavar="OFFER")
@request_options
def request(offer: str, **options: Any) -> None:
    """Request machines, as your member (its governance key signs) or as a publisher. The request is public."""
    request_allocations(offer, pact=False, **options)


@examples("comity offer balance", "comity offer balance --json")
@command.command("balance", short_help="Show what members owe each other.")
@reading_options
def balance(**options: Any) -> None:
    """Compute what each pair of members has lent and borrowed, from usage that both have signed. Hours of different
    accelerators are not comparable: there is a balance for each."""
    from comity_client.offers.views import compute_balances

    from comity_cli.offers.rendering import show_balances

    out, context = output(), OfferContext(**options)
    offer_client = context.offer_client
    found, more = offer_client.offers(offer_query(Search(closed=True)), MAX_BALANCE_OFFERS)
    if more:
        out.warn(f"{more} more offers are not counted")
    show_balances(compute_balances([seen.view for seen in found]), offer_client.identities())


def _read(file: Path, measured: Sequence[tuple[str, Path]], home: Path) -> Offer:
    from comity_client.offers.measure import MAX_FILE, MeasuredFigures, with_figures
    from comity_client.offers.offer_file import own_node_record, read_offer

    offer = read_offer(read_bounded(file, MAX_TOML), own_node_record(home))
    figures = {name: MeasuredFigures.parse(read_bounded(path, MAX_FILE)) for name, path in measured}
    if unknown := sorted(name for name in figures if offer.slice(name) is None):
        raise click.UsageError(f"--measured {unknown[0]}: the offer has no such slice")
    slices = (with_figures(part, figures[part.name]) if part.name in figures else part for part in offer.slices)
    return dataclasses.replace(offer, slices=tuple(slices))


def _show_document(out: Any, offer: Offer) -> None:
    out.say(f"{offer.title}")
    out.fact("machines", rendering.machines(offer))
    out.fact("amount", ", ".join(f"{part.amount:,}" for part in offer.slices) + f" {offer.measure}")
    out.fact("window", f"{rendering.when(offer.window.start)} up to {rendering.when(offer.window.end)}")
    rendering.show_figures(out, offer)
    out.fact("granted by", f"only the log {offer.log.split('+', 1)[0]}")


for _commands in from_addons("offer_commands"):
    for _added in _commands():
        command.add_command(_added)
