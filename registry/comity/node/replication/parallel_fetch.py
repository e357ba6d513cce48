"""Fetches parts of a log over several connections to one peer.

The rate of one TCP connection is bounded by its losses and its round-trip time, whatever the link could carry. So the
parts are shared out between connections, a few calls on each. What arrives is proven later, all together, as if it had
come over one.

    grows with                        bound                       at the bound
    connections to a peer             CONNECTIONS                 parts wait
    calls on a connection             CALLS_EACH                  parts wait
    entries received                  MAX_LINES, MAX_BYTES      the rest is left to the next step
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableSequence
from contextlib import aclosing
from typing import Final, TypeVar

from comity.trust.errors import Refused, Unavailable, Untrusted
from comity.wire.client import NodeClient

CONNECTIONS: Final = 4
"""Connections to a peer from which many entries are fetched."""
CALLS_EACH: Final = 2
"""Calls at once on each, so that none waits for a request to arrive."""
MANY_LINES: Final = 512
"""Entries for which several connections are made: each costs the peer a handshake."""
RANGE_LINES: Final = 256
"""Entries of one call, where there are several connections: what nodes send in one message."""
MAX_LINES: Final = 4096
MAX_BYTES: Final = 8 * 1024 * 1024
STEP_DEADLINE: Final = 60.0
"""Seconds for the entries of a step; side objects have their own limit."""

C = TypeVar("C")
T = TypeVar("T")


async def share_out(
    items: Iterable[T],
    client: C,
    others: MutableSequence[C],
    work: Callable[[C, T], Awaitable[None]],
    *,
    each: int = CALLS_EACH,
) -> None:
    """Do `work` for each item, begun in their order, `each` at once with each client.

    One of the `others` is removed from them once work with it is Unavailable, Refused or late; its items are done by
    the rest. Raises what `client` fails with, and any other failure.
    """
    waiting = deque(items)

    async def serve(used: C, *, first: bool) -> None:
        while waiting and (first or used in others):
            item = waiting.popleft()
            try:
                await work(used, item)
            except (Unavailable, Refused, TimeoutError):
                if first:
                    raise
                waiting.appendleft(item)
                if used in others:
                    others.remove(used)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(each):
                group.create_task(serve(client, first=True))
                for other in others:
                    group.create_task(serve(other, first=False))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await serve(client, first=True)  # what was given back after `client` had nothing left to do


async def fetch_entries(
    client: NodeClient,
    log: str,
    start: int,
    end: int,
    *,
    others: MutableSequence[NodeClient] | None = None,
    seconds: float = STEP_DEADLINE,
) -> list[bytes]:
    """The next entries before `end`, at least one, bounded in number, bytes and time. `others` are further connections
    to the same peer. Raises Untrusted (WITHHELD)."""
    clock = asyncio.get_running_loop().time
    end, ends, size = min(end, start + MAX_LINES), clock() + seconds, 0
    length = RANGE_LINES if others else MAX_LINES
    found = dict[int, list[bytes]]()

    async def fetch(used: NodeClient, first: int) -> None:
        nonlocal size
        if first > start and (size >= MAX_BYTES or clock() >= ends):
            return
        received = list[bytes]()
        async with aclosing(used.entries(log, first, min(end, first + length))) as batches:
            async for batch in batches:
                received.extend(batch.lines)
                size += sum(map(len, batch.lines))
                if size >= MAX_BYTES or clock() >= ends:
                    break
        found[first] = received

    await share_out(range(start, end, length), client, others if others is not None else [], fetch)
    lines = list[bytes]()
    while part := found.get(start + len(lines)):
        lines += part
    if not lines:
        why = f"no entry {start}, although its head has more than {start}"
        raise Untrusted("the peer withholds entries of a log", why=why, code="WITHHELD")
    return lines
