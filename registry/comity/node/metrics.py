"""What a node counts and shows of itself: metrics, whether it can serve, the bytes that it served to each caller, and
other locations that callers may fetch blobs from.

Prometheus metrics are named `comity_...`, and never labelled by an artifact's digest.

`/readyz`, of the gateway and of the metrics listener, says whether the node can serve: it is ready when it has started,
was not asked to end, and its ledger and its blob store answer within `CHECK_SECONDS`. A node that signs nothing, or
that no peer answers, serves what it has and is ready; the status and the metrics tell these. The result is kept for
`FRESH_SECONDS`, so that nobody makes the node work by asking.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, Final, Literal, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app

from comity.content.blobs import BlobStore
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.wire.access import undeclared
from comity.wire.blob import BlobLocation
from comity.wire.node_status import MemberCopies


class Metrics:
    """The node's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.store_bytes = self._gauge("store_bytes", "Bytes of blobs in the store, NaN until they are counted")
        self.store_bytes.set(float("nan"))
        self.served_bytes = self._counter("served_bytes", "Bytes of blobs sent", "peer")
        self.files_sent = self._counter("files_sent", "Files of which a client got the last byte")
        self.pull_bytes = self._counter("pull_bytes", "Verified bytes received", "peer")
        self.hashed_bytes = self._counter("hashed_bytes", "Bytes that the gateway hashed before sending", "what")
        self.verify_failures = self._counter("verify_failures", "Failed verifications", "reason")
        self.scrub_age = self._gauge("scrub_age_seconds", "Age of the last complete scrub of the store")
        self.ledger_damage = self._gauge("ledger_damage", "Damage of the ledger that was found and not repaired")
        self.limit_share = self._gauge(
            "limit_share", "Of each kind of limit, the share of the limit that is used most", "limit"
        )
        self.replica_short = self._gauge("replica_short", "Artifacts wanted here and not complete")
        self.replica_queue = self._gauge(
            "replica_queue_share", "Largest share that one member uses of its part of the copy queue"
        )
        self.copy_space = self._gauge(
            "copy_space_bytes", "Space of the copies of one member: stored, promised, and the most for both",
            "member", "what",
        )  # fmt: skip
        self._copy_space: frozenset[tuple[str, str]] = frozenset()
        """The labels of `copy_space`."""
        self.peer_up = self._gauge("peer_up", "Whether the last exchange worked", "peer")
        self.peer_lag = self._gauge("peer_log_lag_seconds", "Seconds since the peer's log is ahead of the copy", "peer")
        self.checkpoint_age = self._gauge(
            "checkpoint_age_seconds", "Seconds since another member last cosigned the own log; 0 before the first time"
        )
        self.writer_running = self._gauge("writer_running", "Whether a process writes the ledger")
        self.writer_running.set(1)
        self.ledger_look_age = self._gauge(
            "ledger_look_age_seconds", "Seconds since a front end last looked at the ledger"
        )
        self.log_size = self._gauge("log_entries", "Entries stored of a log", "origin")
        self._logs: frozenset[str] = frozenset()
        """The titles of the logs of `log_size`."""
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
        self.answers_limited = self._counter(
            "answers_limited", "Answers from which a limit left statements out", "call"
        )
        self.pins = self._gauge("pins", "Pinned artifacts, by whether the pin is met", "state")
        self.audits = self._counter("audits", "Audits of copies of others, by result", "outcome")
        self.audit_answers = self._counter(
            "audit_answers", "Challenges of others, by how they were answered", "outcome"
        )
        self.webhook_requests = self._counter("webhook_requests", "Events for webhooks, by result", "outcome")
        self.proposals_waiting = self._gauge("proposals_waiting", "Votes that this node's member has not cast")
        self.copies_short = self._gauge("copies_short", "Artifacts with fewer copies than the charter asks for")
        self.read_items = self._gauge("read_items", "Items that a reader of the ledger has read", "what")
        self.items_to_read = self._gauge("items_to_read", "Items that a reader of the ledger has to read", "what")
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "Longest delay of the event loop in the last minute"
        )
        self.task_steps = self._counter("task_steps", "Steps of background loops", "task", "outcome")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"comity_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"comity_{name}", text, labels, registry=self.registry)

    def set_log_sizes(self, sizes: Mapping[str, int]) -> None:
        """Set `log_size` of each log by its title. A title that is not in `sizes` is removed: a log gets another one
        where another member binds its origin. What stays is shown at each moment, also to a scrape that runs now."""
        for title, size in sizes.items():
            self.log_size.labels(title).set(size)
        for title in self._logs - sizes.keys():
            self.log_size.remove(title)
        self._logs = frozenset(sizes)

    def set_copy_space(self, spaces: Iterable[MemberCopies]) -> None:
        """Set `copy_space` of each member that any charter listed, and remove what is no longer known."""
        found = dict[tuple[str, str], int]()
        for space in spaces:
            found[space.name, "stored"], found[space.name, "promised"] = space.stored, space.promised
            if space.most is not None:
                found[space.name, "most"] = space.most
        for labels, value in found.items():
            self.copy_space.labels(*labels).set(value)
        for labels in self._copy_space - found.keys():
            self.copy_space.remove(*labels)
        self._copy_space = frozenset(found)


