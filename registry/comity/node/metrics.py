"""The node's Prometheus metrics, each named `comity_...`; no label is an artifact's digest."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server


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
