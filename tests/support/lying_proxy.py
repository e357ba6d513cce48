"""A proxy on the loopback interface that forwards requests to a real service and changes the answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import urlsplit

_PER_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Answer:
    method: str
    path: str
    status: int
    headers: dict[str, str]
    length: int
    body: bytes
    """Shorter than `length` if the answer has no body (HEAD), or if it breaks off."""


Lie: TypeAlias = Callable[[Answer], Answer]


@contextmanager
def lying_proxy(endpoint: str, lie: Lie) -> Iterator[str]:
    """The address of a proxy for `endpoint` that changes each answer by `lie`."""
    upstream = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = {
                name: ", ".join(self.headers.get_all(name, ())) for name in self.headers if name.lower() != "expect"
            }
            connection = http.client.HTTPConnection(upstream, timeout=30)
            try:
                connection.request(self.command, self.path, body, sent)
                got = connection.getresponse()
                length, headers = got.length or int(got.headers.get("Content-Length") or 0), dict(got.headers)
                data = got.read()
            finally:
                connection.close()
            self.reply(lie(Answer(self.command, self.path, got.status, headers, max(length, len(data)), data)))

        do_HEAD = do_GET = do_PUT = do_POST = do_DELETE = pass_on

        def reply(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _PER_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(answer.length))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = len(answer.body) < answer.length

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