def counted(counter: Counter) -> int:
    """What a counter has, over all its labels."""
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


CHECK_SECONDS: Final = 2.0
"""Seconds for which one check is waited for."""
FRESH_SECONDS: Final = 1.0
FROM_THREAD: Final = 3 * CHECK_SECONDS
_EMPTY: Final = sha256(b"")


@frozen
class ReadinessChecks:
    """What was checked, and whether it held."""

    started: bool
    ledger: bool
    store: bool
    front_end: Mapping[str, object] | None = None
    """How old is what a front end shows; None in the process that writes."""
    reading: Sequence[Mapping[str, object]] = ()
    """What the node still reads of its ledger, and how far it is (`comity.node.reading`)."""
    draining: bool = False
    """Whether the process was asked to end, and takes no new work."""

    @property
    def ready(self) -> bool:
        return self.started and self.ledger and self.store and not self.draining

    def document(self) -> dict[str, object]:
        checks = {"started": self.started, "ledger": self.ledger, "store": self.store}
        found: dict[str, object] = {"status": "ready" if self.ready else "not ready", "checks": checks}
        if self.reading:
            found["reading"] = list(self.reading)
        if self.draining:
            found["draining"] = True
        return found if self.front_end is None else {**found, "front_end": self.front_end}


NOT_STARTED: Final = ReadinessChecks(started=False, ledger=False, store=False)


