"""The Hub's view of an artifact: a deterministic git commit id, so that Hub caches everywhere agree.

The commit is a real git object graph computed from the manifest alone: each file is the blob of its Git LFS pointer
(which is made of its SHA-256 and size), in real tree objects, under a commit with fixed author, date and message.
Whoever has the manifest computes the same 40 hex digits. Sources: git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import TypeAlias

from comity.trust.manifest import FileEntry, Manifest

_Rows: TypeAlias = list[tuple[bytes, bytes, bytes]]


def pointer(entry: FileEntry) -> bytes:
    """The Git LFS pointer file of a manifest entry."""
    return (f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n").encode()


def blob_id(entry: FileEntry) -> str:
    """Git blob id (40 hex digits) of the entry's pointer."""
    return _object_id("blob", pointer(entry)).hex()


def tree_id(manifest: Manifest) -> str:
    """Git tree id (40 hex digits) of the artifact's root folder."""
    return tree_ids(manifest)[""]


def tree_ids(manifest: Manifest) -> dict[str, str]:
    """Git tree ids of all folders by path; the root's path is empty."""
    return git_tree_ids(manifest, blob_id)


def git_tree_ids(manifest: Manifest, blob_of: Callable[[FileEntry], str]) -> dict[str, str]:
    """The same where `blob_of` says which git blob stands for a file; every file has mode 100644."""
    found: dict[str, str] = {}
    path: list[tuple[str, _Rows]] = [("", [])]  # the folder being filled and those around it; no recursion: 512 levels
    for entry in manifest.files:  # in byte order, so that a folder's files stand together
        *folders, name = entry.path.split("/")
        here = [folder for folder, _ in path[1:]]
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(here, folders, strict=False)))
        _leave(path, shared + 1, found)
        path.extend((folder, []) for folder in folders[shared:])
        path[-1][1].append((name.encode(), b"100644", bytes.fromhex(blob_of(entry))))
    _leave(path, 1, found)
    found[""] = _tree(path[0][1]).hex()
    return found


def commit_id(manifest: Manifest) -> str:
    """Git commit id (40 lower-case hex digits) by which a Hub client names this artifact."""
    text = (
        f"tree {tree_id(manifest)}\n"
        "author Comity <comity@invalid> 0 +0000\n"
        "committer Comity <comity@invalid> 0 +0000\n"
        f"\nsha256:{manifest.digest}\n"
    )
    return _object_id("commit", text.encode()).hex()


def _leave(path: list[tuple[str, _Rows]], depth: int, found: dict[str, str]) -> None:
    """Finish the innermost folders until `depth` are left; each becomes a row of the one around it."""
    while len(path) > depth:
        where = "/".join(folder for folder, _ in path[1:])
        folder, rows = path.pop()
        oid = _tree(rows)
        found[where] = oid.hex()
        path[-1][1].append((folder.encode() + b"/", b"40000", oid))


def _tree(rows: _Rows) -> bytes:
    """Git sorts a folder as if its name ended with a slash."""
    lines = (mode + b" " + name.removesuffix(b"/") + b"\0" + oid for name, mode, oid in sorted(rows))
    return _object_id("tree", b"".join(lines))


def _object_id(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).digest()
