"""Destinations of verified files, the evidence pack that is written with them, and artifacts already on this machine.

A destination is a plain folder or a Hugging Face Hub cache. Files are placed read-only (0444) by a rename on one file
system, so a reader sees a complete file or none; never as links to writable files. `comity.verifier` reads the pack;
`comity.trust.evidence` defines its format. The Hub cache is filled so that an unmodified huggingface_hub finds the
artifact without a network:

    models--<namespace>--<name>/blobs/<sha256>                    the files
                                snapshots/<commit>/<path>         relative links to them, and the pack in .comity/
                                refs/<version>, refs/main         the commit id, 40 hex digits

The commit id is that of the upstream for a mirrored repository, else it is computed from the manifest
(`comity.trust.artifact`), so all clients and nodes fill the same cache. Sources: huggingface_hub's cache layout;
reference runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.durable import disk_errors
from comity.evidence_pack import BUNDLE_MARK, lines_of
from comity.rules.collected import KeptProof
from comity.rules.git_ids import commit_id
from comity.trust.artifact import MAX_MANIFEST, RESERVED, FileEntry, Manifest
from comity.trust.claims import ParsedClaims, read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.evidence import (
    OLD_STATEMENTS,
    PACK,
    STATEMENTS,
    UNREAD,
    Evidence,
    EvidenceReader,
    FoundFile,
    UnreadStatements,
    proof_name,
)
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM, Name, Reference, abbreviated, find_id
from comity.verifier import CHAINS, collect_evidence, hash_file

from comity_client.evidence.lookup import find_reference, reference_of
from comity_client.hub_cache import cached, default_cache
from comity_client.session import Session

PARTIAL: Final = "partial"
INCOMING: Final = "incoming"
IN_USE: Final = "in-use.lock"
"""In a repository of a Hub cache: pulls hold it together, a removal alone."""


def write_pack(
    folder: Path,
    evidence: Evidence,
    kept: Iterable[KeptProof],
    *,
    missing: Iterable[str] = (),
    chains: Mapping[Digest, bytes] | None = None,
) -> None:
    """Write the evidence pack of the artifact in `folder`. Other evidence of an older pack is kept.

    Args:
        evidence: what the verdict was about.
        kept: its proofs, with the origins by which their files are named.
        missing: paths that a partial pull left out.
        chains: chained records by file, with which the files are hashed on all cores.

    Raises OutOfSpace, Unavailable.
    """
    pack = folder / PACK
    with durable.disk_errors(f"{pack} was not written"):
        for made in (pack, pack / "proofs", pack / "objects", *([pack / CHAINS] if chains else [])):
            durable.make_folders(made)
    for digest, records in (chains or {}).items():
        _write(pack / CHAINS / digest, records)
    for digest, data in evidence.objects.items():
        _write(pack / "objects" / digest, data)
    names: dict[str, bytes] = {}
    for each in kept:
        name = proof_name(sha256(each.line), each.origin)
        names[name if name not in names else proof_name(sha256(each.line), each.log)] = each.proof.data
    for name, data in names.items():
        _write(pack / "proofs" / name, data)
    _write(pack / STATEMENTS, b"".join(line + b"\n" for line in evidence.claims))
    _remove_old_statements(pack)
    _write(pack / "pieces.json", evidence.pieces or b"")
    partial = "".join(f"{path}\n" for path in missing).encode()
    unread = UnreadStatements(evidence.unread, evidence.cut).encode() if evidence.unread or evidence.cut else b""
    marks = {pack / PARTIAL: partial, pack / UNREAD: unread}
    for mark, data in marks.items():  # before the manifest, without which nothing is judged
        if data:
            _write(mark, data)
    _write(pack / "manifest.json", evidence.manifest or b"")
    for mark, data in marks.items():
        if not data:
            mark.unlink(missing_ok=True)


def _remove_old_statements(pack: Path) -> None:
    """Remove the statements under the name of older versions, which a pull has read and written under the new name. A
    file with Sigstore bundles is not ours and stays."""
    path = pack / OLD_STATEMENTS
    with durable.disk_errors(f"{path} was not removed"):
        if path.is_file() and not any(BUNDLE_MARK in line for line in lines_of(path)):
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    durable.write_file(path, data, mode=0o644, point="pack")


READ_ONLY: Final = 0o444
COPY_BLOCK: Final = 1024 * 1024


class Destination(Protocol):
    """Destination of one artifact. Methods are blocking, and raise Conflict, OutOfSpace, Unavailable."""

    @property
    def folder(self) -> Path:
        """The folder for the user: the files of the artifact by path, the pack in `.comity/`."""
        ...

    @property
    def incoming(self) -> Path:
        """Folder of partial files, on the file system of the destination."""
        ...

    def prepare(self) -> None:
        """Create missing folders; refuse a destination with other content."""
        ...

    def path_of(self, entry: FileEntry) -> Path:
        """Return the path of the file with the bytes of `entry`."""
        ...

    def replaceable(self, entry: FileEntry) -> bool:
        """Return whether a corrupt file there may be replaced; only files of this program may."""
        ...

    def in_use(self) -> contextlib.AbstractContextManager[object]:
        """Inside the block nothing is removed from the prepared destination. Waits while something is."""
        ...

    def finish(self, entries: Sequence[FileEntry]) -> None:
        """Link the names of the files, which are all placed."""
        ...


class FolderDestination:
    """A folder that has this artifact, complete or partial, and nothing else."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder.absolute()
        self._manifest = manifest
        self._has_pack = False

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def incoming(self) -> Path:
        return self._folder / PACK / INCOMING

    def prepare(self) -> None:
        with disk_errors(f"{self._folder} was not made ready"):
            durable.make_folders(self._folder)
            self._require_only_own_files()
            durable.make_folders(self.incoming)

    def path_of(self, entry: FileEntry) -> Path:
        return self._folder / entry.path

    def replaceable(self, entry: FileEntry) -> bool:
        return self._has_pack

    def in_use(self) -> contextlib.AbstractContextManager[object]:
        """Nothing to do: no command removes a folder of the user."""
        return contextlib.nullcontext()

    def finish(self, entries: Sequence[FileEntry]) -> None:
        """Nothing to do: the files have their names already."""

    def _require_only_own_files(self) -> None:
        self._has_pack = require_own_pack(self._folder, self._manifest)
        for root, folders, files in os.walk(self._folder):
            here = Path(root)
            if here == self._folder and PACK in folders:
                folders.remove(PACK)
            for name in (*files, *folders):
                path = here / name
                relative = path.relative_to(self._folder).as_posix()
                if path.is_symlink() or (name in files and relative not in self._manifest.by_path):
                    raise self._conflict(f"{relative} is not part of the artifact")

    def _conflict(self, why: str) -> Conflict:
        return _other_content(self._folder, why)


