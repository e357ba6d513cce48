"""Request paths, snapshots, and JSON of a Hugging Face Hub. Pure functions.

/api/{kind}                                     every repository
/api/{kind}/{id}[/{view}[/{revision}[/{path}]]]   a view of one
/[{kind}/]{id}/resolve/{revision}/{path}        a file of one

`id` is `namespace/name`, or a name alone as for the oldest repositories. Paths are read raw, because a revision such as
`refs/pr/1` has quoted slashes. Every file is shown as a Git LFS file, whose digest is its SHA-256. Statements have no
time: dates are those at which this node had verified the first statement that names the artifact, by its own clock, and
never its publisher's word; the epoch where no statement names it yet.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from comity.gateway.hub.card import Card
from comity.gateway.hub.model_facts import ModelFacts
from comity.node.importing.read_through import ReadThroughImport
from comity.rules.artifact_kind import HUB_DATASETS, HUB_MODELS, MODEL
from comity.rules.git_ids import blob_id, lfs_pointer
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, format_moment
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject
from comity.trust.statements import Published
from comity.trust.upstream import Observed

KINDS: Final = ("models", "datasets", "spaces", "kernels")
PREFIXES: Final = KINDS[1:]
VIEWS: Final = ("revision", "tree", "paths-info", "refs", "commits", "auth-check")
RESOLVE: Final = "resolve"
RAW: Final = "raw"
BLOB: Final = "blob"
HEAD: Final = "HEAD"
"""Git's name of the default branch, which some clients send."""
MAIN: Final = "main"


@frozen
class HubAddress:
    """A view (`""`: the repository itself) of a repository; `path` is a file or folder without outer slashes. `head`
    and `tail` are the raw text before and after the id."""

    view: str
    repository: str
    revision: str
    path: str
    head: str
    tail: str

    @property
    def model(self) -> bool:
        """Whether the address is for a model, not another kind of repository."""
        return self.head in ("/", f"/api/{KINDS[0]}/")

    @property
    def hub_type(self) -> str:
        """The type of repository that it asks for; empty for spaces and kernels, as which every artifact answers."""
        if self.model:
            return HUB_MODELS
        return HUB_DATASETS if self.head in ("/datasets/", "/api/datasets/") else ""

    def renamed(self, repository: str) -> str:
        """Return the same address for another name of the repository."""
        return f"{self.head}{repository}{self.tail}"


def read_api(raw: str) -> HubAddress:
    """`/api/{kind}/…`. Raises NotFound (NO-SUCH-ROUTE), Malformed."""
    segments = raw.split("/")[3:]  # "", "api", kind
    at = _view_at(segments, VIEWS)
    if at is None and len(segments) > 2:
        raise _no_route()
    view = segments[at] if at is not None else ""
    length = at if at is not None else len(segments)
    rest = segments[length + 1 :]
    head = "/".join(raw.split("/")[:3]) + "/"
    return _address(view, segments[:length], rest, head)


def read_resolve(raw: str) -> HubAddress:
    """`/[{kind}/]{id}/resolve/{revision}/{path}`; or with `raw`, by which JavaScript clients ask whether a file exists;
    or with `blob`, the Hub's page of a file, whose address people paste. Raises NotFound (NO-SUCH-ROUTE), Malformed."""
    segments = raw.split("/")[1:]
    prefix = segments[:1] if segments and segments[0] in PREFIXES else []
    segments = segments[len(prefix) :]
    at = _view_at(segments, (RESOLVE, RAW, BLOB))
    if at is None or len(segments) < at + 3:
        raise _no_route()
    head = "/" + "".join(f"{part}/" for part in prefix)
    return _address(segments[at], segments[:at], segments[at + 1 :], head)


def _view_at(segments: list[str], views: tuple[str, ...]) -> int | None:
    """Return the index of the view: after two segments of a name, else after one."""
    return next((at for at in (2, 1) if len(segments) > at and segments[at] in views), None)


def _address(view: str, name: list[str], rest: list[str], head: str) -> HubAddress:
    repository = "/".join(_decoded(segment) for segment in name)
    given = _decoded(rest[0]) if rest else ""
    revision = MAIN if given in ("", HEAD) else given
    path = _decoded("/".join(rest[1:])).strip("/")
    tail = "".join(f"/{part}" for part in ((view, *rest) if view else ()))
    return HubAddress(view, repository, revision, path, head, tail)


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("the address cannot be read", why="it is not UTF-8") from error


def _no_route() -> NotFound:
    return NotFound("no such address", code="NO-SUCH-ROUTE")


