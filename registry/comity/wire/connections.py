"""Server connections: fair shares of the connections of gRPC's ports, and the mutual port, whose pins change.

gRPC accepts connections in its own threads, reports none before its first call, and can only limit their total number.
So `ConnectionGuard` scans the sockets of this process in a thread. Connections of the watched ports get slots in
`FairShares`; a connection that loses its slot is shut down. The guard reads no data of calls. A slot counts for the
address block of the peer until a call is admitted over the connection, then for the owner of that call (at the mutual
port, a certificate). So unknown clients never take slots from members.

gRPC in Python takes the trusted certificates of a server once, when the server is made. Its alternative, a function
that is called at each handshake, has a race that ends the process after some hundred connections that are closed early
(decision 20). So `MutualPort` makes a new server for new pins. The new server listens on the port before the old one
stops, and calls of the old one may end; clients reconnect automatically. A removed pin needs no new server:
`MutualAccess.caller` refuses its calls.
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
from pathlib import Path
from typing import Final

import grpc

from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen
from comity.wire.access import MutualAccess
from comity.wire.addresses import Address, address_block
from comity.wire.throttle import FairShares

IDLE_INTERVAL: Final = 0.2
"""Seconds between scans while less than half of the slots are taken."""
BUSY_INTERVAL: Final = 0.05
"""Seconds between scans while more slots are taken."""
PAUSE_FACTOR: Final = 10
"""The pause after a scan is at least this many times the duration of the scan, which limits the processor use."""

_FILES: Final = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


@frozen
class GuardedConnection:
    """An established TCP connection of this process, by the inode of its socket. `peer` is `host port`."""

    inode: int
    port: int
    peer: str
    host: str


class PortShares:
    """The connections of one port. `update` runs in one thread; `admitted` may be called from another thread."""

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._shares: FairShares[int] = FairShares(slots, clock)
        self._known: dict[int, GuardedConnection] = {}
        self._by_peer: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._admitted: dict[str, str] = {}
        self._closing: set[int] = set()

    @property
    def busy(self) -> bool:
        return 2 * len(self._known) >= self._slots

    def knows(self, inode: int) -> bool:
        return inode in self._known

    def admitted(self, peer: str, owner: str) -> None:
        """Record an admitted call over the connection of `peer` (gRPC's name). `owner` is empty for an unknown one."""
        self._admitted[peer] = owner

    def update(self, alive: set[int], new: list[GuardedConnection]) -> set[int]:
        """Update the set of connections. Returns the inodes of connections to shut down."""
        for inode in self._known.keys() - alive:
            self._remove(inode)
        admitted, self._admitted = self._admitted, {}
        evicted = [self._add(connection) for connection in new]
        for peer, owner in list(admitted.items()):
            known = self._by_peer.get(peer)
            if known is not None and known not in self._closing:
                evicted.append(self._set_owner(known, owner))
        self._closing.update(inode for inode in evicted if inode is not None)
        return set(self._closing)

    def _add(self, connection: GuardedConnection) -> int | None:
        self._known[connection.inode] = connection
        self._by_peer[connection.peer] = connection.inode
        return self._shares.acquire(connection.inode, address_block(connection.host))

    def _set_owner(self, inode: int, owner: str) -> int | None:
        if not owner or self._owners.get(inode) == owner:
            self._shares.progress(inode)
            return None
        self._owners[inode] = owner
        return self._shares.acquire(inode, owner)

    def _remove(self, inode: int) -> None:
        connection = self._known.pop(inode)
        if self._by_peer.get(connection.peer) == inode:
            del self._by_peer[connection.peer]
        self._owners.pop(inode, None)
        self._closing.discard(inode)
        self._shares.release(inode)


class ConnectionGuard:
    """Watches ports of this process in its own thread, from `start` to `stop`."""

    def __init__(self, ports: Mapping[int, PortShares]) -> None:
        self._ports = dict(ports)
        self._others: set[int] = set()
        """Sockets that no watched port accepted, by their inodes: a socket changes neither its port nor its kind."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection guard", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def scan(self) -> None:
        """Scan the sockets of this process once."""
        known: set[int] = set()
        new: list[GuardedConnection] = []
        for descriptor, inode in _sockets():
            known.add(inode)
            if inode in self._others or any(shares.knows(inode) for shares in self._ports.values()):
                continue
            if not self._may_be_accepted(descriptor, inode):
                self._others.add(inode)
            elif (connection := _connection(descriptor)) is not None:
                new.append(connection)
        self._others &= known
        for port, shares in self._ports.items():
            closing = shares.update(known, [connection for connection in new if connection.port == port])
            if closing:
                _shut_down(closing)

    def _may_be_accepted(self, descriptor: int, inode: int) -> bool:
        """False only if a watched port certainly has not accepted this socket."""
        try:
            with _duplicate(descriptor) as duplicate:
                same = os.fstat(duplicate.fileno()).st_ino == inode
                return not same or (_is_connection(duplicate) and duplicate.getsockname()[1] in self._ports)
        except OSError:
            return True

    def _run(self) -> None:
        pause = IDLE_INTERVAL
        while not self._ended.wait(pause):
            begin = time.monotonic()
            with contextlib.suppress(OSError):  # no free descriptor for the scan: the next scan may have one
                self.scan()
            wanted = BUSY_INTERVAL if any(shares.busy for shares in self._ports.values()) else IDLE_INTERVAL
            pause = max(wanted, PAUSE_FACTOR * (time.monotonic() - begin))


def shut_down(peer: str) -> None:
    """Shut down the connection of this process to `peer` (gRPC's name). No effect if there is none."""
    for descriptor, _ in _sockets():
        connection = _connection(descriptor)
        if connection is not None and connection.peer == peer:
            _shut_down({connection.inode})


def peer_name(host: str, port: int) -> str:
    """Returns gRPC's name of a peer: `ipv4:192.0.2.1:5000`, `ipv6:%5B2001:db8::1%5D:5000`."""
    host = host.partition("%")[0]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _sockets() -> Iterator[tuple[int, int]]:
    """Yields the descriptors of this process that are sockets, and their inodes."""
    with os.scandir(_FILES) as files:
        descriptors = [int(file.name) for file in files]
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:  # closed meanwhile, or the one with which the folder was read
            continue
        if stat.S_ISSOCK(status.st_mode):
            yield descriptor, status.st_ino


@contextlib.contextmanager
def _duplicate(descriptor: int) -> Iterator[socket.socket]:
    """Duplicate a descriptor, because the original may be closed, and its number reused, at any time."""
    copy = os.dup(descriptor)
    try:
        duplicate = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with duplicate:
        yield duplicate


def _is_connection(some: socket.socket) -> bool:
    """Whether a socket is one of TCP, and no listener."""
    tcp = some.type == socket.SOCK_STREAM and some.family in (socket.AF_INET, socket.AF_INET6)
    return tcp and not some.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def _connection(descriptor: int) -> GuardedConnection | None:
    try:
        with _duplicate(descriptor) as duplicate:
            if not _is_connection(duplicate):
                return None
            inode = os.fstat(duplicate.fileno()).st_ino
            port = duplicate.getsockname()[1]
            host, peer_port = duplicate.getpeername()[:2]
    except OSError:
        return None
    host = host.removeprefix("::ffff:") if "." in host else host
    return GuardedConnection(inode, port, peer_name(host, peer_port), host)


def _shut_down(inodes: set[int]) -> None:
    for descriptor, inode in list(_sockets()):
        if inode in inodes:
            with contextlib.suppress(OSError), _duplicate(descriptor) as duplicate:
                if os.fstat(duplicate.fileno()).st_ino == inode:
                    duplicate.shutdown(socket.SHUT_RDWR)


PAUSE: Final = 1.0
"""Minimum seconds between new servers. The pause doubles while more pins are added."""
LONGEST_PAUSE: Final = 60.0
"""Maximum of that pause: a member that changes its certificate often makes others reconnect only this often."""
DRAIN: Final = 60.0
"""Seconds until calls at an old server must have ended."""

_log: Final = logging.getLogger(__name__)


class MutualPort:
    """Serves at one port, and follows changes of the pins. Not thread-safe: call from the event loop.

    Args:
        access: has the pins.
        make: makes a server for `access` with its services, not yet started and with `shared_port`.
        pause, longest_pause, drain: see PAUSE, LONGEST_PAUSE, DRAIN.
    """

    def __init__(
        self,
        access: MutualAccess,
        make: Callable[[], Awaitable[grpc.aio.Server]],
        *,
        pause: float = PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        drain: float = DRAIN,
    ) -> None:
        self._access = access
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
        """Listen at `host:port`; port 0 means any port. Returns the port. Raises Unavailable (LISTEN)."""
        require_free(address)
        port = await self._serve(address)
        self._address = f"{address.rpartition(':')[0]}:{port}"
        self._following = asyncio.create_task(self._follow(), name="mutual port")
        return port

    def pins_changed(self) -> None:
        """Read the pins again soon."""
        self._changed.set()

    async def close(self, grace: float) -> None:
        """Stop listening. Running calls may end within `grace` seconds."""
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
            if self._access.certificates() <= self._trusted:
                continue
            try:
                await self._serve(self._address)
            except Unavailable as error:
                _log.warning("cannot apply new pins to the mutual port yet: %s", error.why)
                self._changed.set()
            await self._pause_between_servers()

    async def _pause_between_servers(self) -> None:
        """Wait until the next server may be made: the pause doubles while pins change, and halves otherwise."""
        await asyncio.sleep(self._pause)
        more = self._changed.is_set() and not self._access.certificates() <= self._trusted
        self._pause = min(2 * self._pause, self._longest_pause) if more else max(self._pause / 2, self._shortest_pause)

    async def _serve(self, address: str) -> int:
        """Start a server at `address` with the current pins, then stop the old one. Raises Unavailable (LISTEN)."""
        trusted = self._access.certificates()
        server = await self._make()
        try:
            port = server.add_secure_port(address, self._access.credentials())
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
    """Raises Unavailable (LISTEN) if `address` is in use. Only servers of one MutualPort may share a port."""
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
        hint="choose another address in node.toml, or stop the program that listens there",
        code="LISTEN",
    )
