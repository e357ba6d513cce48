"""The mutual port: a gRPC server with the pins of now, and a new one at the same port when pins are added.

gRPC in Python takes the certificates that a server trusts once, when the server is made. Its other way, a function that
it asks at each handshake, has a race in its core: some hundred connections that are closed in passing end the process
(decision 20). So new pins mean a new server. It listens at the port before the old one stops listening, and the old one
lets its calls run on for a while; clients connect again by themselves. A pin that is dropped needs no new server:
`MutualDoor.caller` refuses its calls from then on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import grpc

from comity.trust.errors import Unavailable
from comity.wire.address import Address
from comity.wire.doors import MutualDoor

PAUSE: Final = 1.0
"""Seconds from one new server to the next one, at the least. The pause doubles while pins go on being added."""
LONGEST_PAUSE: Final = 60.0
"""A member who changes its certificate all the time makes the others connect again once in this many seconds."""
DRAIN: Final = 60.0
"""Seconds that calls at an old server may take to end."""

_log: Final = logging.getLogger(__name__)


class MutualPort:
    """Serves at one port for as long as it is open, whatever the pins do. Not thread-safe: call from the event loop.

    Args:
        door: whose pins are followed.
        make: makes a server for the door with its services, not yet started and with `shared_port`.
        pause, longest_pause, drain: see PAUSE, LONGEST_PAUSE, DRAIN.
    """

    def __init__(
        self,
        door: MutualDoor,
        make: Callable[[], Awaitable[grpc.aio.Server]],
        *,
        pause: float = PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        drain: float = DRAIN,
    ) -> None:
        self._door = door
        self._make = make
        self._shortest_pause = pause
        self._longest_pause = longest_pause
        self._drain = drain
        self._pause = pause
        self._address = ""
        self._trusted: frozenset[bytes] = frozenset()
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, address: str) -> int:
        """Listen at `host:port`, 0 for any port; gives the port. Raises Unavailable (LISTEN)."""
        require_free(address)
        port = await self._serve(address)
        self._address = f"{address.rpartition(':')[0]}:{port}"
        self._following = asyncio.create_task(self._follow(), name="mutual port")
        return port

    def pins_changed(self) -> None:
        """Look at the pins again, soon."""
        self._changed.set()

    async def close(self, grace: float) -> None:
        """Stop listening, and let calls under way end within `grace` seconds."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._server is not None:
            self._stop(self._server, grace)
            self._server = None
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._door.certificates() <= self._trusted:
                continue
            try:
                await self._serve(self._address)
            except Unavailable as error:
                _log.warning("the mutual port keeps its old pins for now: %s", error.why)
                self._changed.set()
            await self._rest()

    async def _rest(self) -> None:
        """Wait until the next server may be made: longer each time, from the start again after a quiet while."""
        await asyncio.sleep(self._pause)
        more = self._changed.is_set() and not self._door.certificates() <= self._trusted
        self._pause = min(2 * self._pause, self._longest_pause) if more else max(self._pause / 2, self._shortest_pause)

    async def _serve(self, address: str) -> int:
        """Start a server at `address` with the pins of now, then stop the one before. Raises Unavailable (LISTEN)."""
        trusted = self._door.certificates()
        server = await self._make()
        try:
            port = server.add_secure_port(address, self._door.credentials())
        except RuntimeError as error:
            await server.stop(None)
            raise cannot_listen(address, str(error)) from error
        await server.start()
        before, self._server, self._trusted = self._server, server, trusted
        if before is not None:
            self._stop(before, self._drain)
        return port

    def _stop(self, server: grpc.aio.Server, grace: float) -> None:
        task = asyncio.create_task(server.stop(grace), name="end of an old server")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def require_free(address: str) -> None:
    """Raises Unavailable (LISTEN) where somebody listens at `address` already: two servers share a port only where
    both belong to one MutualPort."""
    if address.endswith(":0"):
        return
    where = Address.parse(address)
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where.host, where.port))
        except OSError as error:
            raise cannot_listen(address, error.strerror or "") from error


def cannot_listen(address: str, why: str) -> Unavailable:
    return Unavailable(
        f"cannot listen on {address}",
        why=why[:200],
        hint="choose another address in node.toml, or stop what listens there",
        code="LISTEN",
    )
