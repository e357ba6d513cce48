"""The grantee's side: one own grant, and the statements that its grantee signs about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comity.trust.encoding import Digest
from comity.trust.errors import Refused
from comity.trust.offers.chain import GrantState
from comity.trust.offers.records import PartyStatement

from comity_cli.command import output
from comity_cli.offers.context import OfferContext
from comity_cli.offers.rendering import grant_facts

if TYPE_CHECKING:
    from comity_client.offers.views import ChainView


@dataclass(frozen=True, slots=True)
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
