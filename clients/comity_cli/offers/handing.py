"""From a redemption to the texts for an engine, on the provider's disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comity.content import durable
from comity.trust.encoding import parse_digest
from comity.trust.errors import ComityError
from comity.trust.offers.records import Redemption
from comity_client.hub_environment import endpoint_for_others
from comity_client.offers.handoff import HandOff, Part, render

from comity_cli.command import output

if TYPE_CHECKING:
    from comity_client.offers.market import SentStatement


def facts_of(
    asked: SentStatement[Redemption], engine: str, user: str, endpoint: str, artifact: str, model: str, home: Path
) -> HandOff:
    """What is handed over for a redemption. Raises Malformed (HAND-OFF), NotFound (NO-GRANT)."""
    said, view = asked.said, asked.view
    held, offer = view.grant(said.grant), view.offer
    parts = []
    for given, amount in zip(held.grant.allocations, said.amounts, strict=False):
        part = next(p for old in reversed(view.book.offers) if (p := old.slice(given.slice)))
        parts.append(
            Part(part.name, part.vendor, part.accelerator, part.count, given.nodes, given.start, given.end, amount,
                 part.cpus, part.ram_gib, part.disk_gib, part.attributes)
        )  # fmt: skip
    only = offer.artifacts[0] if len(offer.artifacts) == 1 else None
    return HandOff(
        grant=held.digest,
        title=offer.title,
        provider=view.circle.name(offer.provider),
        grantee=view.circle.name(said.by),
        measure=offer.measure,
        engine=engine or offer.engine.kind,
        target=offer.engine.target,
        parts=tuple(part for part in parts if part.amount),
        endpoint=endpoint or _endpoint(home),
        artifact=parse_digest(artifact) if artifact else only,
        model=model,
        user=user,
        note=said.text,
    )


def write(facts: HandOff, folder: Path) -> list[str]:
    """Render, and write the texts below `folder`; their names. Raises Malformed (HAND-OFF), OutOfSpace, Unavailable."""
    files = render(facts)
    with durable.disk_errors(f"{folder} was not made"):
        durable.make_folders(folder)
    for name, text in files.items():
        durable.write_file(folder / name, text.encode(), mode=0o644, point="hand-off")
    return sorted(files)


def _endpoint(home: Path) -> str:
    """What jobs on other machines can be told; empty, and said, where there is nothing."""
    try:
        url, why = endpoint_for_others(home), "only this machine reaches the gateway where it listens"
    except ComityError as error:
        url, why = "", str(error)
    if not url:
        output().warn(f"the texts set no HF_ENDPOINT: {why}; set url in [gateway] of node.toml, or give --endpoint")
    return url
