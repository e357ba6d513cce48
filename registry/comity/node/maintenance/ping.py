"""Calls each address of other members' nodes as this node would: with its certificate at the mutual port, and with the
peer's certificate pinned at both. The node of the home need not run.

Peers are those of the home's federation file. Nothing is changed, here or there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from comity.node.config import NodeConfig
from comity.node.home import HomeFiles
from comity.node.members import Membership, Peer
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.wire.client import NodeClient
from comity.wire.tls import Address, CertificatePin, TlsIdentity

TIMEOUT: Final = 5.0
CALLS: Final = 3
"""Calls to an address that answers. The first one connects; the time is that of the fastest one."""
AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class PingedAddress:
    """How one address of a peer answered. `seconds` is the time of a call, None if none was answered; then `error`,
    `code` and `hint` say why. `software` is what the peer claims."""

    peer: str
    jurisdiction: str
    port: Literal["mutual", "open"]
    address: str
    seconds: float | None = None
    software: str = ""
    error: str = ""
    code: str = ""
    hint: str = ""


def ping_peers(file: Path, name: str = "") -> tuple[PingedAddress, ...]:
    """Call the nodes of the other members that the home of a `node.toml` knows, or those that `name` names: a node, its
    log or its member. Blocking.

    Raises NotFound if the home has no federation file or no such peer, and the errors of `NodeConfig.load` and
    `HomeFiles.read`.
    """
    config = NodeConfig.load(file)
    files = HomeFiles.read(config)
    if files.federation is None:
        hint = "comity join federation.json --node HOME"
        raise NotFound("this node knows no peer", why=f"{config.federation.file} is missing", hint=hint)
    membership = Membership(files.seat, files.federation)
    peers = [peer for peer in membership.peers if not name or name in (peer.name, peer.origin, peer.member.name)]
    if not peers:
        known = ", ".join(membership.shown_name(peer) for peer in membership.peers) or "none"
        why = f"the federation file has {known}; a node that joined later is in: comity peer ls"
        raise NotFound(f"no peer {name[:80]!r}", why=why, hint="comity peer ls --node HOME")
    return asyncio.run(_ping_all(membership, peers, files.keys.tls))


async def _ping_all(membership: Membership, peers: list[Peer], tls: TlsIdentity) -> tuple[PingedAddress, ...]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(peer: Peer, port: Literal["mutual", "open"], address: str) -> PingedAddress:
        async with turn:
            return await _ping(membership.shown_name(peer), peer, port, address, tls)

    return tuple(await asyncio.gather(*(one(*where) for peer in peers for where in _addresses(peer))))


def _addresses(peer: Peer) -> Iterator[tuple[Peer, Literal["mutual", "open"], str]]:
    for address in peer.mutual:
        yield peer, "mutual", address
    for address in peer.open:
        yield peer, "open", address


async def _ping(
    shown: str, peer: Peer, port: Literal["mutual", "open"], address: str, tls: TlsIdentity
) -> PingedAddress:
    place = (shown, peer.member.jurisdiction, port, address)
    try:
        target, pin = Address.parse(address), CertificatePin.of(peer.record.tls)
        connected = NodeClient.connect(target, pin, tls if port == "mutual" else None)
        async with connected as client:
            fastest, software = await _fastest(client.with_timeout(TIMEOUT))
    except Malformed as error:
        return PingedAddress(*place, error=str(error), code=error.code)
    except ComityError as error:
        return PingedAddress(*place, error=str(error), code=error.code, hint=error.hint)
    return PingedAddress(*place, seconds=fastest, software=software)


async def _fastest(client: NodeClient) -> tuple[float, str]:
    times, software = list[float](), ""
    for _ in range(CALLS):
        begun = time.monotonic()
        software = (await client.node()).software
        times.append(time.monotonic() - begun)
    return min(times), software
