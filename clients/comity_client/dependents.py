"""What depends on a party besides copies of artifacts: on vendors of hardware, the package index, the update channel.

    hardware-root    open offers with evidence of machines that is appraised by a root of this vendor. Without it no new
                     evidence is made; what was logged is appraised by the roots that everybody pinned
    package-index    artifacts that say which packages they need and contain none, as one node counts by the names of
                     their files. They are pulled and verified without it, and not installed
    update-channel   nothing: no node asks it. A node runs what its operator installed

Offers are what providers log; what an offer without evidence depends on is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from comity.rules.descent import DescentQuestion
from comity.rules.hardware_evidence import KINDS, DeviceResult, HardwareEvidence, not_appraised
from comity.rules.parties import HARDWARE_ROOT, PACKAGE_INDEX, UPDATE_CHANNEL, Party
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.wire.client import NodeClient
from comity.wire.offer import OfferQuery

from comity_client.descent import descent_of_federation
from comity_client.offers.attestation import fetch_attestations
from comity_client.offers.offer_client import fetch_chains, search_offers
from comity_client.offers.views import ChainView
from comity_client.session import Session

MAX_OFFERS: Final = 100
"""Offers whose evidence is read: those that most nodes name."""
VENDORS: Final = tuple(sorted({kind.partition("-")[0] for kind in KINDS}))
"""The names of parties of the kind HARDWARE_ROOT: how the kinds of evidence begin."""
FURTHER_PARTIES: Final = (
    *(Party(HARDWARE_ROOT, vendor) for vendor in VENDORS),
    Party(PACKAGE_INDEX, ""),
    Party(UPDATE_CHANNEL, ""),
)


@frozen
class Dependents:
    """What depends on a party.

    Attributes:
        count: of offers or artifacts; None where it is not known.
        first: the names of the first of them.
        why: why nothing depends on it, why it is not known, or what they lose.
        source: the node that counted artifacts; empty where none did.
    """

    party: Party
    count: int | None
    first: tuple[str, ...]
    why: str
    source: str = ""


async def find_dependents(session: Session, node: str, parties: Iterable[Party]) -> dict[Party, Dependents]:
    """What depends on each of these parties, which are of FURTHER_PARTIES. `node` counts artifacts, or the first node
    that answers."""
    found, asked = dict[Party, Dependents](), list(parties)
    if any(party.kind == HARDWARE_ROOT for party in asked):
        found |= await _of_vendors(session)
    if Party(PACKAGE_INDEX, "") in asked:
        found[Party(PACKAGE_INDEX, "")] = await _of_package_index(session, node)
    update = Party(UPDATE_CHANNEL, "")
    found[update] = Dependents(update, 0, (), "nothing asks it: a node runs what its operator installed")
    return {party: found[party] for party in asked}


async def _of_vendors(session: Session) -> dict[Party, Dependents]:
    parties = [Party(HARDWARE_ROOT, vendor) for vendor in VENDORS]
    try:
        chains = await search_offers(session, OfferQuery())
    except ComityError as error:
        return {party: Dependents(party, None, (), f"offers are not known: {error}") for party in parties}
    views = [each.view for each in await fetch_chains(session, sorted(chains[:MAX_OFFERS]))]
    hardware = await fetch_attestations(session, views, _devices, 0)
    missing = [view for view in views if any(each.missing for each in hardware[view.state.chain].attestations)]
    unread = len(chains) - len(views) + len(missing)
    vendors = {
        view.state.chain: {
            device.kind.partition("-")[0]
            for attestation in hardware[view.state.chain].attestations
            for device in attestation.devices
        }
        for view in views
    }
    return {party: _of_vendor(party, views, vendors, unread) for party in parties}


def _devices(evidence: HardwareEvidence, nonce: bytes, at: int) -> tuple[DeviceResult, ...]:
    """The devices alone: by whose root they are appraised follows from their kinds."""
    return not_appraised(evidence, nonce, at)


def _of_vendor(party: Party, views: Sequence[ChainView], vendors: dict[Digest, set[str]], unread: int) -> Dependents:
    names = tuple(_offer_name(view) for view in views if party.name in vendors[view.state.chain])
    if names:
        return Dependents(party, len(names), names, "new evidence of these offers is not appraised without it")
    if unread:
        return Dependents(party, None, (), f"the evidence of {unread} offers was not read")
    return Dependents(party, 0, (), "no open offer has evidence that its root appraises")


def _offer_name(view: ChainView) -> str:
    provider = view.provider.record.name if view.provider else "unknown provider"
    return f"{provider} {short(view.state.chain)}"


async def _of_package_index(session: Session, node: str) -> Dependents:
    party = Party(PACKAGE_INDEX, "")
    try:
        shares = await descent_of_federation(session, node, DescentQuestion(), {})
    except ComityError as error:
        return Dependents(party, None, (), f"no node counts such artifacts: {error}")
    if shares.requiring:
        names = await _artifact_names(session, shares.source, shares.first_requiring)
        return Dependents(
            party, shares.requiring, names, "they are pulled and verified without it, and not installed", shares.source
        )
    if shares.unread or shares.unsized:
        return Dependents(party, None, (), f"{shares.source} has not read the files of all artifacts", shares.source)
    return Dependents(party, 0, (), "no artifact names packages without containing some", shares.source)


async def _artifact_names(session: Session, source: str, artifacts: Sequence[Digest]) -> tuple[str, ...]:
    """The claimed names of artifacts, as the node `source` knows them; else their digests."""
    try:
        names = await session.named(source).ask(partial(_ask_names, artifacts=tuple(artifacts)))
    except ComityError:
        names = {}
    return tuple(names.get(artifact, short(artifact)) for artifact in artifacts)


async def _ask_names(node: NodeClient, artifacts: tuple[Digest, ...]) -> dict[Digest, str]:
    page = await node.audits.copies(None, None, None, artifacts)
    return {listed.artifact: listed.name for listed in page.artifacts if listed.name}