Claim: TypeAlias = Published | Observed | ReadThroughImport


def commit_of(claim: Claim) -> str:
    """The upstream commit, `hf:org/name@commit`, that a claim is about; empty for a publication."""
    if isinstance(claim, Published):
        return ""
    return (claim if isinstance(claim, Observed) else claim.revision).upstream.name


@frozen
class ServedContinuation:
    """For which commit of an upstream an artifact is served, and by whose word, as a header; and the repository of its
    own name, which the reader must be allowed to read."""

    header: str
    repository: str


@frozen
class Snapshot:
    """An artifact under a name that may be served.

    `claim` is the statement by which it is served, or the import that will make one; `label` is the version in it,
    `author` its author. `trees` are the git tree ids of its folders. `subjects` are those whose statements decided that
    it is served (`StatementChanges`). `known_since`: when this node had verified the first statement that names the
    artifact, in POSIX seconds (`ProvenTimes`); 0 if none does. `kind` is what its publisher states. `continues`: that
    it is served for a commit of an upstream; None under its own name.
    """

    repository: str
    artifact: Digest
    claim: Claim
    label: str
    licence: str
    author: str
    manifest: Manifest
    commit: str
    trees: Mapping[str, str]
    notices: tuple[tuple[str, str], ...]
    subjects: frozenset[str] = frozenset()
    known_since: int = 0
    kind: str = MODEL
    continues: ServedContinuation | None = None

    @property
    def own_repository(self) -> str:
        """The name under which the artifact itself is published or mirrored, also where it is served under another."""
        return self.continues.repository if self.continues else self.repository

    @property
    def date(self) -> str:
        """As the Hub writes dates: `2027-01-04T00:00:00.000Z`."""
        return format_moment(self.known_since, "%Y-%m-%dT%H:%M:%S.000Z")


@frozen
class ServedRevision:
    """A revision of a repository that may be served, with the manifest of its artifact, None if that is only known when
    it is served; and the publisher of the name, None if it was mirrored."""

    name: str
    manifest: SideObject | None = None
    publisher: Digest | None = None


@frozen
class Refs:
    """The commits of a repository by version, and that of the newest version, None if there is none; `withdrawn` are
    the versions that their publisher yanked or superseded, `kind` is that of the newest version."""

    commits: Mapping[str, str]
    main: str | None
    withdrawn: frozenset[str] = frozenset()
    kind: str = MODEL


Document: TypeAlias = dict[str, Any]

TREE_PAGE: Final = 10_000
"""Entries per page; some clients read only the first page."""
PATHS: Final = 10_000

_CURSOR: Final = re.compile(rb"[0-9]{1,9}\Z")


def model_view(snapshot: Snapshot, card: Card, *, blobs: bool = False, siblings: bool = True) -> Document:
    """`GET /api/models/{id}`."""
    licence = snapshot.licence.lower()
    document: Document = {
        "_id": snapshot.artifact[:24],
        "id": snapshot.repository,
        "modelId": snapshot.repository,
        "author": snapshot.repository.partition("/")[0],
        "sha": snapshot.commit,
        "lastModified": snapshot.date,
        "createdAt": snapshot.date,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*card.tags, *([f"license:{licence}"] if licence else []), f"comity:{snapshot.label}"],
        **({"pipeline_tag": card.pipeline} if card.pipeline else {}),
        **({"library_name": card.library} if card.library else {}),
        "cardData": {"license": licence} if licence else {},
        "usedStorage": snapshot.manifest.size,
        "kind": snapshot.kind,
    }
    return with_siblings(document, snapshot.manifest, blobs=blobs) if siblings else document


def with_siblings(document: Document, manifest: Manifest, *, blobs: bool = False) -> Document:
    """The view of a model with its files."""
    return {**document, "siblings": [_sibling(entry, blobs) for entry in manifest.files]}


def with_facts(document: Document, facts: ModelFacts) -> Document:
    """The view of a model with what its files say; the licence is the one that its publisher signed."""
    found = facts.hub_fields()
    return {**document, **found, "cardData": {**facts.hub_card, **document["cardData"]}}


