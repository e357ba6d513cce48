"""A range over several connections, whatever each does: its bytes in order, or an error; and nothing is left open."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import pytest
from comity.transfer.limits import CONNECTIONS
from comity.transfer.parallel_range import LEAST_BLOCK, ConnectionRate, ParallelAnswer, WantedRange
from comity.transfer.range_client import RangeClient
from comity.trust.errors import Refused, Unavailable
from comity.wire.addresses import Address, RangeUrl
from hypothesis import given, settings
from hypothesis import strategies as st

URL = RangeUrl.parse("https://host.example:443/blob")
BYTES = random.Random(1).randbytes(3 * 1024 * 1024)
BROKEN = Unavailable("broken", code="CONNECTION")


class Connection:
    """As a `RangeClient`; each of its answers breaks off with the chance `breaks`, or is refused with `refuses`."""

    address, pin = Address("host.example", 443), None

    def __init__(self, seed: int, breaks: float, refuses: float) -> None:
        self._random = random.Random(seed)
        self._breaks, self._refuses = breaks, refuses
        self._answers: list[tuple[int, int]] = []
        self._aborted = False
        self.open, self.settled = False, True
        self.ahead: list[int] = []

    def ask(self, url: RangeUrl, offset: int, length: int, timeout: float) -> None:
        if self._aborted:
            raise BROKEN
        self.open = True
        if self._random.random() < self._refuses:
            raise Refused("expired", code="URL-EXPIRED")
        if not self._answers:
            self._answers.append((offset, length))
        assert self._answers == [(offset, length)]

    def ask_ahead(self, url: RangeUrl, offset: int, length: int) -> None:
        assert self.open and len(self._answers) == 1
        self.ahead.append(offset)
        self._answers.append((offset, length))

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        offset, length = self._answers[0]
        assert len(view) == length
        most = int(length * self._random.random()) if self._random.random() < self._breaks else length
        for at in range(0, most, LEAST_BLOCK):
            part = BYTES[offset + at : offset + min(at + LEAST_BLOCK, most)]
            view[at : at + len(part)] = part
            arrived(len(part))
            if self._aborted:
                raise BROKEN
        if most < length:
            raise BROKEN

    def done(self) -> None:
        self._answers.pop(0)

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        self.open, self._answers = False, []


async def brought(
    connections: list[Connection], length: int, step: int, give_up_at: int, given: list[RangeClient]
) -> bytes:
    """What the range brings, in steps, until `give_up_at`. Raises as its parts do."""
    got = bytearray(length)
    clients = [cast(RangeClient, each) for each in connections]
    with ThreadPoolExecutor(8) as threads:
        answer = ParallelAnswer(WantedRange(URL, 0, length, 1.0), clients, threads, ConnectionRate(), given.append)
        try:
            await answer.ask()
            for at in range(0, min(length, give_up_at), step):
                await answer.run(partial(answer.fill, memoryview(got)[at : at + step], lambda count: None))
        finally:
            answer.end()
    return bytes(got)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, CONNECTIONS),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([0.0, 0.0, 0.05, 0.5]),
    st.integers(1, len(BYTES)),
    st.integers(1000, 2**21),
    st.one_of(st.just(len(BYTES)), st.integers(0, len(BYTES))),
)
def test_the_bytes_come_in_order_or_an_error_does(
    seed: int, count: int, breaks: float, refuses: float, length: int, step: int, give_up_at: int
) -> None:
    connections = [Connection(seed + at, breaks, refuses) for at in range(count)]
    for idle in connections[1:]:  # of a range before
        idle.open = True
    given: list[RangeClient] = []
    whole = give_up_at >= length
    try:
        got = asyncio.run(brought(connections, length, step, give_up_at, given))
        assert not whole or got == BYTES[:length]
    except Unavailable as error:
        assert breaks or refuses, error
    except Refused:
        assert refuses, "only the first answer is refused as that"
    kept = {id(client) for client in given}
    assert len(kept) == len(given), "no connection is given back twice"
    assert not [each for each in connections if each.open and id(each) not in kept], "the others are closed"


async def test_connections_that_wait_for_a_thread_are_closed_where_the_threads_end() -> None:
    """What `shutdown` cancels has run nothing that could close them; and the reader is told."""
    given: list[RangeClient] = []
    connections = [Connection(at, 0.0, 0.0) for at in range(CONNECTIONS)]
    connections[0].settled = False  # the others wait for its first answer
    clients = [cast(RangeClient, each) for each in connections]
    threads, busy = ThreadPoolExecutor(1), threading.Event()
    answer = ParallelAnswer(WantedRange(URL, 0, len(BYTES), 1.0), clients, threads, ConnectionRate(), given.append)
    asked = asyncio.create_task(answer.ask())
    await asyncio.sleep(0)
    threads.submit(busy.wait, 30)
    await asked
    for each in connections:
        each.open = True
    threads.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(Unavailable):
        answer.fill(memoryview(bytearray(1)), lambda count: None)
    busy.set()
    answer.end()
    assert not given and not [each for each in connections if each.open]


def test_near_the_end_no_connection_requests_ahead() -> None:
    """The block of one that is slow would wait, although others have nothing to bring."""
    long, short = Connection(1, 0.0, 0.0), Connection(1, 0.0, 0.0)
    for connection, length in ((long, 2**21), (short, 2 * CONNECTIONS * LEAST_BLOCK)):
        assert asyncio.run(brought([connection], length, length, length, [])) == BYTES[:length]
    assert long.ahead and max(long.ahead) < 2**21 - CONNECTIONS * LEAST_BLOCK
    assert not short.ahead
