"""`comity bom`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from comity_cli.command import Command, client, examples, output

OUT = click.Path(dir_okay=False, path_type=Path)


@examples(
    "comity bom ./apertus-8b --output apertus-8b.cdx.json",
    "comity bom swiss-ai/apertus-8b@v1 > apertus-8b.cdx.json",
)
@click.command(cls=Command, name="bom", short_help="Write an artifact down as a CycloneDX ML-BOM.")
@click.argument("target", metavar="DIR|REF")
@click.option("--output", "file", type=OUT, help="Write it here instead of printing it.")
def command(target: str, file: Path | None) -> None:
    """Write a CycloneDX 1.6 bill of DIR (hashed now, with the evidence beside it) or of REF (as nodes tell it): files
    by digest, licence, ancestors and documents as its publisher claims them. The same claims give the same bytes."""
    out, api, folder = output(), client(), Path(target)
    with out.progress("hashing", 0) as progress:
        bill = api.bom(folder if folder.is_dir() else target, on_hashed=progress.advance)
    if file is not None:
        file.write_text(bill, "utf-8")
        out.say(f"CycloneDX 1.6: {file}")
        out.document("bom", {"file": str(file), "components": len(json.loads(bill)["components"])})
    else:
        click.echo(bill, nl=False)
