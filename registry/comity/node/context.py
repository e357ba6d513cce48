"""What every part of a node uses: settings, keys, membership, ledger, blob store, thread pools, metrics and clock.

`NodeContext.open` opens a node's home. `Pools` runs blocking work in threads, with one pool for each kind, so that
hashing does not delay the ledger. `NodeKeys` are the online keys in `keys/`; the member's own keys are never read.
`Metrics` are Prometheus metrics, each named `comity_...`; no label is an artifact's digest.

A mark file beside the ledger identifies the database: the file, or in PostgreSQL the cluster, timeline, database and
table. A copy has another identity or no mark; then nothing is signed before a peer has shown what was signed. A disk
that was rolled back, or a backup written over the same file, is not detected this way: therefore peers are asked at
every start, for a limited time.
"""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, Self, TypeAlias, TypeVar
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from comity.content.blobs import BlobStore, FolderStore
from comity.content.durable import disk_errors, write_file
from comity.content.secrets import read_keys, read_signer
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.sqlite import SqliteFile
from comity.node.config import NodeConfig
from comity.node.epochs import EpochStore
from comity.node.members import Membership, Seat
from comity.trust.charter.federation import MAX_BYTES as MAX_FEDERATION
from comity.trust.charter.federation import Federation
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Unavailable, Untrusted
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.statement import MAX_LINE
from comity.trust.statements import NodeRecord, certificate_key
from comity.trust.tlog.note import Checkpoint, NoteSignature, cosign, sign_note
from comity.wire.messages import BlobLocation
from comity.wire.tls import TlsIdentity

P = ParamSpec("P")
T = TypeVar("T")


