"""Strangers' connections, byte by byte: closed in passing, held without a word, or stalled within HTTP/2.

Functions of a host, a port and counts, on sockets of their own and without gRPC.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Iterator

PATIENCE = 5.0
"""Seconds that a connection may take to be made."""


def client_hello() -> bytes:
    """The first flight of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = _context().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def passing(host: str, port: int, count: int, *, threads: int = 8) -> int:
    """Make `count` connections, send part or all of a ClientHello, or nothing, and close; how many were made."""
    hello = client_hello()
    made = [0] * threads

    def pass_by(number: int) -> None:
        chance = random.Random(number)
        for _ in range(count // threads):
            with contextlib.suppress(OSError), socket.create_connection((host, port), PATIENCE) as connection:
                connection.sendall(hello[: chance.choice((0, 1, 100, len(hello)))])
                made[number] += 1

    workers = [threading.Thread(target=pass_by, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(made)


@contextlib.contextmanager
def silent(host: str, port: int, count: int, *, begun: bool = False) -> Iterator[list[socket.socket]]:
    """Hold `count` connections open that say nothing, or, with `begun`, half of a ClientHello."""
    hello = client_hello() if begun else b""
    held = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = socket.create_connection((host, port), PATIENCE)
                held.append(connection)
                connection.sendall(hello[: len(hello) // 2])
        yield held
    finally:
        for connection in held:
            connection.close()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
