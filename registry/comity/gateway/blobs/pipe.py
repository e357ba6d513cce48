"""Two ways out of a socket: straight from the page cache (`sendfile`), or through TLS. Both lose patience.

A client that takes less than `SLOWEST` bytes a second, or nothing for `STALLED` seconds, is given up: it holds a
thread, and what it holds others cannot have. What a stalled client costs is that thread and, with TLS, one buffer.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from abc import abstractmethod
from typing import Final, Protocol

from comity.content.durable import disk_errors
from comity.gateway.blobs.checked import FilePart
from comity.trust.errors import Unavailable
from comity.wire.limits import SLOWEST

STALLED: Final = 20.0
BUFFER: Final = 256 * 1024
"""Bytes read and encrypted at a time: 64 KiB measured slower, 1 MiB no faster."""


class Pipe(Protocol):
    """A connected socket. Methods raise OSError (TimeoutError among them) where the client is gone, or too slow."""

    @abstractmethod
    def receive(self, most: int, deadline: float) -> bytes:
        """Some bytes, none at the end; `deadline` is a monotonic time."""

    @abstractmethod
    def send(self, data: bytes | memoryview) -> None: ...

    @abstractmethod
    def send_file(self, part: FilePart) -> None:
        """Also raises Unavailable (BLOB-CHANGED, DISK) for what is wrong with the file."""


class PlainPipe(Pipe):
    def __init__(self, client: socket.socket) -> None:
        self._client = client
        client.setblocking(False)
        self._writable = select.poll()
        self._writable.register(client, select.POLLOUT)

    def receive(self, most: int, deadline: float) -> bytes:
        return _receive(self._client, most, deadline)

    def send(self, data: bytes | memoryview) -> None:
        self._client.settimeout(_patience(len(data)))
        self._client.sendall(data)

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        deadline = time.monotonic() + _patience(part.length)
        while offset < end:
            try:
                sent = os.sendfile(self._client.fileno(), part.descriptor, offset, end - offset)
            except BlockingIOError:
                self._wait(deadline)
                continue
            if not sent:
                raise Unavailable("a blob changed", why="it ends early", code="BLOB-CHANGED")
            offset += sent

    def _wait(self, deadline: float) -> None:
        left = min(deadline - time.monotonic(), STALLED)
        if left <= 0 or not self._writable.poll(1000 * left):
            raise TimeoutError("the client takes nothing")


class TlsPipe(Pipe):
    def __init__(self, client: ssl.SSLSocket) -> None:
        self._client = client
        self._buffer = bytearray()

    def receive(self, most: int, deadline: float) -> bytes:
        return _receive(self._client, most, deadline)

    def send(self, data: bytes | memoryview) -> None:
        self._send(memoryview(data), time.monotonic() + _patience(len(data)))

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        deadline = time.monotonic() + _patience(part.length)
        self._buffer = self._buffer or bytearray(BUFFER)
        while offset < end:
            view = memoryview(self._buffer)[: min(BUFFER, end - offset)]
            with disk_errors("a blob was not read"):
                filled = os.preadv(part.descriptor, [view], offset)
            if not filled:
                raise Unavailable("a blob changed", why="it ends early", code="BLOB-CHANGED")
            self._send(view[:filled], deadline)
            offset += filled

    def _send(self, view: memoryview, deadline: float) -> None:
        while view:
            left = min(deadline - time.monotonic(), STALLED)
            if left <= 0:
                raise TimeoutError("the client takes too little")
            self._client.settimeout(left)
            view = view[self._client.send(view) :]


def _receive(client: socket.socket, most: int, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the client says nothing")
    client.settimeout(left)
    return client.recv(most)


def _patience(length: int) -> float:
    return STALLED + length / SLOWEST
