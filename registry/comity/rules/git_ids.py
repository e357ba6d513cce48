"""Git object ids of an artifact, for Hub clients.

Hub clients see a deterministic git commit id, computed from the manifest alone: each file is the blob of its Git LFS
pointer (SHA-256 and size), in real tree objects, under a commit with fixed author, date and message. All nodes compute
the same 40 hex digits. Sources: git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Final, TypeAlias

from comity.trust.artifact import MAX_FILES, FileEntry, Manifest
from comity.trust.errors import Malformed

MAX_FOLDERS: Final = MAX_FILES
"""Folders of an artifact that has git ids. A manifest of 64 MiB could have thirty million."""


_TreeRows: TypeAlias = list[tuple[bytes, bytes, bytes]]
_OpenFolder: TypeAlias = tuple[str, str, _TreeRows]
"""Name, path and rows."""


def lfs_pointer(entry: FileEntry) -> bytes:
    """The Git LFS pointer file of a manifest entry."""
    return (f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n").encode()


def blob_id(entry: FileEntry) -> str:
    """Git blob id (40 hex digits) of the entry's pointer."""
    return _object_id("blob", lfs_pointer(entry)).hex()


def tree_id(manifest: Manifest) -> str:
    """Git tree id (40 hex digits) of the artifact's root folder."""
    return tree_ids(manifest)[""]


def tree_ids(manifest: Manifest) -> dict[str, str]:
    """Git tree ids of all folders by path; the root folder has the empty path. Raises Malformed for an artifact with
    more than MAX_FOLDERS folders."""
    return git_tree_ids(manifest, blob_id)


def git_tree_ids(manifest: Manifest, blob_id_of: Callable[[FileEntry], str]) -> dict[str, str]:
    """As `tree_ids`; `blob_of` returns the git blob id of a file. Every file has mode 100644."""
    ids: dict[str, str] = {}
    open_folders: list[_OpenFolder] = [("", "", [])]  # from the root inwards; no recursion: up to 512 levels
    count = 0
    for entry in manifest.files:  # in byte order: the files of one folder are consecutive
        *folders, name = entry.path.split("/")
        current = [folder for folder, _, _ in open_folders[1:]]
        pairs = zip(current, folders, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        count += len(folders) - shared
        if count > MAX_FOLDERS:
            why = f"more than {MAX_FOLDERS} folders"
            raise Malformed("the artifact has no git id", why=why, hint="comity pull REF --out DIR")
        _close_folders(open_folders, shared + 1, ids)
        for folder in folders[shared:]:
            above = open_folders[-1][1]
            open_folders.append((folder, f"{above}/{folder}" if above else folder, []))
        open_folders[-1][2].append((name.encode(), b"100644", bytes.fromhex(blob_id_of(entry))))
    _close_folders(open_folders, 1, ids)
    ids[""] = _tree_hash(open_folders[0][2]).hex()
    return ids


def commit_id(manifest: Manifest) -> str:
    """Git commit id (40 lower-case hex digits) of this artifact for Hub clients. Raises Malformed as `tree_ids`."""
    text = (
        f"tree {tree_id(manifest)}\n"
        "author Comity <comity@invalid> 0 +0000\n"
        "committer Comity <comity@invalid> 0 +0000\n"
        f"\nsha256:{manifest.digest}\n"
    )
    return _object_id("commit", text.encode()).hex()


def _close_folders(open_folders: list[_OpenFolder], depth: int, ids: dict[str, str]) -> None:
    """Close the innermost folders until `depth` are open; each becomes a row of its parent folder."""
    while len(open_folders) > depth:
        folder, path, rows = open_folders.pop()
        oid = _tree_hash(rows)
        ids[path] = oid.hex()
        open_folders[-1][2].append((folder.encode() + b"/", b"40000", oid))


def _tree_hash(rows: _TreeRows) -> bytes:
    """Raw id of a git tree object.

    Git sorts a folder as if its name ended with a slash: that is the order of a manifest, by the bytes of whole paths.
    """
    lines = (mode + b" " + name.removesuffix(b"/") + b"\0" + oid for name, mode, oid in rows)
    return _object_id("tree", b"".join(lines))


def _object_id(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).digest()
