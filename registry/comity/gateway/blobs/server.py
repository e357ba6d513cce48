"""The listening socket of the blob server: a thread a connection, and no more of them than there is room for.

A place is held from the moment a connection is accepted; when all are taken, `FairShares` decides which connection is
cut, so that one address block cannot keep the others out.

Threads, because that is what file-server speed takes in Python: `sendfile`, hashing and encryption run outside the
interpreter's lock (bench/gateway.py). One more thread watches the deadlines of all.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Final

import structlog

from comity.gateway.blobs.connection import Connection, Site
from comity.gateway.blobs.pipe import Deadline, PlainPipe, TlsPipe
from comity.trust.errors import Unavailable
from comity.wire.address import address_block
from comity.wire.fair_shares import FairShares

CONNECTIONS: Final = 1024
HANDSHAKE: Final = 10.0
LINGER: Final = 1.0
"""Seconds that a client has to read why it was refused, while what it still sends is thrown away."""
BACKLOG: Final = 256
WATCH: Final = 0.5
"""Seconds between two looks at the deadlines of all connections."""
END: Final = 5.0
"""Seconds that threads are waited for when the server ends."""

_log: Final = structlog.get_logger("comity.gateway.blobs")


@dataclass(frozen=True, slots=True)
class _Client:
    thread: threading.Thread
    deadline: Deadline


class BlobServer:
    """Serves `site` at one address, over TLS where there is a context. `close` ends every connection."""

    def __init__(
        self, site: Site, address: tuple[str, int], *, tls: ssl.SSLContext | None = None, connections: int = CONNECTIONS
    ) -> None:
        """Listen, and begin. Raises Unavailable (LISTEN).

        Args:
            connections: how many at once. Each has a thread, three open files, and a buffer of 256 KiB while it hashes
                or, with TLS, while it sends.
        """
        self._site = site
        self._tls = tls
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, _Client] = {}
        self._shares: FairShares[socket.socket] = FairShares(connections, time.monotonic)
        self._closing = threading.Event()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            hint = "choose another address in node.toml, or stop what listens there"
            why = error.strerror or str(error)
            raise Unavailable(
                f"cannot listen on {address[0]}:{address[1]}", why=why, hint=hint, code="LISTEN"
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._own = [threading.Thread(target=work, name="blobs", daemon=True) for work in (self._accept, self._watch)]
        for thread in self._own:
            thread.start()

    def close(self) -> None:
        """Stop listening, cut every connection, and wait for the threads. Blocking, for seconds at most."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._own:
            thread.join()
        with self._lock:
            threads = [client.thread for client in self._clients.values()]
        self._cut(float("inf"))
        ends = time.monotonic() + END
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, address = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():  # no more descriptors, for one: those who are served must end first
                    _log.warning("no connection was accepted", why=str(error))
                    time.sleep(0.1)
                continue
            self._begin(client, str(address[0]))

    def _watch(self) -> None:
        while not self._closing.wait(WATCH):
            self._cut(time.monotonic())

    def _cut(self, now: float) -> None:
        """End the connections that should have made a step by now: whoever waits for them gets an error."""
        with self._lock:
            for client, known in self._clients.items():
                if known.deadline.at < now:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)

    def _begin(self, client: socket.socket, host: str) -> None:
        deadline = Deadline(lambda: self._progress(client))
        deadline.within(HANDSHAKE)
        with self._lock:
            out = self._shares.take(client, address_block(host))
            if out is not client:
                work = (client, host, deadline)
                thread = threading.Thread(target=self._serve, args=work, name="blob", daemon=True)
                self._clients[client] = _Client(thread, deadline)
                if out is not None:
                    with contextlib.suppress(OSError):  # its thread notices, and closes it
                        out.shutdown(socket.SHUT_RDWR)
        if out is client:
            client.close()
            return
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            _log.warning("no connection was accepted", why=str(error))
            self._end(client)

    def _progress(self, client: socket.socket) -> None:
        with self._lock:
            self._shares.progress(client)

    def _serve(self, client: socket.socket, host: str, deadline: Deadline) -> None:
        """A thread's work. What breaks is logged and ends this connection only."""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                Connection(self._site, PlainPipe(client, deadline), host).serve()
                deadline.within(LINGER)
                _linger(client)
            else:
                self._encrypted(self._tls, client, host, deadline)
        except OSError:
            pass  # it is gone, or too slow: its own affair
        except Exception:
            _log.exception("a connection broke")
        finally:
            self._end(client)

    def _encrypted(self, tls: ssl.SSLContext, client: socket.socket, host: str, deadline: Deadline) -> None:
        with tls.wrap_socket(client.dup(), server_side=True) as wrapped:
            Connection(self._site, TlsPipe(wrapped, deadline), host).serve()
            deadline.within(LINGER)
            wrapped.unwrap()

    def _end(self, client: socket.socket) -> None:
        with self._lock:
            del self._clients[client]
            self._shares.give_back(client)
        client.close()


def _linger(client: socket.socket) -> None:
    """Let the client read what it was sent last: closing over unread requests would take it back."""
    client.shutdown(socket.SHUT_WR)
    while client.recv(64 * 1024):
        pass
