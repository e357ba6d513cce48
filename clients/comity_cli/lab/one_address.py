"""One address for a service, wherever it is served: callers keep their base URL when what is behind it changes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from comity_client.kits.relay import Streams, relaying

LOOPBACK = "127.0.0.1"


class OneAddress:
    """Relays connections to the port `to` of this machine, of which a new connection takes the newest value."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://{LOOPBACK}:{port}/v1"
        self.to = 0

    async def connect(self) -> Streams:
        """Raises OSError if nothing is served there."""
        return await asyncio.open_connection(LOOPBACK, self.to)


@contextmanager
def one_address() -> Iterator[OneAddress]:
    """Relay in a thread while the block runs."""
    listener = socket.create_server((LOOPBACK, 0))
    address, loop = OneAddress(listener.getsockname()[1]), asyncio.new_event_loop()
    ended = asyncio.Event()

    async def relay() -> None:
        async with relaying(listener, address.connect):
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(relay(),))
    thread.start()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
