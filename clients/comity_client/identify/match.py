"""Which artifacts the files on this machine are, from the manifests that nodes gave: pure.

A folder is an artifact's where files lie at the paths of its manifest, and they are at least half of its files or of
its bytes. Other files of an artifact, such as those of a store that names them by digest, are named with the path that
the manifest gives them. A file of many artifacts, such as a licence, is named with the one that has most of the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from comity.trust.artifact import RESERVED, Manifest
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.wire.files import file_reference

from comity_client.identify.disk import DiskFile
from comity_client.identify.folder_state import State

ALIKE: Final = 15
"""Further artifacts that have the same of the files, as far as nodes say, and are looked at as well."""
ABOVE: Final = 3
"""Folders above that of a file, of which each may be the artifact's own."""
LISTED: Final = 1_000
"""Paths that a list of a folder has at most."""


@frozen
class FolderOf:
    """A folder with an artifact's files at their paths. `missing`, `changed` and `extra` are paths below the folder:
    not there, there with other bytes, and there but in no manifest. `within`: the archive, or the document of a store,
    that has it; `in_archive`: whether files are in an archive; `stored_as`: what the store calls it."""

    folder: Path
    artifact: Digest
    present: int
    files: int
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    within: Path | None = None
    in_archive: bool = False
    stored_as: str = ""

    @property
    def state(self) -> State:
        if self.changed:
            return "changed"
        if self.missing:
            return "partial"
        return "complete, with other files" if self.extra else "complete"

    @property
    def complete(self) -> bool:
        return not (self.missing or self.changed or self.extra)


@frozen
class FileOf:
    """A file that is in an artifact, somewhere else than below a folder with that artifact. `path`: in the manifest."""

    file: DiskFile
    artifact: Digest
    path: str


@frozen
class MatchedFiles:
    """What was found: folders, single files, and files of no artifact that was looked at. `others`: further artifacts
    of which a folder lacks as few files, so that it may be any of them."""

    folders: tuple[FolderOf, ...]
    files: tuple[FileOf, ...]
    unknown: tuple[DiskFile, ...]
    others: Mapping[Path, tuple[Digest, ...]]


_Places: TypeAlias = dict["Digest | None", list[tuple[Digest, str]]]


def cover(candidates: Mapping[Digest, frozenset[bytes]]) -> list[Digest]:
    """Choose artifacts that have all references that any of the candidates has: again and again the one with most of
    those that are left; of equal ones the one with most in all, then the first one. After each come others with the
    same references, at most `ALIKE`."""
    left, chosen = set[bytes]().union(*candidates.values()), dict[Digest, None]()
    alike = _by_references(candidates)
    waiting = [(-len(some), -len(some), number, some) for number, some in enumerate(alike)]
    heapify(waiting)
    while waiting and left:
        _, size, number, references = heappop(waiting)
        new = len(references & left)
        if waiting and (-new, size, number) > waiting[0][:3]:  # others have more of what is left now
            if new:
                heappush(waiting, (-new, size, number, references))
            continue
        left -= references
        if new:
            chosen |= dict.fromkeys(alike[references][: 1 + ALIKE])
    return list(chosen)


def within_folders(candidates: Mapping[Digest, frozenset[bytes]], files: Iterable[DiskFile]) -> list[Digest]:
    """Choose, for each folder, the artifacts with most references of those that have none outside of it, at most
    `ALIKE` further ones: the folder may be exactly one of them, although another artifact has all of its files and
    more."""
    alike, folders = _by_references(candidates), defaultdict[str, set[bytes]](set)
    known = set[bytes]().union(*alike)
    for file in files:
        if file.sha256 is not None and file.size and (reference := file_reference(file.sha256)) in known:
            above = str(file.path)
            for _ in range(1 + ABOVE):
                above = above.rpartition("/")[0]
                folders[above].add(reference)
    having = defaultdict[bytes, list[str]](list)
    for folder, here in folders.items():
        for reference in here:
            having[reference].append(folder)
    best = defaultdict[str, list[frozenset[bytes]]](list)
    for references in filter(None, alike):
        rarest = min(references, key=lambda each: len(having[each]))
        for folder in having[rarest]:
            if references <= folders[folder] and len(references) >= len((best[folder] or [references])[0]):
                same = best[folder] if best[folder] and len(best[folder][0]) == len(references) else []
                best[folder] = [*same, references][: 1 + ALIKE]
    chosen = (each for some in best.values() for references in some for each in alike[references][: 1 + ALIKE])
    return list(dict.fromkeys(chosen))


def _by_references(candidates: Mapping[Digest, frozenset[bytes]]) -> dict[frozenset[bytes], list[Digest]]:
    alike = dict[frozenset[bytes], list[Digest]]()
    for artifact, references in candidates.items():
        alike.setdefault(references, []).append(artifact)
    return alike


