"""`comity offer`: post and find machines that partners lend each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity.content import durable
from comity.trust.errors import Conflict
from comity.verifier import read_bounded

from comity_cli.command import Group, client, examples, output
from comity_cli.files import FILE, FOLDER, NEW_FILE, out_option
from comity_cli.offers import rendering
from comity_cli.offers.asking import ask, asking_options
from comity_cli.offers.counter import Counter, lending_options, now, reading_options, recording_options
from comity_cli.offers.finding import query

if TYPE_CHECKING:
    from comity.trust.offers.offer import Offer
    from comity_client.offers.market import FoundChain

MAX_TOML = 65_536
FITTED = 200
"""Offers of which `fit` asks for the lines."""
COUNTED = 1000
"""Offers that a balance is added up from."""


@examples(
    "comity offer ls --accelerator H100 --jurisdiction EU --without-legal-reach US",
    "comity offer fit swiss-ai/apertus-70b --context 32768 --batch 8",
    "comity offer request 9f2c41aa --want big:2 --dir node-es",
)
@click.group(cls=Group, name="offer", short_help="Lend machines to partners, and find machines they lend.")
def command() -> None:
    """Offers are signed notices in their provider's log; requests and grants follow there. Comity keeps the promises
    honest. It runs no jobs: a redeemed grant is handed to Slurm, Kubernetes, SkyPilot or SSH."""


@examples("comity offer new", "comity offer new --jurisdiction CH --out offer.toml")
@command.command("new", short_help="Write a commented offer to fill in.")
@click.option("--jurisdiction", default="CH", show_default=True, help="Where the machines stand.")
@out_option("offer.toml")
def new(jurisdiction: str, target: Path) -> None:
    """Write an offer with a comment for each setting. Nothing is signed or sent."""
    from comity_client.offers.offer_file import template

    if target.exists():
        raise Conflict(f"{target} is there", why="it is not overwritten", hint="comity offer new --out OTHER.toml")
    durable.write_file(target, template(jurisdiction, now()).encode(), mode=0o644, point="offer")
    out = output()
    out.done(f"{target}: fill it in")
    out.document("offer-template", {"file": str(target)})
    out.hint(f"comity offer check {shlex.quote(str(target))} --dir HOME")


@examples("comity offer check offer.toml --dir node-ch", "comity offer check offer.toml --dir node-ch --json")
@command.command("check", short_help="Say what is wrong with an offer file.")
@click.argument("file", type=FILE)
@click.option("--dir", "home", type=FOLDER, default=Path(), help="The home of the node that would grant it.")
def check(file: Path, home: Path) -> None:
    """Read FILE as it would be posted, and say what is wrong or unusual. Nothing is signed or sent."""
    from comity_client.offers.offer_file import remarks

    out, offer = output(), _read(file, home)
    _show_document(out, offer)
    unusual = remarks(offer, now())
    for remark in unusual:
        out.warn(remark)
    out.done(f"{file} is an offer")
    out.document("offer-check", {"offer": offer.id, "document": offer.to_json(), "remarks": list(unusual)})
    out.hint(f"comity offer post {shlex.quote(str(file))} --dir {shlex.quote(str(home))}")


@examples("comity offer post offer.toml --dir node-ch", "comity offer post offer.toml --dir node-ch --out offer.parcel")
@command.command("post", short_help="Log an offer at your node.")
@click.argument("file", type=FILE)
@recording_options
def post(file: Path, **options: Any) -> None:
    """Have your node log the offer in FILE. Other nodes mirror it, and everybody can read it."""
    from comity.wire.offer import Post
    from comity_client.offers.offer_file import remarks

    counter, out = Counter(**options), output()
    offer = _read(file, counter.home)
    _show_document(out, offer)
    for remark in remarks(offer, now()):
        out.warn(remark)
    recorded = counter.record(Post(offer.encode()), "Log this offer, for everybody to read?")
    chain = recorded.entry.statement.subject
    following = f"comity offer request {chain[:12]} --want {offer.slices[0].name}:{offer.granularity.nodes} --dir HOME"
    out.done(f"logged: offer {chain[:12]}, proven by a checkpoint")
    out.document("offer-post", {"offer": offer.id, "chain": chain, "line": recorded.entry.digest, "next": following})
    out.hint(f"whoever wants it: {following}")


@examples(
    "comity offer ls",
    "comity offer ls --accelerator H100 --min-hours 500 --jurisdiction EU --without-legal-reach US",
    "comity offer ls --artifact sha256:9f2c… --engine slurm --json",
)
@command.command("ls", short_help="List what is offered.")
@click.option("--accelerator", default="", metavar="NAME", help="By SkyPilot's name, such as H100.")
@click.option(
    "--min-hours", default=0, type=click.IntRange(0), help="At least so much is left, in the offer's measure."
)
@click.option("--measure", default="", type=click.Choice(["", "accelerator-hours", "node-hours"]), help="Counted so.")
@click.option("--jurisdiction", multiple=True, metavar="CODE", help="The machines stand there; EU for its members.")
@click.option(
    "--without-legal-reach", "beyond", multiple=True, metavar="CODE", help="No court there can order the provider."
)
@click.option("--artifact", default="", metavar="REF", help="This model lies beside the machines.")
@click.option("--engine", default="", type=click.Choice(["", "slurm", "kubernetes", "skypilot", "ssh"]), help="For it.")
@click.option("--closed", is_flag=True, help="Also what is over, withdrawn or at fault.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@reading_options
def ls(closed: bool, limit: int, **options: Any) -> None:
    """List offers of all reachable nodes, also where their provider is silent. Each chain is computed again here:
    *proven* means that its newest record is in the provider's log, *claimed* that somebody only says so."""
    out, counter = output(), Counter(carried=options.pop("carried"), offline=options.pop("offline"))
    found, more = counter.market.offers(query(closed=closed, **options), limit)
    rows = [
        (
            seen.view.book.chain[:12],
            seen.view.circle.name(seen.view.offer.provider),
            rendering.machines(seen.view.offer),
            rendering.left(seen.view),
            rendering.when(seen.view.offer.window.end),
            rendering.standing(seen, now()),
        )
        for seen in found
    ]
    if rows:
        out.table(("offer", "lent by", "machines", "left", "until", "known how"), rows)
    else:
        out.say("Nothing is offered that matches, as far as the reachable nodes know.")
    if more:
        out.warn(f"{more} more match; raise --limit")
    out.document("offers", {"offers": [rendering.offer_json(seen) for seen in found], "more": more})
    if found:
        out.hint(f"comity offer show {found[0].view.book.chain[:12]}")


