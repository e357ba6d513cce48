"""Traces: spans of calls and transfers reach an exporter, name no person, and cost nothing without an exporter."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from comity.node.settings import Tracing
from comity.node.telemetry import Telemetry
from comity.transfer.fetch import fetch_file
from comity.transfer.pieces import WantedFile
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable
from comity.wire import calls
from comity.wire.calls import span, traced
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.wired import MemoryNode, met


def test_without_a_tracer_a_span_is_nothing() -> None:
    assert calls._start is None
    assert span("a") is span("b")


def exported(share: float = 1.0) -> tuple[Telemetry, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Telemetry(Tracing(otlp="http://127.0.0.1:1", share=share), "node-ch", exporter), exporter


def found(telemetry: Telemetry, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    telemetry.close()
    return list(exporter.get_finished_spans())


def test_a_span_has_its_attributes_and_the_code_of_its_error() -> None:
    telemetry, exporter = exported()
    with traced(telemetry.start):
        with span("outer", comity_bytes=5), span("inner"):
            pass
        with pytest.raises(NotFound), span("failing"):
            raise NotFound("a secret text", code="NOT-HERE")
    inner, outer, failing = found(telemetry, exporter)
    assert (outer.name, dict(outer.attributes or {})) == ("outer", {"comity.bytes": 5})
    assert inner.parent is not None and outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert dict(failing.attributes or {}) == {"error.type": "NOT-HERE"}
    assert "secret" not in failing.to_json()
    assert outer.resource.attributes["service.instance.id"] == "node-ch"
    assert calls._start is None


def test_a_share_of_zero_makes_no_spans() -> None:
    telemetry, exporter = exported(share=0)
    with traced(telemetry.start), span("a"):
        pass
    assert found(telemetry, exporter) == []


def test_tracing_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Unavailable) as refused:
        Telemetry(Tracing(otlp="http://127.0.0.1:1"), "node-ch")
    assert refused.value.code == "NO-OTEL"


async def test_spans_of_calls_and_transfers_name_no_person(tmp_path: Path) -> None:
    telemetry, exporter = exported()
    want = WantedFile(sha256(b""), 0, ())
    with traced(telemetry.start):
        async with met(MemoryNode()) as client:
            await client.node()
        await fetch_file(want, (), tmp_path / "partial")
    spans = {item.name: dict(item.attributes or {}) for item in await asyncio.to_thread(found, telemetry, exporter)}
    call = spans["comity.v1.NodeService/GetNode"]
    assert call == {"rpc.system": "grpc", "comity.caller": "operator"}
    assert spans["fetch file"] == {"comity.bytes": 0, "comity.sources": 0}
    assert "127.0.0.1" not in str(spans)
