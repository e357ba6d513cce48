"""Two ways out of a socket: straight from the page cache (`sendfile`), or through TLS; and how long either may take.

The sockets block, so that a call returns once all of its bytes are on their way: whoever wakes up in between has to
wait for the interpreter's lock each time, which costs more than the sending. Patience is kept from outside: each step
sets a `Deadline`, and the server cuts connections that have passed theirs.

A client that takes less than `SLOWEST` bytes a second, or nothing for `STALLED` seconds, is given up: it holds a
thread, and what it holds others cannot have. What a stalled client costs is that thread and, with TLS, one buffer.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from comity.content.durable import disk_errors
from comity.gateway.blobs.checked import FilePart
from comity.trust.errors import Unavailable
from comity.wire.limits import SLOWEST

STALLED: Final = 20.0
STEP: Final = 2 * 1024 * 1024
"""Bytes sent under one deadline: worth a wake-up, and seconds for a slow client."""
BUFFER: Final = 256 * 1024
"""Bytes read and encrypted at a time."""


class Deadline:
    """A monotonic time by which a connection must have made its next step.

    Args:
        stepped: called whenever a step was made, which is when the next one gets its deadline.
    """

    def __init__(self, stepped: Callable[[], None]) -> None:
        self.at = float("inf")
        self._stepped = stepped

    def within(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self._stepped()


class Pipe(Protocol):
    """A connected socket. Methods raise OSError where the client is gone, or was cut off for being too slow."""

    deadline: Deadline

    @abstractmethod
    def receive(self, most: int) -> bytes:
        """Some bytes, none at the end, by the deadline that the caller has set."""

    @abstractmethod
    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        """`more` follows at once: a small head need not travel, and wake the client, by itself."""

    @abstractmethod
    def send_file(self, part: FilePart) -> None:
        """Also raises Unavailable (BLOB-CHANGED, DISK) for what is wrong with the file."""


class PlainPipe(Pipe):
    def __init__(self, client: socket.socket, deadline: Deadline) -> None:
        self._client = client
        self.deadline = deadline

    def receive(self, most: int) -> bytes:
        return self._client.recv(most)

    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        self.deadline.within(_patience(len(data)))
        self._client.sendall(data, socket.MSG_MORE if more else 0)

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            step = min(STEP, end - offset)
            self.deadline.within(_patience(step))
            sent = os.sendfile(self._client.fileno(), part.descriptor, offset, step)
            if not sent:
                raise Unavailable("a blob changed", why="it ends early", code="BLOB-CHANGED")
            offset += sent


class TlsPipe(Pipe):
    def __init__(self, client: ssl.SSLSocket, deadline: Deadline) -> None:
        self._client = client
        self._buffer = bytearray()
        self.deadline = deadline

    def receive(self, most: int) -> bytes:
        return self._client.recv(most)

    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        self.deadline.within(_patience(len(data)))
        self._client.sendall(data)

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        self._buffer = self._buffer or bytearray(BUFFER)
        while offset < end:
            view = memoryview(self._buffer)[: min(BUFFER, end - offset)]
            with disk_errors("a blob was not read"):
                filled = os.preadv(part.descriptor, [view], offset)
            if not filled:
                raise Unavailable("a blob changed", why="it ends early", code="BLOB-CHANGED")
            self.send(view[:filled])
            offset += filled


def _patience(length: int) -> float:
    return STALLED + length / SLOWEST
