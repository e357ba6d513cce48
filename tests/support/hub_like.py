"""A Hub on loopback, written from the protocol alone: repositories with git ids, LFS and a content server of its own.

It is a valid Hub because three generations of unmodified clients work with it (tests/interop/test_hub_like.py). Tests
then make it give false answers, stall, break off or redirect its clients: `interfere` sees each request before it is
answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

DATE: Final = "2026-11-18T12:00:00.000Z"
LFS: Final = (".safetensors", ".bin", ".gguf", ".onnx", ".pt")
_RESOLVE: Final = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def oid(self) -> str:
        return git_id("blob", self.pointer if self.lfs else self.data)


@dataclass(frozen=True)
class Commit:
    files: Mapping[str, Blob]
    sha: str
    trees: Mapping[str, str]


@dataclass
class Repository:
    """Its commits by branch and tag. `tokens` may read it where it is gated or private."""

    name: str
    refs: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    gated: str | bool = False
    private: bool = False
    disabled: bool = False
    tokens: set[str] = field(default_factory=set)
    card: dict[str, Any] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], *, branch: str = "main", tag: str = "") -> Commit:
        blobs = {path: Blob(data, path.endswith(LFS)) for path, data in sorted(files.items())}
        trees = git_trees({path: blob.oid for path, blob in blobs.items()})
        text = f"tree {trees['']}\nauthor A <a@invalid> {len(self.commits)} +0000\n"
        text += f"committer A <a@invalid> {len(self.commits)} +0000\n\n{self.name}\n"
        made = Commit(blobs, git_id("commit", text.encode()), trees)
        self.commits.append(made)
        self.refs[branch] = made
        if tag:
            self.tags[tag] = made
        return made

    def at(self, revision: str) -> Commit | None:
        named = {**self.tags, **self.refs, **{made.sha: made for made in self.commits}}
        return named.get(revision)


@dataclass(frozen=True)
class Asked:
    """A request: `cdn` says that it was sent to the content server."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    cdn: bool

    @property
    def offset(self) -> int:
        found = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Answer:
    """An answer. `cut` ends the connection after so many bytes of the body, `stall` becomes silent there instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: bool = False


Interference = Callable[[Asked], Answer | None]


@dataclass
class HubLike:
    """Its repositories, the requests that it received, and its faults."""

    url: str = ""
    cdn: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    page: int = 1000
    interfere: Interference = lambda asked: None
    tree_said: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda entries: entries
    info_said: Callable[[dict[str, Any]], dict[str, Any]] = lambda info: info
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository(name))

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        answered = self.interfere(asked)
        if answered is not None:
            return answered
        if asked.cdn:
            return self._content(asked)
        if asked.path.startswith("/api/"):
            return self._api(asked)
        if found := _RESOLVE.fullmatch(asked.path):
            return self._resolve(asked, found[1], unquote(found[2]), unquote(found[3]))
        return _error(404, "", "no such page")

    def _api(self, asked: Asked) -> Answer:
        parts = [unquote(part) for part in asked.path.split("/")[2:]]
        if parts == ["whoami-v2"]:
            name = self.users.get(_token(asked))
            if name is None:
                return _error(401, "", "Invalid credentials in Authorization header")
            token = {"displayName": "t", "role": "read"}
            said = {"type": "user", "name": name, "fullname": name, "orgs": [], "auth": {"accessToken": token}}
            return _json(said)
        if parts[0] not in ("models", "datasets"):
            return _error(404, "", "not here")
        if len(parts) == 1:
            found = [r for r in self.repositories.values() if asked.query.get("search", "").lower() in r.name.lower()]
            return _json([{"id": r.name, "private": r.private, "tags": []} for r in found])
        length = 1 if parts[1] in self.moved else 2  # the oldest have no organisation
        name, rest = "/".join(parts[1 : 1 + length]), parts[1 + length :]
        if name in self.moved:
            tail = asked.path.split("/", 3 + length)[3 + length :]
            return Answer(307, b"", {"Location": "/".join([f"/api/{parts[0]}/{self.moved[name]}", *tail])})
        repository = self.repositories.get(name)
        if repository is None or (repository.private and _token(asked) not in repository.tokens):
            return _error(404, "RepoNotFound", "Repository not found")
        if repository.disabled:
            return _error(403, "", "Access to this resource is disabled.")
        view = rest[0] if rest else ""
        if view == "refs":
            return _json(_refs(repository))
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.at(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        match view:
            case "" | "revision":
                return _json(self.info_said(_info(repository, commit, blobs="blobs" in asked.query)))
            case "tree":
                return self._tree(asked, commit, "/".join(rest[2:]))
            case "paths-info":
                wanted = asked.query.get("paths", "").split("\n")
                return _json([entry for entry in _entries(commit) if entry["path"] in wanted])
            case "commits":
                authors = [{"user": "a"}]
                return _json(
                    [
                        {"id": c.sha, "title": "t", "message": "", "date": DATE, "authors": authors}
                        for c in reversed(repository.commits)
                    ]
                )
        return _error(404, "", "no such view")

    def _tree(self, asked: Asked, commit: Commit, folder: str) -> Answer:
        entries = self.tree_said(_entries(commit))
        if folder:
            entries = [e for e in entries if e["path"].startswith(f"{folder}/")]
            if not entries:
                return _error(404, "EntryNotFound", "no such folder")
        if asked.query.get("recursive", "").lower() not in ("true", "1"):
            depth = folder.count("/") + 1 if folder else 0
            entries = [e for e in entries if e["path"].count("/") == depth]
        if asked.query.get("expand", "").lower() in ("true", "1"):
            entries = [e | {"lastCommit": {"id": commit.sha, "title": "t", "date": DATE}} for e in entries]
        start = int(asked.query.get("cursor", "0"))
        shown = entries[start : start + self.page]
        more = {}
        if start + self.page < len(entries):
            query = urlencode({**asked.query, "cursor": start + self.page})
            more = {"Link": f'<{self.url}{asked.path}?{query}>; rel="next"'}
        return _json(shown, more)

    def _resolve(self, asked: Asked, name: str, revision: str, path: str) -> Answer:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and _token(asked) not in repository.tokens):
            return _error(404, "RepoNotFound", "Repository not found")
        commit = repository.at(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        named = {"X-Repo-Commit": commit.sha}
        if repository.gated and _token(asked) not in repository.tokens:
            return _error(401 if not _token(asked) else 403, "GatedRepo", "Access to model is restricted.", named)
        blob = commit.files.get(path)
        if blob is None:
            return _error(404, "EntryNotFound", "Entry not found", named)
        if not blob.lfs:
            return _ranged(asked, blob.data, {**named, "ETag": f'"{blob.oid}"'})
        headers = {
            **named,
            "X-Linked-Etag": f'"{blob.sha256}"',
            "X-Linked-Size": str(len(blob.data)),
            "Location": f"{self.cdn}/{blob.sha256}?signature=1",
        }
        return Answer(302, b"", headers)

    def _content(self, asked: Asked) -> Answer:
        digest = asked.path.removeprefix("/")
        for repository in self.repositories.values():
            for commit in repository.commits:
                for blob in commit.files.values():
                    if blob.sha256 == digest:
                        return _ranged(asked, blob.data, {"ETag": f'"{blob.sha256}"'})
        return _error(404, "", "no such content")


@contextlib.contextmanager
def hub_like(tls: ssl.SSLContext | None = None) -> Iterator[HubLike]:
    """A Hub and its content server, under two names of loopback: two hosts for any client. With `tls` both are
    `localhost`, at two ports, and have one certificate.
    """
    hub = HubLike()
    with _serving(hub, tls, cdn=False) as hub.url, _serving(hub, tls, cdn=True) as hub.cdn:
        try:
            yield hub
        finally:
            hub.closing.set()


def git_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def git_trees(blobs: Mapping[str, str], under: str = "") -> dict[str, str]:
    """Git tree ids of every folder of these files, by path; the root's is empty."""
    found: dict[str, str] = {}
    rows: list[tuple[bytes, bytes]] = []
    for name in dict.fromkeys(path.partition("/")[0] for path in blobs):
        if name in blobs:
            rows.append((name.encode(), b"100644 " + name.encode() + b"\0" + bytes.fromhex(blobs[name])))
            continue
        inner = {p.removeprefix(f"{name}/"): oid for p, oid in blobs.items() if p.startswith(f"{name}/")}
        found |= git_trees(inner, f"{under}{name}/")
        tree = bytes.fromhex(found[f"{under}{name}"])
        rows.append((name.encode() + b"/", b"40000 " + name.encode() + b"\0" + tree))
    found[under.removesuffix("/")] = git_id("tree", b"".join(row for _, row in sorted(rows)))
    return found


