"""`comity refound`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from comity.content import durable

from comity_cli.charter.context import CharterContext, reading_options
from comity_cli.charter.rendering import show_charter
from comity_cli.command import Command, examples, output
from comity_cli.files import FILE, out_option


@examples(
    "comity refound node-card-*.json --out genesis.json",
    "comity found consent genesis.json --node node-ch --out consent-ch.line",
    "comity found seal genesis.json consent-*.line node-card-*.json --out federation.json",
)
@click.command(cls=Command, name="refound", short_help="Found a successor of a federation that lost its quorum.")
@click.argument("cards", nargs=-1, required=True, type=FILE)
@out_option("genesis.json")
@reading_options
def command(cards: tuple[Path, ...], target: Path, **options: Any) -> None:
    """Draft a genesis charter whose predecessor is a federation that lost its quorum permanently; the namespaces
    stay with their publishers. Every member of the new federation consents, and every client decides whether to pin it.
    Nothing else depends on a federation's id: files, logs, proofs and identities stay unchanged."""
    from comity_client.founding import draft_genesis
    from comity_client.node_card import NodeCard

    out = output()
    lost = CharterContext(**options).charter_state.current
    body = draft_genesis([NodeCard.read(path) for path in cards], predecessor=lost)
    durable.write_file(target, body.data, mode=0o644, point="genesis")
    out.say(f"Successor of federation {lost.federation}, whose last charter is of epoch {lost.epoch}")
    show_charter(out, body)
    out.hint(f"each member: comity found consent {target} --node NODE-HOME --out consent-NAME.line")