def require_own_pack(folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder has an evidence pack of this artifact. Raises Conflict (FOLDER-NOT-EMPTY) for one of
    another artifact, and for links, through which a pack would be written elsewhere."""
    for own in (PACK, *(f"{PACK}/{inner}" for inner in (INCOMING, "proofs", "objects", CHAINS))):
        if (folder / own).is_symlink():
            raise _other_content(folder, f"{own} is a link")
    pack = folder / PACK / "manifest.json"
    if not pack.exists():
        return False
    if sha256(read_bounded(pack, MAX_MANIFEST)) != manifest.digest:
        raise _other_content(folder, "it has another artifact")
    return True


def _other_content(folder: Path, why: str) -> Conflict:
    return Conflict(f"{folder} has other content", why=why, hint="choose a new folder", code="FOLDER-NOT-EMPTY")


def has_file(path: Path, entry: FileEntry, on_hashed: Callable[[int], None] = lambda count: None) -> bool:
    """Return whether a regular file with exactly the bytes of `entry` is at `path`; reads the whole file."""
    with disk_errors(f"{path} was not read"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return False
        return hash_file(path, on_hashed) == (entry.size, entry.sha256)


def place_file(verified: Path, paths: Sequence[Path], entry: FileEntry) -> None:
    """Move a verified file to the last of `paths` and copy it to the others; all are read-only and synced to disk on
    return. A file that another pull placed first is hashed, and kept if it is right.

    Raises Conflict (VANISHED) if neither exists, OutOfSpace, Unavailable.
    """
    if last := _copied_to_all_but_one(verified, paths, entry):
        with disk_errors(f"{entry.path} was not placed"):
            durable.move(verified, last, point="place")


def place_small(incoming: Path, files: Mapping[FileEntry, Sequence[Path]]) -> None:
    """As `place_file` for small files, which are verified and not synced, from `incoming/<sha256>` to their paths: much
    faster than one by one."""
    moves = dict[Path, Path]()
    with disk_errors(f"{len(files)} small files were not placed"):
        for entry, paths in files.items():
            verified = incoming / entry.sha256
            if last := _copied_to_all_but_one(verified, paths, entry):
                moves[verified] = last
            else:
                verified.unlink(missing_ok=True)
        durable.move_together(moves, point="place")


def _copied_to_all_but_one(verified: Path, paths: Sequence[Path], entry: FileEntry) -> Path | None:
    """Copy a verified file to those of `paths` that lack it, but the last of them, which is returned: the file is to be
    moved there."""
    missing = [path_of for path_of in paths if not has_file(path_of, entry)]
    if not missing:
        return None
    if not verified.exists():
        why = f"{verified} was removed during the pull"
        raise Conflict("a verified file is missing", why=why, hint="run the same command again", code="VANISHED")
    with disk_errors(f"{entry.path} was not placed"):
        for path_of in missing:
            durable.make_folders(path_of.parent)
        for path_of in missing[:-1]:
            into = durable.staged(path_of, mode=READ_ONLY, folder=verified.parent, point="place")
            with into as copy, verified.open("rb") as source:
                shutil.copyfileobj(source, copy, COPY_BLOCK)
        verified.chmod(READ_ONLY)
    return missing[-1]


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk of `folder`, or of its nearest parent that exists. Raises Unavailable."""
    with disk_errors(f"free space of {folder} is unknown"):
        return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def require_space(folder: Path, missing: int) -> None:
    """Raise OutOfSpace, before anything is fetched, if the disk of `folder` has less than `missing` bytes free."""
    free = free_space(folder)
    if free < missing:
        raise OutOfSpace(
            f"not enough space for {missing / 1e6:,.1f} MB",
            why=f"the disk of {folder} has {free / 1e6:,.1f} MB free",
            hint="free space, then run the same command again: verified data are kept",
        )


def allocated(path: Path) -> int:
    """Return the bytes of a partial file that are on disk."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


class HubCacheDestination:
    """One repository in a Hub cache.

    Args:
        newest: set `refs/main` to this version; it is set anyway if it does not exist.
        commit: the commit of the upstream of a mirrored repository; else it is computed.
    """

    def __init__(self, cache: Path, name: Name, manifest: Manifest, *, newest: bool, commit: str = "") -> None:
        self._repository = cache.absolute() / f"models--{name.namespace}--{name.name}"
        self._version = name.version
        self._newest = newest
        self.commit = commit or commit_id(manifest)

    @property
    def folder(self) -> Path:
        return self._repository / "snapshots" / self.commit

    @property
    def incoming(self) -> Path:
        return self._repository / PACK / INCOMING

    def prepare(self) -> None:
        with disk_errors(f"{self._repository} was not made ready"):
            for made in (self.incoming, self._repository / "blobs", self._repository / "refs"):
                durable.make_folders(made)

    def path_of(self, entry: FileEntry) -> Path:
        return self._repository / "blobs" / entry.sha256

    def replaceable(self, entry: FileEntry) -> bool:
        """Always true: a blob that does not match its name is useless."""
        return True

    def in_use(self) -> contextlib.AbstractContextManager[object]:
        return durable.flock(self._repository / PACK / IN_USE, fcntl.LOCK_SH, f"{self._repository} was not locked")

    def finish(self, entries: Sequence[FileEntry]) -> None:
        with disk_errors(f"{self._repository} was not linked"):
            for entry in entries:
                durable.make_folders((self.folder / entry.path).parent)
            self._link_all(entries)
            refs = self._repository / "refs"
            named = [refs / self._version]
            if self._newest or not (refs / "main").exists():
                named.append(refs / "main")
            for ref in named:
                with durable.staged(ref, mode=0o644, folder=self.incoming, point="ref") as file:
                    file.write(self.commit.encode())

    def _link_all(self, entries: Sequence[FileEntry]) -> None:
        """Make each name of a file point to it, atomically. Temporary links are in `incoming`, because a leftover in a
        snapshot or among the refs would be taken for a part of it."""
        moves, name = dict[Path, Path](), secrets.token_hex(8)
        for number, entry in enumerate(entries):
            link = self.folder / entry.path
            target = Path(os.path.relpath(self.path_of(entry), link.parent))
            if link.is_symlink() and link.readlink() == target:
                continue
            temporary = self.incoming / f"{name}.{number}{durable.TEMPORARY}"
            temporary.symlink_to(target)
            moves[temporary] = link
        durable.rename_together(moves, point="link")


def cached_artifacts(cache: Path, repository: str | None = None) -> dict[Digest, str]:
    """Return the digest and the folder of each pulled artifact in a Hub cache, of one repository or of all."""
    name = (repository or "*").removeprefix(UPSTREAM).replace("/", "--")
    found: dict[Digest, str] = {}
    for manifest in sorted(cache.glob(f"models--{name}/snapshots/*/{PACK}/manifest.json")):
        with contextlib.suppress(NotFound, Malformed):
            found[sha256(read_bounded(manifest, MAX_MANIFEST))] = f"in {manifest.parent.parent}"
    return found


def cached_folder(what: str, hub_cache: Path | None = None) -> Path:
    """Return the snapshot of a reference, which may abbreviate its digest, in a Hub cache (default: the user's own),
    without a network. Raises NotFound, Malformed (BAD-NAME, BAD-ID, AMBIGUOUS-ID)."""
    return cached(hub_cache or default_cache(), known_reference(what, hub_cache))


async def read_reference(session: Session, text: str) -> Reference:
    """Parse a reference; an abbreviated digest is looked up, here and at nodes. Raises as `reference_of` and
    `find_reference` do."""
    if (given := abbreviated(text)) is None:
        return reference_of(text)
    repository, digits = given
    return await find_reference(session, repository, digits, cached_artifacts(default_cache(), repository))


def known_reference(what: str, hub_cache: Path | None = None) -> Reference:
    """Parse a reference; an abbreviated digest is looked up in a Hub cache. Raises as `cached_folder` does."""
    if (given := abbreviated(what)) is None:
        return reference_of(what)
    repository, digits = given
    known = cached_artifacts(hub_cache or default_cache(), repository)
    return Reference(repository, None, find_id(digits.text, known, "cached", f"comity pull {what}"))


@frozen
class LocalCopy:
    """Files and the manifest computed from them. `evidence` is from the pack; `name` is from a proven publication in
    it, empty if there is none; `versions` are sizes and times of the files before they were hashed."""

    folder: Path
    manifest: Manifest
    evidence: Evidence
    readings: ParsedClaims
    versions: Mapping[str, tuple[int, int]]

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest

    @property
    def name(self) -> str:
        return next((str(publication.published.name) for publication in self.readings.publications), "")

    @property
    def title(self) -> str:
        return self.name or self.folder.name or str(self.folder)

    def check_unchanged(self) -> None:
        """Raise Conflict (CHANGED) for a file that changed since it was hashed."""
        for path in self.manifest.by_path:
            if self.versions.get(path) != _version(self.folder / path):
                why = f"{path} changed after it was hashed"
                raise Conflict("a file changed while it was read", why=why, code="CHANGED")


def folder_of(what: Path | str, hub_cache: Path | None = None) -> Path:
    """Return the folder of a path or reference. Raises NotFound, and Malformed for an invalid reference."""
    folder = Path(what)
    if folder.is_file():
        raise NotFound(f"{folder} is one file", why="an artifact is a folder", hint=f"name {folder.parent} instead")
    if folder.is_dir() or isinstance(what, Path):
        return folder
    return cached_folder(what, hub_cache)


def local_copy_loader(
    reference: str, hub_cache: Path | None, load: Callable[[str], LocalCopy]
) -> Callable[[], LocalCopy] | None:
    """Return a function that hashes the pulled copy of a reference; None if it is not in the Hub cache."""
    try:
        folder_of(reference, hub_cache)
    except NotFound:
        return None
    return lambda: load(reference)


def workers() -> int:
    """Return the number of threads that hash files."""
    return min(4, os.cpu_count() or 1)


def hash_local_copy(
    what: Path | str,
    *,
    workers: int,
    hub_cache: Path | None = None,
    on_hashed: Callable[[int], None] | None = None,
) -> LocalCopy:
    """Hash a folder, or the pulled copy of a reference.

    Raises NotFound if it does not exist, Malformed for links and special files, Untrusted (NOT-AS-LISTED) if the
    manifest in its pack differs, Unavailable (PARTLY-HERE) if files are missing.
    """
    folder = folder_of(what, hub_cache)
    versions = _versions(folder)
    reader = EvidenceReader()
    evidence = collect_evidence(folder, workers=workers, on_hashed=on_hashed, reader=reader)
    found = [file for file in evidence.files or () if not _reserved(file.path)]
    manifest = Manifest.of(_entry(file) for file in found)
    if evidence.manifest is not None:
        _check(folder, Manifest.parse(evidence.manifest), manifest)
    return LocalCopy(folder, manifest, evidence, read_claims(evidence.claims, manifest.digest, reader), versions)


def _check(folder: Path, listed: Manifest, found: Manifest) -> None:
    for path, entry in listed.by_path.items():
        if path in found.by_path and found.by_path[path] != entry:
            raise _not_as_listed(folder, f"{path} has other bytes")
    if extra := set(found.by_path) - set(listed.by_path):
        raise _not_as_listed(folder, f"{min(extra)} is not in the manifest")
    if missing := set(listed.by_path) - set(found.by_path):
        why = f"{len(missing)} of {len(listed.files)} files are missing, for example {min(missing)}"
        raise Unavailable(f"{folder} is incomplete", why=why, hint="comity pull REF", code="PARTLY-HERE")


def _not_as_listed(folder: Path, why: str) -> ComityError:
    what = f"{folder} does not match its manifest"
    return Untrusted(what, why=why, hint=f"comity verify {folder}", code="NOT-AS-LISTED")


def _entry(file: FoundFile) -> FileEntry:
    if file.sha256 is None:
        raise Malformed(f"{file.path} is not a regular file", why=f"it is a {file.kind}", code="NOT-A-FILE")
    return FileEntry(file.path, file.size, file.sha256)


def _reserved(path: str) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in RESERVED)


def _versions(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.relative_to(folder).as_posix(): _version(path) for path in folder.rglob("*") if path.is_file()}


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
