"""What an upstream's own hashes say about bytes that were hashed here.

A Hub lists every file with a git blob id, and a file in LFS with the SHA-256 of its bytes beside the blob id of its
pointer. Both are recomputed here and compared. What that proves: the bytes are those that the Hub lists. It does not
prove that the commit names this list, nor who wrote it. Sources: git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.fields import Fields
from comity.trust.hub import blob_id, git_tree_ids
from comity.trust.manifest import MAX_FILES, FileEntry, Manifest
from comity.trust.statement import MAX_OBJECT_BYTES

SCHEMA: Final = "comity/observation/v1"
MATCHES: Final = ("sha256", "git-blob", "none")
"""How a file's bytes agree with what the upstream lists for it: by the SHA-256 of LFS, by the git blob id, or nothing
was listed that can be compared."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as an upstream lists it. `blob` is a git blob id: of its bytes, or of its pointer where `lfs` gives their
    SHA-256; both are empty where the upstream says nothing. `xet` is kept as it came: nothing here can check it."""

    path: str
    size: int
    blob: str = ""
    lfs: Digest | None = None
    xet: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """A file whose bytes were hashed here, beside what its upstream lists for it.

    `match` is one of `MATCHES`; `pointer` says that the pointer made of the SHA-256 and size has the listed blob id.
    """

    entry: FileEntry
    listed: Listed
    match: str
    pointer: bool


class BlobHash:
    """The git blob id of bytes that come in parts; `size` is how many there will be."""

    def __init__(self, size: int) -> None:
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        self._sha1.update(data)

    def hexdigest(self) -> str:
        return self._sha1.hexdigest()


def compare(listed: Listed, entry: FileEntry, blob: str) -> Observation | None:
    """What was hashed here, held against what is listed; None where the bytes are not the listed ones.

    Args:
        blob: the git blob id of the bytes.
    """
    if entry.size != listed.size:
        return None
    if listed.lfs is not None:
        return (
            Observation(entry, listed, "sha256", blob_id(entry) == listed.blob) if listed.lfs == entry.sha256 else None
        )
    if listed.blob:
        return Observation(entry, listed, "git-blob", False) if listed.blob == blob else None
    return Observation(entry, listed, "none", False)


def matching_folders(observations: Iterable[Observation], listed: Mapping[str, str]) -> int:
    """How many of the `listed` git tree ids (folder path to id) are those that the listed blob ids make.

    A folder with a file of another mode than 100644 (an executable, a link) does not match: a Hub lists no modes.
    """
    blobs = {observation.entry.path: observation.listed.blob for observation in observations}
    if not all(blobs.values()):
        return 0
    manifest = Manifest.of(observation.entry for observation in observations)
    computed = git_tree_ids(manifest, lambda entry: blobs[entry.path])
    return sum(1 for path, tree in listed.items() if computed.get(path) == tree)


def encode_observations(observations: Sequence[Observation]) -> bytes:
    """The side object that an `observed` statement names in `files`: one item a file, in the manifest's order."""
    items: list[Json] = [
        {
            "path": seen.entry.path,
            "size": seen.entry.size,
            "sha256": seen.entry.sha256,
            "blob": seen.listed.blob,
            "lfs": seen.listed.lfs,
            "xet": seen.listed.xet,
            "match": seen.match,
            "pointer": seen.pointer,
        }
        for seen in observations
    ]
    return canonical({"schema": SCHEMA, "files": items})


def parse_observations(data: bytes) -> tuple[Observation, ...]:
    """Exactly what `encode_observations` writes, at most 64 MiB. Raises Malformed."""
    fields = Fields(parse_canonical(data, limit=MAX_OBJECT_BYTES, what="observation"), "observation")
    fields.constant("schema", SCHEMA)
    found = tuple(_observation(Fields(item, "observation file")) for item in fields.items("files", most=MAX_FILES))
    fields.done()
    return found


def _observation(fields: Fields) -> Observation:
    path, size = fields.text("path", most=1024), fields.integer("size")
    entry = FileEntry(path, size, fields.digest("sha256"))
    lfs = fields.take("lfs")
    listed = Listed(
        path,
        size,
        fields.text("blob", least=0, most=64),
        None if lfs is None else bare_digest(lfs),
        fields.text("xet", least=0, most=128),
    )
    match, pointer = fields.choice("match", MATCHES), fields.take("pointer")
    fields.done()
    if not isinstance(pointer, bool):
        raise fields.error("member 'pointer' must be true or false")
    return Observation(entry, listed, match, pointer)
