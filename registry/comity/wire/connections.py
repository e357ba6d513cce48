"""Shares the connections of gRPC's ports fairly by address block, from outside of gRPC.

gRPC accepts connections in threads of its own and shows none of them before its first call; all it can do by itself is
to refuse everybody beyond a number. So a thread looks at the sockets of this process: those of the watched ports take
places in `FairShares`, and a connection that has to give its place up is shut down, as if its peer had done it. No
byte of any call passes through here.

A place belongs to the address block of the peer until a call is admitted over the connection. From then on it belongs
to the owner that the call had: at the mutual port a certificate. Strangers thus never take places from members.


The mutual port: a gRPC server with the pins of now, and a new one at the same port when pins are added.

gRPC in Python takes the certificates that a server trusts once, when the server is made. Its other way, a function that
it asks at each handshake, has a race in its core: some hundred connections that are closed in passing end the process
(decision 20). So new pins mean a new server. It listens at the port before the old one stops listening, and the old one
lets its calls run on for a while; clients connect again by themselves. A pin that is dropped needs no new server:
`MutualDoor.caller` refuses its calls from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from comity.trust.errors import Unavailable
from comity.wire.access import MutualAccess
from comity.wire.limits import FairShares
from comity.wire.tls import Address, address_block

CALM: Final = 0.2
"""Seconds between two looks while less than half of the places are taken."""
BUSY: Final = 0.05
"""The same while more are taken."""
EFFORT: Final = 10
"""A look is followed by a pause of at least this many times its own length, which bounds the use of a processor."""

_FILES: Final = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


@dataclass(frozen=True, slots=True)
class GuardedConnection:
    """An established TCP connection of this process, by the inode of its socket. `peer` is `host port`."""

    inode: int
    port: int
    peer: str
    host: str


class PortShares:
    """The connections of one port. `look` runs in one thread; `admitted` may be called from another one."""

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._shares: FairShares[int] = FairShares(places, clock)
        self._known: dict[int, GuardedConnection] = {}
        self._by_peer: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._admitted: dict[str, str] = {}
        self._closing: set[int] = set()

    @property
    def busy(self) -> bool:
        return 2 * len(self._known) >= self._places

    def knows(self, inode: int) -> bool:
        return inode in self._known

    def admitted(self, peer: str, owner: str) -> None:
        """A call was admitted over the connection of `peer`, as gRPC names it. `owner` is empty for a stranger."""
        self._admitted[peer] = owner

    def look(self, alive: set[int], new: list[GuardedConnection]) -> set[int]:
        """Take note of the connections that there are; gives the inodes of those that have to be shut down."""
        for inode in self._known.keys() - alive:
            self._forget(inode)
        admitted, self._admitted = self._admitted, {}
        losers = [self._add(connection) for connection in new]
        for peer, owner in list(admitted.items()):
            known = self._by_peer.get(peer)
            if known is not None and known not in self._closing:
                losers.append(self._owned(known, owner))
        self._closing.update(inode for inode in losers if inode is not None)
        return set(self._closing)

    def _add(self, connection: GuardedConnection) -> int | None:
        self._known[connection.inode] = connection
        self._by_peer[connection.peer] = connection.inode
        return self._shares.take(connection.inode, address_block(connection.host))

    def _owned(self, inode: int, owner: str) -> int | None:
        if not owner or self._owners.get(inode) == owner:
            self._shares.progress(inode)
            return None
        self._owners[inode] = owner
        return self._shares.take(inode, owner)

    def _forget(self, inode: int) -> None:
        connection = self._known.pop(inode)
        if self._by_peer.get(connection.peer) == inode:
            del self._by_peer[connection.peer]
        self._owners.pop(inode, None)
        self._closing.discard(inode)
        self._shares.give_back(inode)


class ConnectionGuard:
    """Watches ports of this process in a thread of its own, from `start` to `stop`."""

    def __init__(self, ports: Mapping[int, PortShares]) -> None:
        self._ports = dict(ports)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection guard", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Look once."""
        known: set[int] = set()
        new: list[GuardedConnection] = []
        for descriptor, inode in _sockets():
            known.add(inode)
            if any(shares.knows(inode) for shares in self._ports.values()):
                continue
            connection = _connection(descriptor)
            if connection is not None:
                new.append(connection)
        for port, shares in self._ports.items():
            closing = shares.look(known, [connection for connection in new if connection.port == port])
            if closing:
                _shut_down(closing)

    def _run(self) -> None:
        pause = CALM
        while not self._ended.wait(pause):
            begin = time.monotonic()
            with contextlib.suppress(OSError):  # no descriptor is left for looking: the next look may have one
                self.look()
            wanted = BUSY if any(shares.busy for shares in self._ports.values()) else CALM
            pause = max(wanted, EFFORT * (time.monotonic() - begin))


def shut_down(peer: str) -> None:
    """End the connection of this process to `peer`, as gRPC names it. Does nothing where there is none."""
    for descriptor, _ in _sockets():
        connection = _connection(descriptor)
        if connection is not None and connection.peer == peer:
            _shut_down({connection.inode})


def peer_name(host: str, port: int) -> str:
    """What gRPC calls a peer: `ipv4:192.0.2.1:5000`, `ipv6:%5B2001:db8::1%5D:5000`."""
    host = host.partition("%")[0]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _sockets() -> Iterator[tuple[int, int]]:
    """Descriptors of this process that are sockets, and their inodes."""
    with os.scandir(_FILES) as files:
        descriptors = [int(file.name) for file in files]
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                yield descriptor, status.st_ino


@contextlib.contextmanager
def _held(descriptor: int) -> Iterator[socket.socket]:
    """A descriptor of our own of the same socket: the other one may be closed, and its number used again, at any
    moment."""
    copy = os.dup(descriptor)
    try:
        held = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with held:
        yield held


def _connection(descriptor: int) -> GuardedConnection | None:
    try:
        with _held(descriptor) as held:
            if held.type != socket.SOCK_STREAM or held.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            inode = os.fstat(held.fileno()).st_ino
            port = held.getsockname()[1]
            host, peer_port = held.getpeername()[:2]
    except OSError:
        return None
    host = host.removeprefix("::ffff:") if "." in host else host
    return GuardedConnection(inode, port, peer_name(host, peer_port), host)


def _shut_down(inodes: set[int]) -> None:
    for descriptor, inode in list(_sockets()):
        if inode in inodes:
            with contextlib.suppress(OSError), _held(descriptor) as held:
                if os.fstat(held.fileno()).st_ino == inode:
                    held.shutdown(socket.SHUT_RDWR)


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
        door: MutualAccess,
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
