"""Artifacts whose bytes are on this machine: a folder, or what a reference was pulled to. Hashed when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import Evidence, FoundFile
from comity.trust.judging.reading import Readings, read_claims
from comity.trust.manifest import RESERVED, FileEntry, Manifest
from comity.trust.names import Reference
from comity.verifier import examine

from comity_client.pulling.hub_cache import cached, default_cache


@dataclass(frozen=True, slots=True)
class Held:
    """Files and their manifest, which was computed from them. `evidence` is what lies beside them; `name` what a
    proven publication among it calls them, empty where there is none; `versions` are sizes and times of the files as
    they were before they were hashed."""

    folder: Path
    manifest: Manifest
    evidence: Evidence
    readings: Readings
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
        """Raises Conflict (CHANGED) for a file that is no longer as it was when it was hashed."""
        for path in self.manifest.by_path:
            if self.versions.get(path) != _version(self.folder / path):
                why = f"{path} is not as it was when it was hashed"
                raise Conflict("a file changed while it was read", why=why, code="CHANGED")


def folder_of(what: Path | str, hub_cache: Path | None = None) -> Path:
    """The folder that is meant. Raises NotFound, and Malformed for what is no reference."""
    folder = Path(what)
    if folder.is_file():
        raise NotFound(f"{folder} is one file", why="an artifact is a folder", hint=f"name {folder.parent} instead")
    if folder.is_dir() or isinstance(what, Path):
        return folder
    return cached(hub_cache or default_cache(), reference_of(what))


def reference_of(what: str) -> Reference:
    """The reference that is meant by what is no folder here. Raises NotFound for what can only mean a folder, and
    Malformed (BAD-NAME)."""
    if what in (".", "..") or what.startswith(("/", "./", "../", "~")):
        hint = "comity pull REF --to DIR, or name a folder that is there"
        raise NotFound(
            f"no folder {what}", why="it is not there, and no reference begins so", hint=hint, code="NO-FOLDER"
        )
    return Reference.parse(what)


def held_of(reference: str, hub_cache: Path | None, hold: Callable[[str], Held]) -> Callable[[], Held] | None:
    """What hashes the artifact on this machine; None where it was not pulled into the Hub cache."""
    try:
        folder_of(reference, hub_cache)
    except NotFound:
        return None
    return lambda: hold(reference)


def held(
    what: Path | str,
    *,
    workers: int,
    hub_cache: Path | None = None,
    on_hashed: Callable[[int], None] | None = None,
) -> Held:
    """Hash what is there.

    Raises NotFound where it is not, Malformed for links and special files, Untrusted (code NOT-AS-LISTED) where a
    manifest beside the files lists others, Unavailable (PARTLY-HERE) where some of them are missing.
    """
    folder = folder_of(what, hub_cache)
    versions = _versions(folder)
    evidence = examine(folder, workers=workers, on_hashed=on_hashed)
    found = [file for file in evidence.files or () if not _reserved(file.path)]
    manifest = Manifest.of(_entry(file) for file in found)
    if evidence.manifest is not None:
        _check(folder, Manifest.parse(evidence.manifest), manifest)
    return Held(folder, manifest, evidence, read_claims(evidence.claims, manifest.digest), versions)


def _check(folder: Path, listed: Manifest, found: Manifest) -> None:
    for path, entry in listed.by_path.items():
        if path in found.by_path and found.by_path[path] != entry:
            raise _not_as_listed(folder, f"{path} has other bytes")
    if more := set(found.by_path) - set(listed.by_path):
        raise _not_as_listed(folder, f"{min(more)} is not in the manifest")
    if missing := set(listed.by_path) - set(found.by_path):
        why = f"{len(missing)} of {len(listed.files)} files are missing, {min(missing)} among them"
        raise Unavailable(f"{folder} is only partly here", why=why, hint="comity pull REF", code="PARTLY-HERE")


def _not_as_listed(folder: Path, why: str) -> ComityError:
    what = f"{folder} is not what its manifest lists"
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
