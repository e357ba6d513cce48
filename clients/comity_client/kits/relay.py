"""Relays TCP connections from a socket that listens here to a server that is reached elsewhere.

A socket belongs to the network in which it was made. So a process in an empty network namespace that was given a
listening socket from outside accepts connections from there, and passes them on to a server inside, which has no other
way out or in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

MAX_CONNECTIONS: Final = 256
"""Connections at once; one more is closed immediately."""
CHUNK: Final = 64 * 1024
"""Bytes of one direction of a connection that are held at once, before the reader is made to wait."""

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[], Awaitable[Streams]]


@contextlib.asynccontextmanager
async def relaying(listener: socket.socket, connect: Connect) -> AsyncIterator[None]:
    """Relay each connection that `listener` accepts to one that `connect` makes, while the block runs. The end of each
    direction is passed on by itself. When the block ends, `listener` and all connections are closed. If `connect`
    raises OSError, the caller's connection is closed."""
    relays: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        try:
            if len(relays) <= MAX_CONNECTIONS:
                await _relay((reader, writer), connect)
        except asyncio.CancelledError:
            pass  # the block has ended: asyncio of Python 3.11 reports a cancelled connection as a fault
        finally:
            relays.discard(task)
            await _close(writer)

    server = await asyncio.start_server(accept, sock=listener, limit=CHUNK)
    try:
        yield
    finally:
        server.close()
        for task in list(relays):
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


async def _relay(caller: Streams, connect: Connect) -> None:
    try:
        server = await connect()
    except OSError:
        return
    directions = [
        asyncio.ensure_future(_pass_on(caller[0], server[1])),
        asyncio.ensure_future(_pass_on(server[0], caller[1])),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for each in directions:
            each.cancel()
        caller[1].close()
        await _close(server[1])
        await asyncio.gather(*directions, return_exceptions=True)  # a broken connection concerns nobody else


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end. Raises OSError if a side breaks the connection."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
