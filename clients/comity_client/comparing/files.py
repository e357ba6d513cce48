"""Files of two manifests, by path and by hash."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from comity.trust.digest import Digest
from comity.trust.manifest import FileEntry, Manifest


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What has to happen to the first list of files to get the second. `renamed` are (before, after) of equal bytes."""

    added: tuple[FileEntry, ...]
    removed: tuple[FileEntry, ...]
    changed: tuple[tuple[FileEntry, FileEntry], ...]
    renamed: tuple[tuple[FileEntry, FileEntry], ...]
    same: int


def compare_files(before: Manifest, after: Manifest) -> FileChanges:
    """A file that is gone and whose bytes are there under a new path was renamed; each is taken for one only."""
    common = before.by_path.keys() & after.by_path.keys()
    gone = [entry for entry in before.files if entry.path not in common]
    new = [entry for entry in after.files if entry.path not in common]
    by_bytes: dict[Digest, list[FileEntry]] = defaultdict(list)
    for entry in reversed(gone):
        by_bytes[entry.sha256].append(entry)
    renamed = tuple((by_bytes[entry.sha256].pop(), entry) for entry in new if by_bytes[entry.sha256])
    moved = {entry.path for pair in renamed for entry in pair}
    pairs = [(before.by_path[path], after.by_path[path]) for path in sorted(common)]
    return FileChanges(
        added=tuple(entry for entry in new if entry.path not in moved),
        removed=tuple(entry for entry in gone if entry.path not in moved),
        changed=tuple(pair for pair in pairs if pair[0] != pair[1]),
        renamed=renamed,
        same=sum(one == other for one, other in pairs),
    )