class Readiness:
    """Make it on the event loop of the node. Not thread-safe, but for `from_thread`. `front_end` returns how old is
    what a front end shows; `reading` what the node still reads."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        front_end: Callable[[], Mapping[str, object] | None] = lambda: None,
        reading: Callable[[], Sequence[Mapping[str, object]]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._front_end = front_end
        self._reading = reading
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._kept: tuple[float, ReadinessChecks] | None = None
        self.started = False
        """Set when the node has opened its listeners and begun its loops."""
        self._draining = False

    def drain(self) -> None:
        """Not be ready any more, from the next answer on."""
        self._draining, self._kept = True, None

    async def check(self) -> ReadinessChecks:
        async with self._lock:
            now = self._loop.time()
            if self._kept is None or now - self._kept[0] > FRESH_SECONDS:
                ledger, store = await asyncio.gather(self._ledger_answers(), self._store_answers())
                checks = ReadinessChecks(
                    self.started, ledger, store, self._front_end(), self._reading(), self._draining
                )
                self._kept = self._loop.time(), checks
            return self._kept[1]

    def from_thread(self) -> ReadinessChecks:
        """As `check`, from another thread. A node whose event loop does not answer is not ready."""
        asked = asyncio.run_coroutine_threadsafe(self.check(), self._loop)
        try:
            return asked.result(FROM_THREAD)
        except (Late, RuntimeError):
            asked.cancel()
            return NOT_STARTED

    async def _ledger_answers(self) -> bool:
        return await _answers(lambda: self._ledger.run(self._ledger.tables.logs.keys))

    async def _store_answers(self) -> bool:
        return await _answers(lambda: self._pools.files(lambda: (self._store.free_bytes(), self._store.has(_EMPTY))))


async def _answers(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ask()
    except (ComityError, TimeoutError, OSError, RuntimeError):
        return False
    return True


WsgiAnswer: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]
"""A WSGI application."""


@dataclass(slots=True)
class MetricsPage:
    """A page of the metrics listener, and who may read it: without a declaration nobody. The listener is off unless it
    has an address, and asks for nothing: who can reach it is what the operator decides with the address."""

    answer: WsgiAnswer
    who: Literal["everybody"] | None


class MetricsListener:
    """Serves the metrics, and `/readyz`, over HTTP in a thread of its own. `ready` returns whether the node can serve;
    it may block for seconds.

    Attributes:
        pages: what is served, by path.
    """

    def __init__(self, metrics: Metrics, address: str, ready: Callable[[], ReadinessChecks]) -> None:
        host, _, port = address.rpartition(":")

        def readyz(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            checks = ready()
            return _json(start_response, "200 OK" if checks.ready else "503 Service Unavailable", checks.document())

        self.pages = {
            "/metrics": MetricsPage(make_wsgi_app(metrics.registry), "everybody"),
            "/readyz": MetricsPage(readyz, "everybody"),
        }
        kind = _Ipv6MetricsServer if ":" in host else _MetricsServer
        self._server = make_server(host.strip("[]"), int(port), self._answer, kind, handler_class=_QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        page = self.pages.get(path)
        if page is None:
            return _error(start_response, "404 Not Found", NotFound("no such page", code="NO-SUCH-ROUTE"))
        if page.who is None:
            return _error(start_response, "403 Forbidden", undeclared(f"ask {path}"))
        return page.answer(environ, start_response)


def _error(start_response: Any, status: str, error: ComityError) -> Iterable[bytes]:
    return _json(start_response, status, {"error": str(error), "code": error.code})


def _json(start_response: Any, status: str, document: Mapping[str, object]) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(document).encode()]


class _MetricsServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Ipv6MetricsServer(_MetricsServer):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


MAX_PAIRS: Final = 10_000
"""Sums kept, one for each caller and blob; the least recently used one is dropped."""


@frozen
class ReadRecord:
    """The result of one Read call."""

    peer: str
    blob: Digest
    offset: int
    asked: int
    sent: int


class ServedBytes:
    """Bytes served since the node started: logged for each call, and summed for the status. Not thread-safe: call from
    the event loop.

    Args:
        count_pull: called when the last byte of a blob was sent to a client, which is no node of a member.
    """

    def __init__(self, metrics: Metrics, count_pull: Callable[[Digest], None] = lambda blob: None) -> None:
        self._metrics = metrics
        self._count_pull = count_pull
        self._sums: OrderedDict[tuple[str, Digest], int] = OrderedDict()
        self._log = structlog.get_logger("comity.node.metrics")

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

    def add_whole(self, peer: str, sizes: Mapping[Digest, int], *, port: str) -> None:
        """Count small blobs that one call has sent whole: many of them are one event of the log."""
        for blob, size in sizes.items():
            self.count(peer, blob, size)
        sent = sum(sizes.values())
        self._metrics.served_bytes.labels(peer if port == "mutual" else port).inc(sent)
        self._log.info("served together", peer=peer, port=port, blobs=list(sizes), sent=sent)

    def count(self, peer: str, blob: Digest, sent: int) -> None:
        """Add to the sums only; the caller logs and counts by itself."""
        self._sums[peer, blob] = self._sums.pop((peer, blob), 0) + sent
        if len(self._sums) > MAX_PAIRS:
            self._sums.popitem(last=False)

    def ended(self, blob: Digest) -> None:
        """The last byte of a blob was sent to a client."""
        self._metrics.files_sent.inc()
        self._count_pull(blob)

    @property
    def sums(self) -> Mapping[tuple[str, Digest], int]:
        """Bytes by (caller, blob)."""
        return self._sums


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