@examples("comity offer show 9f2c41aa", "comity offer show offer.parcel --offline", "comity offer show 9f2c41aa --json")
@command.command("show", short_help="Show one offer, and what is known of its chain.")
@click.argument("offer", metavar="OFFER")
@click.option("--out", type=NEW_FILE, help="Write a parcel with its lines and proofs, to be carried.")
@reading_options
def show(offer: str, out: Path | None, carried: Sequence[Path], offline: bool) -> None:
    """Show OFFER: the beginning of its id, or a parcel."""
    printed, counter = output(), Counter(carried=carried, offline=offline)
    seen = counter.offer(offer)
    rendering.show_offer(printed, seen, now())
    for digest, held in seen.view.book.grants.items():
        printed.say(f"  {'pact' if held.grant.pact else 'grant'} {digest[:12]}  {held.state}, to "
                    f"{seen.view.circle.name(held.grant.grantee)}")  # fmt: skip
    following = f"comity offer request {seen.view.book.chain[:12]} --want {seen.view.offer.slices[0].name}:1 --dir HOME"
    if out is not None:
        seen.view.parcel.write(out, f"comity offer show {out.name} --offline")
        printed.done(f"{out}: its lines and proofs, to be carried")
    grants = [rendering.grant_json(seen.view, held) for held in seen.view.book.grants.values()]
    printed.document("offer", {**rendering.offer_json(seen), "grants": grants, "next": following})
    printed.hint(following)


@examples("comity offer withdraw 9f2c41aa --dir node-ch --text 'the machines are broken'")
@command.command("withdraw", short_help="Give out no more of an offer of yours.")
@click.argument("offer", metavar="OFFER")
@click.option("--text", default="", help="Why, for everybody to read.")
@lending_options
def withdraw(offer: str, text: str, **options: Any) -> None:
    """Withdraw an offer of yours. What was granted from it stands: an accepted grant cannot be withdrawn on paper."""
    from comity.wire.offer import Withdraw

    counter, out = Counter(**options), output()
    seen = counter.offer(offer)
    rendering.show_offer(out, seen, now())
    recorded = counter.record(Withdraw(seen.view.offer.id, text), "Withdraw this offer?")
    out.done(f"withdrawn: {recorded.entry.digest[:12]}; {len(seen.view.book.grants)} grants of it stand")
    out.document("offer-withdrawn", {"chain": seen.view.book.chain, "line": recorded.entry.digest})


