"""The drill of a pact: its grantee declares itself cut off, marked as a drill.

By the rules of pacts that has no effect: no node lets anything be redeemed by it. So nothing is lost if the machine of
a drill dies before the end is logged. Source: protocol, section 9.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comity.rules.offers.records import CutOff, Redemption
from comity.trust.encoding import Digest, format_time, short
from comity.trust.errors import Refused, Untrusted
from comity.trust.statement import Entry

from comity_client.identity_signer import IdentitySigner
from comity_client.session import HomeNode

if TYPE_CHECKING:
    from comity_client.offers.offer_client import FoundGrant, OfferClient


def signed_drill(signer: IdentitySigner, found: FoundGrant, text: str) -> tuple[tuple[str, Entry], ...]:
    """A declaration that is marked as a drill, and the redemption that would follow, which is for no log; each with its
    name. Raises as `IdentitySigner.sign` does."""
    chain, grant = found.view.state.chain, found.grant_state
    declared = CutOff(signer.identity, chain, grant.digest, True, text)
    asked = Redemption(signer.identity, chain, grant.digest, grant.left, grant.newest, text)
    return ("the declaration", signer.sign(declared)), ("a redemption", signer.sign(asked))


@dataclass
class DeclaredDrill:
    """Declares that the grantee of `pact` is cut off, marked as a drill, at `node`, or at the home node of its signer.

    Not thread-safe.
    """

    pact: Digest
    signer: IdentitySigner
    node: str = ""
    _begun: tuple[OfferClient, FoundGrant] | None = field(default=None, repr=False)

    def begin(self, offers: OfferClient) -> str:
        """Sign, check as the provider's node would, and log. Raises NotFound, Refused, Untrusted, Unavailable."""
        found = offers.grant(self.pact)
        if found.grant_state.grant.grantee != self.signer.identity:
            raise Refused("not your pact", why=f"you sign for {short(self.signer.identity)}", code="NOT-YOURS")
        self._begun = offers, found
        where = self._log("drill begun")
        return f"declared, marked as a drill, for pact {short(self.pact)}: {where}"

    def end(self) -> str:
        """Log that the drill has ended; nothing, where it was not begun."""
        return f"the declaration has ended: {self._log('drill ended')}" if self._begun else "nothing was declared"

    def _log(self, what: str) -> str:
        assert self._begun is not None
        offers, found = self._begun
        signed = signed_drill(self.signer, found, f"{what} {format_time(int(time.time()))}")
        for name, entry in signed:
            if found.view.identities.by_identity(entry) is False:
                raise Untrusted(f"{name} does not verify", why="your keys are not those that the federation knows")
        ((_, declared), _) = signed
        name, indexes = offers.deliver([*self.signer.lines, declared.line], self.node or HomeNode(self.signer.home))
        return f"entry {indexes[-1]} of the log of {name}"
