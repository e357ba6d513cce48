"""`comity grant`: requests and grants, from the answer to the hand-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import click
from comity.rules.offers.amounts import Usage
from comity.rules.offers.records import Acceptance, Agreement, Default, GivingBack, Redemption
from comity.trust.errors import Refused

from comity_cli.command import Group, examples, output
from comity_cli.document import INLINE, document
from comity_cli.offers import provider, rendering
from comity_cli.offers.arguments import amounts
from comity_cli.offers.context import LINE, OfferContext, reading_options, signing_options
from comity_cli.offers.own_grant import find_accepted_grant, find_own_grant, require_own


@document("grants")
class GrantsDocument:
    """Requests and grants, as `comity grant ls --json` prints them.

    `more_offers`: further ones that are said to have requests.
    """

    grants: tuple[rendering.RequestItem, ...]
    more_offers: int


@document("grant")
class GrantDocument:
    """A grant and what was said about it, as `comity grant show --json` prints it."""

    grant: rendering.GrantItem = field(metadata=INLINE)
    said: tuple[rendering.SaidItem, ...]
    next: str


@examples(
    "comity grant ls",
    "comity grant accept 1f2e3d4c --node node-es",
    "comity grant hand-over redeem.bundle --node node-ch --user guest1 --into ./hand-off",
)
@click.group(cls=Group, name="grant", short_help="Answer requests for machines; accept, redeem or release grants.")
def command() -> None:
    """A provider approves or rejects requests. A grantee accepts, redeems or releases a grant, or says that it was not
    honoured. Each step goes to a node, or into a bundle file (--out) for the other side."""


@examples(
    "comity grant ls", "comity grant ls --state requested --json", "comity grant ls --offline --from grant.bundle"
)
@command.command("ls", short_help="List requests and grants.")
@click.option("--offer", default="", metavar="OFFER", help="Only of this offer.")
@click.option("--state", default="", type=click.Choice(["", "requested", "granted", "rejected", "accepted", "lapsed",
                                                        "released"]), help="Only in this state.")  # fmt: skip
@reading_options
def ls(offer: str, state: str, **options: Any) -> None:
    """List requests and grants, computed here from the lines of each chain."""
    from comity.wire.offer import GrantQuery

    from comity_cli.offers.rendering import request_rows

    out, offer_client = output(), OfferContext(**options).offer_client
    chains, more = ([offer_client.offer(offer)], 0) if offer else offer_client.grants(GrantQuery(state=state))
    rows = [row for seen in chains for row in request_rows(seen.view) if state in ("", row.state)]
    table = [
        (row.line[:12], row.state + (" pact" if row.pact else ""), row.who, row.asked, row.chain[:12], row.chain_state)
        for row in rows
    ]
    if table:
        out.table(("request or grant", "state", "who", "what", "offer", "chain"), table)
    else:
        out.say("No request is known.")
    if more:
        out.warn(f"{more} more offers are said to have requests; name one: --offer OFFER")
    out.answer(GrantsDocument(tuple(rows), more))
    for next_command in [row.next for row in rows if row.next][:1]:
        out.hint(next_command)


@examples("comity grant show 1f2e3d4c", "comity grant show grant.bundle --offline", "comity grant show 1f2e3d4c --json")
@command.command("show", short_help="Show a grant, and the statements about it.")
@click.argument("grant", metavar="GRANT")
@reading_options
def show(grant: str, **options: Any) -> None:
    """Show GRANT, given by the first digits of its digest or a bundle file. A default is shown with its answer."""
    from comity_cli.offers.rendering import next_step, statement_rows

    out, found = output(), OfferContext(**options).grant(grant)
    kind = "pact" if found.grant_state.grant.pact else "grant"
    out.say(f"{kind} {found.grant_state.digest[:12]}: {found.grant_state.state}")
    for what, how in rendering.grant_facts(found.view, found.grant_state):
        out.fact(what, how)
    statements = statement_rows(found.view, found.grant_state.digest)
    for each in statements:
        out.say(f"  {each.kind} {each.line[:12]} by {each.by}" + (f": {each.text}" if each.text else ""))
    next_command = next_step(found.view, found.grant_state)
    item = rendering.GrantItem.of(found.view, found.grant_state)
    out.answer(GrantDocument(item, tuple(statements), next_command))
    if next_command:
        out.hint(next_command)


@examples(
    "comity grant accept 1f2e3d4c --node node-es",
    "comity grant accept grant.bundle --offline --node node-es --out accept.bundle",
)
@command.command("accept", short_help="Accept a grant that you asked for.")
@click.argument("grant", metavar="GRANT")
@signing_options
def accept(grant: str, **options: Any) -> None:
    """Accept GRANT, given by the first digits of its digest or a bundle file. Without a proof that the grant is in the
    log that its offer names, the command refuses."""
    own = find_own_grant(grant, **options)
    own.view.require_proven()
    following = "pact drill" if own.grant_state.grant.pact else "grant redeem"
    next_command = f"comity {following} {own.name} --node HOME"
    own.sign(Acceptance(*own.ids), "accepts:", next_command=next_command, by_signer=True)


@examples(
    "comity grant redeem 1f2e3d4c --amount 300 --text 'user: alice' --node node-es",
    "comity grant redeem grant.bundle --offline --node node-es --out redeem.bundle",
)
@command.command("redeem", short_help="Ask to use an amount of a grant now.")
@click.argument("grant", metavar="GRANT")
@click.option(
    "--amount", "given", multiple=True, type=click.IntRange(0), help="Amount of each allocation. Default: all left."
)
@click.option("--text", default="", help="For the provider: a user name, a public key. Public: no secrets.")
@signing_options
def redeem(grant: str, given: Sequence[int], text: str, **options: Any) -> None:
    """Ask to use GRANT. Your key signs the newest record about it, so nobody else can redeem it, and no redemption
    counts twice. If you have just accepted GRANT, the command waits until the provider's node has recorded that. The
    provider then runs `comity grant hand-over`."""
    own = find_accepted_grant(grant, **options)
    own.view.require_proven()
    grant_state = own.grant_state
    wanted = amounts(given, grant_state.left)
    if grant_state.state != "accepted" or any(want > rest for want, rest in zip(wanted, grant_state.left, strict=True)):
        why = f"it is {grant_state.state}, and {', '.join(map(str, grant_state.left))} are left"
        raise Refused("the amount exceeds the grant", why=why, hint=f"comity grant show {own.name}",
                      code="OVER-REDEEMED")  # fmt: skip
    own.sign(
        Redemption(*own.ids, wanted, grant_state.newest, text),
        "redeems:",
        facts=[("now", rendering.describe_amounts(wanted, own.view.offer.measure))],
        next_command=f"comity grant hand-over {LINE} --node HOME --into ./hand-off",
    )


@examples("comity grant release 1f2e3d4c --node node-es --text 'done early'")
@command.command("release", short_help="Release what you will not use of a grant.")
@click.argument("grant", metavar="GRANT")
@click.option("--text", default="", help="Reason. Public.")
@signing_options
def release(grant: str, text: str, **options: Any) -> None:
    """Release what was not redeemed of GRANT. It is free again once the provider's node has recorded it."""
    own = find_own_grant(grant, **options)
    next_command = f"comity grant take-back {own.name} --node HOME"
    own.sign(GivingBack(*own.ids, text), "releases:", next_command=next_command)


