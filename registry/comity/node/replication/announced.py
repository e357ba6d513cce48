"""Addresses that nodes announce: which of them are called, and how often a wrong one is tried.

An announced address is the word of one node, and may name anybody's machine. So nothing is called there before one TLS
connection, with no data over it, has shown a certificate that a node record binds to that node: only the node's key
proves its address. Until then, and for ever beside it, the addresses of the pinned federation file are called: who
announces a wrong address is still reached where the file says, so that its correction is read.

A name is looked up here, and the IP address that was proven is the one that is called: a name cannot lead elsewhere
later. Addresses that are not of the public internet are not called, unless the operator allows their network: no member
can make this node knock at the doors of its own machine or its operator's network.

    grows with                             bound                           charged to    at the bound
    connections to unproven addresses      AT_FIRST, then PER_HOUR         the member    it waits
    the same for one address               FIRST_PAUSE to LONGEST_PAUSE    the member    it waits
    names that are looked up at once       one of a member, THREADS        the member    it waits
    addresses that are remembered          those a node announces now      the member    none

A connection that shows the node's certificate costs nothing. The same account pays for connections to the places where
a node says that its files are (`permit`): those are on its word too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog

from comity.node.members import Peer, PeerKey
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.wire.addresses import Address, Network, callable_host
from comity.wire.tls import CertificatePin, shown_certificate

AT_FIRST: Final = 6
PER_HOUR: Final = 60
"""Connections on the word of one member that do not lead to its node: at once, and in an hour."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 120.0
"""Seconds after which an address is tried again: after the first failure, and at most."""
SECONDS: Final = 5.0
"""For a name to be looked up, and for a certificate to be shown."""
THREADS: Final = 16

_log: Final = structlog.get_logger("comity.node.addresses")


def addresses_of(host: str) -> list[str]:
    """The IP addresses of a host name or literal. Blocking. Raises OSError."""
    found: Iterable[tuple[object, ...]] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]).partition("%")[0] for item in found))  # type: ignore[index]


class ConnectionAccounts:
    """Connections that may be made on the word of each member, refilled continuously. No clock. Thread-safe."""

    def __init__(self) -> None:
        self._accounts: dict[Digest, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, member: Digest, now: float) -> bool:
        """Whether one more may be made; `now` in monotonic seconds."""
        with self._lock:
            left = self._left(member, now)
            self._accounts[member] = left - (left >= 1), now
            return left >= 1

    def give_back(self, member: Digest, now: float) -> None:
        """The connection led to the member's own node."""
        with self._lock:
            self._accounts[member] = min(AT_FIRST, self._left(member, now) + 1), now

    def _left(self, member: Digest, now: float) -> float:
        left, since = self._accounts.get(member, (float(AT_FIRST), now))
        return min(float(AT_FIRST), left + max(0.0, now - since) * PER_HOUR / 3600)


@frozen
class ProvenAddress:
    """An announced address at which a node showed its `certificate`. `target` is an IP address and port."""

    announced: str
    mutual: bool
    target: Address
    certificate: bytes


@dataclass(slots=True)
class _Tried:
    """When an address is tried next, and what came of it."""

    next_at: float = 0.0
    pause: float = FIRST_PAUSE
    why: str = ""
    proven: ProvenAddress | None = None

    def failed(self, why: str, now: float) -> None:
        self.proven, self.why = None, why
        self.next_at, self.pause = now + self.pause, min(2 * self.pause, LONGEST_PAUSE)


PortedAddress = tuple[str, bool]
"""An address, and whether it is that of the mutual port."""


def ported(mutual: Iterable[str], open_: Iterable[str]) -> list[PortedAddress]:
    """Addresses of both ports, in the order in which they are called."""
    return [*((address, True) for address in mutual), *((address, False) for address in open_)]


@dataclass(slots=True)
class _AnnouncingNode:
    """The announced addresses of one node, and those proven, in their order."""

    tried: dict[PortedAddress, _Tried] = field(default_factory=dict)
    proven: tuple[ProvenAddress, ...] = ()


