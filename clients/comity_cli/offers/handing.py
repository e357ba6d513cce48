"""Files for an engine from a redemption, on the provider's disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comity.content import durable
from comity.trust.encoding import parse_digest
from comity.trust.errors import ComityError
from comity.trust.offers.records import Redemption
from comity_client.hub_environment import endpoint_for_other_machines
from comity_client.offers.handoff import HandOff, Part, render

from comity_cli.command import output

if TYPE_CHECKING:
    from comity_client.offers.market import SentStatement


def build_handoff(
    found: SentStatement[Redemption], engine: str, user: str, endpoint: str, artifact: str, model: str, home: Path
) -> HandOff:
    """The hand-off of a redemption. Raises Malformed (HAND-OFF), NotFound (NO-GRANT)."""
    redemption, view = found.statement, found.view
    grant_state, offer = view.grant(redemption.grant), view.offer
    parts = []
    for given, amount in zip(grant_state.grant.allocations, redemption.amounts, strict=False):
        part = next(p for old in reversed(view.state.offers) if (p := old.slice(given.slice)))
        parts.append(
            Part(part.name, part.vendor, part.accelerator, part.count, given.nodes, given.start, given.end, amount,
                 part.cpus, part.ram_gib, part.disk_gib, part.attributes)
        )  # fmt: skip
    only = offer.artifacts[0] if len(offer.artifacts) == 1 else None
    return HandOff(
        grant=grant_state.digest,
        title=offer.title,
        provider=view.identities.name(offer.provider),
        grantee=view.identities.name(redemption.by),
        measure=offer.measure,
        engine=engine or offer.engine.kind,
        target=offer.engine.target,
        parts=tuple(part for part in parts if part.amount),
        endpoint=endpoint or _endpoint(home),
        artifact=parse_digest(artifact) if artifact else only,
        model=model,
        user=user,
        note=redemption.text,
    )


def write(handoff: HandOff, folder: Path) -> list[str]:
    """Write the files below `folder`; returns their names. Raises Malformed (HAND-OFF), OutOfSpace, Unavailable."""
    files = render(handoff)
    with durable.disk_errors(f"{folder} was not made"):
        durable.make_folders(folder)
    for name, text in files.items():
        durable.write_file(folder / name, text.encode(), mode=0o644, point="hand-off")
    return sorted(files)


def _endpoint(home: Path) -> str:
    """URL of the gateway for jobs on other machines; empty, with a warning, if there is none."""
    try:
        url, why = endpoint_for_other_machines(home), "the gateway listens only for this machine"
    except ComityError as error:
        url, why = "", str(error)
    if not url:
        output().warn(f"the files do not set HF_ENDPOINT: {why}; set url in [gateway] of node.toml, or give --endpoint")
    return url