@examples("comity grant default 1f2e3d4c --node node-es --text 'the hand-off was refused on 3 January'")
@command.command("default", short_help="State publicly that a grant was not honoured.")
@click.argument("grant", metavar="GRANT")
@click.option("--text", required=True, help="What happened. Public.")
@signing_options
def default(grant: str, text: str, **options: Any) -> None:
    """State that GRANT was not honoured. The statement and the provider's answer are shown with the grant. Comity does
    not judge it."""
    own = find_own_grant(grant, **options)
    own.sign(
        Default(*own.ids, text),
        "states that this was not honoured:",
        facts=[("text", text)],
        next_command=f"comity grant answer {LINE} --text TEXT --node HOME",
    )


@examples(
    "comity grant agree 5a4b3c2d --node node-es",
    "comity grant agree usage.bundle --offline --node node-es --out agree.bundle",
)
@command.command("agree", short_help="Agree to a usage line of the provider.")
@click.argument("usage", metavar="USAGE")
@signing_options
def agree(usage: str, **options: Any) -> None:
    """Agree to USAGE, a usage line of the provider's node. It counts in your balance only after that."""
    context = OfferContext(**options)
    found = context.statement(usage, Usage)
    used = found.statement
    own = require_own(context, found.view, found.view.grant(used.grant))
    interval = f"{rendering.when(used.window.start)} up to {rendering.when(used.window.end)}"
    own.sign(
        Agreement(*own.ids, found.entry.digest),
        "agrees to have used:",
        facts=[("used", f"{rendering.describe_amounts(used.amounts, own.view.offer.measure)}, {interval}")],
        next_command="comity offer balance",
        by_signer=True,
    )


for _command in provider.COMMANDS:
    command.add_command(_command)
