"""The JSON that Hub clients expect. Pure. Every file is shown as one of Git LFS, whose digest is its SHA-256.

A statement carries no clock, and neither does the commit that is computed from it: dates are the epoch.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from comity.gateway.hub.address import MAIN
from comity.gateway.hub.snapshot import Snapshot
from comity.trust.errors import Malformed, NotFound
from comity.trust.hub import blob_id, pointer
from comity.trust.manifest import FileEntry

Document: TypeAlias = dict[str, Any]

DATE: Final = "1970-01-01T00:00:00.000Z"
TREE_PAGE: Final = 10_000
"""Entries a page: some clients read only the first."""
PATHS: Final = 10_000

_CURSOR: Final = re.compile(rb"[0-9]{1,9}\Z")


def model(snapshot: Snapshot, *, blobs: bool = False, siblings: bool = True) -> Document:
    """`GET /api/models/{id}`."""
    licence = snapshot.licence.lower()
    document: Document = {
        "_id": snapshot.artifact[:24],
        "id": snapshot.repository,
        "modelId": snapshot.repository,
        "author": snapshot.repository.partition("/")[0],
        "sha": snapshot.commit,
        "lastModified": DATE,
        "createdAt": DATE,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*([f"license:{licence}"] if licence else []), f"comity:{snapshot.label}"],
        "cardData": {"license": licence} if licence else {},
        "usedStorage": snapshot.manifest.size,
    }
    if siblings:
        document["siblings"] = [_sibling(entry, blobs) for entry in snapshot.manifest.files]
    return document


def tree(snapshot: Snapshot, folder: str, *, recursive: bool, expand: bool) -> list[Document]:
    """`GET …/tree/{revision}/{folder}`, whole. Raises NotFound (NO-SUCH-FILE) for a folder that is not there."""
    if folder not in snapshot.trees:
        raise NotFound(f"no folder {folder[:200]!r}", code="NO-SUCH-FILE")
    prefix = f"{folder}/" if folder else ""
    below = {path: _folder(path, oid) for path, oid in snapshot.trees.items() if path and path.startswith(prefix)}
    below |= {e.path: _file(e) for e in snapshot.manifest.files if e.path.startswith(prefix)}
    listed = (path for path in sorted(below) if recursive or "/" not in path[len(prefix) :])
    return [_expanded(below[path], snapshot.commit) if expand else below[path] for path in listed]


def paths_info(snapshot: Snapshot, paths: Iterable[str], *, expand: bool) -> list[Document]:
    """`POST …/paths-info/{revision}`: what is not there is left out."""
    found = []
    for path in dict.fromkeys(path.strip("/") for path in paths):
        if (entry := snapshot.manifest.by_path.get(path)) is not None:
            found.append(_file(entry))
        elif path and path in snapshot.trees:
            found.append(_folder(path, snapshot.trees[path]))
    return [_expanded(item, snapshot.commit) for item in found] if expand else found


def refs(commits: Mapping[str, str], main: str | None) -> Document:
    """`GET …/refs`: each version is a tag."""
    branches = [{"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": main}] if main else []
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit} for name, commit in commits.items()]
    return {"branches": branches, "converts": [], "tags": tags, "pullRequests": []}


def commits(snapshot: Snapshot) -> list[Document]:
    """`GET …/commits/{revision}`: a version has no ancestors."""
    title = f"sha256:{snapshot.artifact}"
    author = {"user": snapshot.author}
    return [{"id": snapshot.commit, "title": title, "message": "", "date": DATE, "authors": [author]}]


def page(items: Sequence[Document], cursor: str, limit: int) -> tuple[list[Document], str]:
    """One page of `items`, and the cursor of the next, empty at the end. Raises Malformed (CURSOR)."""
    begin = _position(cursor) if cursor else 0
    end = begin + limit
    return list(items[begin:end]), _cursor(end) if end < len(items) else ""


def integer(text: str | None, default: int, most: int) -> int:
    """A count as clients write one, kept within 1 and `most`. Raises Malformed."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Malformed("not a count", why=text[:40])
    return max(1, min(int(text), most))


def truth(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes", "on")


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(b"%d" % position).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError as error:
        raise _no_cursor() from error
    if not _CURSOR.match(text):
        raise _no_cursor()
    return int(text)


def _no_cursor() -> Malformed:
    return Malformed("not a cursor of this node", why="ask again from the beginning", code="CURSOR")


def _sibling(entry: FileEntry, blobs: bool) -> Document:
    if not blobs:
        return {"rfilename": entry.path}
    lfs = {"size": entry.size, "sha256": entry.sha256, "pointerSize": len(pointer(entry))}
    return {"rfilename": entry.path, "size": entry.size, "blobId": blob_id(entry), "lfs": lfs}


def _file(entry: FileEntry) -> Document:
    lfs = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(pointer(entry))}
    return {"type": "file", "path": entry.path, "size": entry.size, "oid": blob_id(entry), "lfs": lfs}


def _folder(path: str, oid: str) -> Document:
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _expanded(item: Document, commit: str) -> Document:
    return {**item, "lastCommit": {"id": commit, "title": "", "date": DATE}}