def _entries(commit: Commit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "oid": tree, "size": 0} for path, tree in commit.trees.items() if path
    ]
    for path, blob in commit.files.items():
        size = len(blob.data)
        entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob.oid}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": size, "pointerSize": len(blob.pointer)}
        found.append(entry)
    return sorted(found, key=lambda entry: entry["path"])


def _info(repository: Repository, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for path, blob in commit.files.items():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(blob.data), "blobId": blob.oid}
            if blob.lfs:
                lfs = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
                sibling["lfs"] = lfs
        siblings.append(sibling)
    return {
        "id": repository.name,
        "modelId": repository.name,
        "sha": commit.sha,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "tags": [],
        "lastModified": DATE,
        "createdAt": DATE,
        "downloads": 0,
        "likes": 0,
        "cardData": repository.card or _front_matter(commit),
        "siblings": siblings,
    }


def _front_matter(commit: Commit) -> dict[str, Any]:
    """The metadata of the card; the licence is enough here."""
    card = commit.files["README.md"].data.decode("utf-8", "replace") if "README.md" in commit.files else ""
    found = re.match(r"---\n(?:.*\n)*?license: *(\S+)\n", card)
    return {"license": found[1]} if found else {}


def _refs(repository: Repository) -> dict[str, Any]:
    def named(refs: Mapping[str, Commit], kind: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c.sha} for n, c in refs.items()]

    return {"branches": named(repository.refs, "heads"), "tags": named(repository.tags, "tags"), "converts": []}


