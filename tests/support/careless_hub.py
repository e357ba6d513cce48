"""A Hub that checks nothing: it serves the files of a folder as they are on disk, as plain mirrors do."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@contextlib.contextmanager
def careless_hub(repository: str, folder: Path) -> Iterator[str]:
    """The endpoint. Hashes are those of the folder at the start, bytes those of the disk at each request."""
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    sizes = {p.name: p.stat().st_size for p in folder.iterdir()}
    tree = [
        {"type": "file", "path": name, "size": sizes[name], "oid": "0" * 40, "lfs": _lfs(hashes[name], sizes[name])}
        for name in hashes
    ]
    info = {"id": repository, "sha": COMMIT, "private": False, "siblings": [{"rfilename": name} for name in hashes]}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(send=True)

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def _answer(self, *, send: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{repository}/tree/"):
                self._reply(200, json.dumps(tree).encode(), {}, send)
            elif path.startswith(f"/api/models/{repository}"):
                self._reply(200, json.dumps(info).encode(), {}, send)
            elif path.startswith(f"/{repository}/resolve/") and (name := path.rpartition("/")[2]) in hashes:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashes[name]}"'}
                self._reply(200, (folder / name).read_bytes(), headers, send)
            else:
                self._reply(404, b"{}", {}, send)

        def _reply(self, status: int, body: bytes, headers: dict[str, str], send: bool) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if send:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _lfs(digest: str, size: int) -> dict[str, object]:
    return {"oid": digest, "size": size, "pointerSize": 130}