def tree_view(snapshot: Snapshot, folder: str, *, recursive: bool, expand: bool) -> list[Document]:
    """`GET …/tree/{revision}/{folder}`, complete. Raises NotFound (NO-SUCH-FILE) for an unknown folder."""
    if folder not in snapshot.trees:
        raise NotFound(f"no folder {folder[:200]!r}", code="NO-SUCH-FILE")
    prefix = f"{folder}/" if folder else ""
    below = {path: _folder(path, oid) for path, oid in snapshot.trees.items() if path and path.startswith(prefix)}
    below |= {e.path: _file(e) for e in snapshot.manifest.files if e.path.startswith(prefix)}
    listed = (path for path in sorted(below) if recursive or "/" not in path[len(prefix) :])
    return [_expanded(below[path], snapshot) if expand else below[path] for path in listed]


def paths_info_view(snapshot: Snapshot, paths: Iterable[str], *, expand: bool) -> list[Document]:
    """`POST …/paths-info/{revision}`; unknown paths are left out."""
    found = []
    for path in dict.fromkeys(path.strip("/") for path in paths):
        if (entry := snapshot.manifest.by_path.get(path)) is not None:
            found.append(_file(entry))
        elif path and path in snapshot.trees:
            found.append(_folder(path, snapshot.trees[path]))
    return [_expanded(item, snapshot) for item in found] if expand else found


def refs_view(refs: Refs) -> Document:
    """`GET …/refs`: each version is a tag, a withdrawn one has a mark."""
    branches = [{"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": refs.main}] if refs.main else []
    tags = [
        {
            "name": name,
            "ref": f"refs/tags/{name}",
            "targetCommit": commit,
            **({"withdrawn": True} if name in refs.withdrawn else {}),
        }
        for name, commit in refs.commits.items()
    ]
    return {"branches": branches, "converts": [], "tags": tags, "pullRequests": []}


def commits_view(snapshot: Snapshot) -> list[Document]:
    """`GET …/commits/{revision}`: a version has no ancestors."""
    title = f"sha256:{snapshot.artifact}"
    author = {"user": snapshot.author}
    return [{"id": snapshot.commit, "title": title, "message": "", "date": snapshot.date, "authors": [author]}]


def page_view(items: Sequence[Document], cursor: str, limit: int) -> tuple[list[Document], str]:
    """Return one page of `items`, and the cursor of the next, empty at the end. Raises Malformed (CURSOR).

    Args:
        cursor: from the previous page, or as `_after_file` reads it.
    """
    begin = _begin(items, cursor) if cursor else 0
    end = begin + limit
    return list(items[begin:end]), _cursor(end) if end < len(items) else ""


def read_integer(text: str | None, default: int, most: int) -> int:
    """Parse a count and limit it to 1 … `most`. Raises Malformed."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Malformed("not a count", why=text[:40])
    return max(1, min(int(text), most))


def read_bool(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes", "on")


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(b"%d" % position).decode().rstrip("=")


def _begin(items: Sequence[Document], cursor: str) -> int:
    text = _decoded_cursor(cursor)
    if _CURSOR.match(text):
        return int(text)
    last = _after_file(text)
    found = (at for at, item in enumerate(items) if item["path"] == last)
    if last is None or (at := next(found, None)) is None:
        raise Malformed("not a cursor of this node", why="start again from the first page", code="CURSOR")
    return at + 1


def _after_file(text: bytes) -> str | None:
    """Return the last path of the page before, by a decoded cursor that a client made itself, in the form that the Hub
    had: `BASE64({"file_name": PATH}):LIMIT`. The downloader of text-generation-webui asks so for every page but the
    first, until one is empty. None for other text."""
    try:
        document = json.loads(base64.b64decode(text.partition(b":")[0], validate=True))
    except (ValueError, RecursionError):
        return None
    name = document.get("file_name") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None


def _decoded_cursor(cursor: str) -> bytes:
    """Return the bytes of a cursor in either alphabet of base64; a `+` may have become a space in the query."""
    text = cursor.replace(" ", "+").replace("+", "-").replace("/", "_")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


def _sibling(entry: FileEntry, blobs: bool) -> Document:
    if not blobs:
        return {"rfilename": entry.path}
    lfs = {"size": entry.size, "sha256": entry.sha256, "pointerSize": len(lfs_pointer(entry))}
    return {"rfilename": entry.path, "size": entry.size, "blobId": blob_id(entry), "lfs": lfs}


def _file(entry: FileEntry) -> Document:
    lfs = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(lfs_pointer(entry))}
    return {"type": "file", "path": entry.path, "size": entry.size, "oid": blob_id(entry), "lfs": lfs}


def _folder(path: str, oid: str) -> Document:
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _expanded(item: Document, snapshot: Snapshot) -> Document:
    return {**item, "lastCommit": {"id": snapshot.commit, "title": "", "date": snapshot.date}}
