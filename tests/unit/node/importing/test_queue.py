"""Imports that a node keeps and tries for days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.importing.importer import Importer
from comity.node.importing.queue import (
    LONGEST_WAIT,
    SHORT_WAIT,
    ImportQueue,
    encode_queue,
    next_wait,
    parse_queue,
)
from comity.node.threads import Pools
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable
from comity.trust.upstream import Upstream
from comity.upstream.listed_files import RevisionInfo
from comity.upstream.mirror import MirrorOrder
from comity.wire import limits
from comity.wire.upstream import IMPORTING, LOGGED, REFUSED, WAITING, QueuedImport
from hypothesis import given
from hypothesis import strategies as st

NAME = "hf:org/tiny@main"
COMMIT = f"hf:org/tiny@{'6c' * 20}"


class FakeImporter:
    """Raises what is in `answers`, one after the other, then logs. Each try receives `bytes` bytes."""

    def __init__(self) -> None:
        self.answers: list[ComityError] = []
        self.orders: list[MirrorOrder] = []
        self.bytes = 0
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self.goes_on.set()

    async def pin(self, order: MirrorOrder, counter: Any) -> Any:
        self.orders.append(order)
        commit = "6c" * 20 if order.wanted.revision == "main" else order.wanted.revision
        upstream = Upstream("https://huggingface.co", order.wanted.repository, commit, order.wanted.revision)
        return RevisionInfo(upstream, "", "")

    async def mirror(self, order: MirrorOrder, found: Any, counter: Any, observer: Any) -> None:
        assert found.upstream.requested == "main"
        observer.on_listing(SimpleNamespace(size=100), ())
        counter.progress("w", self.bytes)
        self.begun.set()
        await self.goes_on.wait()
        counter.progress("w", 0)
        if self.answers:
            raise self.answers.pop(0)


class Node:
    """A queue that a test restarts, at a time that the test says."""

    def __init__(self, file: Path, pools: Pools) -> None:
        self.file, self.pools, self.now, self.why = file, pools, 1000.0, ""
        self.importer = FakeImporter()
        self.restart()

    def restart(self) -> None:
        importer = cast(Importer, self.importer)
        self.queue = ImportQueue(self.file, importer, self.pools, lambda: self.now, lambda: self.why)

    async def listed(self) -> list[QueuedImport]:
        return [item async for item in self.queue.queued()]

    async def only(self) -> QueuedImport:
        (item,) = await self.listed()
        return item


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    pools = Pools()
    yield Node(tmp_path / "queue.json", pools)
    pools.close()


def busy(retry_after: float = 0.0) -> Unavailable:
    error = Unavailable("the hub asks to retry later", code="UPSTREAM-BUSY")
    error.retry_after = retry_after
    return error


async def test_an_import_waits_longer_after_each_try_and_survives_restarts(node: Node) -> None:
    node.importer.answers = [busy() for _ in range(9)]
    await node.queue.decide("hf:org/tiny", "", ("cdn.example",), keep=True)
    waits = []
    for _ in range(9):
        await node.queue.step()
        await node.queue.step()
        node.restart()
        await node.queue.load()
        item = await node.only()
        assert (item.name, item.state, item.hosts) == (NAME, WAITING, ("cdn.example",))
        waits.append(item.next_try - node.now)
        node.now = item.next_try
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert len(node.importer.orders) == 9, "nothing is tried before its time"
    await node.queue.step()
    done = await node.only()
    assert (done.state, done.why, done.next_try, done.received) == (LOGGED, "", 0, 100)
    assert done.pinned == COMMIT
    assert [order.wanted.revision for order in node.importer.orders] == ["main", *["6c" * 20] * 9]
    await node.queue.step()
    assert len(node.importer.orders) == 10


async def test_what_the_upstream_asks_to_wait_is_waited_and_long_waits_end_the_try(node: Node) -> None:
    await node.queue.decide(NAME, keep=True)
    for asked, waited in ((30.0, 60), (7200.5, 7201), (10.0**9, 86_400)):
        node.importer.answers = [busy(asked)]
        node.importer.bytes += 1
        await node.queue.step()
        assert (await node.only()).next_try == node.now + waited
        node.now = (await node.only()).next_try
    assert {order.timeouts.max_retry_after for order in node.importer.orders} == {SHORT_WAIT}


async def test_what_no_longer_exists_is_refused_and_queued_again_it_is_looked_for_again(node: Node) -> None:
    node.importer.answers = [busy(), NotFound("no such commit")]
    await node.queue.decide(NAME, keep=True)
    await node.queue.step()
    node.now += 60
    await node.queue.step()
    assert (await node.only()).state == REFUSED
    await node.queue.decide(NAME, keep=True)
    await node.queue.step()
    assert [order.wanted.revision for order in node.importer.orders] == ["main", "6c" * 20, "main"]


async def test_new_bytes_begin_the_waits_again(node: Node) -> None:
    await node.queue.decide(NAME, keep=True)
    failures = []
    for received in (5, 5, 5, 9, 9):
        node.importer.answers, node.importer.bytes = [busy()], received
        await node.queue.step()
        item = await node.only()
        failures.append((item.failures, item.received, item.size))
        node.now = item.next_try
    assert failures == [(1, 5, 100), (2, 5, 100), (3, 5, 100), (1, 9, 100), (2, 9, 100)]


async def test_a_refusal_is_kept_with_its_reason_and_tried_again_when_it_is_queued_again(node: Node) -> None:
    node.importer.answers = [Refused("access is denied", why="\x1b[2J")]
    await node.queue.decide(NAME, keep=True)
    await node.queue.step()
    await node.queue.step()
    item = await node.only()
    assert (item.state, item.why) == (REFUSED, "access is denied:  [2J")
    assert list(node.queue.warnings()) == [f"the queued import of {NAME} is refused: {item.why}"]
    await node.queue.decide(NAME, keep=True)
    assert list(node.queue.warnings()) == []
    await node.queue.step()
    assert (await node.only()).state == LOGGED


async def test_an_import_in_progress_shows_its_bytes_and_is_cancelled(node: Node) -> None:
    node.importer.goes_on.clear()
    node.importer.bytes = 7
    await node.queue.decide(NAME, keep=True)
    running = asyncio.create_task(node.queue.step())
    await node.importer.begun.wait()
    item = await node.only()
    assert (item.state, item.received, item.size) == (IMPORTING, 7, 100)
    await node.queue.step()
    assert len(node.importer.orders) == 1, "one import of a name at a time"
    await node.queue.decide(NAME)
    node.importer.goes_on.set()
    await running
    assert await node.listed() == []
    with pytest.raises(NotFound) as caught:
        await node.queue.decide(NAME)
    assert caught.value.code == "NOT-QUEUED"


async def test_nothing_is_imported_while_copies_are_paused(node: Node) -> None:
    node.why = "the disk is full"
    await node.queue.decide(NAME, keep=True)
    await node.queue.step()
    assert node.importer.orders == []


async def test_the_number_of_imports_is_bounded_and_those_that_are_logged_give_way(node: Node) -> None:
    for number in range(limits.QUEUED_IMPORTS):
        await node.queue.decide(f"hf:org/m{number}", keep=True)
    with pytest.raises(OutOfSpace) as caught:
        await node.queue.decide(NAME, keep=True)
    assert caught.value.code == "IMPORT-QUEUE"
    await node.queue.step()
    await node.queue.decide(NAME, keep=True)
    names = [item.name for item in await node.listed()]
    assert (len(names), names[0], names[-1]) == (limits.QUEUED_IMPORTS, "hf:org/m1@main", NAME)


@pytest.mark.parametrize(
    ("name", "endpoint", "hosts"),
    [("org/tiny", "", ()), ("hf:org/tiny", "ftp://a.example", ()), ("hf:org/tiny", "", ("a\nb",))],
)
async def test_an_order_that_could_not_be_read_again_is_refused(
    node: Node, name: str, endpoint: str, hosts: tuple[str, ...]
) -> None:
    with pytest.raises(Malformed):
        await node.queue.decide(name, endpoint, hosts, keep=True)
    assert not node.file.exists()
    assert await node.listed() == []


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema":"comity/import-queue/v1","imports":[{}]}'])
async def test_a_file_of_another_form_closes_the_queue_and_stays(node: Node, data: bytes) -> None:
    node.file.write_bytes(data)
    await node.queue.load()
    for keep in (True, False):
        with pytest.raises(Malformed) as caught:
            await node.queue.decide(NAME, keep=keep)
        assert caught.value.code == "IMPORT-QUEUE-FILE"
    with pytest.raises(Malformed):
        _ = [item async for item in node.queue.queued()]
    assert any("queued imports are not tried" in warning for warning in node.queue.warnings())
    assert node.file.read_bytes() == data


def test_two_imports_of_one_name_are_refused_and_one_in_progress_waits_again() -> None:
    item = QueuedImport(NAME, "https://a.example", (), IMPORTING, 1)
    assert [found.state for found in parse_queue(encode_queue([item]))] == [WAITING]
    with pytest.raises(Malformed):
        parse_queue(encode_queue([item, item]))


@given(failures=st.integers(1, 10**6), asked=st.floats(0, 10**12))
def test_a_wait_is_bounded_and_not_shorter_than_was_asked(failures: int, asked: float) -> None:
    wait = next_wait(failures, asked)
    assert 60 <= wait <= max(LONGEST_WAIT, 86_400)
    assert wait >= min(asked, 86_400)