def match(files: Sequence[DiskFile], manifests: Mapping[Digest, Manifest]) -> MatchedFiles:
    """Match files with artifacts; `manifests` in the order in which they are preferred."""
    here = {str(each.path): each for each in files if each.sha256 is not None}
    paths, places = sorted(here), _places({each.sha256 for each in here.values()}, manifests)
    unnamed = {(each.path.parent, each.sha256): each for each in here.values() if not each.named}
    folders, others = list[FolderOf](), dict[Path, tuple[Digest, ...]]()
    taken, identities = set[Path](), set[tuple[int, ...]]()
    for folder, artifacts in _folders(here, places, manifests).items():
        compared = [_compare(folder, each, manifests[each], here, unnamed) for each in artifacts]
        best, present = min(compared, key=lambda each: (_lacks(each[0]), -each[0].present))
        if {each.path for each in present} <= taken:
            continue
        first, inside = present[0], any(each.in_archive for each in present)
        extra = tuple(islice(_extra(best, manifests[best.artifact], present, here, paths), LISTED))
        folders.append(replace(best, extra=extra, within=first.within, in_archive=inside, stored_as=first.stored_as))
        taken |= {each.path for each in present}
        identities |= {each.identity for each in present}
        if alike := [each.artifact for each, _ in compared if each is not best and _lacks(each) == _lacks(best)]:
            others[folder] = tuple(alike)
    rest = _once(each for each in here.values() if each.identity not in identities)
    named = [FileOf(each, *places[each.sha256][0]) for each in rest if each.size and each.sha256 in places]
    known = {each.path for each in here.values() if each.sha256 in places}
    unknown = [
        each
        for each in rest
        if each.sha256 not in places and each.size and not each.opened and each.within not in known
    ]
    return MatchedFiles(tuple(folders), tuple(named), tuple(unknown), others)


def _lacks(folder: FolderOf) -> int:
    """Files that are missing or have other bytes."""
    return folder.files - folder.present


def _once(files: Iterable[DiskFile]) -> list[DiskFile]:
    """One path of each file, if there is one that a store gives it."""
    found = dict[tuple[int, ...], DiskFile]()
    for each in files:
        if each.identity not in found or (each.stored_as and not found[each.identity].stored_as):
            found[each.identity] = each
    return list(found.values())


def _places(digests: Collection[Digest | None], manifests: Mapping[Digest, Manifest]) -> _Places:
    """Of each digest the artifacts that have it, and its path there."""
    found: _Places = {}
    for artifact, manifest in manifests.items():
        for entry in manifest.files:
            if entry.sha256 in digests:
                found.setdefault(entry.sha256, []).append((artifact, entry.path))
    return found


def _folders(
    here: Mapping[str, DiskFile], places: _Places, manifests: Mapping[Digest, Manifest]
) -> dict[Path, list[Digest]]:
    """Folders that have enough files of artifacts at their paths, those with most bytes first; and these artifacts."""
    count, size = Counter[tuple[str, Digest]](), Counter[tuple[str, Digest]]()
    for text, file in here.items():
        for artifact, path in places.get(file.sha256, ()):
            name = path if file.named else file.path.name
            if f"/{text}".endswith(f"/{name}"):
                key = (text[: -len(name)], artifact)
                count[key] += 1
                size[key] += file.size
    found = dict[Path, list[Digest]]()
    for (folder, artifact), bytes_here in sorted(size.items(), key=lambda item: (-item[1], item[0])):
        manifest = manifests[artifact]
        if 2 * count[folder, artifact] >= len(manifest.files) or 2 * bytes_here >= manifest.size:
            found.setdefault(Path(folder), []).append(artifact)
    return found


def _compare(
    folder: Path,
    artifact: Digest,
    manifest: Manifest,
    here: Mapping[str, DiskFile],
    unnamed: Mapping[tuple[Path, Digest | None], DiskFile],
) -> tuple[FolderOf, list[DiskFile]]:
    """What of an artifact is in a folder, without other files; and the files that are."""
    missing, changed, present = list[str](), list[str](), list[DiskFile]()
    for entry in manifest.files:
        file = unnamed.get((folder, entry.sha256)) or here.get(str(folder / entry.path))
        if file is None:
            missing.append(entry.path)
        elif file.sha256 != entry.sha256:
            changed.append(entry.path)
        else:
            present.append(file)
    missing_too, changed_too = tuple(missing[:LISTED]), tuple(changed[:LISTED])
    return FolderOf(folder, artifact, len(present), len(manifest.files), missing_too, changed_too), present


def _extra(
    found: FolderOf,
    manifest: Manifest,
    present: Iterable[DiskFile],
    here: Mapping[str, DiskFile],
    paths: Sequence[str],
) -> Iterator[str]:
    """The paths below a folder that are not in the manifest. Of an archive it is its own path alone."""
    known = {*manifest.by_path, *(each.path.name for each in present if not each.named)}
    start = f"{found.folder}/" if str(found.folder) != "/" else "/"
    for number in range(bisect_left(paths, start), bisect_left(paths, start[:-1] + chr(ord("/") + 1))):
        path = paths[number]
        name = path[len(start) :]
        if not (name in known or _reserved(name) or str(here[path].within or "").startswith(start)):
            yield name


def _reserved(path: str) -> bool:
    """Whether a path is in a folder that is never published."""
    return f"{path}/".startswith(tuple(f"{folder}/" for folder in RESERVED))
