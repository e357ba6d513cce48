"""`comity pact`: help that is agreed beforehand, and that its beneficiary alone calls upon."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from comity.trust.errors import Refused
from comity.trust.offers.records import CutOff

from comity_cli.command import Group, examples, output
from comity_cli.offers.asking import ask, asking_options
from comity_cli.offers.counter import Counter, reading_options, speaking_options
from comity_cli.offers.holding import own_grant


@examples(
    "comity pact new 9f2c41aa --want big:2 --dir node-es",
    "comity pact drill 1f2e3d4c --dir node-es",
    "comity pact declare 1f2e3d4c --text 'our provider cut us off' --dir node-es",
)
@click.group(cls=Group, name="pact", short_help="Agree on machines for the day you are cut off.")
def command() -> None:
    """A standing pact is a grant that waits. The machines are reserved from the grant on; it is redeemed once its
    beneficiary itself declares a cut-off. Nobody else can veto that."""


@examples("comity pact new 9f2c41aa --want big:2 --dir node-es --text 'if our cloud is closed to us'")
@command.command("new", short_help="Ask for a standing pact.")
@click.argument("offer", metavar="OFFER")
@asking_options
def new(offer: str, **options: Any) -> None:
    """Ask for a standing pact on an offer. The provider approves it as any request; you accept it as any grant."""
    ask(offer, pact=True, **options)


@examples("comity pact ls", "comity pact ls --json")
@command.command("ls", short_help="List standing pacts.")
@reading_options
def ls(**options: Any) -> None:
    """List standing pacts, and whether their beneficiary has declared a cut-off."""
    from comity.wire.offer import GrantQuery

    from comity_cli.offers.listing import lines_of, said_of

    out, market = output(), Counter(**options).market
    rows: list[dict[str, Any]] = []
    for seen in market.grants(GrantQuery()):
        for row in (row for row in lines_of(seen.view) if row["pact"]):
            declared = any(said["kind"] == "cut-off" for said in said_of(seen.view, row["line"]))
            rows.append({**row, "cut_off": declared})
    table = [(row["line"][:12], row["state"], row["who"], row["asked"], "declared" if row["cut_off"] else "no")
             for row in rows]  # fmt: skip
    if table:
        out.table(("pact", "state", "for", "what", "cut off"), table)
    else:
        out.say("There are no standing pacts, as far as is known here.")
    out.document("pacts", {"pacts": rows})


@examples("comity pact declare 1f2e3d4c --text 'our provider cut us off' --dir node-es")
@command.command("declare", short_help="Declare yourself cut off: your pact becomes redeemable.")
@click.argument("pact", metavar="PACT")
@click.option("--text", required=True, help="What happened, for everybody to read.")
@speaking_options
def declare(pact: str, text: str, **options: Any) -> None:
    """Declare in public that you are cut off. From then on the pact is redeemed as any grant, and nobody is asked."""
    held = own_grant(pact, **options)
    if not held.grant.grant.pact:
        why = "it is a grant, not a pact"
        raise Refused("there is nothing to declare here", why=why, hint="comity pact ls", code="NOT-A-PACT")
    held.sign(
        CutOff(*held.about, False, text),
        "declares itself cut off:",
        facts=[("declares", text)],
        following=f"comity grant redeem {held.name} --dir HOME",
    )


@examples("comity pact drill 1f2e3d4c --dir node-es", "comity pact drill pact.parcel --offline --dir node-es --json")
@command.command("drill", short_help="Rehearse a cut-off, without logging anything.")
@click.argument("pact", metavar="PACT")
@speaking_options
def drill(pact: str, **options: Any) -> None:
    """Do all that a cut-off would take, and log nothing: read the chain, prove it, find the key, sign the declaration
    and a redemption, and check that the provider's node would take both. What is missing is found on a quiet day."""
    from comity_cli.offers.drilling import rehearse

    out, counter = output(), Counter(**options)
    steps = rehearse(counter, counter.grant(pact))
    for step in steps:
        (out.done if step.well else out.warn)(f"{step.what}: {step.how}")
    well = all(step.well for step in steps)
    out.document("drill", {"well": well, "logged": False, "steps": [asdict(step) for step in steps]})
    if not well:
        raise click.exceptions.Exit(1)
    out.say("Nothing was logged or sent.")
