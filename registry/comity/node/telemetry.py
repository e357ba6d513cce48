"""Traces of a node for OpenTelemetry: a span for each call that it answers and each file that it fetches.

Off unless `telemetry.otlp` names a collector; then the extra `otel` must be installed. Spans are sent by a thread in
batches; a collector that does not answer costs the spans, not the node. A span has the method, the port's kind of
caller, sizes and error codes: no name of a caller, no address, no digest and no text of an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from comity.node.settings import Tracing
from comity.trust.errors import ComityError, Unavailable
from comity.wire.calls import SpanStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

SENDING_SECONDS: Final = 5
MAX_QUEUED: Final = 2_048
"""Spans that wait for the collector; further ones are dropped."""


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
