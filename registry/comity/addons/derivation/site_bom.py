"""Write the inventories of a site's machines as one CycloneDX ML-BOM, version 1.7: each machine with the models that
lie on its disks, where, by which verdict, and the files that no artifact has; and the advisories as vulnerabilities.

The same inventories give the same bytes. Source: CycloneDX 1.7 (ECMA-424), JSON schema.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from comity_client.cyclonedx import Component, bom_text, comity_property, sha256_hashes
from comity_client.inventory.inventory import Inventory, InventoryArtifact, InventoryFile, InventoryWarning

from comity.addons.derivation.bom import artifact_ref
from comity.trust.encoding import Digest, canonical, format_time, sha256
from comity.trust.errors import ComityError, Malformed
from comity.trust.names import Name

_OF_NO_ARTIFACT: Final = ("unknown", "unsure")


def write_site_bom(inventories: Sequence[Inventory]) -> str:
    """Return the document as JSON. Raises Malformed (INVENTORY) for two inventories of one machine."""
    machines = sorted(inventories, key=lambda each: each.machine)
    names = [each.machine for each in machines]
    if len(set(names)) < len(names):
        why = f"two of {', '.join(names)} have the same name"
        raise Malformed("these inventories are not of different machines", why=why, code="INVENTORY")
    metadata = {
        "timestamp": format_time(max(each.taken for each in machines)),
        "component": {"type": "platform", "bom-ref": "site", "name": ", ".join(names)},
    }
    seed = sha256(canonical([[each.machine, each.taken] for each in machines]))
    components = [_machine(each) for each in machines]
    return bom_text(seed, metadata, components, vulnerabilities=list(_vulnerabilities(machines)))


def _machine(inventory: Inventory) -> Component:
    places = _places(inventory)
    models = [_model(inventory, each, places[each.artifact]) for each in inventory.artifacts]
    rest = {_file_ref(inventory, file): file for file in inventory.files if file.known in _OF_NO_ARTIFACT}
    properties = [comity_property("taken", format_time(inventory.taken))]
    properties += [comity_property("looked-at", path) for path in inventory.paths]
    properties += [comity_property("not-read", f"{each.path}: {each.problem}") for each in inventory.unread]
    if inventory.policy is not None:
        properties.append(comity_property("policy", f"sha256:{inventory.policy}"))
    return {
        "type": "device",
        "bom-ref": f"machine:{inventory.machine}",
        "name": inventory.machine,
        "properties": properties,
        "components": [*models, *(_file(ref, file) for ref, file in rest.items())],
    }


def _places(inventory: Inventory) -> Mapping[Digest, list[Component]]:
    """Where each artifact is, as occurrences."""
    found = defaultdict[Digest, list[Component]](list)
    for folder in inventory.folders:
        about = f"{folder.state}: {folder.present} of {folder.files} files, since {format_time(folder.since)}"
        found[folder.artifact].append({"location": folder.path, "additionalContext": about})
    for file in inventory.files:
        if file.artifact is not None:
            about = f"the file {file.named}, since {format_time(file.since)}"
            found[file.artifact].append({"location": file.path, "additionalContext": about})
    return found


def _model(inventory: Inventory, held: InventoryArtifact, places: list[Component]) -> Component:
    properties = [comity_property("artifact", f"sha256:{held.artifact}"), comity_property("verdict", held.verdict)]
    if held.why:
        properties.append(comity_property("verdict-because", held.why))
    return {
        "type": "machine-learning-model",
        "bom-ref": _model_ref(inventory, held.artifact),
        "hashes": sha256_hashes(held.artifact),
        "evidence": {"occurrences": places},
        "properties": properties,
        **_named(held.title),
    }


def _named(title: str) -> Mapping[str, str]:
    try:
        name = Name.parse(title)
    except ComityError:
        return {"name": title}
    return {"group": name.namespace, "name": name.name, "version": name.version}


def _file(ref: str, file: InventoryFile) -> Component:
    properties = [comity_property("known", file.known), comity_property("since", format_time(file.since))]
    hashes = sha256_hashes(file.sha256)
    return {"type": "file", "bom-ref": ref, "name": file.path, "hashes": hashes, "properties": properties}


def _vulnerabilities(machines: Sequence[Inventory]) -> Iterator[Component]:
    """Each advisory once, with the models of all machines that it is about."""
    affected = defaultdict[tuple[Digest, InventoryWarning], list[str]](list)
    for inventory in machines:
        for held in inventory.artifacts:
            for warning in held.advisories:
                affected[held.artifact, warning].append(_model_ref(inventory, held.artifact))
    told = {sha256(canonical([artifact, warning.to_json()])): (warning, artifact) for artifact, warning in affected}
    for digest, (warning, artifact) in sorted(told.items()):
        by = "its publisher" if warning.by_publisher else f"sha256:{warning.by}"
        yield {
            "bom-ref": f"advisory:{digest}",
            "id": f"comity-{warning.kind}-{digest[:12]}",
            "description": f"{warning.kind}: {warning.text}",
            "ratings": [{"severity": warning.severity}],
            "affects": [{"ref": ref} for ref in affected[artifact, warning]],
            "properties": [comity_property("claimed-by", by), comity_property("about", artifact_ref(artifact))],
        }


def _model_ref(inventory: Inventory, artifact: Digest) -> str:
    return f"machine:{inventory.machine}/{artifact_ref(artifact)}"


def _file_ref(inventory: Inventory, file: InventoryFile) -> str:
    return f"machine:{inventory.machine}:{file.path}:{file.sha256[:16]}"
