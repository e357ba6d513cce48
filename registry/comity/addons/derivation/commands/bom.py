"""`comity bom`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from comity_cli.command import Command, client, examples, output
from comity_cli.files import NEW_FILE

from comity.content import durable


@examples(
    "comity bom ./apertus-8b --out apertus-8b.cdx.json",
    "comity bom swiss-ai/apertus-8b@v1 > apertus-8b.cdx.json",
)
@click.command(cls=Command, name="bom", short_help="Write a CycloneDX ML-BOM of an artifact.")
@click.argument("target", metavar="DIR|REF")
@click.option("--out", "file", type=NEW_FILE, help="Write to this file instead of stdout.")
def command(target: str, file: Path | None) -> None:
    """Write a CycloneDX 1.6 bill of materials of DIR (hashed now, with the evidence beside it) or of REF (from nodes).
    It lists files by digest, and licence, ancestors and documents as the publisher claims them. The same claims give
    the same bytes."""
    from comity.addons.derivation.bom import make_bom

    out, api, folder = output(), client(), Path(target)
    with out.progress("hashing", 0) as progress:
        bill = make_bom(api, folder if folder.is_dir() else target, on_hashed=progress.advance)
    if file is not None:
        durable.write_file(file, bill.encode(), mode=0o644, point="bom")
        out.say(f"CycloneDX 1.6: {file}")
        out.document("bom", {"file": str(file), "components": len(json.loads(bill)["components"])})
    else:
        click.echo(bill, nl=False)
