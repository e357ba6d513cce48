"""`comity pact`: standing pacts, which the beneficiary alone can make redeemable.

The drill of a cut-off takes every step except logging.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import click
from comity.rules.offers.records import CutOff
from comity.trust.errors import ComityError, Refused
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import INLINE, document
from comity_cli.offers.context import OfferContext, now, reading_options, signing_options
from comity_cli.offers.own_grant import find_own_grant, request_allocations, request_options
from comity_cli.offers.rendering import RequestItem, describe_amounts, when

if TYPE_CHECKING:
    from comity_client.offers.offer_client import FoundGrant


@dataclass(frozen=True)
class Step:
    """One step of a cut-off: whether it succeeded, and details."""

    what: str
    well: bool
    how: str


@frozen
class PactItem:
    """A standing pact, and whether its beneficiary has declared a cut-off."""

    request: RequestItem = field(metadata=INLINE)
    cut_off: bool


@document("pacts")
class PactsDocument:
    """Standing pacts, as `comity pact ls --json` prints them.

    `more_offers`: further ones that are said to have requests.
    """

    pacts: tuple[PactItem, ...]
    more_offers: int


@document("drill")
class PactDrillDocument:
    """The steps of a cut-off that was tried, as `comity pact drill --json` prints them."""

    well: bool
    logged: Literal[False] = field(default=False, kw_only=True)
    steps: tuple[Step, ...]


def run_drill(context: OfferContext, found: FoundGrant) -> list[Step]:
    """The steps of a cut-off, in order. A failed step does not stop the others."""
    view, grant_state = found.view, found.grant_state
    steps = [
        Step(
            "the pact",
            grant_state.grant.pact,
            f"{grant_state.digest[:12]}, lent by {view.identities.name(view.offer.provider)}",
        ),
        Step("its chain", view.status == "proven", view.why or f"proven, cosigned by {view.cosigners} members"),
        Step("its state", grant_state.state == "accepted", grant_state.state),
        _window(found),
        Step(
            "what is left",
            any(grant_state.left),
            describe_amounts(grant_state.left, view.offer.measure),
        ),
    ]
    return [*steps, *_sign(context, found)]


def _sign(context: OfferContext, found: FoundGrant) -> list[Step]:
    """Sign a cut-off marked as a drill and a redemption that is never logged, and check both as a node would."""
    try:
        from comity_client.offers.pact_drill import signed_drill

        signer = context.signer
        mine = signer.identity == found.grant_state.grant.grantee
        steps = [
            Step("your key", mine, signer.label if mine else f"it belongs to {signer.label}, not to the beneficiary")
        ]
        signed = signed_drill(signer, found, "drill")
    except ComityError as error:
        return [Step("your key", False, str(error))]
    for what, entry in signed:
        genuine = found.view.identities.by_identity(entry)
        how = {True: "signed, with keys that others can verify", None: "signed; nothing here proves your keys"}
        steps.append(Step(what, genuine is not False, how.get(genuine, "your keys are not those of the charter")))
    return steps


def _window(found: FoundGrant) -> Step:
    """Whether a part of the pact could be used now, and its intervals."""
    at, parts = now(), found.grant_state.grant.allocations
    intervals = ", ".join(f"{when(part.start)} up to {when(part.end)}" for part in parts)
    if any(part.start <= at < part.end for part in parts):
        return Step("its window", True, intervals)
    why = "not begun" if any(at < part.start for part in parts) else "over"
    return Step("its window", False, f"{intervals}: {why}")


@examples(
    "comity pact new 9f2c41aa --want big:2 --node node-es",
    "comity pact drill 1f2e3d4c --node node-es",
    "comity pact declare 1f2e3d4c --text 'our provider cut us off' --node node-es",
)
@click.group(cls=Group, name="pact", short_help="Reserve machines for the case of a cut-off.")
def command() -> None:
    """A standing pact is a grant that is redeemed later. The machines are reserved from the grant on. It is redeemable
    once its beneficiary declares a cut-off; nobody else can prevent that."""


@examples("comity pact new 9f2c41aa --want big:2 --node node-es --text 'if our cloud is closed to us'")
@command.command("new", short_help="Request a standing pact.")
@click.argument("offer", metavar="OFFER")
@request_options
def new(offer: str, **options: Any) -> None:
    """Request a standing pact on an offer. The provider approves it like any request; you accept it like any grant."""
    request_allocations(offer, pact=True, **options)


@examples("comity pact ls", "comity pact ls --json")
@command.command("ls", short_help="List standing pacts.")
@reading_options
def ls(**options: Any) -> None:
    """List standing pacts, and whether their beneficiary has declared a cut-off."""
    from comity.wire.offer import GrantQuery

    from comity_cli.offers.rendering import request_rows, statement_rows

    out, offer_client = output(), OfferContext(**options).offer_client
    rows = list[PactItem]()
    chains, more = offer_client.grants(GrantQuery())
    for seen in chains:
        for row in (row for row in request_rows(seen.view) if row.pact):
            declared = any(statement.kind == "cut-off" for statement in statement_rows(seen.view, row.line))
            rows.append(PactItem(row, declared))
    table = [
        (each.request.line[:12], each.request.state, each.request.who, each.request.asked,
         "declared" if each.cut_off else "no")
        for each in rows
    ]  # fmt: skip
    if table:
        out.table(("pact", "state", "for", "what", "cut off"), table)
    else:
        out.say("No standing pact is known.")
    if more:
        out.warn(f"{more} more offers are said to have requests; see one: comity grant ls --offer OFFER")
    out.answer(PactsDocument(tuple(rows), more))


@examples("comity pact declare 1f2e3d4c --text 'our provider cut us off' --node node-es")
@command.command("declare", short_help="Declare yourself cut off: your pact becomes redeemable.")
@click.argument("pact", metavar="PACT")
@click.option("--text", required=True, help="What happened. Public.")
@signing_options
def declare(pact: str, text: str, **options: Any) -> None:
    """Declare publicly that you are cut off. The pact is then redeemed like any grant, without further consent."""
    own = find_own_grant(pact, **options)
    if not own.grant_state.grant.pact:
        why = "it is a grant, not a pact"
        raise Refused("no cut-off can be declared for it", why=why, hint="comity pact ls", code="NOT-A-PACT")
    own.sign(
        CutOff(*own.ids, False, text),
        "declares itself cut off:",
        facts=[("declares", text)],
        next_command=f"comity grant redeem {own.name} --node HOME",
        by_signer=True,
    )


@examples("comity pact drill 1f2e3d4c --node node-es", "comity pact drill pact.bundle --offline --node node-es --json")
@command.command("drill", short_help="Test a cut-off without logging anything.")
@click.argument("pact", metavar="PACT")
@signing_options
def drill(pact: str, **options: Any) -> None:
    """Perform every step of a cut-off except logging: read and prove the chain, find the key, sign the declaration and
    a redemption, and check both as the provider's node would. Run it regularly to find what is missing in time."""
    out, context = output(), OfferContext(**options)
    steps = run_drill(context, context.grant(pact))
    for step in steps:
        (out.done if step.well else out.warn)(f"{step.what}: {step.how}")
    well = all(step.well for step in steps)
    out.answer(PactDrillDocument(well, tuple(steps)))
    out.say("Nothing was logged or sent.")
    if not well:
        raise click.exceptions.Exit(1)
