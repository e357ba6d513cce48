"""A connection to one peer. Addresses are hints: the mutual ones are tried first, then the open ones, in turn.

What a starting node hears before it signs. A ledger that was restored from a backup does not know that it is old;
the peers do. So each peer is asked once, and nothing is signed before one has answered, or none does for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.context import NodeContext
from comity.node.members import Peer, PeerKey
from comity.transfer.sources import RangeSource, SourceKey
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.wire.client import NodeClient
from comity.wire.tls import Address, CertificatePin

PATIENCE: Final = 10.0
"""Seconds that a peer may take for an answer, or for the next message of one."""

AGAIN: Final = 60.0
"""Seconds after which the first address is tried again, where it had failed."""


@dataclass(slots=True)
class PeerState:
    """What is known of a peer now, for the status.

    `lag` counts entries of its own log that are not copied yet; `level` is when there were none, or the first look.
    """

    reachable: bool = False
    last_seen: int = 0
    lag: int = 0
    level: float | None = None
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """Where to call, at which door, and the certificate that has to be shown there."""

    address: str
    mutual: bool
    certificate: bytes


class PeerLink:
    """Calls to one peer. Not shared between loops of other peers."""

    def __init__(self, core: NodeContext, peer: PeerKey) -> None:
        self._core = core
        self.peer_key = peer
        self.key = SourceKey("node", f"{peer.member} {peer.origin}")
        self._clients: dict[_Way, NodeClient] = {}
        self._turn = 0
        self._again = 0.0
        self.state = PeerState()

    @property
    def peer(self) -> Peer:
        """As it is known now: it may have moved."""
        peer = self._core.membership.peer(self.peer_key)
        assert peer is not None, "a link is made for a known peer, and peers are never forgotten"
        return peer

    @property
    def name(self) -> str:
        """What people call it, and no other node here."""
        return self._core.membership.shown_name(self.peer)

    @property
    def host(self) -> SourceKey:
        return self.key

    @property
    def address(self) -> str:
        """Where the next call goes; empty where no address is known."""
        ways = self._ways()
        return ways[self._turn % len(ways)].address if ways else ""

    @property
    def client(self) -> NodeClient:
        """Raises Unavailable (NO-ADDRESS)."""
        ways = self._ways()
        if not ways:
            why = "neither the federation file nor its own log says where it listens"
            raise Unavailable(f"no address of {self.name}", why=why, code="NO-ADDRESS")
        way = ways[self._turn % len(ways)]
        if way not in self._clients:
            identity = self._core.keys.tls if way.mutual else None
            client = NodeClient.connect(Address.parse(way.address), CertificatePin.of(way.certificate), identity)
            self._clients[way] = client.within(PATIENCE)
        return self._clients[way]

    def begin(self) -> None:
        """A round begins: every now and then with the address that is liked best."""
        now = asyncio.get_running_loop().time()
        if now >= self._again:
            self._turn, self._again = 0, now + AGAIN

    def failed(self, error: ComityError) -> None:
        """The next call goes to the next address."""
        self._turn += 1
        self.state.reachable = False
        self.state.last_error = str(error)

    def seen(self) -> None:
        """It has answered: by the certificate that the last call pinned."""
        ways = self._ways()
        self._core.membership.met(self.peer_key, ways[self._turn % len(ways)].certificate)
        self.state.reachable = True
        self.state.last_seen = int(self._core.clock())
        self.state.last_error = ""

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As a source of `comity.transfer`."""
        try:
            async with aclosing(self.client.read(digest, offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except NotFound:
            raise
        except Unavailable:
            self._turn += 1
            raise

    def over_https(self) -> RangeSource:
        """The other way to the same peer; to be closed."""
        pin = CertificatePin.of(self.peer.record.tls)
        return RangeSource(self.key, self.name, pin, lambda digest: self.client.locations(digest))

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    def _ways(self) -> list[_Way]:
        peer = self.peer
        listed = [(address, True) for address in peer.mutual] + [(address, False) for address in peer.open]
        usable = [where for where in dict.fromkeys(listed) if _usable(where[0])]
        return [_Way(address, mutual, shown) for shown in peer.certificates for address, mutual in usable]


def _usable(address: str) -> bool:
    with suppress(Malformed):
        Address.parse(address)
        return True
    return False


_log: Final = structlog.get_logger("comity.node")


class StartBarrier:
    """The wait for first answers. Touched by the event loop only.

    Args:
        peers: the peers there are.
        patience: seconds after which a node that hears nothing goes on alone; None for one that must not.
    """

    def __init__(self, peers: Iterable[PeerKey], patience: float | None) -> None:
        self._waiting = set(peers)
        self._answered = not self._waiting
        self._patience = patience
        self._settled = asyncio.Event()
        self.alone = False
        self._look()

    @property
    def settled(self) -> bool:
        return self._settled.is_set()

    def attempted(self, peer: PeerKey, *, answered: bool) -> None:
        """A peer was asked, and has told all that it holds, or could not be asked."""
        self._waiting.discard(peer)
        self._answered = self._answered or answered
        self._look()

    async def wait(self) -> None:
        """Return once it is safe to sign, or has to be."""
        try:
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        except TimeoutError:
            self.alone = True
            _log.warning("no peer answered; signing without having heard what was signed before")
            self._settled.set()

    def _look(self) -> None:
        if self._answered and not self._waiting:
            self._settled.set()
