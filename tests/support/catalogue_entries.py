"""Entries of a catalogue for data portals: a model, a dataset, and a mirrored model."""

from __future__ import annotations

from typing import Final

from comity.addons.mldcat.catalogue import CatalogueEntry, CataloguePublisher
from comity.rules.artifact_kind import DATASET as DATASET_KIND
from comity.rules.artifact_kind import MODEL as MODEL_KIND
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.statements import Parent

BASE: Final = "https://models.example"
COMMIT: Final = "6c12" * 10
_FILES: Final = Manifest.of(
    [FileEntry("a name?.json", 12, sha256(b"a")), FileEntry("weights.safetensors", 1 << 40, sha256(b"b"))]
)
_ROWS: Final = Manifest.of([FileEntry("data/rows.parquet", 7, sha256(b"c"))])
MODEL: Final = CatalogueEntry(
    repository="swiss-ai/tiny",
    version="v1",
    artifact=_FILES.digest,
    revision=f"sha256:{_FILES.digest}",
    kind=MODEL_KIND,
    licence="Apache-2.0",
    manifest=_FILES,
    publisher=CataloguePublisher("Swiss AI", sha256(b"identity")),
    lineage=(Parent("finetune", "swiss-ai/base@v1", sha256(b"base")),),
    known_since=1_796_205_600,
)
DATASET: Final = CatalogueEntry(
    repository="inst/questions",
    version="v2",
    artifact=_ROWS.digest,
    revision=f"sha256:{_ROWS.digest}",
    kind=DATASET_KIND,
    licence="MIT OR CC-BY-4.0",
    manifest=_ROWS,
    publisher=CataloguePublisher("Institute", sha256(b"other identity")),
    known_since=1_796_205_600,
)
MIRRORED: Final = CatalogueEntry(
    repository="org/name",
    version="main",
    artifact=_ROWS.digest,
    revision=COMMIT,
    kind=MODEL_KIND,
    licence="",
    manifest=_ROWS,
    upstream=f"hf:org/name@{COMMIT}",
)
