"""`comity grant`: what was asked for and given, from the request to the hand-off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from comity.trust.errors import Refused
from comity.trust.offers.amounts import Usage
from comity.trust.offers.records import Acceptance, Agreement, Default, GivingBack, Redemption

from comity_cli.command import Group, examples, output
from comity_cli.offers import lender, rendering
from comity_cli.offers.counter import LINE, Counter, reading_options, speaking_options
from comity_cli.offers.holding import held_by, own_grant
from comity_cli.offers.wants import amounts


@examples(
    "comity grant ls",
    "comity grant accept 1f2e3d4c --dir node-es",
    "comity grant hand-over redeem.parcel --dir node-ch --user guest1 --into ./hand-off",
)
@click.group(cls=Group, name="grant", short_help="Answer requests for machines; accept, redeem, give back.")
def command() -> None:
    """A provider approves or rejects; a grantee accepts, redeems, gives back, or says that it was let down. Each step
    goes to a node, or into a parcel (--out) that is carried to the other side."""


@examples(
    "comity grant ls", "comity grant ls --state requested --json", "comity grant ls --offline --from grant.parcel"
)
@command.command("ls", short_help="List requests and grants.")
@click.option("--offer", default="", metavar="OFFER", help="Of this offer only.")
@click.option("--state", default="", type=click.Choice(["", "requested", "granted", "rejected", "accepted", "lapsed",
                                                        "released"]), help="In this state only.")  # fmt: skip
@reading_options
def ls(offer: str, state: str, **options: Any) -> None:
    """List what was asked for and given, computed here from the lines of each chain."""
    from comity.wire.offer import GrantQuery

    from comity_cli.offers.listing import lines_of

    out, market = output(), Counter(**options).market
    chains = [market.offer(offer)] if offer else market.grants(GrantQuery(state=state))
    rows = [row for seen in chains for row in lines_of(seen.view) if state in ("", row["state"])]
    table = [
        (row["line"][:12], row["state"] + (" pact" if row["pact"] else ""), row["who"], row["asked"], row["chain"][:12],
         row["chain_state"])
        for row in rows
    ]  # fmt: skip
    if table:
        out.table(("request or grant", "state", "who", "what", "offer", "chain"), table)
    else:
        out.say("Nothing was asked for, as far as is known here.")
    out.document("grants", {"grants": rows})
    for row in rows[:1]:
        out.hint(row["next"])


@examples("comity grant show 1f2e3d4c", "comity grant show grant.parcel --offline", "comity grant show 1f2e3d4c --json")
@command.command("show", short_help="Show a grant, and all that was said of it.")
@click.argument("grant", metavar="GRANT")
@reading_options
def show(grant: str, **options: Any) -> None:
    """Show GRANT: the beginning of its digest, or a parcel that brings it. A default is shown with both sides."""
    from comity_cli.offers.listing import next_step, said_of

    out, held = output(), Counter(**options).grant(grant)
    kind = "pact" if held.commitment.grant.pact else "grant"
    out.say(f"{kind} {held.commitment.digest[:12]}: {held.commitment.state}")
    for what, how in rendering.grant_facts(held.view, held.commitment):
        out.fact(what, how)
    said = said_of(held.view, held.commitment.digest)
    for each in said:
        out.say(f"  {each['kind']} {each['line'][:12]} by {each['by']}" + (f": {each['text']}" if each["text"] else ""))
    following = next_step(held.commitment)
    out.document("grant", {**rendering.grant_json(held.view, held.commitment), "said": said, "next": following})
    if following:
        out.hint(following)


@examples(
    "comity grant accept 1f2e3d4c --dir node-es",
    "comity grant accept grant.parcel --offline --dir node-es --out accept.parcel",
)
@command.command("accept", short_help="Accept a grant that you asked for.")
@click.argument("grant", metavar="GRANT")
@speaking_options
def accept(grant: str, **options: Any) -> None:
    """Accept GRANT, a digest's beginning or a parcel. It is refused unless the grant is proven to be in the log that
    its offer names: a grant without that proof is none."""
    held = own_grant(grant, **options)
    held.view.require_proven()
    held.sign(Acceptance(*held.about), "accepts:", following=f"comity grant show {held.name}")


@examples(
    "comity grant redeem 1f2e3d4c --amount 300 --text 'user: alice' --dir node-es",
    "comity grant redeem grant.parcel --offline --dir node-es --out redeem.parcel",
)
@command.command("redeem", short_help="Ask to use so much of a grant now.")
@click.argument("grant", metavar="GRANT")
@click.option("--amount", "given", multiple=True, type=click.IntRange(0), help="Of each allocation. Default: all left.")
@click.option("--text", default="", help="For whoever hands over: a user name, a public key. Public: never a secret.")
@speaking_options
def redeem(grant: str, given: Sequence[int], text: str, **options: Any) -> None:
    """Ask to use GRANT. Your key signs the newest record about it, so that nobody else can redeem, and no redemption
    counts twice. The provider then hands over: `comity grant hand-over`."""
    held = own_grant(grant, **options)
    held.view.require_proven()
    made = held.grant
    wanted = amounts(given, made.left)
    if made.state != "accepted" or any(want > rest for want, rest in zip(wanted, made.left, strict=True)):
        why = f"it is {made.state}, and {', '.join(map(str, made.left))} are left"
        raise Refused("there is not so much to redeem", why=why, hint=f"comity grant show {held.name}",
                      code="OVER-REDEEMED")  # fmt: skip
    held.sign(
        Redemption(*held.about, wanted, made.newest, text),
        "redeems:",
        facts=[("now", ", ".join(map(str, wanted)))],
        following=f"comity grant hand-over {LINE} --dir HOME --into ./hand-off",
    )


@examples("comity grant release 1f2e3d4c --dir node-es --text 'done early'")
@command.command("release", short_help="Give back what you will not use of a grant.")
@click.argument("grant", metavar="GRANT")
@click.option("--text", default="", help="Why, for everybody to read.")
@speaking_options
def release(grant: str, text: str, **options: Any) -> None:
    """Give back what was not redeemed of GRANT. It returns to the offer once the provider's node has recorded it."""
    held = own_grant(grant, **options)
    following = f"comity grant take-back {held.name} --dir HOME"
    held.sign(GivingBack(*held.about, text), "gives back:", following=following)


