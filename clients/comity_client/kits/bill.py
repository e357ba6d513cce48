"""The bill of all parts of a kit, in CycloneDX 1.6: distributions with their package URLs, weights, and other files.

It names no version of this product and no time, so that the same parts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.rules.kits.description import WEIGHTS, WHEEL, KitPart
from comity.trust.encoding import canonical, sha256

from comity_client.cyclonedx import Component, bom_text, licence_item, sha256_hashes

_TYPES: Final = {WHEEL: "library", WEIGHTS: "machine-learning-model"}


def kit_bill(name: str, engine: tuple[str, str], parts: Sequence[KitPart]) -> bytes:
    """The document about these parts.

    Args:
        name: of the kit.
        engine: its name and version.
    """
    own = {"type": "application", "bom-ref": "kit", "name": name, "description": f"run-kit of {' '.join(engine)}"}
    metadata = {"tools": {"components": [{"type": "application", "name": "comity"}]}, "component": own}
    listed = [part.to_json() for part in parts]
    depends = [{"ref": "kit", "dependsOn": sorted(f"part:{part.path}" for part in parts)}]
    text = bom_text(sha256(canonical(listed)), metadata, list(map(_component, parts)), dependencies=depends)
    return text.encode()


def _component(part: KitPart) -> Component:
    made: Component = {
        "type": _TYPES.get(part.kind, "file"),
        "bom-ref": f"part:{part.path}",
        "name": part.name or part.path,
        "hashes": sha256_hashes(part.sha256),
        "properties": [{"name": "comity:path", "value": part.path}],
    }
    if part.version:
        made["version"] = part.version
    if part.licence:
        made["licenses"] = [licence_item(part.licence)]
    if part.kind == WHEEL:
        made["purl"] = f"pkg:pypi/{part.name}@{part.version}"
    return made
