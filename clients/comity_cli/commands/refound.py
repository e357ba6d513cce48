"""`comity refound`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from comity.content import durable

from comity_cli.command import Command, examples, output
from comity_cli.files import FILE, out_option
from comity_cli.charter.charters import show_charter
from comity_cli.charter.office import Office, reading_options


@examples(
    "comity refound node-card-*.json --out genesis.json",
    "comity found consent genesis.json --dir node-ch --out consent-ch.line",
    "comity found seal genesis.json consent-*.line --cards node-card-*.json --out federation.json",
)
@click.command(cls=Command, name="refound", short_help="Found a federation anew after its quorum is lost.")
@click.argument("cards", nargs=-1, required=True, type=FILE)
@out_option("genesis.json")
@reading_options
def command(cards: tuple[Path, ...], target: Path, **options: Any) -> None:
    """Draft a genesis that names the federation whose quorum is lost for good as its predecessor; its namespaces
    stay with their publishers. Everybody who takes part consents, and every owner decides whether to pin it.
    Nothing else depends on a federation's id: bytes, logs, proofs and identities stay as they are."""
    from comity_client.founding import NodeCard, draft_genesis

    out = output()
    lost = Office(**options).sitting.current
    body = draft_genesis([NodeCard.read(path) for path in cards], predecessor=lost)
    durable.write_file(target, body.data, mode=0o644, point="genesis")
    out.say(f"Successor of federation {lost.federation}, whose last charter is of epoch {lost.epoch}")
    show_charter(out, body)
    out.hint(f"each member: comity found consent {target} --dir NODE-HOME --out consent-NAME.line")
