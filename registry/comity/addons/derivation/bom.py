"""Write an artifact as a CycloneDX ML-BOM, version 1.7: files, claims of the publisher, vouches, all by digest.

The same artifact and claims give the same bytes: the document has no time, and its serial number is derived from the
artifact. The properties name the author of each claim: the citations of the standard require a time, and a publication
has none. Sources: CycloneDX 1.7 (ECMA-424), JSON schema; package-url/purl-spec, types `huggingface` and `oci`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from comity_client.artifact_client import ArtifactClient
from comity_client.cyclonedx import Component, bom_text, comity_property, licence_item, sha256_hashes
from comity_client.evidence.artifact_info import ArtifactInfo
from comity_client.pull.destinations import LocalCopy

from comity.rules.artifact_kind import ADAPTER, MODEL, bases, claimed_kind
from comity.rules.model_pack import pack_image
from comity.trust.artifact import Manifest
from comity.trust.claims import Publication, Vouch, collect_mirror_evidence, verify_vouches
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.key_validity import key_circumstances
from comity.trust.names import UPSTREAM
from comity.trust.policy import Policy
from comity.trust.statement import SideObject
from comity.trust.statements import Parent
from comity.trust.upstream import HUB, Upstream, check_commit, check_repository
from comity.trust.verify import counted_publication

MAX_CONFIG: Final = 1024 * 1024
_REFERENCES: Final = {"card": "model-card", "training-summary": "documentation", "evaluation": "quality-metrics"}
_HUB: Final = "https://huggingface.co"


@frozen
class BomContent:
    """The content of a BOM: the manifest, its proven publication if there is one, vouches of others, and config.json if
    it is available. `kind`: what the publisher states, else a model. `upstream`: where nodes of members state that they
    got the bytes. `registry`: the host by which registry clients reach the image, as the caller says."""

    manifest: Manifest
    publication: Publication | None
    vouches: tuple[Vouch, ...] = ()
    config: bytes = b""
    kind: str = MODEL
    upstream: Upstream | None = None
    registry: str = ""

    @property
    def is_model(self) -> bool:
        return self.kind in (MODEL, ADAPTER)


def bom_content(
    client: ArtifactClient, what: Path | str, *, registry: str = "", on_hashed: Callable[[int], None] | None = None
) -> BomContent:
    """Return what a BOM says of a folder, which is hashed, or of the artifact of a reference, as nodes describe it.
    Raises as `ArtifactClient.local_copy` and `show` do."""
    if isinstance(what, Path):
        found = bom_of_folder(client.local_copy(what, on_hashed=on_hashed), client.policy())
    else:
        found = bom_of_artifact(client.show(what))
    return replace(found, registry=registry)


def bom_of_folder(local: LocalCopy, policy: Policy) -> BomContent:
    """Return the BOM content of a folder with its evidence pack, by the publication that a verdict follows."""
    config = local.manifest.by_path.get("config.json")
    data = (local.folder / "config.json").read_bytes() if config and config.size <= MAX_CONFIG else b""
    evidence = replace(local.evidence, manifest=local.manifest.encode())
    chosen = counted_publication(evidence, policy, EvidenceReader())
    readings, artifact = local.readings, local.artifact
    vouches, _ = verify_vouches(readings, artifact, readings.authors(policy.pins))
    given = key_circumstances(evidence, readings, policy, EvidenceReader())
    kind = claimed_kind(given, chosen.publisher.id, artifact) if chosen else MODEL
    mirroring = collect_mirror_evidence(readings.entries, artifact, given.bound)
    return BomContent(local.manifest, chosen, vouches, data, kind, mirroring.upstream)


def bom_of_artifact(info: ArtifactInfo) -> BomContent:
    """Return the BOM content as nodes describe the artifact; the bytes are not read."""
    return BomContent(info.manifest, info.current, info.vouches, b"", info.kind, info.mirroring.upstream)


def write_bom(described: BomContent) -> str:
    """Return the document as CycloneDX, in JSON."""
    artifact = described.manifest.digest
    components = [_file(entry.path, entry.sha256) for entry in described.manifest.files]
    needed = {*_refs(described.manifest), *_base_refs(described)}
    dependencies = [{"ref": artifact_ref(artifact), "dependsOn": sorted(needed)}]
    return bom_text(artifact, {"component": _model(described)}, components, dependencies=dependencies)


def _model(described: BomContent) -> Component:
    artifact, publication = described.manifest.digest, described.publication
    model: Component = {
        "type": "machine-learning-model" if described.is_model else "data",
        "bom-ref": artifact_ref(artifact),
        "name": f"sha256:{artifact}",
        "hashes": sha256_hashes(artifact),
        "properties": list(_properties(described)),
    }
    if described.is_model:
        model["modelCard"] = _card(described.config)
    if references := list(_references(described)):
        model["externalReferences"] = references
    if (purl := image_purl(described) or upstream_purl(described)) is not None:
        model["purl"] = purl
    if publication is None:
        return model
    published = publication.published
    model |= {"group": published.name.namespace, "name": published.name.name, "version": published.name.version}
    model |= {"publisher": publication.publisher.display, "licenses": [licence_item(published.licence.spdx)]}
    if published.lineage:
        model["pedigree"] = {
            "ancestors": list(_ancestors(published.lineage)),
            "notes": _notes(published.lineage),
        }
    return model


def image_purl(described: BomContent) -> str | None:
    """Return the package URL of the artifact's image, by digest; None without a publication, which gives the name, and
    for an artifact that has no image."""
    if described.publication is None or (image := pack_image(described.manifest)) is None:
        return None
    name = described.publication.published.name
    purl = f"pkg:oci/{name.name.lower()}@{quote(f'sha256:{image.manifest.digest}', safe=':')}"
    place = f"{described.registry}/{name.namespace}/{name.name}".lower()
    return f"{purl}?repository_url={quote(place, safe=':/')}" if described.registry else purl


def upstream_purl(described: BomContent) -> str | None:
    """Return the package URL of the commit of a Hub that nodes of members mirrored; None if none did, and for other
    upstreams, whose commits no package URL names."""
    found = described.upstream
    return hub_purl(found.repository, found.commit, found.endpoint) if found and found.kind == HUB else None


def hub_purl(repository: str, commit: str, endpoint: str = "") -> str:
    """Return the package URL of a commit of a repository at a Hub."""
    purl = f"pkg:huggingface/{quote(repository)}@{commit}"
    return f"{purl}?repository_url={quote(endpoint, safe=':/')}" if endpoint not in ("", _HUB) else purl


def parent_purl(parent: Parent) -> str | None:
    """Return the package URL of a parent that is named as a commit of a Hub, else None."""
    repository, _, commit = parent.name.removeprefix(UPSTREAM).partition("@")
    if not parent.name.startswith(UPSTREAM):
        return None
    try:
        return hub_purl(check_repository(repository), check_commit(commit))
    except Malformed:
        return None


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
    yield comity_property("kind", described.kind)
    yield comity_property("bytes", str(described.manifest.size))
    if (publication := described.publication) is not None:
        published = publication.published
        yield comity_property("claimed-by", publication.publisher.id)
        yield comity_property("statement", publication.entry.digest)
        if published.licence.text is not None:
            yield comity_property("licence-text", f"sha256:{published.licence.text.digest}")
    for vouch in described.vouches:
        yield comity_property(f"vouched:{vouch.vouched.kind}", f"claimed by {vouch.by.name}")


def _references(described: BomContent) -> Iterator[Component]:
    if (publication := described.publication) is not None:
        yield from (_reference(kind, item) for kind, item in sorted(publication.published.documents.items()))
        digest = publication.entry.digest
        comment = "the statement that the publisher signed"
        yield {"type": "digital-signature", "url": _ni(digest), "comment": comment, "hashes": sha256_hashes(digest)}
        if (purl := upstream_purl(described)) is not None:
            yield {"type": "distribution", "url": purl, "comment": "the same bytes, as nodes of members state"}


def _reference(kind: str, item: SideObject) -> Component:
    return {"type": _REFERENCES[kind], "url": _ni(item.digest), "comment": kind, "hashes": sha256_hashes(item.digest)}


def _ancestor(parent: Parent) -> Component:
    ancestor: Component = {"type": "machine-learning-model", "name": parent.name}
    if parent.digest is not None:
        ancestor |= {"hashes": sha256_hashes(parent.digest)}
    if (purl := parent_purl(parent)) is not None:
        ancestor["purl"] = purl
    return ancestor


def _ancestors(lineage: Sequence[Parent]) -> Iterator[Component]:
    """The parents. Each digest has one `bom-ref`, whatever the number of relations to it."""
    seen = set[Digest]()
    for parent in lineage:
        ancestor = _ancestor(parent)
        if parent.digest is not None and parent.digest not in seen:
            seen.add(parent.digest)
            ancestor["bom-ref"] = _ancestor_ref(parent.digest)
        yield ancestor


def _ancestor_ref(artifact: Digest) -> str:
    return f"ancestor:{artifact_ref(artifact)}"


def _base_refs(described: BomContent) -> Iterator[str]:
    """The ancestors without which the artifact cannot be used."""
    if described.publication is not None:
        found = bases(described.kind, described.publication.published.lineage)
        yield from (_ancestor_ref(parent.digest) for parent in found.named if parent.digest is not None)


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
