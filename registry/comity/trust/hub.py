"""The Hub's view of an artifact: a deterministic git commit id, so that Hub caches everywhere agree.

The commit is a real git object graph computed from the manifest alone: each file is the blob of its Git LFS pointer
(which is made of its SHA-256 and size), in real tree objects, under a commit with fixed author, date and message.
Whoever has the manifest computes the same 40 hex digits. Sources: git object format; Git LFS pointer spec v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from comity.trust.manifest import FileEntry, Manifest


def pointer(entry: FileEntry) -> bytes:
    """The Git LFS pointer file of a manifest entry."""
    return (f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n").encode()


def blob_id(entry: FileEntry) -> str:
    """Git blob id (40 hex digits) of the entry's pointer."""
    return _object_id("blob", pointer(entry)).hex()


def tree_id(manifest: Manifest) -> str:
    """Git tree id (40 hex digits) of the artifact's root folder."""
    return _tree([(entry.path.split("/"), entry) for entry in manifest.files]).hex()


def commit_id(manifest: Manifest) -> str:
    """Git commit id (40 lower-case hex digits) by which a Hub client names this artifact."""
    text = (
        f"tree {tree_id(manifest)}\n"
        "author Comity <comity@invalid> 0 +0000\n"
        "committer Comity <comity@invalid> 0 +0000\n"
        f"\nsha256:{manifest.digest}\n"
    )
    return _object_id("commit", text.encode()).hex()


def _tree(paths: Iterable[tuple[list[str], FileEntry]]) -> bytes:
    files: dict[str, FileEntry] = {}
    folders: dict[str, list[tuple[list[str], FileEntry]]] = {}
    for segments, entry in paths:
        if len(segments) == 1:
            files[segments[0]] = entry
        else:
            folders.setdefault(segments[0], []).append((segments[1:], entry))
    items = [(name.encode(), b"100644", bytes.fromhex(blob_id(entry))) for name, entry in files.items()]
    items += [(name.encode() + b"/", b"40000", _tree(inside)) for name, inside in folders.items()]
    rows = (mode + b" " + name.removesuffix(b"/") + b"\0" + oid for name, mode, oid in sorted(items))
    return _object_id("tree", b"".join(rows))


def _object_id(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).digest()