def _ranged(asked: Asked, data: bytes, headers: Mapping[str, str]) -> Answer:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
    described = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if not found:
        return Answer(200, data, described)
    first = int(found[1])
    last = min(int(found[2]), len(data) - 1) if found[2] else len(data) - 1
    if first > last:
        return Answer(416, b"", {**described, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[first : last + 1], {**described, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def _json(value: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    said = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
    return Answer(status, json.dumps({"error": message}).encode(), said)


def _token(asked: Asked) -> str:
    return asked.headers.get("authorization", "").removeprefix("Bearer ")


@contextlib.contextmanager
def _serving(hub: HubLike, tls: ssl.SSLContext | None, *, cdn: bool) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            parts = urlsplit(self.path)
            query = {key: "\n".join(found) for key, found in parse_qs(parts.query).items()}
            if body and "form" in self.headers.get("Content-Type", ""):
                query |= {key: "\n".join(found) for key, found in parse_qs(body.decode()).items()}
            elif body:
                query |= {k: "\n".join(v) if isinstance(v, list) else str(v) for k, v in json.loads(body).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            self._send(hub.answer(Asked(self.command, parts.path, query, headers, cdn)))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            if not any(name.lower() == "content-length" for name in answer.headers):
                self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            end = len(answer.body) if answer.cut is None else answer.cut
            self.wfile.write(answer.body[:end])
            if answer.stall:
                hub.closing.wait()
            if answer.cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients of these tests disconnect in the middle."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        host = "localhost" if cdn or tls else "127.0.0.1"
        yield f"http{'s' if tls else ''}://{host}:{server.server_address[1]}"
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
