"""`/readyz`: ready only if ledger and store answer now, asked at most once a second; and ages that increase."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from comity.content.blobs import FolderStore
from comity.node import metrics as metrics_module
from comity.node.metrics import NOT_STARTED, Metrics, MetricsListener, Readiness, ReadinessChecks
from comity.node.threads import Pools
from comity.trust.errors import Unavailable


def works() -> list[object]:
    return []


def fails() -> list[object]:
    raise Unavailable("the ledger did not answer")


@dataclass
class FakeLedger:
    """The part of a ledger that is asked."""

    answer: Callable[[], list[object]] = works
    asked: int = 0
    tables: Any = field(init=False)

    def __post_init__(self) -> None:
        self.tables = type("Tables", (), {"logs": type("Logs", (), {"keys": staticmethod(self.keys)})})

    def keys(self) -> list[object]:
        self.asked += 1
        return self.answer()

    async def run(self, work: Callable[[], object]) -> object:
        return await asyncio.to_thread(work)


@pytest.fixture(name="pools")
async def _pools() -> AsyncIterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


def checked(ledger: FakeLedger, folder: Path, pools: Pools) -> Readiness:
    made = Readiness(ledger, FolderStore(folder / "blobs"), pools)  # type: ignore[arg-type]
    made.started = True
    return made


async def test_a_node_whose_ledger_and_store_answer_is_ready_and_is_asked_once_a_second(
    tmp_path: Path, pools: Pools
) -> None:
    ledger = FakeLedger()
    ready = checked(ledger, tmp_path, pools)
    answers = [await ready.check() for _ in range(20)]
    assert set(answers) == {ReadinessChecks(True, True, True)}
    assert answers[0].document()["status"] == "ready"
    assert ledger.asked == 1


async def test_a_node_that_has_not_started_is_not_ready(tmp_path: Path, pools: Pools) -> None:
    ready = checked(FakeLedger(), tmp_path, pools)
    ready.started = False
    assert not (await ready.check()).ready


async def test_a_node_that_was_asked_to_end_is_not_ready_from_the_next_answer_on(tmp_path: Path, pools: Pools) -> None:
    ready = checked(FakeLedger(), tmp_path, pools)
    assert (await ready.check()).ready
    ready.drain()
    checks = await ready.check()
    assert not checks.ready
    assert checks.document() == {
        "status": "not ready", "checks": {"started": True, "ledger": True, "store": True}, "draining": True,
    }  # fmt: skip


async def test_a_ledger_that_fails_or_does_not_answer_is_named(
    tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await checked(FakeLedger(fails), tmp_path, pools).check() == ReadinessChecks(True, False, True)
    monkeypatch.setattr(metrics_module, "CHECK_SECONDS", 0.01)
    released = threading.Event()
    late = FakeLedger(lambda: [released.wait(10)])
    assert not (await checked(late, tmp_path, pools).check()).ledger
    released.set()


async def test_a_store_whose_folder_is_gone_is_named(tmp_path: Path, pools: Pools) -> None:
    ready = checked(FakeLedger(), tmp_path, pools)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    assert await ready.check() == ReadinessChecks(True, True, False)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_the_metrics_listener_answers_from_its_thread(tmp_path: Path, pools: Pools) -> None:
    ledger = FakeLedger()
    ready = checked(ledger, tmp_path, pools)
    listener = MetricsListener(Metrics(), "127.0.0.1:0", ready.from_thread)
    try:
        status, text = await asyncio.to_thread(get, listener.port, "/readyz")
        assert (status, json.loads(text)["status"]) == (200, "ready")
        ready.started, ready._kept = False, None
        status, text = await asyncio.to_thread(get, listener.port, "/readyz")
        assert (status, json.loads(text)["checks"]) == (503, {"started": False, "ledger": True, "store": True})
    finally:
        await asyncio.to_thread(listener.close)


async def test_a_node_whose_event_loop_does_not_answer_is_not_ready(
    tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "FROM_THREAD", 0.01)
    ready = checked(FakeLedger(), tmp_path, pools)
    assert ready.from_thread() == NOT_STARTED  # called on the loop itself, which so cannot answer
    await asyncio.sleep(0)


async def test_an_age_is_computed_when_it_is_read() -> None:
    metrics, now = Metrics(), 1_000.0
    metrics.checkpoint_age.set_function(lambda: now)
    listener = MetricsListener(metrics, "127.0.0.1:0", lambda: NOT_STARTED)
    try:
        for now in (1_000.0, 2_000.0):
            _, text = await asyncio.to_thread(get, listener.port, "/metrics")
            assert f"comity_checkpoint_age_seconds {now}" in text
    finally:
        await asyncio.to_thread(listener.close)
