"""Calls without Comity's client: gRPC that carries protobuf bytes built here, and bare HTTP/1.1."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID
from support.raw_bytes import message, parsed

from attackers.attacker import Target, Victim

Fields: TypeAlias = "dict[int, list[int | bytes]]"
SERVICES = {
    "GetNode": "NodeService",
    "ListLogs": "LogService",
    "GetEntries": "LogService",
    "GetProof": "LogService",
    "GetCheckpoint": "LogService",
    "GetInclusion": "LogService",
    "Resolve": "ArtifactService",
    "GetClaims": "ArtifactService",
    "FindArtifact": "ArtifactService",
    "Search": "ArtifactService",
    "FindFiles": "ArtifactService",
    "ReadFileIndex": "ArtifactService",
    "GetConcerns": "ArtifactService",
    "ListDescent": "ArtifactService",
    "GetObject": "BlobService",
    "GetObjects": "BlobService",
    "Read": "BlobService",
    "Stat": "BlobService",
    "GetProceedings": "CharterService",
    "Ask": "CharterService",
    "ListAsks": "CharterService",
    "Submit": "PublishService",
    "Upload": "PublishService",
    "Audit": "AuditService",
    "SearchOffers": "OfferService",
    "ListGrants": "OfferService",
}
UNARY = {"Audit", "GetNode", "GetCheckpoint", "GetInclusion", "Search", "Stat", "Ask", "Submit"}


@dataclass
class Caller:
    """A caller at one victim's open port. The bytes that it sends are counted in `target.sent`."""

    target: Target
    victim: Victim
    channel: grpc.Channel

    def start(self, call: str, request: bytes, patience: float = 10) -> Iterator[bytes]:
        """Begin a call without reading its answer."""
        path = f"/comity.v1.{SERVICES[call]}/{call}"
        self.target.sent[self.victim.name] += len(request)
        if call in UNARY:
            one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
            return iter((one(request, timeout=patience),))
        many: grpc.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(path)
        return iter(many(request, timeout=patience))

    def ask(self, call: str, *fields: tuple[int, int | bytes | str], patience: float = 10) -> list[Fields]:
        """The messages of an answer; none if it is refused."""
        try:
            return [parsed(answer) for answer in self.start(call, message(*fields), patience)]
        except grpc.RpcError:
            return []

    def submit(self, lines: Sequence[bytes], objects: Sequence[bytes] = ()) -> Fields | None:
        """Submit lines; None if they are refused."""
        inline = [message((1, sha256(data).digest()), (2, data)) for data in objects]
        answers = self.ask("Submit", *((1, line) for line in lines), *((2, data) for data in inline))
        if not answers:
            return None
        self.target.taken[self.victim.name] += len(answers[0].get(3, []))
        return answers[0]

    def upload(self, submission: bytes, data: bytes, chunks: Iterable[bytes]) -> bool:
        """Upload an object of a submission, in the given chunks. Returns whether it was accepted."""
        header = message((1, submission), (2, message((1, sha256(data).digest()), (2, len(data)))), (3, 0))

        def parts() -> Iterator[bytes]:
            yield message((1, header))
            for chunk in chunks:
                self.target.sent[self.victim.name] += len(chunk)
                yield message((2, chunk))

        path = "/comity.v1.PublishService/Upload"
        uploading: grpc.StreamUnaryMultiCallable[bytes, bytes] = self.channel.stream_unary(path)
        try:
            uploading(parts(), timeout=20)
        except grpc.RpcError:
            return False
        return True

    def lines(self, origin: str, start: int = 0, end: int = 1000) -> list[bytes]:
        """The lines of a log at this victim."""
        found = []
        for batch in self.ask("GetEntries", (1, origin), (2, start), (3, end)):
            found += [line for line in batch.get(2, []) if isinstance(line, bytes)]
        return found


SOURCES = ("127.13.0.1", "127.14.0.1", "127.15.0.1", "127.16.0.1")
"""The address from which attackers call. The honest parties are at 127.0.0.1, in another block of addresses."""


class Relay:
    """Forwards connections to `address` from the address `source`: gRPC itself cannot choose its source address."""

    def __init__(self, address: str, source: str) -> None:
        host, _, port = address.rpartition(":")
        self._far, self._source = (host, int(port)), (source, 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._far, 10, self._source)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def calling(
    target: Target, victim: Victim, *, identity: tuple[bytes, bytes] | None = None, source: str = SOURCES[0]
) -> Iterator[Caller]:
    """A caller at the open port, or at the mutual one with (key, certificate) in PEM."""
    name = x509.load_pem_x509_certificate(victim.certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key, chain = identity or (None, None)
    relay = Relay(victim.mutual if identity else victim.open, source)
    channel = grpc.secure_channel(
        relay.address,
        grpc.ssl_channel_credentials(victim.certificate, key, chain),
        options=[
            ("grpc.ssl_target_name_override", name[0].value),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", -1),
        ],
    )
    try:
        yield Caller(target, victim, channel)
    finally:
        channel.close()
        relay.close()


@contextmanager
def connected(
    address: str, *, tls: bool = False, patience: float = 10, source: str = SOURCES[0]
) -> Iterator[socket.socket]:
    """A socket; with TLS, which verifies nothing, on request."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), patience, (source, 0)) as plain:
        if not tls:
            yield plain
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(plain) as wrapped:
            yield wrapped


def http(target: Target, victim: Victim, request: bytes, patience: float = 10) -> bytes:
    """The gateway's answer to these bytes, until it ends or `patience` seconds pass without a byte."""
    target.sent[victim.name] += len(request)
    answer = b""
    try:
        with connected(victim.gateway, patience=patience) as link:
            link.sendall(request)
            while len(answer) < 1 << 22 and (data := link.recv(65_536)):
                answer += data
    except OSError:
        pass
    return answer


def get(target: Target, victim: Victim, path: str) -> bytes:
    return http(target, victim, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
