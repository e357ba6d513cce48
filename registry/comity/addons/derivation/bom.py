"""Write an artifact as a CycloneDX ML-BOM, version 1.6: files, claims of the publisher, vouches, all by digest.

The same artifact and claims give the same bytes: the document has no time, and its serial number is derived from the
artifact. The properties name the author of each claim, because the standard has no other field for it. Source:
CycloneDX 1.6 (ECMA-424), JSON schema.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity_client.artifact_client import ArtifactClient
from comity_client.cyclonedx import Component, bom_text, comity_property, licence_item, sha256_hashes
from comity_client.evidence.artifact_info import ArtifactInfo
from comity_client.pull.destinations import LocalCopy

from comity.trust.artifact import Manifest
from comity.trust.claims import Publication, Vouch, verify_vouches
from comity.trust.encoding import Digest
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.statement import SideObject
from comity.trust.statements import Parent
from comity.trust.verify import counted_publication

MAX_CONFIG: Final = 1024 * 1024
_REFERENCES: Final = {"card": "model-card", "training-summary": "documentation", "evaluation": "quality-metrics"}


@frozen
class BomContent:
    """The content of a BOM: the manifest, its proven publication if there is one, vouches of others, and config.json if
    it is available."""

    manifest: Manifest
    publication: Publication | None
    vouches: tuple[Vouch, ...] = ()
    config: bytes = b""


def make_bom(client: ArtifactClient, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> str:
    """Return a CycloneDX ML-BOM of a folder, which is hashed, or of the artifact of a reference, as nodes describe
    it. Raises as `ArtifactClient.local_copy` and `show` do."""
    if isinstance(what, Path):
        return write_bom(bom_of_folder(client.local_copy(what, on_hashed=on_hashed), client.policy()))
    return write_bom(bom_of_artifact(client.show(what)))


def bom_of_folder(local: LocalCopy, policy: Policy) -> BomContent:
    """Return the BOM content of a folder with its evidence pack, by the publication that a verdict follows."""
    config = local.manifest.by_path.get("config.json")
    data = (local.folder / "config.json").read_bytes() if config and config.size <= MAX_CONFIG else b""
    evidence = replace(local.evidence, manifest=local.manifest.encode())
    chosen = counted_publication(evidence, policy, EvidenceReader())
    vouches, _ = verify_vouches(local.readings, local.artifact, local.readings.authors(policy.pins))
    return BomContent(local.manifest, chosen, vouches, data)


def bom_of_artifact(info: ArtifactInfo) -> BomContent:
    """Return the BOM content as nodes describe the artifact; the bytes are not read."""
    return BomContent(info.manifest, info.current, info.vouches)


def write_bom(described: BomContent) -> str:
    """Return the document as JSON."""
    artifact = described.manifest.digest
    components = [_file(entry.path, entry.sha256) for entry in described.manifest.files]
    dependencies = [{"ref": artifact_ref(artifact), "dependsOn": sorted(_refs(described.manifest))}]
    return bom_text(artifact, {"component": _model(described)}, components, dependencies=dependencies)


def _model(described: BomContent) -> Component:
    artifact, publication = described.manifest.digest, described.publication
    model: Component = {
        "type": "machine-learning-model",
        "bom-ref": artifact_ref(artifact),
        "name": f"sha256:{artifact}",
        "hashes": sha256_hashes(artifact),
        "modelCard": _card(described.config),
        "properties": list(_properties(described)),
    }
    if publication is None:
        return model
    published = publication.published
    model |= {"group": published.name.namespace, "name": published.name.name, "version": published.name.version}
    model |= {"publisher": publication.publisher.display, "licenses": [licence_item(published.licence.spdx)]}
    if references := [_reference(kind, item) for kind, item in sorted(published.documents.items())]:
        model["externalReferences"] = references
    if published.lineage:
        model["pedigree"] = {
            "ancestors": [_ancestor(parent) for parent in published.lineage],
            "notes": _notes(published.lineage),
        }
    return model


def _card(config: bytes) -> Component:
    """Return the architecture that config.json names. The file is untrusted input."""
    try:
        found = json.loads(config) if config else {}
    except (ValueError, RecursionError):
        found = {}
    parameters: Component = {}
    if isinstance(found, Mapping):
        family, architectures = found.get("model_type"), found.get("architectures")
        if isinstance(family, str):
            parameters["architectureFamily"] = family[:200]
        if isinstance(architectures, Sequence) and architectures and isinstance(architectures[0], str):
            parameters["modelArchitecture"] = architectures[0][:200]
    return {"modelParameters": parameters} if parameters else {}


def _properties(described: BomContent) -> Iterator[Mapping[str, str]]:
    yield comity_property("artifact", f"sha256:{described.manifest.digest}")
    yield comity_property("bytes", str(described.manifest.size))
    if (publication := described.publication) is not None:
        published = publication.published
        yield comity_property("claimed-by", publication.publisher.id)
        yield comity_property("statement", publication.entry.digest)
        if published.licence.text is not None:
            yield comity_property("licence-text", f"sha256:{published.licence.text.digest}")
    for vouch in described.vouches:
        yield comity_property(f"vouched:{vouch.vouched.kind}", f"claimed by {vouch.by.name}")


def _reference(kind: str, item: SideObject) -> Component:
    return {"type": _REFERENCES[kind], "url": _ni(item.digest), "comment": kind, "hashes": sha256_hashes(item.digest)}


def _ancestor(parent: Parent) -> Component:
    ancestor: Component = {"type": "machine-learning-model", "name": parent.name}
    if parent.digest is not None:
        ancestor |= {"hashes": sha256_hashes(parent.digest), "bom-ref": f"ancestor:{artifact_ref(parent.digest)}"}
    return ancestor


def _notes(lineage: Sequence[Parent]) -> str:
    edges = (f"{p.relation} of {p.name}{'' if p.digest else ', by name only'}" for p in lineage)
    return f"claimed by the publisher: {'; '.join(edges)}"


def _file(path: str, digest: Digest) -> Component:
    return {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": sha256_hashes(digest)}


def _refs(manifest: Manifest) -> Iterator[str]:
    return (f"file:{entry.path}" for entry in manifest.files)


def artifact_ref(artifact: Digest) -> str:
    return f"sha256:{artifact}"


def _ni(digest: Digest) -> str:
    """Return the ni URI of an object, RFC 6920."""
    name = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()
    return f"ni:///sha-256;{name}"
