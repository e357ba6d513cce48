"""The event log of a node, and its traces for OpenTelemetry.

The event log is one line for each event, JSON or, on a terminal, plain text; it never contains a secret or a URL.

A trace has a span for each call that the node answers and each file that it fetches. Off unless `telemetry.otlp` names
a collector; then the extra `otel` must be installed. Spans are sent by a thread in batches; a collector that does not
answer costs the spans, not the node. A span has the method, the port's kind of caller, sizes and error codes: no name
of a caller, no address, no digest and no text of an error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from comity.node.settings import Tracing
from comity.trust.errors import ComityError, Unavailable
from comity.wire.access import CALL
from comity.wire.calls import SpanStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

SENDING_SECONDS: Final = 5
MAX_QUEUED: Final = 2_048
"""Spans that wait for the collector; further ones are dropped."""


_log: Final = structlog.get_logger("comity.node")


def _add_call(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id of the current call, so that its events can be found together."""
    call = CALL.get("")
    if call:
        event["call"] = call
    return event


def configure_logging(*, level: int = logging.INFO) -> None:
    """Send structured events, and those of libraries that use `logging`, to standard error."""
    shared: list[Any] = [
        _add_call,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    # A traceback with variables would contain the headers of a request.
    words = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    finish: list[Any] = [words] if terminal else [structlog.processors.JSONRenderer()]
    if not terminal:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("alembic", "sqlalchemy", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def warn_of_kept_file(kept: Path, why: str) -> None:
    """Log that a damaged file beside the ledger was kept under another name, and what is wrong with it."""
    _log.warning("a damaged file was kept under another name", kept=str(kept), why=why)


class Telemetry:
    """Spans that go to a collector, until `close`."""

    def __init__(self, settings: Tracing, node: str, exporter: SpanExporter | None = None) -> None:
        """Blocking. `exporter` replaces the collector of the settings. Raises Unavailable (NO-OTEL)."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise Unavailable(
                "OpenTelemetry is not installed",
                why=f"[telemetry] otlp is set, and {error.name} is missing",
                hint="pip install 'comity[node,otel]'",
                code="NO-OTEL",
            ) from error
        resource = Resource({"service.name": "comity", "service.instance.id": node})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.share)), resource=resource, shutdown_on_exit=False
        )
        target = exporter or OTLPSpanExporter(f"{settings.otlp}/v1/traces", timeout=SENDING_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(target, max_queue_size=MAX_QUEUED))
        self._tracer = self._provider.get_tracer("comity")

    @property
    def start(self) -> SpanStart:
        return self._start

    @contextmanager
    def _start(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        from opentelemetry.trace import Status, StatusCode

        named = {key.replace("_", ".", 1): value for key, value in attributes.items()}
        with self._tracer.start_as_current_span(
            name, attributes=named, record_exception=False, set_status_on_exception=False
        ) as current:
            try:
                yield
            except BaseException as error:
                current.set_attribute("error.type", error.code if isinstance(error, ComityError) else "internal")
                current.set_status(Status(StatusCode.ERROR))
                raise

    def close(self) -> None:
        """Send what waits, for a few seconds at most. Blocking."""
        self._provider.shutdown()
