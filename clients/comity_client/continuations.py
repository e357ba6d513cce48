"""Say which commit of an upstream an artifact was, and take it back (`comity.rules.continuation`).

What the signer said before about this commit is asked for first: the number of the next statement follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comity.rules.collector import Collector
from comity.rules.continuation import Continues, check_origin, next_statement, stated_by, upstream_key
from comity.rules.signing import sign_content
from comity.trust.errors import Conflict, NotFound
from comity.trust.policy import Policy
from comity.trust.statement import Author

from comity_client.events import OnEvent, ignore_event
from comity_client.evidence.collect import collect
from comity_client.evidence.inquiry import Inquiry
from comity_client.identity_signer import IdentitySigner
from comity_client.publish import LogTargets, PublishReceipt, publish_statement
from comity_client.session import home_target

if TYPE_CHECKING:
    from comity_client.client import Client
    from comity_client.publishers import Publisher


def state_continuation(
    api: Client,
    reference: str,
    origin: str,
    by: Publisher | IdentitySigner,
    *,
    withdraw: bool = False,
    nodes: Sequence[str] = (),
    on_event: OnEvent = ignore_event,
) -> PublishReceipt:
    """Log that the artifact of a reference has the bytes that a commit of an upstream had, or that the signer states
    this no longer.

    Raises Malformed (BAD-ORIGIN, CONTINUES-CORRECTIONS), Conflict (CONTINUES-STATED) if that counts already, Refused
    (NOT-A-SIGNER), and as `Client.publish` and `Client.resolve` do.

    Args:
        origin: such as `hf:org/name@6c12…`.
        by: a publisher, or a member with its governance keys (`IdentitySigner.of_member`).
    """
    signer, commit = IdentitySigner.of(by), check_origin(origin)
    signer.require_complete()
    found = api.resolve(reference)
    wanted = Continues(Author("identity", signer.identity), found.artifact, commit, 0, withdraw)

    async def work(targets: LogTargets) -> PublishReceipt:
        policy = Policy(pins=tuple(pin.body for pin in targets.session.pins), origins=targets.session.origins)
        collector = Collector(upstream_key(wanted.repository), policy, signer.identity)
        try:
            said = (await collect(Inquiry(targets.session, policy), collector)).claims.entries
        except NotFound:
            said = ()
        stated = next_statement(stated_by(said, signer.identity, commit), wanted)
        if stated is None:
            what = "does not state that any artifact" if withdraw else f"states already that {found.title}"
            hint = f"comity show {found.title}"
            raise Conflict(f"{signer.label} {what} continues {commit}", hint=hint, code="CONTINUES-STATED")
        entry = await asyncio.to_thread(sign_content, stated, *signer.signers)
        return await publish_statement(targets, found.title, entry, signer.lines)

    return api.log(work, nodes or home_target(signer.home), on_event)
