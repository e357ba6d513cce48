"""The end of a process that was asked to end: when it drains, and when it ends at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node import draining as module
from comity.node.draining import Drain, EndRequest, LastEntries, run_until_first_ends
from comity.trust.errors import Unavailable
from comity.wire.draining import Draining
from structlog.testing import capture_logs
from support.waiting import PATIENCE


class Process:
    """What a request to end does to the process."""

    def __init__(self) -> None:
        self.done = list[str]()
        self.request = EndRequest(lambda: self.done.append("at once"), lambda: self.done.append("bound"))

    async def record(self, what: str) -> None:
        self.done.append(what)

    def drain(self, draining: Draining, seconds: float) -> asyncio.Task[None]:
        readiness: Any = SimpleNamespace(drain=lambda: self.done.append("not ready"))
        tell, last = (lambda: self.record("not serving")), (lambda: self.record("last entries"))
        return asyncio.create_task(Drain(draining, readiness, seconds, tell, last).run(self.request))


async def test_a_process_that_serves_nothing_yet_ends_at_once() -> None:
    process = Process()
    process.request.signalled()
    assert process.done == ["bound", "at once"]


async def test_it_is_not_ready_first_and_waits_for_transfers_and_for_its_last_entries() -> None:
    process, draining = Process(), Draining()
    ending = process.drain(draining, 3600)
    async with draining.transfer():
        await asyncio.sleep(0)
        process.request.signalled()
        while "not serving" not in process.done:
            await asyncio.sleep(0)
        assert process.done == ["not ready", "not serving"]
        assert not ending.done()
    await ending
    assert process.done == ["not ready", "not serving", "last entries", "bound"]


async def test_a_second_signal_ends_it_at_once_and_cuts_what_runs() -> None:
    process, draining = Process(), Draining()
    ending = process.drain(draining, 3600)
    with pytest.raises(Unavailable, match="was cut"):
        async with draining.transfer():
            await asyncio.sleep(0)
            process.request.signalled()
            while not draining.begun:
                await asyncio.sleep(0)
            process.request.signalled()
            assert process.done[-2:] == ["bound", "at once"]
            ending.cancel()
            await asyncio.sleep(3600)


async def test_a_transfer_that_never_ends_is_cut_and_named_in_the_log() -> None:
    process, draining = Process(), Draining()
    ending = process.drain(draining, 0.01)
    with capture_logs() as logs, pytest.raises(Unavailable, match="was cut"):
        async with draining.transfer():
            await asyncio.sleep(0)
            process.request.signalled()
            await asyncio.sleep(3600)
    await ending
    (cut,) = [event for event in logs if event["event"] == "cutting transfers"]
    assert cut["transfers"] == 1


async def test_the_first_work_that_ends_ends_the_others() -> None:
    others = asyncio.create_task(asyncio.sleep(3600))
    await run_until_first_ends(asyncio.sleep(0), _until_cancelled(others))
    assert others.cancelled()


async def _until_cancelled(task: asyncio.Task[None]) -> None:
    await task


BUSY = """
import asyncio, threading, types
from comity.node import draining
from comity.node.telemetry import configure_logging

busy = types.ModuleType("comity.busy")
exec("def hash_for_minutes(ended): ended.wait(600)", busy.__dict__)

async def work(request):
    threading.Thread(target=busy.hash_for_minutes, args=(threading.Event(),), name="busy").start()
    asyncio.get_running_loop().call_soon(request.signalled)
    await request.wait()
    request.bound()

configure_logging()
draining.CLOSING_SECONDS = 0.1
draining.run_until_signalled(work)
"""


def test_work_of_minutes_in_a_thread_does_not_delay_the_end_and_is_named() -> None:
    ran = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stderr.splitlines()[-1])["threads"] == {"busy": "comity.busy.hash_for_minutes"}


def last_entries(cosigned_by: Callable[[], set[str]], *, reachable: bool = True, peers: int = 1) -> LastEntries:
    """Of a node of the member "own"."""

    async def run(work: Callable[[], bool]) -> bool:
        return work()

    own = SimpleNamespace(record=SimpleNamespace(log="log"), inception=SimpleNamespace(id="own"))
    ledger: Any = SimpleNamespace(run=run, tables=SimpleNamespace(cosignatures=SimpleNamespace(cosigned=str)))
    membership: Any = SimpleNamespace(
        own_node=own, peers=[None] * peers, cosigned_times=lambda note: dict.fromkeys(cosigned_by(), 1)
    )
    link: Any = SimpleNamespace(state=SimpleNamespace(reachable=reachable))
    return LastEntries(ledger, membership, lambda: [link] * peers)


async def test_another_members_cosignature_shows_that_it_has_the_last_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    signers = [{"own", "other"}, {"own"}, set[str]()]
    with capture_logs() as logs:
        await last_entries(lambda: signers.pop()).until_copied()
    assert (signers, logs) == ([], [])


@pytest.mark.parametrize("reachable", [True, False])
async def test_it_says_so_if_no_other_node_has_them(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    monkeypatch.setattr(module, "COPY_SECONDS", 0.0 if reachable else 3600.0)
    with capture_logs() as logs:
        await last_entries(lambda: {"own"}, reachable=reachable).until_copied()
    assert [event["event"] for event in logs] == ["no other node has the last entries of this log"]


async def test_a_lone_node_waits_for_nobody() -> None:
    with capture_logs() as logs:
        await last_entries(set[str], peers=0).until_copied()
    assert not logs