@examples("comity grant default 1f2e3d4c --dir node-es --text 'the hand-off was refused on 3 January'")
@command.command("default", short_help="Say in public that a grant was not honoured.")
@click.argument("grant", metavar="GRANT")
@click.option("--text", required=True, help="What happened, for everybody to read.")
@speaking_options
def default(grant: str, text: str, **options: Any) -> None:
    """Say that GRANT was not honoured. It stays beside the grant, with the provider's answer. Nobody judges it."""
    held = own_grant(grant, **options)
    held.sign(
        Default(*held.about, text),
        "says that this was not honoured:",
        facts=[("says", text)],
        following=f"comity grant answer {LINE} --text WORDS --dir HOME",
    )


@examples(
    "comity grant agree 5a4b3c2d --dir node-es",
    "comity grant agree usage.parcel --offline --dir node-es --out agree.parcel",
)
@command.command("agree", short_help="Agree to what the provider says you used.")
@click.argument("usage", metavar="USAGE")
@speaking_options
def agree(usage: str, **options: Any) -> None:
    """Agree to USAGE, a usage line of the provider's node. Only then does it count in your balance."""
    counter = Counter(**options)
    found = counter.said(usage, Usage)
    used = found.said
    held = held_by(counter, found.view, found.view.grant(used.grant))
    span = f"{rendering.when(used.window.start)} up to {rendering.when(used.window.end)}"
    held.sign(
        Agreement(*held.about, found.entry.digest),
        "agrees to have used:",
        facts=[("used", f"{', '.join(map(str, used.amounts))}, {span}")],
        following="comity offer balance",
    )


for _lender in lender.COMMANDS:
    command.add_command(_lender)