@examples(
    "comity offer request 9f2c41aa --want big:2 --from-time 2027-01-04 --until 2027-01-11 --dir node-es",
    "comity offer request 9f2c41aa --want big:2:300 --publisher 'BSC AI' --to node-es",
    "comity offer request offer.parcel --offline --want big:1 --dir node-es --out request.parcel",
)
@command.command("request", short_help="Ask for machines of an offer.")
@click.argument("offer", metavar="OFFER")
@asking_options
def request(offer: str, **options: Any) -> None:
    """Ask for machines, as your member (its governance key signs) or as a publisher. The request is public."""
    ask(offer, pact=False, **options)


@examples(
    "comity offer fit swiss-ai/apertus-70b --context 32768 --batch 8",
    "comity offer fit ./model --room H100:8:80 --offline",
    "comity offer fit org/model-gguf --file '*Q4_K_M*' --accelerator H100 --json",
)
@command.command("fit", short_help="Say which offers can hold a model, and why.")
@click.argument("reference", metavar="REF")
@click.option("--context", default=8192, show_default=True, type=click.IntRange(1, 2**32), help="Tokens a sequence.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 2**20), help="Sequences at a time.")
@click.option("--kv", default="bf16", show_default=True, type=click.Choice(["bf16", "fp16", "fp8", "fp32"]),
              help="Numbers of the KV-cache.")  # fmt: skip
@click.option(
    "--margin", default=10, show_default=True, type=click.IntRange(0, 90), help="Per cent of memory kept free."
)
@click.option("--file", "pattern", default="", metavar="PATTERN", help="Count only these files of REF.")
@click.option("--room", "rooms", multiple=True, metavar="NAME:COUNT:GIB[:NODES]", help="Also machines of your own.")
@click.option("--accelerator", default="", metavar="NAME", help="Only offers of this one.")
@reading_options
def fit(reference: str, pattern: str, rooms: Sequence[str], accelerator: str, carried: Sequence[Path], offline: bool,
        context: int, batch: int, kv: str, margin: int) -> None:  # fmt: skip
    """Compute whether the weights of REF and its KV-cache fit what is offered. REF is a name, a digest or a folder; its
    weights are not fetched, only the headers of its files. Where the kind of attention is not known, nothing is
    guessed."""
    from comity_client.offers.fit import Workload

    from comity_cli.offers.fits import own_room, show_fits

    own = [own_room(text) for text in rooms]
    model = client().model(Path(reference) if Path(reference).is_dir() else reference, pattern)
    work = Workload(context, batch, kv, margin)
    found: list[FoundChain] = []
    if not (offline and not carried):
        counter = Counter(carried=carried, offline=offline)
        found, more = counter.market.offers(query(closed=False, accelerator=accelerator), FITTED)
        if more:
            output().warn(f"{more} more are offered and not judged; choose with --accelerator")
    show_fits(model, work, own, found)


@examples("comity offer balance", "comity offer balance --json")
@command.command("balance", short_help="Show what members owe each other.")
@reading_options
def balance(**options: Any) -> None:
    """Net what each pair of members has lent and borrowed, by usage that both have signed. Hours of different
    accelerators are not comparable: there is a balance for each."""
    from comity_client.offers.market import accounts

    from comity_cli.offers.balances import show_balances

    out, counter = output(), Counter(**options)
    market = counter.market
    found, more = market.offers(query(closed=True), COUNTED)
    if more:
        out.warn(f"{more} more offers are not counted")
    show_balances(accounts([seen.view for seen in found]), market.circle())


def _read(file: Path, home: Path) -> Offer:
    from comity_client.offers.offer_file import own_record, read_offer

    return read_offer(read_bounded(file, MAX_TOML), own_record(home))


def _show_document(out: Any, offer: Offer) -> None:
    out.say(f"{offer.title}")
    out.fact("machines", rendering.machines(offer))
    out.fact("amount", ", ".join(f"{part.amount:,}" for part in offer.slices) + f" {offer.measure}")
    out.fact("window", f"{rendering.when(offer.window.start)} up to {rendering.when(offer.window.end)}")
    out.fact("granted by", f"the log {offer.log.split('+', 1)[0]}, and no other")
