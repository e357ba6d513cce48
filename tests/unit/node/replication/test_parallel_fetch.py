"""How parts of a log are distributed over connections to one peer, and what happens when a connection fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import cast

import pytest
from comity.node.replication import link
from comity.node.replication.link import CALLS_EACH, MAX_LINES, RANGE_LINES, fetch_entries, share_out
from comity.trust.errors import ComityError, Malformed, Refused, Unavailable, Untrusted
from comity.wire.client import NodeClient
from comity.wire.log import EntryBatch
from hypothesis import given
from hypothesis import strategies as st

FAILURES = (Unavailable("gone"), Refused("too many calls", code="RATE"), TimeoutError())


class Worker:
    """Does a given number of items, then fails; counts the concurrent ones."""

    def __init__(self, items: int | None = None, failure: Exception = FAILURES[0]) -> None:
        self.left = items
        self.failure = failure
        self.running = self.most = 0


async def shared(count: int, workers: Sequence[Worker], others: list[Worker]) -> tuple[list[int], list[int]]:
    """The items that were begun, and the items that were done, in that order."""
    begun, done = list[int](), list[int]()

    async def work(worker: Worker, item: int) -> None:
        begun.append(item)
        worker.running += 1
        worker.most = max(worker.most, worker.running)
        for _ in range(item % 3):
            await asyncio.sleep(0)
        worker.running -= 1
        if worker.left is not None:
            if worker.left == 0:
                raise worker.failure
            worker.left -= 1
        done.append(item)

    await share_out(range(count), workers[0], others, work)
    return begun, done


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.none() | st.integers(0, 9), st.sampled_from(FAILURES)), max_size=4),
)
def test_each_item_is_done_once(count: int, plans: list[tuple[int | None, Exception]]) -> None:
    workers = [Worker(), *(Worker(*plan) for plan in plans)]
    others = workers[1:]
    _, done = asyncio.run(shared(count, workers, others))
    assert Counter(done) == Counter(range(count))
    assert all(worker.most <= CALLS_EACH for worker in workers)
    assert all(worker in others for worker in workers[1:] if worker.left is None)


async def test_items_are_begun_in_their_order_and_on_every_connection() -> None:
    workers = [Worker() for _ in range(3)]
    begun, done = await shared(20, workers, workers[1:])
    assert begun == list(range(20))
    assert sorted(done) == begun
    assert [worker.most for worker in workers] == 3 * [CALLS_EACH]


async def test_a_connection_that_fails_is_not_used_again() -> None:
    workers = [Worker(), Worker(0), Worker()]
    others = workers[1:]
    for _ in range(2):
        await shared(20, workers, others)
        assert others == [workers[2]]
    assert workers[1].most == CALLS_EACH


@pytest.mark.parametrize(
    ("first", "other", "raised"),
    [
        pytest.param(Unavailable("gone"), None, Unavailable, id="the first connection fails"),
        pytest.param(None, Untrusted("not the requested object"), Untrusted, id="another one sends wrong data"),
        pytest.param(None, Malformed("not a message"), Malformed, id="another one sends malformed data"),
    ],
)
async def test_a_failure_of_the_first_connection_and_wrong_data_of_any_are_raised(
    first: ComityError | None, other: ComityError | None, raised: type[ComityError]
) -> None:
    workers = [Worker(0 if failure else None, failure or FAILURES[0]) for failure in (first, other)]
    with pytest.raises(raised):
        await shared(20, workers, workers[1:])


class Connection:
    """Serves the entries of a log, which are their indexes, as a node does: a limited number in each message."""

    def __init__(self, size: int, *, message: int = RANGE_LINES, gone: bool = False) -> None:
        self.size = size
        self.message = message
        self.gone = gone
        self.calls = list[tuple[int, int]]()

    async def entries(self, log: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        self.calls.append((start, end))
        await asyncio.sleep(0)
        if self.gone:
            raise Unavailable("gone")
        while start < min(end, self.size):
            last = min(start + self.message, end, self.size)
            yield EntryBatch(start, tuple(b"%d" % index for index in range(start, last)))
            start = last

    @property
    def client(self) -> NodeClient:
        return cast(NodeClient, self)


def lines(start: int, end: int) -> list[bytes]:
    return [b"%d" % index for index in range(start, end)]


async def fetched(end: int, *connections: Connection, seconds: float = 60.0) -> list[bytes]:
    others = [connection.client for connection in connections[1:]]
    return await fetch_entries(connections[0].client, "log", 7, end, others=others, seconds=seconds)


async def test_one_connection_fetches_a_step_with_one_call() -> None:
    alone = Connection(10_000)
    assert await fetched(10_000, alone) == lines(7, 7 + MAX_LINES)
    assert alone.calls == [(7, 7 + MAX_LINES)]


@pytest.mark.parametrize("gone", [False, True])
async def test_entries_from_several_connections_are_in_their_order(gone: bool) -> None:
    connections = [Connection(3000), Connection(3000, message=100), Connection(3000, gone=gone)]
    assert await fetched(3000, *connections) == lines(7, 3000)
    assert all(connection.calls for connection in connections)
    assert all(end - start <= RANGE_LINES for connection in connections for start, end in connection.calls)


async def test_entries_end_where_the_peer_has_no_more() -> None:
    assert await fetched(3000, Connection(1000), Connection(1000)) == lines(7, 1000)
    with pytest.raises(Untrusted) as caught:
        await fetched(3000, Connection(7), Connection(1000))
    assert caught.value.code == "WITHHELD"


async def test_the_first_entries_are_fetched_however_little_time_there_is() -> None:
    connections = [Connection(3000), Connection(3000)]
    assert await fetched(3000, *connections, seconds=0) == lines(7, 7 + RANGE_LINES)


async def test_the_bytes_of_a_step_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_BYTES", 3000)
    connections = [Connection(3000), Connection(3000)]
    found = await fetched(3000, *connections)
    assert found == lines(7, 7 + len(found))
    assert sum(map(len, found)) <= 3000 + 2 * CALLS_EACH * len(connections) * 4 * RANGE_LINES
