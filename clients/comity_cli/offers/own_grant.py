"""The borrower's side: requests, one own grant, and the statements that its grantee signs about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from comity.rules.offers.chain import GrantState
from comity.rules.offers.records import GrantRequest, PartyStatement
from comity.trust.encoding import Digest
from comity.trust.errors import Refused
from comity.trust.frozen import frozen

from comity_cli.command import output
from comity_cli.offers import rendering
from comity_cli.offers.arguments import allocations, moment
from comity_cli.offers.context import LINE, F, OfferContext, now, signing_options
from comity_cli.offers.rendering import grant_facts

if TYPE_CHECKING:
    from comity_client.offers.views import ChainView


def request_options(command: F) -> F:
    """Options of a request: allocations, times, text and signer."""
    command = signing_options(command)
    for option in (
        click.option("--text", default="", help="Reason. Public."),
        click.option("--until", "end", type=moment, metavar="TIME", help="End. UTC, unless it has an offset."),
        click.option("--from-time", "start", type=moment, metavar="TIME", help="Start. Default: the whole window."),
        click.option("--want", "wants", multiple=True, required=True, metavar="SLICE:NODES[:AMOUNT]",
                     help="Nodes and amount of a slice."),
    ):  # fmt: skip
        command = option(command)
    return command


def request_allocations(
    offer: str, *, pact: bool, wants: Sequence[str], start: int | None, end: int | None, text: str, **options: Any
) -> None:
    """Sign a request for a grant or a pact, and log it or write a bundle file."""
    context = OfferContext(**options)
    seen = context.offer(offer)
    view, document = seen.view, seen.view.offer
    if view.status != "proven":
        output().warn(f"this offer is only {rendering.describe_status(seen, now())}")
    request = GrantRequest(
        context.signer.identity, document.id, allocations(document, wants, start, end), now(), pact, text
    )
    facts = [
        ("of", f"{document.title} [{view.state.chain[:12]}]"),
        ("lent by", view.identities.name(document.provider)),
    ]
    for part in request.allocations:
        free = view.state.free_nodes(part.slice, part.start, part.end)
        how = f"{rendering.describe_interval(part)}, {part.amount:,} {document.measure}; {free} nodes free"
        facts.append((part.slice, how))
    context.sign(
        request,
        facts,
        title="requests a standing pact:" if pact else "requests machines:",
        known=view.bundle,
        next_command=f"comity grant approve {LINE} --node HOME",
    )


@frozen
class OwnGrant:
    """A grant of the signer, with its chain. Created by `require_own`."""

    context: OfferContext
    view: ChainView
    grant_state: GrantState

    @property
    def ids(self) -> tuple[Digest, Digest, Digest]:
        """Grantee, chain and grant: the first arguments of every statement about the grant."""
        return self.grant_state.grant.grantee, self.view.state.chain, self.grant_state.digest

    @property
    def name(self) -> str:
        """Its short name for commands."""
        return self.grant_state.digest[:12]

    def sign(
        self,
        content: PartyStatement,
        title: str,
        *,
        next_command: str,
        by_signer: bool = False,
        facts: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Show the grant with `facts`, ask, sign and send, as `OfferContext.sign` does."""
        shown = [*grant_facts(self.view, self.grant_state), *facts]
        self.context.sign(
            content, shown, title=title, known=self.view.bundle, next_command=next_command, by_signer=by_signer
        )


def find_own_grant(name: str, **options: Any) -> OwnGrant:
    """The own grant that `name` (first digits of a digest, or a bundle file) selects.

    Raises NotFound, and as `require_own` does.
    """
    context = OfferContext(**options)
    found = context.grant(name)
    return require_own(context, found.view, found.grant_state)


def find_accepted_grant(name: str, **options: Any) -> OwnGrant:
    """As `find_own_grant`; if the grantee has accepted the grant, wait until the provider's node has recorded that.
    With --offline there is nothing to wait for.

    Raises Unavailable (NOT-RECORDED), and as `find_own_grant` does.
    """
    context = OfferContext(**options)
    found = context.grant(name)
    own = require_own(context, found.view, found.grant_state)
    if context.offline or not context.offer_client.awaits_record(found):
        return own
    from comity_client.offers.offer_client import RECORD_TIMEOUT

    output().warn(f"the provider's node has not recorded the acceptance yet; waiting up to {RECORD_TIMEOUT:g} s")
    recorded = context.offer_client.wait_for_record(found)
    return require_own(context, recorded.view, recorded.grant_state)


def require_own(context: OfferContext, view: ChainView, grant_state: GrantState) -> OwnGrant:
    """The grant, if the signer is its grantee. Raises Refused (NOT-YOURS), and as `OfferContext.signer` does."""
    grantee, signer = grant_state.grant.grantee, context.signer.identity
    if grantee != signer:
        raise Refused("not your grant", why=f"its grantee is {grantee[:12]}, and you sign for {signer[:12]}",
                      hint="give your member's home: --node HOME, or your publisher", code="NOT-YOURS")  # fmt: skip
    return OwnGrant(context, view, grant_state)
