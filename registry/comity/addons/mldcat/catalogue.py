"""Write artifacts as a catalogue of MLDCAT-AP 3.1.0 in JSON-LD, for harvesters of data portals. Pure functions.

A model or an adapter is an `it6:MachineLearningModel`, every other kind a `dcat:Dataset` with a distribution for each
file. The catalogue, its publisher and its service have the same identifiers on all pages, so that the pages of one
gateway are one graph; an artifact is named by its page at the gateway, with its digest.

What others claim is the value of strings, and of addresses that are made here from checked names. Keys, types,
prefixes and the context are from here: no claim becomes a term of another vocabulary, and nothing has to be fetched to
read a page. A parent is only pointed to, and nothing is said about it, so that no publisher describes the artifact of
another one.

Where the profile requires what no publication says, the text `not stated` stands instead of a made-up value: the time
at which a model was created, the time of collection and the quality of a dataset, and the training data of a model
whose publisher names no parent that is proven to be a dataset. Sources: MLDCAT-AP 3.1.0 (SEMIC), DCAT 3, Hydra Core
Vocabulary (pages).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

from comity_client.licences import is_listed

from comity.rules.artifact_kind import ADAPTER, HUB_DATASETS, MODEL, hub_types, training_parents
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, format_moment
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM, Name
from comity.trust.statements import Parent
from comity.trust.upstream import check_commit, check_repository

MEDIA_TYPE: Final = "application/ld+json"
PATH: Final = "/-/catalogue/mldcat-ap"
MAX_FILES: Final = 1_000
"""Files of one artifact that are listed; of more, the description says how many there are."""
NOT_STATED: Final = "not stated"
_CONTEXT: Final = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "dqv": "http://www.w3.org/ns/dqv#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "hydra": "http://www.w3.org/ns/hydra/core#",
    "it6": "http://data.europa.eu/it6/",
    "prov": "http://www.w3.org/ns/prov#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "spdx": "http://spdx.org/rdf/terms#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_ABOUT: Final = (
    "Machine learning models and datasets. Who claims the name, licence and origin of each is in its provenance; "
    "checksums are those of its manifest, of which the identifier is the SHA-256."
)
_LICENCES: Final = "https://spdx.org/licenses/"
_LISTED_NAME: Final = re.compile(r"(?!LicenseRef-|DocumentRef-)[A-Za-z0-9.-]+\Z")
_MEDIA: Final = "https://www.iana.org/assignments/media-types/"
_MEDIA_OF: Final = {
    "csv": "text/csv",
    "json": "application/json",
    "md": "text/markdown",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "wav": "audio/vnd.wave",
    "zip": "application/zip",
}
"""By the end of a name, which is all that is known of a file here; others are `application/octet-stream`."""
_SHA256: Final = {"@id": "spdx:checksumAlgorithm_sha256", "@type": "spdx:ChecksumAlgorithm"}

Node = dict[str, Any]


@frozen
class CataloguePublisher:
    """Who signed a publication: the name that it gives itself, and its identity, which is proven."""

    name: str
    identity: str


@frozen
class TrainingDataset:
    """A dataset on which the publisher of a model says that it was trained: proven to be published under this name, and
    to be stated to be a dataset, by its own publisher."""

    repository: str
    version: str
    artifact: Digest


@frozen
class CatalogueEntry:
    """What a catalogue says of one artifact under one name.

    `publisher` is None, and `upstream` the name of a commit, where nodes mirrored the artifact and nobody signed it.
    `revision` names these bytes at the gateway. `known_since`: by when it was known, in POSIX seconds, 0 if that is not
    known; `known_by` says whose word that is. `notices` are what is said beside every answer about it.
    """

    repository: str
    version: str
    artifact: Digest
    revision: str
    kind: str
    licence: str
    manifest: Manifest
    publisher: CataloguePublisher | None = None
    lineage: tuple[Parent, ...] = ()
    trained_on: tuple[TrainingDataset, ...] = ()
    upstream: str = ""
    known_since: int = 0
    known_by: str = "the node of this catalogue, by its own clock"
    notices: tuple[str, ...] = ()

    @property
    def is_model(self) -> bool:
        return self.kind in (MODEL, ADAPTER)

    @property
    def training_parents(self) -> tuple[Parent, ...]:
        """The parents of a model that it was trained on, where they are datasets."""
        return training_parents(self.lineage) if self.is_model else ()

    @property
    def listed(self) -> Sequence[FileEntry]:
        """The files that the catalogue lists."""
        return self.manifest.files[:MAX_FILES]


@frozen
class PortalPage:
    """One page: its address, that of the next page, empty at the end, and how many names of it are not served now."""

    address: str
    following: str = ""
    left_out: int = 0


class CatalogueWriter:
    """Writes the pages of the catalogue of one node.

    Args:
        base: the URL of its gateway, without a slash at the end.
        node: its name.
    """

    def __init__(self, base: str, node: str) -> None:
        self._base = base
        self._node = node
        self._id = f"{base}{PATH}"

    def write(self, entries: Sequence[CatalogueEntry], page: PortalPage | None = None) -> str:
        """Return a document with these entries; with `page`, as one page of several."""
        graph = [*self._of_page(page), self._catalogue(entries), *self._shared(entries)]
        for entry in entries:
            graph += [self._record(entry), self._artifact(entry)]
        return json.dumps({"@context": _CONTEXT, "@graph": graph}, ensure_ascii=False, separators=(",", ":")) + "\n"

    def _of_page(self, page: PortalPage | None) -> Iterator[Node]:
        if page is None:
            return
        node: Node = {"@id": page.address, "@type": ["hydra:PartialCollectionView", "hydra:PagedCollection"]}
        if page.following:
            node["hydra:next"] = _ref(page.following)
        if page.left_out:
            node["rdfs:comment"] = f"{page.left_out} of the names of this page are not served now"
        yield node

    def _catalogue(self, entries: Sequence[CatalogueEntry]) -> Node:
        """The catalogue, and its service, which lead to the entries."""
        models = [_ref(self._page(each)) for each in entries if each.is_model]
        datasets = [_ref(self._page(each)) for each in entries if not each.is_model]
        service: Node = {
            "@id": f"{self._id}#service",
            "@type": "dcat:DataService",
            "dct:title": f"Gateway of {self._node}",
            "dcat:endpointURL": _resource(self._base),
            "it6:servesModel": models,
            "dcat:servesDataset": datasets,
        }
        return {
            "@id": self._id,
            "@type": "dcat:Catalog",
            "dct:title": f"Artifacts at {self._node}",
            "dct:description": _ABOUT,
            "dct:publisher": _ref(f"{self._id}#publisher"),
            "dcat:service": service,
            "dcat:resource": models,
            "dcat:dataset": datasets,
            "dcat:record": [_ref(f"{self._page(each)}#record") for each in entries],
        }

    def _shared(self, entries: Sequence[CatalogueEntry]) -> Iterator[Node]:
        """What entries share: publishers, and what stands for what no publication says."""
        yield {"@id": f"{self._id}#publisher", "@type": "foaf:Agent", "foaf:name": self._node}
        for each in dict.fromkeys(entry.publisher for entry in entries if entry.publisher is not None):
            yield self._agent(each) | {"foaf:name": each.name or each.identity, "dct:identifier": each.identity}
        yield from self._training_data(entries)
        if any(each.is_model and not each.trained_on for each in entries):
            yield {
                "@id": f"{self._id}#training-data-not-stated",
                "@type": "dcat:Dataset",
                "dct:title": f"Training data: {NOT_STATED}",
                "dct:description": "No publication says which data a model was trained on. This is no dataset.",
                "it6:collectionDate": NOT_STATED,
            }
        if not all(each.is_model for each in entries):
            yield {
                "@id": f"{self._id}#quality-not-stated",
                "@type": "dqv:QualityMeasurement",
                "dqv:value": NOT_STATED,
                "dct:type": {
                    "@id": f"{self._id}#kind-of-quality-not-stated",
                    "@type": "it6:DataQuality",
                    "dct:identifier": NOT_STATED,
                    "dct:title": NOT_STATED,
                },
            }

    def _training_data(self, entries: Sequence[CatalogueEntry]) -> Iterator[Node]:
        """The datasets of models that are no entries themselves, as far as they are proven."""
        listed = {self._page(each) for each in entries}
        for each in dict.fromkeys(found for entry in entries if entry.is_model for found in entry.trained_on):
            if (page := self._dataset_page(each)) not in listed:
                yield {
                    "@id": page,
                    "@type": "dcat:Dataset",
                    "dct:identifier": f"sha256:{each.artifact}",
                    "dct:title": f"{each.repository}@{each.version}",
                    "dct:description": "Its publisher signed these bytes under this name, and states that they are a "
                    "dataset; the signatures were verified.",
                    "it6:collectionDate": NOT_STATED,
                }

    def _dataset_page(self, found: TrainingDataset) -> str:
        return self._artifact_page(found.repository, f"sha256:{found.artifact}")

    def _record(self, entry: CatalogueEntry) -> Node:
        """Since when an artifact is known, and what is said beside it."""
        record: Node = {
            "@id": f"{self._page(entry)}#record",
            "@type": "dcat:CatalogRecord",
            "foaf:primaryTopic": _ref(self._page(entry)),
            "dct:modified": _time(entry.known_since),
            "dct:description": f"The time is by when the artifact was known, as said by {entry.known_by}.",
        }
        if entry.notices:
            record["rdfs:comment"] = list(entry.notices)
        return record

    def _artifact(self, entry: CatalogueEntry) -> Node:
        node: Node = {
            "@id": self._page(entry),
            "dct:identifier": f"sha256:{entry.artifact}",
            "dct:title": f"{entry.repository}@{entry.version}",
            "dct:description": _description(entry),
            "dcat:version": entry.version,
            "dcat:keyword": entry.kind,
            "dct:provenance": {"@type": "dct:ProvenanceStatement", "rdfs:label": _provenance(entry)},
            "prov:wasDerivedFrom": [self._parent(parent) for parent in entry.lineage],
        }
        return node | (self._model(entry) if entry.is_model else self._dataset(entry))

    def _model(self, entry: CatalogueEntry) -> Node:
        return {
            "@type": ["it6:MachineLearningModel", "dcat:Resource"],
            "dct:created": NOT_STATED,
            "it6:trainedOn": [_ref(self._dataset_page(each)) for each in entry.trained_on]
            or _ref(f"{self._id}#training-data-not-stated"),
            "it6:hasFile": [self._file(entry, file) for file in entry.listed],
            **({"it6:hasProvider": self._agent(entry.publisher)} if entry.publisher else {}),
            **({"dct:license": _licence(entry.licence)} if entry.licence else {}),
        }

    def _dataset(self, entry: CatalogueEntry) -> Node:
        return {
            "@type": ["dcat:Dataset", "dcat:Resource"],
            "it6:collectionDate": NOT_STATED,
            "dcat:distribution": [self._distribution(entry, file) for file in entry.listed],
            **({"dct:publisher": self._agent(entry.publisher)} if entry.publisher else {}),
        }

    def _file(self, entry: CatalogueEntry, file: FileEntry) -> Node:
        media = _MEDIA_OF.get(file.path.rpartition(".")[2].lower(), "application/octet-stream")
        return {
            "@type": "it6:File",
            "dct:identifier": file.path,
            "dct:title": file.path,
            "dct:format": {"@id": f"{_MEDIA}{media}", "@type": "skos:Concept"},
            "it6:url": _resource(self._address(entry, file)),
            **_content(file),
        }

    def _distribution(self, entry: CatalogueEntry, file: FileEntry) -> Node:
        address = self._address(entry, file)
        return {
            "@type": "dcat:Distribution",
            "dct:title": file.path,
            "dcat:accessURL": _resource(address),
            "dcat:downloadURL": _ref(address),
            "dqv:hasQualityMeasurement": _ref(f"{self._id}#quality-not-stated"),
            **({"dct:license": _licence(entry.licence)} if entry.licence else {}),
            **_content(file),
        }

    def _agent(self, publisher: CataloguePublisher) -> Node:
        return {"@id": f"{self._id}#publisher-{publisher.identity}", "@type": "foaf:Agent"}

    def _page(self, entry: CatalogueEntry) -> str:
        return self._artifact_page(entry.repository, entry.revision)

    def _artifact_page(self, repository: str, revision: str) -> str:
        return f"{self._base}/{quote(repository)}/tree/{quote(revision, safe=':')}"

    def _address(self, entry: CatalogueEntry, file: FileEntry) -> str:
        kind = "datasets/" if hub_types(entry.kind)[0] == HUB_DATASETS else ""
        revision = quote(entry.revision, safe=":")
        return f"{self._base}/{kind}{quote(entry.repository)}/resolve/{revision}/{quote(file.path)}"

    def _parent(self, parent: Parent) -> Node:
        """Point to a parent: at this gateway, if its publisher names the digest, at the Hub, if it is a commit there;
        else only its name is known."""
        try:
            if parent.name.startswith(UPSTREAM):
                repository, _, commit = parent.name.removeprefix(UPSTREAM).partition("@")
                return _ref(f"https://huggingface.co/{quote(check_repository(repository))}/tree/{check_commit(commit)}")
            if parent.digest is not None:
                return _ref(self._artifact_page(Name.parse(parent.name).repository, f"sha256:{parent.digest}"))
        except Malformed:
            pass  # the name has no such form: it is only a text
        return {"dct:title": parent.name, **({"dct:identifier": f"sha256:{parent.digest}"} if parent.digest else {})}


def _description(entry: CatalogueEntry) -> str:
    files = entry.manifest.files
    listed = f", of which the first {MAX_FILES:,} are listed" if len(files) > MAX_FILES else ""
    size = f"{len(files):,} file{'' if len(files) == 1 else 's'}{listed}, {entry.manifest.size:,} bytes"
    return f"{entry.kind} {entry.repository}, version {entry.version}: {size}."


def _provenance(entry: CatalogueEntry) -> str:
    """Who says what, in words."""
    if entry.publisher is None:
        return (
            f"Mirrored from {entry.upstream} by nodes of this federation, which state so; no publisher signed it. "
            "The licence is what the upstream said."
        )
    origin = "".join(f" {each.relation} of {each.name};" for each in entry.lineage).rstrip(";")
    claimed = f"name, version, kind and licence{', and its origin:' + origin if origin else ''}"
    return (
        f"Signed by the identity {entry.publisher.identity}; the signature was verified. "
        f"Claimed by that publisher, and not verified: {claimed}."
    )


def _licence(text: str) -> Node:
    """A licence of the SPDX list by its address; any other text, as an expression, by its title."""
    if _LISTED_NAME.match(text) and is_listed(text):
        return {"@id": f"{_LICENCES}{text}", "@type": "dct:LicenseDocument"}
    return {"@type": "dct:LicenseDocument", "dct:title": text}


def _content(file: FileEntry) -> Node:
    return {
        "dcat:byteSize": _typed(str(file.size), "nonNegativeInteger"),
        "spdx:checksum": {
            "@type": "spdx:Checksum",
            "spdx:algorithm": _SHA256,
            "spdx:checksumValue": _typed(file.sha256, "hexBinary"),
        },
    }


def _time(moment: int) -> Node | str:
    return _typed(format_moment(moment, "%Y-%m-%dT%H:%M:%SZ"), "dateTime") if moment else NOT_STATED


def _typed(text: str, datatype: str) -> Node:
    return {"@value": text, "@type": f"xsd:{datatype}"}


def _ref(address: str) -> Node:
    return {"@id": address}


def _resource(address: str) -> Node:
    return {"@id": address, "@type": "dcat:Resource"}
