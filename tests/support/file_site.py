"""A web server on loopback over a folder, with ranges, which a test makes stall, break off or answer falsely."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=([0-9]+)-\Z")


@dataclass
class FileServer:
    """`cut` bounds the bytes of one answer: the connection breaks off after them."""

    folder: Path
    port: int = 0
    cut: int | None = None
    status: Callable[[str], tuple[int, dict[str, str]] | None] = lambda path: None
    route: Callable[[str], str | None] = lambda target: None
    """Gives the path of the file for a path with its query, where it is another one."""
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def file_server(folder: Path) -> Iterator[FileServer]:
    state = FileServer(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            state.asked.append((self.command, path))
            if (given := state.status(path)) is not None:
                self.reply(given[0], b"", 0, given[1])
                return
            if (routed := state.route(unquote(self.path))) is not None:
                path = routed
            file = state.folder / path.lstrip("/")
            if not file.is_file():
                self.reply(404, b"", 0, {})
                return
            data, start = file.read_bytes(), 0
            headers = {}
            if found := _RANGE.match(self.headers.get("Range", "")):
                start = int(found[1])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.reply(206 if headers else 200, data[start:], len(data) - start, headers)

        def reply(self, status: int, data: bytes, size: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(size), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data if state.cut is None else data[: state.cut])
                self.close_connection = state.cut is not None and state.cut < len(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