class AnnouncedAddresses:
    """Not thread-safe, except what `permit` returns: call from the event loop.

    Args:
        networks: networks that are not of the public internet in which announced addresses are called.
        clock: monotonic seconds.
        look_up: the IP addresses of a host name. Blocking. Raises OSError.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        clock: Callable[[], float],
        look_up: Callable[[str], Sequence[str]] = addresses_of,
    ) -> None:
        self._networks = tuple(networks)
        self._clock = clock
        self._look_up = look_up
        self._accounts = ConnectionAccounts()
        self._nodes: dict[PeerKey, _AnnouncingNode] = {}
        self._busy = set[Digest]()
        """Members of whose nodes a name is being looked up."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")

    def proven(self, peer: Peer) -> tuple[ProvenAddress, ...]:
        """The announced addresses of a node that were proven, in the order in which it announced them."""
        known = self._nodes.get(peer.key)
        return known.proven if known else ()

    def unproven(self, peer: Peer) -> str:
        """What became of the announced addresses that were not proven, in words; empty if there are none."""
        node = self._nodes.get(peer.key)
        found = [(address, tried.why) for (address, _), tried in node.tried.items() if tried.why] if node else []
        return "; ".join(f"{address}: {why}" for address, why in dict(found).items())

    async def try_next(self, peer: Peer) -> None:
        """Try the announced address of a node that was not tried for the longest time, if one is due and its member has
        a connection left. Never raises."""
        node = self._updated(peer)
        now = self._clock()
        waiting = [(tried.next_at, at, key) for at, (key, tried) in enumerate(node.tried.items()) if not tried.proven]
        due = min((item for item in waiting if item[0] <= now), default=None)
        if due is None or peer.member.id in self._busy or not self._accounts.take(peer.member.id, now):
            return
        announced = due[2]
        tried = node.tried[announced]
        try:
            proven = await self._prove(peer, announced)
        except (Refused, Unavailable) as error:
            if tried.why != error.why:
                _log.info("announced address not used", node=peer.name, address=announced[0], why=error.why)
            tried.failed(error.why, self._clock())
            return
        self._accounts.give_back(peer.member.id, self._clock())
        tried.proven, tried.why = proven, ""
        node.proven = tuple(each.proven for each in node.tried.values() if each.proven)

    def failed(self, peer: Peer, proven: ProvenAddress) -> None:
        """A call to a proven address failed: it is called again after it was proven again."""
        node = self._nodes.get(peer.key)
        tried = node.tried.get((proven.announced, proven.mutual)) if node else None
        if node is not None and tried is not None:
            tried.failed("it did not answer lately", self._clock())
            node.proven = tuple(each.proven for each in node.tried.values() if each.proven)

    def answered(self, peer: Peer, proven: ProvenAddress) -> None:
        """A call to a proven address was answered."""
        node = self._nodes.get(peer.key)
        if node is not None and (tried := node.tried.get((proven.announced, proven.mutual))) is not None:
            tried.pause = FIRST_PAUSE

    def permit(self, peer: Peer) -> PermittedConnections:
        """Who decides about connections to the places where a node says that its files are."""
        listed = frozenset(Address.parse(text).host for text in (*peer.mutual, *peer.open) if _is_address(text))
        return PermittedConnections(peer.member.id, listed, self._accounts, self._clock, self.resolve)

    def resolve(self, address: Address) -> Address:
        """The IP address, which may be called, and the port of an address. Blocking. Raises Refused (PRIVATE-ADDRESS),
        Unavailable."""
        try:
            found = self._look_up(address.host)
        except OSError as error:
            raise Unavailable(f"{address} is not called", why=f"the name is not known: {error}") from error
        if (host := callable_host(found, self._networks)) is not None:
            return Address(host, address.port)
        why = "it is not of the public internet, and `private_networks` in [replication] does not allow its network"
        raise Refused(f"{address} is not called", why=why, code="PRIVATE-ADDRESS")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _updated(self, peer: Peer) -> _AnnouncingNode:
        """The node, with the addresses that it announces now and that the pinned file does not name."""
        node = self._nodes.setdefault(peer.key, _AnnouncingNode())
        announced = [
            *((text, True) for text in peer.announced_mutual),
            *((text, False) for text in peer.announced_open),
        ]
        listed = {*((text, True) for text in peer.mutual), *((text, False) for text in peer.open)}
        wanted = [key for key in dict.fromkeys(announced) if key not in listed and _is_address(key[0])]
        if list(node.tried) != wanted:
            node.tried = {key: node.tried.get(key, _Tried()) for key in wanted}
        for tried in node.tried.values():
            if tried.proven and tried.proven.certificate not in peer.certificates:
                tried.proven, tried.next_at = None, 0.0
        node.proven = tuple(each.proven for each in node.tried.values() if each.proven)
        return node

    async def _prove(self, peer: Peer, announced: PortedAddress) -> ProvenAddress:
        """Raises Refused, Unavailable."""
        text, mutual = announced
        target = await self._resolved(peer.member.id, Address.parse(text))
        try:
            async with asyncio.timeout(SECONDS):
                shown = await shown_certificate(target, CertificatePin.of(peer.record.tls).server_name)
        except OSError as error:
            raise Unavailable(f"{text} is not called", why=error.strerror or "no answer") from error
        if shown not in peer.certificates:
            raise Refused(f"{text} is not called", why="it does not show the certificate of the node")
        return ProvenAddress(text, mutual, target, shown)

    async def _resolved(self, member: Digest, address: Address) -> Address:
        self._busy.add(member)
        looking = asyncio.get_running_loop().run_in_executor(self._threads, self.resolve, address)

        def ended(done: asyncio.Future[Address]) -> None:
            self._busy.discard(member)
            if not done.cancelled():
                done.exception()  # nobody waits for it any more, if it took too long

        looking.add_done_callback(ended)
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.shield(looking)
        except TimeoutError as error:
            raise Unavailable(f"{address} is not called", why="its name was not found in time") from error


class PermittedConnections:
    """Connections to the places of a node's files, on the word of its member. Thread-safe."""

    def __init__(
        self,
        member: Digest,
        listed: frozenset[str],
        accounts: ConnectionAccounts,
        clock: Callable[[], float],
        resolve: Callable[[Address], Address],
    ) -> None:
        self._member = member
        self._listed = listed
        self._accounts = accounts
        self._clock = clock
        self._resolve = resolve

    def connecting(self, address: Address) -> Address:
        """Returns where to connect for an address, before each connection. The hosts that the pinned federation file
        names for the node are not looked up. Blocking. Raises Refused (PRIVATE-ADDRESS, ADDRESS-LIMIT), Unavailable."""
        if not self._accounts.take(self._member, self._clock()):
            why = f"nodes of its member named {PER_HOUR} places in an hour that did not serve the files"
            raise Refused(f"{address} is not called", why=why, code="ADDRESS-LIMIT")
        return address if address.host in self._listed else self._resolve(address)

    def served(self) -> None:
        """The place of the newest connection serves the file."""
        self._accounts.give_back(self._member, self._clock())


def _is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except Malformed:
        return False
    return True
