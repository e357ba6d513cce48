"""What was pulled into a Hub cache: listing and removing artifacts, and cleaning up after interrupted pulls.

Only what this program placed is touched: snapshots with an evidence pack, the blobs that no other snapshot of the
repository links, and the partial files of pulls. Other programs' snapshots in the same cache stay. Folders that were
named with `pull --out` are the user's, and are not listed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content.blobs import lock_if_free
from comity.content.durable import disk_errors, flock, make_folders
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable
from comity.trust.evidence import PACK
from comity.trust.frozen import frozen
from comity.trust.names import Reference

from comity_client.hub_cache import MAX_REF, cached
from comity_client.pull.destinations import IN_USE, INCOMING, PARTIAL, allocated

PREFIX: Final = "models--"
_PARTIAL_FILE: Final = re.compile(r"[0-9a-f]{64}\Z")


@frozen
class CachedArtifact:
    """An artifact in a Hub cache.

    Attributes:
        name: `namespace/name`.
        versions: the refs of the repository that name it, `main` last.
        bytes: sizes of its files that are here; a file that another artifact here shares counts for both.
        partial: it was pulled with patterns, so files are missing.
        folder: its snapshot.
    """

    name: str
    versions: tuple[str, ...]
    artifact: Digest
    files: int
    bytes: int
    partial: bool
    folder: Path

    @property
    def reference(self) -> str:
        """The reference that a command takes for it."""
        version = next((version for version in self.versions if version != "main"), "")
        return f"{self.name}@{version}" if version else f"sha256:{self.artifact}"


@frozen
class InterruptedFile:
    """A partial file of an interrupted or refused pull, with the bytes that it takes on the disk."""

    name: str
    path: Path
    bytes: int


def cached_artifacts(cache: Path) -> list[CachedArtifact]:
    """The artifacts in `cache` that this program pulled, by name. Snapshots without a readable pack are left out."""
    found = [artifact for repository in _repositories(cache) for artifact in _in_repository(repository)]
    return sorted(found, key=lambda artifact: (artifact.name, artifact.versions))


def find_cached(cache: Path, reference: Reference) -> CachedArtifact:
    """The artifact of a reference. Raises NotFound."""
    folder = cached(cache, reference)
    for artifact in _in_repository(folder.parent.parent):
        if artifact.folder == folder:
            return artifact
    raise NotFound(f"{reference} is not in {cache}", why="its evidence pack cannot be read", hint="comity cache ls")


def remove_cached(artifact: CachedArtifact) -> int:
    """Remove the refs that name a snapshot, the blobs that no other snapshot of the repository links, and the snapshot;
    in this order, so that a removal that was interrupted can be repeated. Returns the bytes that were freed. Raises
    Conflict (CACHE-BUSY) while a pull into the repository runs, Unavailable."""
    repository = artifact.folder.parent.parent
    with disk_errors(f"{artifact.folder} was not removed"), _alone(repository):
        blobs = _linked(artifact.folder)
        for name in _refs(repository).get(artifact.folder.name, ()):  # now: a pull may have changed them meanwhile
            (repository / "refs" / name).unlink(missing_ok=True)
        others = (snapshot for snapshot in _snapshots(repository) if snapshot != artifact.folder)
        kept = {blob for snapshot in others for blob in _linked(snapshot)}
        freed = 0
        for blob in sorted(blobs - kept):
            freed += _size(blob)
            blob.unlink(missing_ok=True)
        shutil.rmtree(artifact.folder)
    return freed


def interrupted_files(cache: Path) -> list[InterruptedFile]:
    """The partial files of pulls that do not run now."""
    found = []
    for repository in _repositories(cache):
        for path in sorted((repository / PACK / INCOMING).glob("*")):
            if _PARTIAL_FILE.match(path.name) and path.is_file() and not path.is_symlink():
                with lock_if_free(path.parent, Digest(path.name)) as free:
                    if free:
                        found.append(InterruptedFile(_name(repository), path, allocated(path)))
    return found


def remove_interrupted(found: Sequence[InterruptedFile]) -> int:
    """Remove partial files, except those that a pull has begun to use. Returns the bytes that were freed. Raises
    Unavailable."""
    freed = 0
    for each in found:
        with lock_if_free(each.path.parent, Digest(each.path.name)) as free:
            if free:
                with disk_errors(f"{each.path} was not removed"):
                    each.path.unlink(missing_ok=True)
                freed += each.bytes
    return freed


@contextlib.contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Inside the block no pull into the repository runs. A pull counts on the blobs that it found, also on those of
    other versions, until it has linked them."""
    make_folders(repository / PACK)
    what = f"{repository} was not locked"
    with flock(repository / PACK / IN_USE, fcntl.LOCK_EX | fcntl.LOCK_NB, what) as acquired:
        if not acquired:
            why = "its files may be shared with what is removed"
            hint = "try again when it has ended"
            raise Conflict(f"a pull of {_name(repository)} runs", why=why, hint=hint, code="CACHE-BUSY")
        yield


def _repositories(cache: Path) -> list[Path]:
    return [path for path in sorted(cache.glob(f"{PREFIX}*")) if path.is_dir() and not path.is_symlink()]


def _snapshots(repository: Path) -> list[Path]:
    return [path for path in sorted((repository / "snapshots").glob("*")) if path.is_dir() and not path.is_symlink()]


def _in_repository(repository: Path) -> Iterator[CachedArtifact]:
    refs = _refs(repository)
    for snapshot in _snapshots(repository):
        try:
            manifest = Manifest.parse(read_bounded(snapshot / PACK / "manifest.json", MAX_MANIFEST))
        except ComityError:
            continue
        blobs = _linked(snapshot)
        yield CachedArtifact(
            name=_name(repository),
            versions=refs.get(snapshot.name, ()),
            artifact=manifest.digest,
            files=len(manifest.files),
            bytes=sum(map(_size, blobs)),
            partial=(snapshot / PACK / PARTIAL).exists(),
            folder=snapshot,
        )


def _refs(repository: Path) -> dict[str, tuple[str, ...]]:
    """By commit, the refs that name it. Folders of refs, such as those of pull requests, are of other programs."""
    found: dict[str, tuple[str, ...]] = {}
    for ref in sorted((repository / "refs").glob("*"), key=lambda path: (path.name == "main", path.name)):
        try:
            commit = read_bounded(ref, MAX_REF).decode("ascii", "replace").strip()
        except (Unavailable, Malformed):
            continue
        found[commit] = (*found.get(commit, ()), ref.name)
    return found


def _linked(snapshot: Path) -> set[Path]:
    """The blobs of the repository that the links of a snapshot name; other targets are ignored."""
    blobs, found = snapshot.parent.parent / "blobs", set[Path]()
    for root, _, files in os.walk(snapshot):
        for name in files:
            link = Path(root, name)
            if link.is_symlink():
                target = Path(os.path.normpath(link.parent / link.readlink()))
                if target.parent == blobs and not target.is_symlink():
                    found.add(target)
    return found


def _size(blob: Path) -> int:
    try:
        return blob.lstat().st_size
    except OSError:
        return 0


def _name(repository: Path) -> str:
    return repository.name.removeprefix(PREFIX).replace("--", "/", 1)
