"""The files of a repository from a folder that came by other ways, with what its layout says about where it is from.

    …/models--org--name/snapshots/<commit>/…     a Hub client's cache: links to blobs named by the Hub's own hashes
    …/.cache/huggingface/download/….metadata     what a Hub client writes beside files in a folder: commit and hash
    anything else                                an operator says which commit it is

Files are copied, not linked: the folder stays its owner's. A link is followed only to where a cache's links go.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.digest import Digest, bare_digest
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.manifest import MAX_FILES, RESERVED, FileEntry, Manifest, check_path
from comity.trust.upstream.comparing import BlobHash, Listed, Observation, compare
from comity.trust.upstream.naming import Upstream, Wanted, check_repository, is_commit
from comity.upstream.download import CHUNK, Work
from comity.upstream.listing import Listing, Standing
from comity.upstream.mirror import Mirrored, require_room
from comity.verifier import hub_blob

METADATA: Final = ".cache/huggingface/download"
MAX_METADATA: Final = 1024
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Carried:
    """A folder and what is known of it. `how` is `cache` where its layout names commit and hashes, else `carried`."""

    how: str
    listing: Listing
    files: tuple[Path, ...]


def recognise(folder: Path, named: Wanted | None) -> Carried:
    """What the folder is, by its layout, and by what its operator says where that does not tell. Reads no file's bytes.

    Raises NotFound, Malformed (BAD-PATH, NOT-A-FILE, WHICH-UPSTREAM), Conflict where layout and operator disagree.
    """
    with disk_errors(f"{folder} was not read"):
        if not folder.is_dir():
            raise NotFound(f"no folder {folder}", why="on the node's own machine, where the node may read it")
        snapshot = _snapshot(folder)
        found = dict(_files(snapshot or folder, in_cache=snapshot is not None))
    if not found:
        raise NotFound(f"{folder} has no files", why="there is nothing to import", code="EMPTY")
    if snapshot is not None:
        return _of_cache(snapshot, found, named)
    return _of_folder(folder, found, named)


def take(carried: Carried, into: Path, work: Work) -> Mirrored:
    """Copy every file, hashed on the way. Raises Untrusted (UPSTREAM-LIED) where a file is not what its cache says,
    Conflict (CHANGED), OutOfSpace."""
    paths = tuple(into / f"{number:06d}" for number in range(len(carried.files)))
    with disk_errors(f"{carried.listing.standing.upstream.name} was not copied"):
        require_room(into, carried.listing, ())
        observations = tuple(
            _copied(listed, source, path, work)
            for listed, source, path in zip(carried.listing.files, carried.files, paths, strict=True)
        )
    return Mirrored(carried.listing, observations, paths, None)


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of a Hub cache that the folder is, or holds alone."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and is_commit(folder.name):
        return folder
    within = [path for path in folder.glob("snapshots/*") if is_commit(path.name)]
    return within[0] if len(within) == 1 else None


def _files(folder: Path, *, in_cache: bool) -> Iterator[tuple[str, Path]]:
    """Files by manifest path. In a cache they may be links to its blobs, and to nothing else."""
    pending, count = [(folder, "")], 0
    while pending:
        here, prefix = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path not in RESERVED:
                        pending.append((Path(entry.path), f"{path}/"))
                    continue
                count += 1
                if count > MAX_FILES:
                    raise Malformed(
                        "too many files", why=f"at most {MAX_FILES} make an artifact", code="TOO-MANY-FILES"
                    )
                found = Path(entry.path)
                in_blobs = in_cache and entry.is_symlink()
                yield check_path(path), _real(path, hub_blob(found, folder) if in_blobs else found)


def _real(path: str, real: Path | None) -> Path:
    if real is None:
        raise Malformed(f"{path} is not taken in", why="it links out of the cache", code="NOT-A-FILE")
    if not stat.S_ISREG(real.lstat().st_mode):
        raise Malformed(f"{path} is not taken in", why="it is a link or a special file", code="NOT-A-FILE")
    return real


def _of_cache(snapshot: Path, found: Mapping[str, Path], named: Wanted | None) -> Carried:
    repository = check_repository(snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1))
    commit = snapshot.name
    ref = next((ref for ref in _refs(snapshot.parent.parent, commit)), commit)
    _require_same(named, repository, commit)
    listed = {
        path: _hashed(path, real, real.name if real.parent.name == "blobs" else "") for path, real in found.items()
    }
    return _carried("cache", Upstream("", repository, commit, ref), listed, found)


def _of_folder(folder: Path, found: Mapping[str, Path], named: Wanted | None) -> Carried:
    if named is None:
        raise Malformed(
            f"{folder} does not say where it is from",
            why="it is no cache of a Hub client that names repository and commit",
            hint="--from hf:org/name@COMMIT if you know it; else publish it: comity publish --help",
            code="WHICH-UPSTREAM",
        )
    notes = {path: note for path in found if (note := _metadata(folder / METADATA / f"{path}.metadata")) is not None}
    commits = {commit for commit, _ in notes.values()}
    if notes.keys() == found.keys() and len(commits) == 1:
        commit = commits.pop()
        if is_commit(named.revision):
            _require_same(named, named.repository, commit)
        listed = {path: _hashed(path, real, notes[path][1]) for path, real in found.items()}
        return _carried("cache", Upstream("", named.repository, commit, named.revision), listed, found)
    if not is_commit(named.revision):
        why = f"{named.revision} may stand for any commit, and nobody is asked"
        raise Malformed(
            f"which commit of {named.repository}?", why=why, hint="--from hf:org/name@COMMIT", code="WHICH-UPSTREAM"
        )
    listed = {path: _hashed(path, real, "") for path, real in found.items()}
    return _carried("carried", Upstream("", named.repository, named.revision, named.revision), listed, found)


def _carried(how: str, upstream: Upstream, listed: Mapping[str, Listed], found: Mapping[str, Path]) -> Carried:
    manifest = Manifest.of(FileEntry(path, listed[path].size, Digest("0" * 64)) for path in found)  # no names that meet
    order = [entry.path for entry in manifest.files]
    listing = Listing(Standing(upstream, "", ""), tuple(listed[path] for path in order), {})
    return Carried(how, listing, tuple(found[path] for path in order))


def _require_same(named: Wanted | None, repository: str, commit: str) -> None:
    if named is None or (named.repository == repository and named.revision in (commit, "main")):
        return
    why = f"its layout says hf:{repository}@{commit}"
    raise Conflict(f"the folder is not {named}", why=why, hint="leave --from away", code="WHICH-UPSTREAM")


def _refs(repository: Path, commit: str) -> Iterator[str]:
    """The branches and tags that stand for a commit in a cache, `main` first."""
    folder = repository / "refs"
    refs = sorted((ref for ref in folder.rglob("*") if ref.is_file()), key=lambda ref: ref.name != "main")
    for ref in refs:
        if ref.stat().st_size <= 64 and ref.read_text("ascii", "replace").strip() == commit:
            yield ref.relative_to(folder).as_posix()


def _metadata(file: Path) -> tuple[str, str] | None:
    """Commit and hash that a Hub client wrote down for a file: two lines, and a third with the time."""
    if not file.is_file() or file.stat().st_size > MAX_METADATA:
        return None
    lines = file.read_text("utf-8", "replace").splitlines()
    return (lines[0], lines[1]) if len(lines) >= 2 and is_commit(lines[0]) else None


def _hashed(path: str, real: Path, name: str) -> Listed:
    """A file as a cache lists it: under its SHA-256, or under its git blob id."""
    known = name if set(name) <= _HEX else ""
    lfs = bare_digest(known) if len(known) == 64 else None
    return Listed(path, real.stat().st_size, known if len(known) == 40 else "", lfs)


def _copied(listed: Listed, source: Path, path: Path, work: Work) -> Observation:
    whole, blob, size = hashlib.sha256(), BlobHash(listed.size), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file, path.open("wb") as target:
        while data := file.read(CHUNK):
            target.write(data)
            whole.update(data)
            blob.update(data)
            size += len(data)
            work.progress(listed.path, len(data))
    if size != listed.size:
        raise Conflict(f"{listed.path} changed while it was read", why="somebody writes to it", code="CHANGED")
    entry = FileEntry(listed.path, size, Digest(whole.hexdigest()))
    observation = compare(listed, entry, blob.hexdigest())
    if observation is None:
        why = f"the cache has it as {listed.lfs or listed.blob}, its bytes hash to {entry.sha256}"
        raise Untrusted(f"{listed.path} is damaged", why=why, hint="fetch it again", code="UPSTREAM-LIED")
    if listed.lfs is not None and not listed.blob:  # a cache names no pointers: there was nothing to compare
        observation = replace(observation, pointer=False)
    return observation
