"""`comity bom`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from comity_cli.command import Command, client, examples, output
from comity_cli.files import NEW_FILE

from comity.content import durable

_TITLES: Final = {"cyclonedx": "CycloneDX 1.7", "spdx": "SPDX 3.0.1"}
_SPDX_COMPONENTS: Final = ("ai_AIPackage", "dataset_DatasetPackage", "software_Package", "software_File")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?)?\Z")


@examples(
    "comity bom ./apertus-8b --out apertus-8b.cdx.json",
    "comity bom swiss-ai/apertus-8b@v1 > apertus-8b.cdx.json",
    "comity bom ./apertus-8b --format spdx --out apertus-8b.spdx.json",
    "comity bom ward-1.json ward-2.json --out site.cdx.json",
)
@click.command(cls=Command, name="bom", short_help="Write a bill of materials of an artifact or a site.")
@click.argument("targets", metavar="DIR|REF|INVENTORY...", nargs=-1, required=True)
@click.option(
    "--format", "form", type=click.Choice(tuple(_TITLES)), default="cyclonedx", help="The standard of the bill."
)
@click.option(
    "--registry", metavar="HOST[:PORT]", default="", help="Registry clients pull it here: for its package URL."
)
@click.option("--out", "file", type=NEW_FILE, help="Write to this file instead of stdout.")
def command(targets: tuple[str, ...], form: str, registry: str, file: Path | None) -> None:
    """Write a bill of materials (CycloneDX 1.7, or SPDX 3.0.1 in JSON-LD) of DIR (hashed now, with the evidence beside
    it) or of REF (from nodes): files by digest, and licence, ancestors and documents as the publisher claims them. Or,
    in CycloneDX, of one INVENTORY or more of different machines (`comity inventory take`): which models lie where, by
    which verdict, and what is warned about. The same claims give the same bytes."""
    out = output()
    if not _HOST.match(registry):
        raise click.BadParameter("expected HOST or HOST:PORT", param_hint="--registry")
    if all(Path(each).is_file() for each in targets):
        if form != "cyclonedx":
            raise click.UsageError("the bill of inventories is in CycloneDX only")
        bill = _of_inventories(targets)
    elif len(targets) == 1:
        bill = _of_artifact(targets[0], form, registry)
    else:
        raise click.UsageError("several are inventories, which are files; a folder or a reference stands alone")
    if file is not None:
        durable.write_file(file, bill.encode(), mode=0o644, point="bom")
        out.say(f"{_TITLES[form]}: {file}")
        out.document("bom", {"file": str(file), "components": _count(json.loads(bill))})
    else:
        click.echo(bill, nl=False)


def _of_artifact(target: str, form: str, registry: str) -> str:
    from comity.addons.derivation.bom import bom_content, write_bom
    from comity.addons.derivation.spdx import write_spdx

    api, folder = client(), Path(target)
    with output().progress("hashing", 0) as progress:
        what = folder if folder.is_dir() else target
        content = bom_content(api, what, registry=registry, on_hashed=progress.advance)
    return write_spdx(content) if form == "spdx" else write_bom(content)


def _of_inventories(files: Sequence[str]) -> str:
    from comity_client.inventory.inventory import read_inventory

    from comity.addons.derivation.site_bom import write_site_bom

    return write_site_bom([read_inventory(Path(each)) for each in files])


def _count(found: Mapping[str, Any]) -> int:
    """The components of a document or of a component, with those in them; of SPDX, the packages and files."""
    if "@graph" in found:
        return sum(each["type"] in _SPDX_COMPONENTS for each in found["@graph"])
    return sum(1 + _count(each) for each in found.get("components", ()))
