"""A member's node whose answers the test chooses: a bare gRPC server that answers with bytes built here.

It has a seat, and the real keys of its home. By default it answers truthfully about its own log and the blobs that it
was given, and has no other data. Each address that it listens on may show another history of its log.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.raw_bytes import RawLog, consistency, inclusion, message, parsed

CHUNK = 1 << 20
UNARY = frozenset(
    {"Audit", "GetNode", "GetNews", "GetCheckpoint", "GetInclusion", "GetConsistency", "Stat", "Search", "Submit"}
)

Fields: TypeAlias = "dict[int, list[int | bytes]]"


@dataclass(frozen=True)
class Question:
    """One call: the address that was asked, and the fields of the request."""

    history: ShownHistory
    fields: Fields
    alive: Callable[[], bool]

    def number(self, which: int) -> int:
        (value,) = self.fields.get(which, [0])
        assert isinstance(value, int)
        return value

    def data(self, which: int) -> bytes:
        (value,) = self.fields.get(which, [b""])
        assert isinstance(value, bytes)
        return value


@dataclass(frozen=True)
class Pause:
    """In an answer: seconds before what follows it."""

    seconds: float


Answer: TypeAlias = "bytes | Pause"
Lie: TypeAlias = "Callable[[Any, Question], Iterable[Answer]]"
"""The answer of a node (a Liar, or one that a test makes) to a question."""


class NotHere(Exception):
    """Answered as a bare NOT_FOUND."""


class NoSuchCall(Exception):
    """Answered as a bare UNIMPLEMENTED, as by a node of an older version."""


@dataclass
class ShownHistory:
    """An address, the log that is shown there, and how often each call was made there; `rounds` has the times at which
    its logs were asked for, in POSIX seconds.
    """

    log: RawLog
    address: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    rounds: list[float] = field(default_factory=list)


class Liar:
    """See the module. `lies` replaces the answer of a call, by its name; `blobs` are its blobs, by SHA-256."""

    def __init__(self, home: Path) -> None:
        self._lines = [(home / name).read_bytes().rstrip() for name in ("inception.line", "node-record.line")]
        record = json.loads(base64.b64decode(json.loads(self._lines[1])["payload"]))["predicate"]
        self.name: str = record["name"]
        self.member_id: str = record["by"]["identity"]
        self.log = RawLog(f"{self.name}/log", _ed25519(home / "keys" / "log.pem"), list(self._lines))
        self.online = _ed25519(home / "keys" / "online.pem")
        certificate = ssl.DER_cert_to_PEM_cert(base64.b64decode(record["tls"])).encode()
        self._identity = ((home / "keys" / "tls.pem").read_bytes(), certificate)
        self.blobs: dict[bytes, bytes] = {}
        self.lies: dict[str, Lie] = {}
        self._ended = threading.Event()
        self._servers: list[grpc.Server] = []

    def have(self, *data: bytes) -> None:
        self.blobs |= {sha256(item).digest(): item for item in data}

    def listen(self, address: str) -> ShownHistory:
        """Show at `address` the log that all addresses share, until it is given another."""
        history = ShownHistory(self.log, address)
        server = grpc.server(ThreadPoolExecutor(64))
        server.add_generic_rpc_handlers([_Handler(self, history)])
        server.add_secure_port(address, grpc.ssl_server_credentials([self._identity]))
        server.start()
        self._servers.append(server)
        return history

    @contextmanager
    def lying(self, call: str, lie: Lie) -> Iterator[None]:
        self.lies[call] = lie
        try:
            yield
        finally:
            del self.lies[call]

    def close(self) -> None:
        self._ended.set()
        for server in self._servers:
            server.stop(0).wait()

    def paused(self, answer: Iterable[Answer], question: Question) -> Iterator[bytes]:
        """The messages of an answer, after its pauses; ends with the call, or with the node."""
        for part in answer:
            if isinstance(part, bytes):
                yield part
                continue
            ends = time.monotonic() + part.seconds
            while time.monotonic() < ends:
                if not question.alive() or self._ended.wait(0.05):
                    return

    def silent(self, question: Question) -> Iterator[bytes]:
        """Never answer."""
        while question.alive() and not self._ended.wait(0.05):
            pass
        yield from ()

    def answer(self, call: str, question: Question) -> Iterable[Answer]:
        question.history.asked[call] += 1
        if call == "ListLogs":
            question.history.rounds.append(time.time())
        lie = self.lies.get(call)
        return lie(self, question) if lie else self.truth(call, question)

    def truth(self, call: str, question: Question) -> Iterable[bytes]:
        log = question.history.log
        match call:
            case "GetNode":
                record, inception = self._lines[1], self._lines[0]
                return [message((1, "by hand"), (2, log.origin), (3, record), (4, inception))]
            case "ListLogs":
                return [head(log, log.note())]
            case "ListMisbehaviour":
                return []
            case "Stat":
                return [message(*((1, self._stat(digest)) for digest in question.fields.get(1, [])))]
            case "GetObject":
                data = self._blob(question.data(1))
                return [message((1, data[at : at + CHUNK])) for at in range(0, len(data), CHUNK)]
            case "Read":
                start = question.number(2)
                data = self._blob(question.data(1))[start : start + question.number(3)]
                return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
            case "GetProceedings" | "ListAsks":
                return []
            case "GetEpochs":
                raise NotHere
            case "ReadNews" | "GetNews" | "GetCosignatures" | "GetObjects":
                raise NoSuchCall
            case "GetConcerns" | "ListDescent":
                raise NoSuchCall
            case "FindArtifact" | "FindFiles" | "ReadFileIndex":  # so that its other false answers are reached
                raise NoSuchCall
        if question.data(1) not in (log.origin.encode(), log.vkey.encode()):
            raise NotHere
        match call:
            case "GetCheckpoint":
                return [message((1, log.note()))]
            case "GetEntries":
                return batches(log, question.number(2), question.number(3))
            case "GetInclusion":
                return [message(*((1, h) for h in inclusion(question.number(2), log.leaves(question.number(3)))))]
            case "GetConsistency":
                return [message(*((1, h) for h in consistency(question.number(2), log.leaves(question.number(3)))))]
        raise NotHere

    def _blob(self, digest: bytes) -> bytes:
        if digest not in self.blobs:
            raise NotHere
        return self.blobs[digest]

    def _stat(self, digest: int | bytes) -> bytes:
        assert isinstance(digest, bytes)
        data = self.blobs.get(digest)
        return message((1, digest)) if data is None else message((1, digest), (2, 1), (3, len(data)))


def head(log: RawLog, note: bytes) -> bytes:
    return message((1, log.origin), (2, log.vkey), (3, note))


def batches(log: RawLog, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, min(end, len(log.lines)), 1000):
        yield message((1, at), *((2, line) for line in log.lines[at : min(end, at + 1000)]))


@dataclass(frozen=True)
class _Handler(grpc.GenericRpcHandler):
    liar: Liar
    history: ShownHistory

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        call = handler_call_details.method.rpartition("/")[2]

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            try:
                question = Question(self.history, parsed(request), context.is_active)
                yield from self.liar.paused(self.liar.answer(call, question), question)
            except NotHere:
                context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            except NoSuchCall:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such call")

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            return next(stream(request, context), b"")

        if call in UNARY:
            return grpc.unary_unary_rpc_method_handler(unary)
        return grpc.unary_stream_rpc_method_handler(stream)


def _ed25519(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 half of a key file."""
    end = b"-----END PRIVATE KEY-----\n"
    for block in path.read_bytes().split(end):
        if block.strip():
            key = load_pem_private_key(block + end, password=None)
            if isinstance(key, Ed25519PrivateKey):
                return key
    raise AssertionError(f"no ed25519 key in {path}")
