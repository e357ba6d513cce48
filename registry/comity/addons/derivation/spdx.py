"""Write an artifact as an SPDX 3.0.1 document in JSON-LD: an AI package or a dataset, its files, and who claims what.

The same artifact and claims give the same bytes. SPDX requires a time, and a publication has none: all documents have
the same time, and say so. Identifiers are derived from the content of the document.

The names of members, files and parents are values of strings only. Keys, types, identifiers and the context are from
here, so that nothing that others claim becomes a term of another vocabulary. Sources: SPDX 3.0.1, profiles Core,
Software, SimpleLicensing, AI and Dataset.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from comity_client.licences import is_listed

import comity
from comity.addons.derivation.bom import BomContent, image_purl, parent_purl, upstream_purl
from comity.rules.artifact_kind import bases
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.statements import Parent

SPEC: Final = "3.0.1"
_CONTEXT: Final = f"https://spdx.org/rdf/{SPEC}/spdx-context.jsonld"
_NAMESPACE: Final = uuid.UUID("0f7c3f5e-6f0a-5d43-9a34-2b1d6f0f9a77")
_CREATION: Final = "_:creation"
_NO_TIME: Final = "1970-01-01T00:00:00Z"
_NO_TIME_COMMENT: Final = "SPDX requires a time, and what this document is made from has none: this time says nothing."
_PROFILES: Final = ("core", "software", "simpleLicensing")
"""Not those of AI and datasets, whose classes are used: they require a time of release and a place to download from."""
_NO_LICENCE: Final = "expandedlicensing_NoAssertionLicense"

Element = dict[str, Any]


def write_spdx(described: BomContent) -> str:
    """Return the document as JSON-LD."""
    seed = sha256(canonical(SpdxGraph(described, "").elements()))
    graph = SpdxGraph(described, f"urn:uuid:{uuid.uuid5(_NAMESPACE, seed)}").elements()
    document = {"@context": _CONTEXT, "@graph": graph}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class SpdxGraph:
    """The elements of one document, whose identifiers begin with `base`."""

    def __init__(self, described: BomContent, base: str) -> None:
        self._described = described
        self._base = base
        self._artifact = f"{base}#artifact"

    def elements(self) -> list[Element]:
        found = [self._tool(), self._package(), *self._files(), *self._claims(), *self._licences(), *self._vouches()]
        own = [each["spdxId"] for each in found]
        bill = self._element("software_Sbom", "bill", rootElement=[self._artifact], element=own)
        document = self._element(
            "SpdxDocument",
            "document",
            rootElement=[bill["spdxId"]],
            element=[*own, bill["spdxId"]],
            profileConformance=list(_PROFILES),
        )
        return [self._creation(), *found, bill, document]

    def _element(self, kind: str, fragment: str, /, **members: Any) -> Element:
        return {"type": kind, "spdxId": f"{self._base}#{fragment}", "creationInfo": _CREATION, **members}

    def _relation(self, fragment: str, relation: str, to: Sequence[str], **members: Any) -> Element:
        ends = {"from": self._artifact, "to": list(to), "relationshipType": relation}
        return self._element("Relationship", fragment, **ends, **members)

    def _creation(self) -> Element:
        return {
            "type": "CreationInfo",
            "@id": _CREATION,
            "specVersion": SPEC,
            "created": _NO_TIME,
            "createdBy": [f"{self._base}#comity"],
            "comment": _NO_TIME_COMMENT,
        }

    def _tool(self) -> Element:
        return self._element("SoftwareAgent", "comity", name=f"comity {comity.__version__}")

    def _package(self) -> Element:
        described = self._described
        artifact = described.manifest.digest
        package = self._element(
            "ai_AIPackage" if described.is_model else "dataset_DatasetPackage",
            "artifact",
            name=f"sha256:{artifact}",
            verifiedUsing=_hashes(artifact, "the SHA-256 of the manifest, which names each file by its SHA-256"),
            software_primaryPurpose="model" if described.is_model else "data",
            comment=f"kind: {described.kind}",
        )
        if not described.is_model:
            package["dataset_datasetType"] = ["noAssertion"]
        if (purl := image_purl(described) or upstream_purl(described)) is not None:
            package["software_packageUrl"] = purl
        if (publication := described.publication) is not None:
            name = publication.published.name
            package |= {"name": f"{name.namespace}/{name.name}", "software_packageVersion": name.version}
            package |= {"suppliedBy": f"{self._base}#publisher", "externalIdentifier": list(_identifiers(described))}
        return package

    def _files(self) -> Iterator[Element]:
        names = []
        for number, entry in enumerate(self._described.manifest.files):
            made = self._element(
                "software_File", f"file-{number}", name=entry.path, verifiedUsing=_hashes(entry.sha256)
            )
            names.append(made["spdxId"])
            yield made
        if names:
            yield self._relation("files", "contains", names, completeness="complete")

    def _claims(self) -> Iterator[Element]:
        """What the publisher claims: itself and the parents."""
        if (publication := self._described.publication) is None:
            return
        identity = {"type": "ExternalIdentifier", "externalIdentifierType": "other"}
        yield self._element(
            "Agent",
            "publisher",
            name=publication.publisher.display,
            externalIdentifier=[identity | {"identifier": publication.publisher.id, "comment": "identity in Comity"}],
        )
        lineage = publication.published.lineage
        needed = {parent.digest for parent in bases(self._described.kind, lineage).named}
        for number, parent in enumerate(lineage):
            made = self._parent(parent, number)
            yield made
            comment = f"{parent.relation}; claimed by the publisher"
            yield self._relation(f"descent-{number}", "descendantOf", [made["spdxId"]], comment=comment)
            if parent.digest is not None and parent.digest in needed:
                yield self._relation(f"need-{number}", "dependsOn", [made["spdxId"]], comment=comment)

    def _parent(self, parent: Parent, number: int) -> Element:
        made = self._element("software_Package", f"parent-{number}", name=parent.name)
        if parent.digest is not None:
            made["verifiedUsing"] = _hashes(parent.digest, "the SHA-256 of its manifest")
        if (purl := parent_purl(parent)) is not None:
            made["software_packageUrl"] = purl
        return made

    def _licences(self) -> Iterator[Element]:
        """The licence that the publisher declares. No licence is concluded here."""
        declared = _NO_LICENCE
        if (publication := self._described.publication) is not None:
            licence = publication.published.licence
            if is_listed(licence.spdx):
                expression = {"simplelicensing_licenseExpression": licence.spdx}
                made = self._element("simplelicensing_LicenseExpression", "licence", **expression)
            else:
                text = f"its text has the SHA-256 {licence.text.digest}" if licence.text else "its text is not here"
                made = self._element("simplelicensing_SimpleLicensingText", "licence", name=licence.spdx)
                made["simplelicensing_licenseText"] = f"The publisher names this licence; {text}."
            yield made
            declared = made["spdxId"]
        claim = {"comment": "claimed by the publisher"} if declared != _NO_LICENCE else {}
        yield self._relation("declared", "hasDeclaredLicense", [declared], **claim)
        yield self._relation("concluded", "hasConcludedLicense", [_NO_LICENCE])

    def _vouches(self) -> Iterator[Element]:
        for number, vouch in enumerate(self._described.vouches):
            statement = f"{vouch.vouched.kind}: claimed by {vouch.by.name}"
            members = {"annotationType": "other", "subject": self._artifact, "statement": statement}
            yield self._element("Annotation", f"vouch-{number}", **members)


def _identifiers(described: BomContent) -> Iterator[Element]:
    """Other names of a published artifact: the signed statement, and the commit that nodes mirrored."""
    if described.publication is not None:
        yield {
            "type": "ExternalIdentifier",
            "externalIdentifierType": "other",
            "identifier": f"sha256:{described.publication.entry.digest}",
            "comment": "the statement that the publisher signed",
        }
    if (purl := upstream_purl(described)) is not None:
        comment = "the same bytes, as nodes of members state"
        yield {
            "type": "ExternalIdentifier",
            "externalIdentifierType": "packageUrl",
            "identifier": purl,
            "comment": comment,
        }


def _hashes(digest: Digest, comment: str = "") -> list[Element]:
    made = {"type": "Hash", "algorithm": "sha256", "hashValue": digest}
    return [made | {"comment": comment} if comment else made]
