"""A git server on loopback: `git http-backend` for the repositories of a folder, and an LFS server beside it.

with git_site(tmp_path) as site:
    commit = site.commit("tiny", {"config.json": b"{}", "weights.bin": Lfs(data)})
    site.url, "git:127.0.0.1/tiny"
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from support.tools import needs

_RANGE: Final = re.compile(r"bytes=([0-9]+)-\Z")
_IDENTITY: Final = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


@dataclass(frozen=True)
class Lfs:
    """A file whose bytes are at the LFS server, with a pointer in git."""

    data: bytes

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {len(self.data)}\n".encode()


def git(folder: Path, *arguments: str, data: bytes = b"", **environ: str) -> bytes:
    """Run git in a folder, without the configuration of this machine."""
    command = [needs("git", unlock="apt-get install git"), *arguments]
    environ = {**os.environ, **_IDENTITY, **environ}
    return subprocess.run(command, cwd=folder, env=environ, input=data, check=True, capture_output=True).stdout


@dataclass
class GitSite:
    """`item` changes what the LFS server says of an object; `key` is the header that requests must have; `moved` is the
    address of another server to which requests for bytes are redirected."""

    folder: Path
    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    item: Callable[[dict[str, Any]], dict[str, Any]] = lambda item: item
    key: str = ""
    moved: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, target and Authorization of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, name: str, files: Mapping[str, bytes | Lfs], branch: str = "main") -> str:
        """Replace the files of a repository by one commit; return its id."""
        bare = self.folder / f"{name}.git"
        if not bare.exists():
            git(self.folder, "init", "-q", "--bare", "-b", "main", str(bare))
            git(bare, "config", "uploadpack.allowFilter", "true")
        index = str(bare / "index-of-tests")
        (bare / "index-of-tests").unlink(missing_ok=True)
        for path, content in files.items():
            if isinstance(content, Lfs):
                self.objects[content.oid] = content.data
            data = content.pointer if isinstance(content, Lfs) else content
            blob = git(bare, "hash-object", "-w", "--stdin", data=data).decode().strip()
            git(bare, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", GIT_INDEX_FILE=index)
        return self.commit_tree(name, git(bare, "write-tree", GIT_INDEX_FILE=index).decode().strip(), branch)

    def commit_tree(self, name: str, tree: str, branch: str = "main") -> str:
        bare = self.folder / f"{name}.git"
        commit = git(bare, "commit-tree", tree, "-m", "files").decode().strip()
        git(bare, "update-ref", f"refs/heads/{branch}", commit)
        return commit


@contextmanager
def git_site(folder: Path) -> Iterator[GitSite]:
    """Skips where git is not installed."""
    needs("git", unlock="apt-get install git")
    state = GitSite(folder / "repositories")
    state.folder.mkdir(parents=True)

    class Handler(_Handler):
        site = state

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: GitSite

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        given = self.headers.get("Authorization", "")
        self.site.asked.append((self.command, self.path, given))
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = urlsplit(self.path).path
        if self.site.moved and path.startswith("/bytes/"):
            self._reply(302, b"", {"Location": f"{self.site.moved}{path}"})
        elif self.site.key and given != self.site.key:
            self._reply(401, b"", {})
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif path.startswith("/bytes/"):
            self._bytes(path.removeprefix("/bytes/"), body)
        elif path.endswith(("/info/refs", "/git-upload-pack")):
            self._run_backend(path, body)
        else:
            self._reply(404, b"", {})

    def _batch(self, wanted: dict[str, Any]) -> None:
        items = []
        for item in wanted["objects"]:
            action = {"href": f"{self.site.url}/bytes/{item['oid']}", "header": {"X-Unknown": "1"}}
            if wanted["operation"] == "download" and item["oid"] not in self.site.objects:
                items.append({**item, "error": {"code": 404, "message": "no such object"}})
            else:
                items.append(self.site.item({**item, "actions": {wanted["operation"]: action}}))
        body = json.dumps({"transfer": "basic", "objects": items}).encode()
        self._reply(200, body, {"Content-Type": "application/vnd.git-lfs+json"})

    def _bytes(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            self.site.objects[oid] = body
            self._reply(200, b"", {})
            return
        data, found = self.site.objects[oid], _RANGE.match(self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if found else {}
        self._reply(206 if found else 200, data[start:], headers)

    def _run_backend(self, path: str, body: bytes) -> None:
        environ = {
            **os.environ,
            **_IDENTITY,
            "GIT_PROJECT_ROOT": str(self.site.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": urlsplit(self.path).query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        ran = subprocess.run(["git", "http-backend"], env=environ, input=body, check=False, capture_output=True)
        head, ended, rest = ran.stdout.partition(b"\r\n\r\n")
        if not ended:
            self._reply(500, b"git http-backend ended with %d: %s" % (ran.returncode, ran.stderr), {})
            return
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._reply(status, rest, headers)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
