"""Shares the connections of gRPC's ports fairly by address block, from outside of gRPC.

gRPC accepts connections in threads of its own and shows none of them before its first call; all it can do by itself is
to refuse everybody beyond a number. So a thread looks at the sockets of this process: those of the watched ports take
places in `FairShares`, and a connection that has to give its place up is shut down, as if its peer had done it. No
byte of any call passes through here.

A place belongs to the address block of the peer until a call is admitted over the connection. From then on it belongs
to the owner that the call had: at the mutual port a certificate. Strangers thus never take places from members.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.wire.address import address_block
from comity.wire.fair_shares import FairShares

CALM: Final = 0.2
"""Seconds between two looks while less than half of the places are taken."""
BUSY: Final = 0.05
"""The same while more are taken."""
EFFORT: Final = 10
"""A look is followed by a pause of at least this many times its own length, which bounds the use of a processor."""

_FILES: Final = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


@dataclass(frozen=True, slots=True)
class Connection:
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
        self._known: dict[int, Connection] = {}
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

    def look(self, alive: set[int], new: list[Connection]) -> set[int]:
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

    def _add(self, connection: Connection) -> int | None:
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
        new: list[Connection] = []
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


def _connection(descriptor: int) -> Connection | None:
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
    return Connection(inode, port, peer_name(host, peer_port), host)


def _shut_down(inodes: set[int]) -> None:
    for descriptor, inode in list(_sockets()):
        if inode in inodes:
            with contextlib.suppress(OSError), _held(descriptor) as held:
                if os.fstat(held.fileno()).st_ino == inode:
                    held.shutdown(socket.SHUT_RDWR)
