"""What is requested of an upstream, what it lists, and comparing a mirrored commit with that, file by file.

    hf:org/name              a repository of the Hugging Face Hub
    hf:org/name@main         the current commit of a branch or tag
    hf:org/name@6c12… (40)   a commit, whose bytes never change
    https:host/name          the list of files at https://host/name; a commit is computed from its digests
    s3:host/name             the objects below a prefix of a bucket
    oci:host/name@v1         an image in a registry
    ms:org/name@v1           a repository of ModelScope
    git:host/name@v1         a git repository with LFS

A Hub lists a git blob id for every file; for a file in LFS, the SHA-256 of its bytes and the blob id of its pointer.
Both are recomputed and compared. A match proves that the bytes are the listed ones, not that the commit has this list,
and not who wrote it. Sources: protocol, section 5; git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from comity.rules.git_ids import blob_id, git_tree_ids
from comity.trust.artifact import MAX_FILES, FileEntry, Manifest
from comity.trust.encoding import Digest, Fields, Json, bare_digest, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM, check_segment, origin_of, without_origin
from comity.trust.statement import MAX_OBJECT_BYTES
from comity.trust.upstream import Upstream, check_repository, check_revision, endpoint_host
from comity.upstream.guarded import unusable

MAIN: Final = "main"
"""The revision that is meant where none is named."""
MAX_TOTAL: Final = 64 * 1024**4
"""Bytes of one repository: four times the largest known one."""
_NO_HASH: Final = Digest("0" * 64)

SCHEMA: Final = "comity/observation/v1"
MATCHES: Final = ("sha256", "git-blob", "none")
"""How a file matches the upstream's list: by the SHA-256 of LFS, by the git blob id, or not compared, because nothing
comparable is listed."""


@frozen
class UpstreamRequest:
    """A requested repository and revision (default `main`). The oldest repositories have no organisation in their
    names; the Hub returns their current names."""

    repository: str
    revision: str = MAIN
    origin: str = UPSTREAM

    def __post_init__(self) -> None:
        if "/" in self.repository or self.origin != UPSTREAM:
            check_repository(self.repository)
        else:
            check_segment(self.repository, "repository")
        check_revision(self.revision)

    @classmethod
    def parse(cls, text: str) -> UpstreamRequest:
        """`hf:org/name[@revision]`, or the same with another origin. Raises Malformed (BAD-NAME)."""
        origin = origin_of(text)
        if not origin:
            why = "expected hf:org/name, or https:, s3:, oci: or git: and host/name"
            raise Malformed(f"{text[:200]!r} is not an upstream", why=why, code="BAD-NAME")
        repository, at, revision = without_origin(text).partition("@")
        return cls(repository, revision if at else MAIN, origin)

    def __str__(self) -> str:
        return f"{self.origin}{self.repository}@{self.revision}"


def require_host(endpoint: str, wanted: UpstreamRequest) -> None:
    """Raises Malformed (BAD-NAME) unless the namespace is the host of the endpoint."""
    host = endpoint_host(endpoint)
    namespace, _, name = wanted.repository.partition("/")
    if namespace != host:
        raise Malformed(
            f"{wanted} is not at {endpoint}",
            why="the name begins with the host of its endpoint, in lower case",
            hint=f"comity import {wanted.origin}{host}/{name} --endpoint URL",
            code="BAD-NAME",
        )


@frozen
class ListedFile:
    """A file as an upstream lists it. `blob` is a git blob id: of the bytes, or of the LFS pointer if `lfs` is the
    SHA-256 of the bytes. `blob` is empty and `lfs` is None if the upstream lists none. `xet` is stored unchecked.
    `version` pins the bytes for the requests of this import, where the upstream has versions; `content` has the bytes
    that arrived with the listing; `packing` says how files are packed in this one (`comity.upstream.packed_layers`).
    None of these is recorded."""

    path: str
    size: int
    blob: str = ""
    lfs: Digest | None = None
    xet: str = ""
    version: str = ""
    content: bytes | None = field(default=None, repr=False)
    packing: str = ""


@frozen
class RevisionInfo:
    """The commit that a revision resolves to now. `licence`: as the card claims; `gated`: empty, `auto` or `manual`."""

    upstream: Upstream
    gated: str
    licence: str


@frozen
class RepositoryListing:
    """A commit with its files, by path, and the git tree ids of its folders."""

    revision_info: RevisionInfo
    files: tuple[ListedFile, ...]
    folders: dict[str, str]

    @classmethod
    def of(
        cls, revision_info: RevisionInfo, files: Mapping[str, ListedFile], folders: Mapping[str, str] | None = None
    ) -> RepositoryListing:
        """The listing of these files, by path, before any of them is requested. Raises NotFound (EMPTY), and Malformed
        (UPSTREAM-ANSWER, BAD-PATH) for more than `MAX_TOTAL` bytes, or paths that no manifest may hold or that collide
        on some file system."""
        if not files:
            raise NotFound(
                f"{revision_info.upstream.name} has no files",
                why="there is nothing to mirror",
                hint="name another revision",
                code="EMPTY",
            )
        if sum(file.size for file in files.values()) > MAX_TOTAL:
            raise unusable(f"the files have more than {MAX_TOTAL} bytes")
        manifest = Manifest.of(FileEntry(file.path, file.size, file.lfs or _NO_HASH) for file in files.values())
        return cls(revision_info, tuple(files[entry.path] for entry in manifest.files), dict(folders or {}))

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def check_paths(paths: Iterable[str]) -> None:
    """Check that a manifest may hold these paths, and that no two collide on any file system. Raises Malformed."""
    Manifest.of(FileEntry(path, 0, _NO_HASH) for path in paths)


def list_commit(digests: Mapping[str, str]) -> str:
    """The commit of a list: 40 hex digits that follow from its paths and SHA-256 alone."""
    return sha256(canonical({"schema": "comity/list/v1", "files": dict(sorted(digests.items()))}))[:40]


@frozen
class Observation:
    """A file that was hashed here, and the upstream's listing of it.

    `match` is one of `MATCHES`. `pointer`: the LFS pointer made from SHA-256 and size has the listed blob id.
    """

    entry: FileEntry
    listed: ListedFile
    match: str
    pointer: bool


class BlobHash:
    """Computes the git blob id of bytes that arrive in parts; `size` is the total number of bytes."""

    def __init__(self, size: int) -> None:
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        self._sha1.update(data)

    def hexdigest(self) -> str:
        return self._sha1.hexdigest()


def compare(listed: ListedFile, entry: FileEntry, blob: str) -> Observation | None:
    """Compare a hashed file with its listing; None if the bytes are not the listed ones.

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
    """Return how many of the `listed` git tree ids (folder path to id) match the tree of the listed blob ids.

    A folder with a file of another mode than 100644 (an executable, a link) does not match: a Hub lists no modes. A
    folder with a file that has no listed blob id does not match either.
    """
    blobs = {observation.entry.path: observation.listed.blob for observation in observations}
    manifest = Manifest.of(observation.entry for observation in observations)
    computed = git_tree_ids(manifest, lambda entry: blobs[entry.path])
    return sum(1 for path, tree in listed.items() if computed.get(path) == tree)


def encode_observations(observations: Sequence[Observation]) -> bytes:
    """Encode the side object `files` of an `observed` statement: one item per file, in the manifest's order."""
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
    """Parse the output of `encode_observations`, at most 64 MiB. Raises Malformed."""
    fields = Fields(parse_canonical(data, limit=MAX_OBJECT_BYTES, what="observation"), "observation")
    fields.constant("schema", SCHEMA)
    found = tuple(_observation(Fields(item, "observation file")) for item in fields.items("files", most=MAX_FILES))
    fields.done()
    return found


def _observation(fields: Fields) -> Observation:
    path, size = fields.text("path", most=1024), fields.integer("size")
    entry = FileEntry(path, size, fields.digest("sha256"))
    lfs = fields.take("lfs")
    listed = ListedFile(
        path,
        size,
        fields.text("blob", least=0, most=64),
        None if lfs is None else bare_digest(lfs),
        fields.text("xet", least=0, most=128),
    )
    match, pointer = fields.choice("match", MATCHES), fields.boolean("pointer")
    fields.done()
    return Observation(entry, listed, match, pointer)
