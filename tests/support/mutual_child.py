"""A mutual port in a process of its own, whose pins change a given number of times: `mutual_child.py CHANGES SECONDS`.

It prints its port, makes CHANGES changes with SECONDS between them, calls itself as a peer now and then, and prints
`survived` and how many of these calls were answered. It needs only comity.wire and grpcio, of any version.
"""

from __future__ import annotations

import asyncio
import sys
import time

import grpc
from comity.trust.errors import ComityError
from comity.trust.keys import PrivateKey
from comity.wire.access import MutualAccess
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.connections import MutualPort
from comity.wire.node import NodeFacts
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate


def identity() -> TlsIdentity:
    key = PrivateKey.generate("ecdsa-p256")
    return TlsIdentity(make_certificate(key), key)


class Facts:
    """Answers GetNode, the only call of this program."""

    async def node(self) -> NodeFacts:
        return NodeFacts("comity/test", "example.org/log", b"{}", (b"{}",), None, ())


async def answered(port: int, server: TlsIdentity, peer: TlsIdentity) -> bool:
    address = Address("127.0.0.1", port)
    for _ in range(20):
        async with NodeClient.connect(address, CertificatePin.of(server.certificate), peer, timeout=20) as client:
            try:
                await client.node()
            except ComityError:
                await asyncio.sleep(0.2)
            else:
                return True
    return False


async def main(changes: int, pause: float) -> None:
    server, peer = identity(), identity()
    others = [CertificatePin.of(identity().certificate) for _ in range(64)]
    pins: list[CertificatePin] = [CertificatePin.of(peer.certificate)]
    door, throttle = MutualAccess(server, lambda: list(pins)), Throttle(Allowance(1e6, 1_000_000))
    made = 0

    async def make() -> grpc.aio.Server:
        nonlocal made
        made += 1
        return make_server(door, Services(node=Facts()), throttle, shared_port=True)  # type: ignore[arg-type]  # one service

    mutual = MutualPort(door, make, pause=pause, longest_pause=pause, drain=5.0)
    port = await mutual.open("127.0.0.1:0")
    print(port, flush=True)
    good = asked = 0
    for change in range(changes):
        pins[1:] = [others[change % 64]]
        mutual.pins_changed()
        deadline = time.monotonic() + 30
        while made < change + 2 and time.monotonic() < deadline:
            await asyncio.sleep(pause or 0.001)
        if change % 100 == 0:
            asked += 1
            good += await answered(port, server, peer)
    print(f"survived {made - 1} changes, {good} of {asked} calls answered", flush=True)
    await mutual.close(0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
