"""Threads for blocking work, bounded by kind, so that hashing a model never keeps the ledger waiting.

The keys that a running node uses, from `keys/` in its home. The member's own keys are elsewhere, and never read.

Whether the ledger here is the one that this node wrote last, or a copy: what a backup brings back.

A mark beside the ledger says which database it was: which file, or in PostgreSQL which cluster, timeline, database and
table. A copy is another one, or lacks the mark, and then nothing is signed before a peer has said what was signed. A
disk rolled back underneath, or a backup written over the same file, looks the same as before: against that, peers are
asked at every start, though not waited for without end.


Prometheus metrics, each under `comity_`, in a registry of the node's own. No label is ever an artifact's digest.

Who was given which bytes: a line in the node's log for each answer, and sums in memory for the status.

Other ways to a blob than gRPC: what `ListLocations` answers. Whoever opens such a way offers it here.

What comes out is secret for as long as it lives, and is logged nowhere.


What every part of a node has at hand: settings, keys, who is who, the ledger, the blobs, threads, time."""

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
    """Four pools: `ledger` for the database, `files` for reads and small writes, `hashing` for whole files, and one for
    `imports`, which wait for an upstream and may take hours."""

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
        """Wait for what runs, drop what has not begun."""
        for pool in (self._ledger, self._files, self.hashing_threads, self._imports):
            pool.shutdown(wait=True, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The online keys of the node that `record` describes: they are exactly the ones that it binds."""

    record: NodeRecord
    log: PrivateKey
    cosigners: tuple[PrivateKey, ...]
    online: HybridSigner
    tls: TlsIdentity

    @classmethod
    def load(cls, folder: Path, record: NodeRecord) -> Self:
        """Read `log.pem`, `cosigner.pem`, `online.pem` and `tls.pem`.

        Raises what `read_keys` raises, and Untrusted (KEY-MISMATCH) for keys that the node record does not bind.
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
                raise Untrusted("the node's keys are not its record's", why=why, code="KEY-MISMATCH")
        return cls(record, log, cosigners, online, TlsIdentity(record.tls, tls))

    def sign_checkpoint(self, checkpoint: Checkpoint) -> NoteSignature:
        """The log's own signature. The caller answers for the root."""
        return sign_note(checkpoint.text, self.record.origin, self.log)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """One cosignature by each cosigner key. The caller answers for every entry being here."""
        name, now = self.record.cosigners[0].name, int(clock())
        return tuple(cosign(checkpoint, name, key, now) for key in self.cosigners)


def _single(path: Path) -> PrivateKey:
    keys = read_keys(path)
    if len(keys) != 1:
        raise Malformed(f"{path} is no key file of one key", why=f"it holds {len(keys)}")
    return keys[0]


NAME: Final = "ledger.inode"
OUTSIDE: Final = "outside.inode"
"""The mark for what was signed for outside logs, which no peer tells: only the operator makes it anew."""


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """The mark in `file`, beside a ledger whose `identity` is known."""

    file: Path
    identity: str

    def is_of_another(self, *, begun: bool) -> bool:
        """Whether this node wrote last into another database.

        Args:
            begun: whether the ledger holds what may not be forgotten: entries of the own log, or what was signed for
                outside ones. It is marked before the first of it: one that holds some and has no mark was brought here
                without it.

        Raises Unavailable.
        """
        with disk_errors("the ledger's mark was not read"):
            return self.file.read_text("utf-8", "replace").strip() != self.identity if self.file.exists() else begun

    def renew(self) -> None:
        """This is the ledger now. Durable when it returns. Raises OutOfSpace, Unavailable."""
        write_file(self.file, f"{self.identity}\n".encode(), point="continuity")

    def vouching_command(self) -> str:
        """What an operator runs to vouch for a copy, where no peer is left to ask."""
        return f"echo {shlex.quote(self.identity)} > {shlex.quote(str(self.file))}"


class Metrics:
    """What a node counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.store_bytes = self._gauge("store_bytes", "Bytes of blobs held")
        self.served_bytes = self._counter("served_bytes", "Bytes of blobs sent", "peer")
        self.pull_bytes = self._counter("pull_bytes", "Verified bytes received", "peer")
        self.hashed_bytes = self._counter("hashed_bytes", "Bytes that the gateway hashed before it sent them", "what")
        self.verify_failures = self._counter("verify_failures", "What did not verify", "reason")
        self.scrub_age = self._gauge("scrub_age_seconds", "Age of the last whole reading of the store")
        self.replica_short = self._gauge("replica_short", "Artifacts wanted here and not whole yet")
        self.peer_up = self._gauge("peer_up", "Whether the last exchange worked", "peer")
        self.peer_lag = self._gauge("peer_log_lag_seconds", "Since when its log is ahead of the copy", "peer")
        self.checkpoint_age = self._gauge("checkpoint_age_seconds", "Age of the own log's newest checkpoint")
        self.log_size = self._gauge("log_entries", "Entries held of a log", "origin")
        self.misbehaviour = self._gauge("misbehaviour_proofs", "Proofs kept that a log showed two histories", "origin")
        self.offers_at_fault = self._gauge("offers_at_fault", "Offers whose chain convicts their provider", "origin")
        self.witnessed_size = self._gauge("witnessed_entries", "Entries of the own log that it has cosigned", "witness")
        self.charter_epoch = self._gauge("charter_epoch", "The newest epoch that this node took up")
        self.charter_forks = self._gauge("charter_forks", "Forks of the charter that stop governance here")
        self.charter_liars = self._gauge("charter_liars", "Members that signed what excludes one another")
        self.charter_drafts = self._gauge("charter_drafts", "Drafts of the next charter that are open")
        self.http_requests = self._counter("http_requests", "Requests that the gateway answered", "route", "status")
        self.task_steps = self._counter("task_steps", "Steps of background loops", "task", "outcome")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"comity_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"comity_{name}", text, labels, registry=self.registry)


class MetricsListener:
    """Serves the metrics over HTTP, from a thread of its own."""

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
"""Sums kept, one a caller and blob; the one longest unused gives way."""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """The answer to one Read."""

    peer: str
    blob: Digest
    offset: int
    asked: int
    sent: int


class ServedBytes:
    """What was served since the node started. Touched by the event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: OrderedDict[tuple[str, Digest], int] = OrderedDict()
        self._log = structlog.get_logger("comity.node.context")

    def add(self, delivery: ReadRecord, *, door: str) -> None:
        self.count(delivery.peer, delivery.blob, delivery.sent)
        # Strangers are many: only peers get a label of their own.
        self._metrics.served_bytes.labels(delivery.peer if door == "mutual" else door).inc(delivery.sent)
        self._log.info(
            "served",
            peer=delivery.peer,
            door=door,
            blob=delivery.blob,
            offset=delivery.offset,
            asked=delivery.asked,
            sent=delivery.sent,
        )

    def count(self, peer: str, blob: Digest, sent: int) -> None:
        """Add to the sums alone: for who logs and measures by itself."""
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


LIFETIME: Final = 600
"""Seconds for which a location opens: a pull asks again where it takes longer."""

Way: TypeAlias = Callable[[Digest, str], BlobLocation]
"""Makes a location of a blob that is here, for a peer, whose name it is given; empty for strangers. Called from many
threads."""


class OpenWays:
    """The ways that are open now. Thread-safe."""

    def __init__(self, *ways: Way) -> None:
        self._ways = ways

    @contextmanager
    def offered(self, way: Way) -> Iterator[None]:
        """Have `way` among the answers while the block lasts."""
        self._ways = (*self._ways, way)
        try:
            yield
        finally:
            self._ways = tuple(other for other in self._ways if other is not way)

    def of(self, digest: Digest, peer: str) -> tuple[BlobLocation, ...]:
        return tuple(way(digest, peer) for way in self._ways)


MAX_OWN_ROTATIONS: Final = 64

Clock = Callable[[], float]
"""POSIX seconds."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """An opened node home. `open` makes one; `close` gives the ledger's lock back."""

    config: NodeConfig
    keys: NodeKeys
    membership: Membership
    annals: EpochStore | None
    ledger: Ledger
    store: BlobStore
    pools: Pools
    metrics: Metrics
    served: ServedBytes
    places: OpenWays
    clock: Clock

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> NodeContext:
        """Read keys and records, open ledger and blobs, make sure of the own log. Blocking.

        `offline/` is never looked at. Raises NotFound, Refused, Malformed and Untrusted for what lies in the home, and
        Conflict (LEDGER-LOCKED) where another process runs on it.
        """
        rotations = _lines(config.path("rotations.lines"))
        seat = Seat.parse(_line(config.path("inception.line")), _line(config.path("node-record.line")), rotations)
        keys = NodeKeys.load(config.keys, seat.record)
        federation = _federation(config.federation.file)
        ledger = Ledger.open(config.storage.ledger.parent, clock, backing=_backing(config))
        try:
            annals = EpochStore(ledger.epochs, federation, config.federation.branch) if federation else None
            membership = Membership(seat, federation, annals.bodies() if annals else ())
            ledger.logs.create(seat.record.origin, str(seat.record.log), own=True)
            metrics = Metrics()
            store = _open_store(config)
            served, places = ServedBytes(metrics), OpenWays(*_ways(config, store))
            return cls(config, keys, membership, annals, ledger, store, Pools(), metrics, served, places, clock)
        except BaseException:
            ledger.close()
            raise

    @property
    def seat(self) -> Seat:
        return self.membership.seat

    @property
    def origin(self) -> str:
        """The log that this node writes."""
        return self.seat.record.origin

    @property
    def log(self) -> str:
        """The verifier key of the log that this node writes: its name in the ledger."""
        return str(self.seat.record.log)

    def mark(self, name: str) -> LedgerMark:
        """The file beside the ledger that says which database it was."""
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
            "this installation has no PostgreSQL", why=why, hint="pip install 'comity[node,postgres]'"
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
        raise Unavailable("this installation has no S3", why=why, hint="pip install 'comity[node,s3]'") from error
    client = open_client(s3.endpoint, s3.region, s3.credentials_file)
    return S3Store(s3.bucket, client, config.storage.blobs, s3.prefix)


def _ways(config: NodeConfig, store: BlobStore) -> tuple[Way, ...]:
    """The service's own URLs, where the operator wants them given out."""
    if config.storage.s3 is None or not config.storage.s3.presigned:
        return ()
    from comity.content.s3 import S3Store

    assert isinstance(store, S3Store)
    return (lambda digest, peer: BlobLocation("s3-presigned", store.presigned(digest, LIFETIME)),)


def _line(path: Path) -> bytes:
    line = _bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def _lines(path: Path) -> tuple[bytes, ...]:
    """The lines of a file that need not be there."""
    return tuple(_bounded(path, MAX_OWN_ROTATIONS * (MAX_LINE + 1)).splitlines()) if path.exists() else ()


def _federation(file: Path) -> Federation | None:
    """The pinned federation; None in a node that was not founded into one yet."""
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