class Pools:
    """Thread pools: `ledger` for the database, `files` for reads and small writes, `hashing` for whole files, and
    `imports` for calls to an upstream, which may take hours."""

    def __init__(self) -> None:
        self._ledger = ThreadPoolExecutor(8, thread_name_prefix="ledger")
        self._files = ThreadPoolExecutor(8, thread_name_prefix="files")
        self.hashing_threads = ThreadPoolExecutor(4, thread_name_prefix="hashing")
        self._imports = ThreadPoolExecutor(8, thread_name_prefix="imports")

    async def ledger(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._ledger, work, *args, **kwargs)

    async def files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._files, work, *args, **kwargs)

    async def hashing(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self.hashing_threads, work, *args, **kwargs)

    async def imports(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._imports, work, *args, **kwargs)

    def close(self) -> None:
        """Wait for running work and drop what has not begun."""
        for pool in (self._ledger, self._files, self.hashing_threads, self._imports):
            pool.shutdown(wait=True, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The online keys of the node that `record` describes: exactly the keys that it binds."""

    record: NodeRecord
    log: PrivateKey
    cosigners: tuple[PrivateKey, ...]
    online: HybridSigner
    tls: TlsIdentity

    @classmethod
    def load(cls, folder: Path, record: NodeRecord) -> Self:
        """Read `log.pem`, `cosigner.pem`, `online.pem` and `tls.pem`.

        Raises what `read_keys` raises, and Untrusted (KEY-MISMATCH) if the node record does not bind a key.
        """
        log, tls = _single(folder / "log.pem"), _single(folder / "tls.pem")
        cosigners, online = read_keys(folder / "cosigner.pem"), read_signer(folder / "online.pem")
        bound = {
            "log.pem": log.public == record.log.public_key,
            "cosigner.pem": {key.public for key in cosigners} == {key.public_key for key in record.cosigners},
            "online.pem": online.public == record.online,
            "tls.pem": tls.public == certificate_key(record.tls),
        }
        for name, matches in bound.items():
            if not matches:
                why = f"{folder / name} does not hold the key that node-record.line binds"
                raise Untrusted("the node's keys do not match its record", why=why, code="KEY-MISMATCH")
        return cls(record, log, cosigners, online, TlsIdentity(record.tls, tls))

    def sign_checkpoint(self, checkpoint: Checkpoint) -> NoteSignature:
        """The log's signature. The caller is responsible for the root."""
        return sign_note(checkpoint.text, self.record.origin, self.log)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """One cosignature by each cosigner key. The caller must hold every entry of the checkpoint."""
        name, now = self.record.cosigners[0].name, int(clock())
        return tuple(cosign(checkpoint, name, key, now) for key in self.cosigners)


def _single(path: Path) -> PrivateKey:
    keys = read_keys(path)
    if len(keys) != 1:
        raise Malformed(f"{path} must hold one key", why=f"it holds {len(keys)}")
    return keys[0]


LEDGER_MARK: Final = "ledger.inode"
OUTSIDE_MARK: Final = "outside.inode"
"""The mark for what was signed for outside logs. Peers cannot restore it: only the operator can reset it."""


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """The mark in `file`, beside a ledger with a known `identity`."""

    file: Path
    identity: str

    def mismatches(self, *, begun: bool) -> bool:
        """Whether this node last wrote to another database.

        Args:
            begun: whether the ledger holds entries of the own log, or signatures for outside logs. The mark is written
                before the first of these, so a ledger that holds some and has no mark is a copy.

        Raises Unavailable.
        """
        with disk_errors("the ledger's mark was not read"):
            return self.file.read_text("utf-8", "replace").strip() != self.identity if self.file.exists() else begun

    def write(self) -> None:
        """Mark this ledger as the current one. Durable when it returns. Raises OutOfSpace, Unavailable."""
        write_file(self.file, f"{self.identity}\n".encode(), point="continuity")

    def reset_command(self) -> str:
        """The command with which an operator accepts a copy, if no peer is left to ask."""
        return f"echo {shlex.quote(self.identity)} > {shlex.quote(str(self.file))}"


class Metrics:
    """The node's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.store_bytes = self._gauge("store_bytes", "Bytes of blobs in the store")
        self.served_bytes = self._counter("served_bytes", "Bytes of blobs sent", "peer")
        self.pull_bytes = self._counter("pull_bytes", "Verified bytes received", "peer")
        self.hashed_bytes = self._counter("hashed_bytes", "Bytes that the gateway hashed before sending", "what")
        self.verify_failures = self._counter("verify_failures", "Failed verifications", "reason")
        self.scrub_age = self._gauge("scrub_age_seconds", "Age of the last complete scrub of the store")
        self.replica_short = self._gauge("replica_short", "Artifacts wanted here and not complete")
        self.peer_up = self._gauge("peer_up", "Whether the last exchange worked", "peer")
        self.peer_lag = self._gauge("peer_log_lag_seconds", "Seconds since the peer's log is ahead of the copy", "peer")
        self.checkpoint_age = self._gauge("checkpoint_age_seconds", "Age of the own log's newest checkpoint")
        self.log_size = self._gauge("log_entries", "Entries stored of a log", "origin")
        self.misbehaviour = self._gauge(
            "misbehaviour_proofs", "Stored proofs that a log showed two histories", "origin"
        )
        self.offers_at_fault = self._gauge(
            "offers_at_fault", "Offers whose chain proves a fault of their provider", "origin"
        )
        self.witnessed_size = self._gauge(
            "witnessed_entries", "Entries of the own log that the witness cosigned", "witness"
        )
        self.charter_epoch = self._gauge("charter_epoch", "The newest epoch that this node follows")
        self.charter_forks = self._gauge("charter_forks", "Charter forks that stop this node from following epochs")
        self.charter_equivocators = self._gauge("charter_liars", "Members that signed contradictory votes")
        self.charter_drafts = self._gauge("charter_drafts", "Open drafts of the next charter")
        self.http_requests = self._counter("http_requests", "Requests answered by the gateway", "route", "status")
        self.task_steps = self._counter("task_steps", "Steps of background loops", "task", "outcome")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"comity_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"comity_{name}", text, labels, registry=self.registry)


class MetricsListener:
    """Serves the metrics over HTTP, in a thread of its own."""

    def __init__(self, metrics: Metrics, address: str) -> None:
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), host.strip("[]"), metrics.registry)
        self._server: WSGIServer = server
        self._thread: threading.Thread = thread

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


MAX_PAIRS: Final = 10_000
"""Sums kept, one for each caller and blob; the least recently used one is dropped."""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """The result of one Read call."""

    peer: str
    blob: Digest
    offset: int
    asked: int
    sent: int


class ServedBytes:
    """Bytes served since the node started: logged for each call, and summed for the status. Not thread-safe: call from
    the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: OrderedDict[tuple[str, Digest], int] = OrderedDict()
        self._log = structlog.get_logger("comity.node.context")

    def add(self, record: ReadRecord, *, port: str) -> None:
        self.count(record.peer, record.blob, record.sent)
        # Other callers are unbounded in number: only peers get a label of their own.
        self._metrics.served_bytes.labels(record.peer if port == "mutual" else port).inc(record.sent)
        self._log.info(
            "served",
            peer=record.peer,
            port=port,
            blob=record.blob,
            offset=record.offset,
            asked=record.asked,
            sent=record.sent,
        )

    def count(self, peer: str, blob: Digest, sent: int) -> None:
        """Add to the sums only; the caller logs and counts by itself."""
        self._sums[peer, blob] = self._sums.pop((peer, blob), 0) + sent
        if len(self._sums) > MAX_PAIRS:
            self._sums.popitem(last=False)

    @property
    def sums(self) -> Mapping[tuple[str, Digest], int]:
        """Bytes by (caller, blob)."""
        return self._sums

    def by_peer(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for (peer, _), sent in self._sums.items():
            totals[peer] = totals.get(peer, 0) + sent
        return totals


LOCATION_SECONDS: Final = 600
"""Seconds for which a location is valid; a longer pull asks again."""

LocationProvider: TypeAlias = Callable[[Digest, str], BlobLocation]
"""Returns a location of a blob in the store, for a peer's name; the name is empty for other callers. Must be thread-
safe."""


class LocationProviders:
    """The providers of the locations that `ListLocations` returns. A location is secret while it is valid, and never
    logged. Thread-safe."""

    def __init__(self, *providers: LocationProvider) -> None:
        self._providers = providers

    @contextmanager
    def registered(self, provider: LocationProvider) -> Iterator[None]:
        """Register `provider` while the block runs."""
        self._providers = (*self._providers, provider)
        try:
            yield
        finally:
            self._providers = tuple(other for other in self._providers if other is not provider)

    def of(self, digest: Digest, peer: str) -> tuple[BlobLocation, ...]:
        return tuple(provider(digest, peer) for provider in self._providers)


MAX_OWN_ROTATIONS: Final = 64

Clock = Callable[[], float]
"""POSIX seconds."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """An opened node home. `open` makes one; `close` releases the ledger's lock."""

    config: NodeConfig
    keys: NodeKeys
    membership: Membership
    epochs: EpochStore | None
    ledger: Ledger
    store: BlobStore
    pools: Pools
    metrics: Metrics
    served: ServedBytes
    locations: LocationProviders
    clock: Clock

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> NodeContext:
        """Read keys and records, open ledger and blobs, create the own log if it is missing. Blocking.

        `offline/` is never read. Raises NotFound, Refused, Malformed and Untrusted for invalid files in the home, and
        Conflict (LEDGER-LOCKED) if another process uses it.
        """
        rotations = _lines(config.path("rotations.lines"))
        seat = Seat.parse(_line(config.path("inception.line")), _line(config.path("node-record.line")), rotations)
        keys = NodeKeys.load(config.keys, seat.record)
        federation = _federation(config.federation.file)
        ledger = Ledger.open(config.storage.ledger.parent, clock, backing=_backing(config))
        try:
            epochs = EpochStore(ledger.epochs, federation, config.federation.branch) if federation else None
            membership = Membership(seat, federation, epochs.bodies() if epochs else ())
            ledger.logs.create(seat.record.origin, str(seat.record.log), own=True)
            metrics = Metrics()
            store = _open_store(config)
            served, locations = ServedBytes(metrics), LocationProviders(*_providers(config, store))
            return cls(config, keys, membership, epochs, ledger, store, Pools(), metrics, served, locations, clock)
        except BaseException:
            ledger.close()
            raise

    @property
    def seat(self) -> Seat:
        return self.membership.seat

    @property
    def origin(self) -> str:
        """The name of the log that this node writes."""
        return self.seat.record.origin

    @property
    def log(self) -> str:
        """The verifier key of the log that this node writes: its name in the ledger."""
        return str(self.seat.record.log)

    def mark(self, name: str) -> LedgerMark:
        """The mark file `name` beside the ledger, which identifies its database."""
        return LedgerMark(self.config.storage.ledger.with_name(name), self.ledger.identity)

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()


def _backing(config: NodeConfig) -> Backing:
    if not config.storage.database:
        return SqliteFile(config.storage.ledger)
    try:
        from comity.ledger.postgres import PostgresDatabase
    except ImportError as error:
        why = f"{error.name or 'libpq'} is missing"
        raise Unavailable(
            "PostgreSQL support is not installed", why=why, hint="pip install 'comity[node,postgres]'"
        ) from error
    return PostgresDatabase(config.storage.database, config.storage.password_file)


def _open_store(config: NodeConfig) -> BlobStore:
    s3 = config.storage.s3
    if s3 is None:
        return FolderStore(config.storage.blobs)
    try:
        from comity.content.s3 import S3Store, open_client
    except ImportError as error:
        why = f"{error.name} is missing"
        raise Unavailable("S3 support is not installed", why=why, hint="pip install 'comity[node,s3]'") from error
    client = open_client(s3.endpoint, s3.region, s3.credentials_file)
    return S3Store(s3.bucket, client, config.storage.blobs, s3.prefix)


def _providers(config: NodeConfig, store: BlobStore) -> tuple[LocationProvider, ...]:
    """The storage service's own URLs, if the operator enabled them."""
    if config.storage.s3 is None or not config.storage.s3.presigned:
        return ()
    from comity.content.s3 import S3Store

    assert isinstance(store, S3Store)
    return (lambda digest, peer: BlobLocation("s3-presigned", store.presigned(digest, LOCATION_SECONDS)),)


def _line(path: Path) -> bytes:
    line = _bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def _lines(path: Path) -> tuple[bytes, ...]:
    """The lines of an optional file."""
    return tuple(_bounded(path, MAX_OWN_ROTATIONS * (MAX_LINE + 1)).splitlines()) if path.exists() else ()


def _federation(file: Path) -> Federation | None:
    """The pinned federation; None if this node has none yet."""
    return Federation.parse(_bounded(file, MAX_FEDERATION)) if file.exists() else None


def _bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFound(f"{path} is missing", hint="comity init --help") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read", why=error.strerror or "") from error
    if len(data) > limit:
        raise Malformed(f"{path} is too large", why=f"at most {limit} bytes are read")
    return data
