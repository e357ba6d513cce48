"""Servers that a node may name for its HTTPS ranges: they show the right certificate, and misbehave otherwise."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from comity.wire.tls import TlsIdentity, server_context

Behaviour: TypeAlias = Callable[[ssl.SSLSocket, int, int], None]
"""The handler of a connection that has asked for (offset, length)."""


def answer(offset: int, data: bytes, total: int = 1 << 40) -> bytes:
    """A correct header, and `data` as the range from `offset` on."""
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Content-Range: bytes {offset}-{offset + len(data) - 1}/{total}\r\n\r\n".encode() + data


class Host:
    """Serves every request by `behaviour`, a thread a connection. `asked` counts them."""

    def __init__(self, identity: TlsIdentity, behaviour: Behaviour) -> None:
        self.asked = 0
        self._behaviour = behaviour
        self._context = server_context(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._clients: list[socket.socket] = []
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/blobs/any?mac=secret"

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, self._context.wrap_socket(client.dup(), server_side=True) as wrapped:
            head = b""
            while not self._ended.is_set():
                while b"\r\n\r\n" not in head:
                    data = wrapped.recv(65_536)
                    if not data:
                        return
                    head += data
                found = re.search(rb"[Rr]ange: bytes=(\d+)-(\d+)", head)
                assert found is not None
                self.asked += 1
                self._behaviour(wrapped, int(found[1]), int(found[2]) - int(found[1]) + 1)
                head = b""


@contextmanager
def host(identity: TlsIdentity, behaviour: Behaviour) -> Iterator[Host]:
    made = Host(identity, behaviour)
    try:
        yield made
    finally:
        made.close()
