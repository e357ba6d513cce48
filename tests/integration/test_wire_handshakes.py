"""Access control in real handshakes: pins, and certificates that gRPC alone would accept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.trust.node_records import certificate_key
from comity.wire.access import Access, MutualAccess, OperatorAccess
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.connections import MutualPort
from comity.wire.server import make_server
from comity.wire.throttle import Throttle
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate
from support.certificates import crafted
from support.federation import until
from support.ports import free_port
from support.wired import GENEROUS, MemoryNode, identity, listening, pin, visited

SERVER = identity()
PEER = identity()
STRANGER = identity()


NODE = MemoryNode()
BLOB = NODE.keep(bytes(16 << 20))


def calling(address: Address, shown: TlsIdentity | None, expected: CertificatePin | None = None) -> NodeClient:
    return NodeClient.connect(address, expected or pin(SERVER), shown, timeout=5)


@asynccontextmanager
async def serving(door: Access) -> AsyncIterator[Address]:
    async with listening(door, MemoryNode().services()) as address:
        yield address


async def refusal(client: NodeClient) -> Refused:
    async with client:
        with pytest.raises(Refused) as caught:
            await client.node()
    return caught.value


async def test_a_pinned_peer_is_let_in() -> None:
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address, calling(address, PEER) as client:
        assert (await client.node()).software == "comity/test"


async def test_a_stranger_is_refused_with_the_reason() -> None:
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address:
        refused = await refusal(calling(address, STRANGER))
    assert refused.code == "CERTIFICATE-UNKNOWN"
    assert short(sha256(STRANGER.certificate)) in refused.why
    assert refused.hint


async def test_a_caller_without_a_certificate_is_told_to_use_the_open_port() -> None:
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address:
        refused = await refusal(calling(address, None))
    assert (refused.code, refused.hint) == ("CERTIFICATE-REQUIRED", "use the node's open port")


async def test_another_server_than_the_pinned_one_is_refused() -> None:
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address:
        refused = await refusal(calling(address, PEER, pin(STRANGER)))
    assert refused.code == "PIN-MISMATCH"
    assert short(sha256(SERVER.certificate)) in refused.why
    assert short(sha256(STRANGER.certificate)) in refused.why


async def test_a_mutual_port_without_peers_refuses_every_caller_even_the_node_itself() -> None:
    async with serving(MutualAccess(SERVER, tuple)) as address:
        assert (await refusal(calling(address, PEER))).code == "CERTIFICATE-UNKNOWN"
        assert (await refusal(calling(address, SERVER))).code == "CERTIFICATE-UNKNOWN"


@asynccontextmanager
async def mutual_port(
    peers: list[CertificatePin], at: str = "127.0.0.1:0", shared: Callable[[], bool] = lambda: True
) -> AsyncIterator[tuple[MutualPort, Address]]:
    door, throttle = MutualAccess(SERVER, lambda: list(peers)), Throttle(GENEROUS)

    async def make() -> grpc.aio.Server:
        return make_server(door, NODE.services(), throttle, shared_port=shared())

    port = MutualPort(door, make, pause=0.01)
    number = await port.open(at)
    try:
        yield port, Address("127.0.0.1", number)
    finally:
        await port.close(0)


async def let_in(address: Address, peer: TlsIdentity) -> bool:
    async with calling(address, peer) as client:
        try:
            await client.node()
        except ComityError:
            return False
        return True


async def test_a_peer_pinned_later_is_let_in_without_a_restart() -> None:
    peers: list[CertificatePin] = []
    async with mutual_port(peers) as (port, address):
        assert (await refusal(calling(address, PEER))).code == "CERTIFICATE-UNKNOWN"
        peers.append(pin(PEER))
        port.pins_changed()
        await until(lambda: let_in(address, PEER), what="the new peer to be let in")


async def test_running_calls_survive_a_change_of_pins() -> None:
    peers = [pin(PEER)]
    async with mutual_port(peers) as (port, address), calling(address, PEER) as client:
        chunks = client.read(BLOB, 0, 16 << 20)
        read = [await anext(chunks)]
        peers.append(pin(STRANGER))
        port.pins_changed()

        async def changed() -> bool:
            read.append(await anext(chunks, b""))  # a client that reads nothing loses its connection
            return await let_in(address, STRANGER)

        await until(changed, what="the new peer to be let in")
        read += [chunk async for chunk in chunks]
        assert sha256(b"".join(read)) == BLOB
        await client.node()


async def test_the_mutual_port_refuses_an_address_that_is_in_use() -> None:
    async with mutual_port([pin(PEER)]) as (_, address):
        with pytest.raises(Unavailable) as caught:
            async with mutual_port([pin(PEER)], at=str(address)):
                pass
    assert caught.value.code == "LISTEN"


async def test_a_mutual_port_that_cannot_be_bound_again_keeps_its_old_server() -> None:
    peers, shared = [pin(PEER)], [True]
    async with mutual_port(peers, shared=lambda: shared[0]) as (port, address):
        shared[0] = False
        peers.append(pin(STRANGER))
        port.pins_changed()
        for _ in range(20):
            assert await let_in(address, PEER)
        assert not await let_in(address, STRANGER)
        shared[0] = True
        await until(lambda: let_in(address, STRANGER), what="the new peer to be let in")


async def test_a_dropped_peer_is_refused_on_its_open_connection_too() -> None:
    peers = [pin(PEER), pin(STRANGER)]
    async with serving(MutualAccess(SERVER, lambda: list(peers))) as address, calling(address, PEER) as client:
        await client.node()
        peers.pop(0)
        with pytest.raises(Refused) as caught:
            await client.node()
        assert caught.value.code == "CERTIFICATE-UNKNOWN"
        assert (await refusal(calling(address, PEER))).code == "CERTIFICATE-UNKNOWN"


async def test_many_peers_are_pinned_together() -> None:
    peers = [identity() for _ in range(40)]
    async with serving(MutualAccess(SERVER, lambda: [pin(peer) for peer in peers])) as address:
        for peer in (peers[0], peers[39]):
            async with calling(address, peer) as client:
                await client.node()


async def test_a_certificate_issued_by_a_peers_key_is_refused() -> None:
    issued = crafted("mallory.invalid", issuer=PEER, may_sign=False)
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address:
        assert (await refusal(calling(address, issued))).code == "CERTIFICATE-UNKNOWN"


async def test_a_server_certificate_issued_by_the_pinned_one_is_refused() -> None:
    impostor = crafted(pin(SERVER).server_name, subject="mallory", issuer=SERVER, may_sign=False)
    async with serving(MutualAccess(impostor, lambda: [pin(PEER)])) as address:
        assert (await refusal(calling(address, PEER))).code == "PIN-MISMATCH"


async def test_another_certificate_of_the_same_key_is_refused() -> None:
    server, peer = (TlsIdentity(make_certificate(side.key), side.key) for side in (SERVER, PEER))
    assert server.certificate != SERVER.certificate
    async with serving(MutualAccess(server, lambda: [pin(PEER)])) as address:
        assert (await refusal(calling(address, PEER))).code == "PIN-MISMATCH"
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address:
        assert (await refusal(calling(address, peer))).code == "CERTIFICATE-UNKNOWN"


@pytest.mark.parametrize(("ca", "may_sign"), [(True, True), (True, None), (False, None)])
async def test_grpc_alone_would_accept_certificates_issued_by_a_pin(ca: bool, may_sign: bool | None) -> None:
    """The reason why `Pin.of` refuses them. The server has a guard against this; the client has only the pin."""
    issuing_peer = crafted("peer.invalid", ca=ca, may_sign=may_sign)
    issuing_server = crafted("server.invalid", ca=ca, may_sign=may_sign)
    peer = crafted("mallory.invalid", issuer=issuing_peer)
    server = crafted("server.invalid", subject="mallory", issuer=issuing_server)
    unchecked_peer = CertificatePin(issuing_peer.certificate, "peer.invalid")
    unchecked_server = CertificatePin(issuing_server.certificate, "server.invalid")
    async with serving(MutualAccess(server, lambda: [unchecked_peer])) as address:
        refused = await refusal(calling(address, peer, unchecked_server))
    assert refused.code == "CERTIFICATE-UNKNOWN"
    assert sha256(peer.certificate) in refused.why  # both handshakes passed: the guard refuses


async def test_grpc_alone_would_lock_out_the_pins_after_an_unreadable_one() -> None:
    """The second reason why `Pin.of` accepts one form only: this certificate parses, but not in BoringSSL."""
    odd = PEER.certificate.replace(b"n-", b"\xff-")
    assert certificate_key(odd) == PEER.key.public
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER), CertificatePin(odd, "n-"), pin(STRANGER)])) as address:
        assert await let_in(address, PEER)
        assert not await let_in(address, STRANGER)


async def test_the_open_port_lets_any_caller_read() -> None:
    async with visited(MemoryNode().services()) as client:
        assert (await client.node()).software == "comity/test"


async def test_operator_calls_are_refused_for_all_other_callers() -> None:
    async with visited(MemoryNode().services()) as client:
        with pytest.raises(Refused) as caught:
            await client.status()
    assert caught.value.code == "OPERATORS-ONLY"
    async with serving(MutualAccess(SERVER, lambda: [pin(PEER)])) as address, calling(address, PEER) as client:
        with pytest.raises(Refused):
            await client.adopt(Path("/etc/passwd"), sha256(b""), 0)


async def test_an_operator_calls_by_the_unix_socket(tmp_path: Path) -> None:
    node, socket = MemoryNode(), tmp_path / "node.sock"
    door = OperatorAccess()
    async with listening(door, node.services(), at=f"unix:{socket}"), NodeClient.operator(socket) as client:
        assert await client.status() == node.state


async def test_the_operator_listener_refuses_to_be_a_network_port() -> None:
    door = OperatorAccess()
    server = make_server(door, MemoryNode().services(), Throttle(GENEROUS))
    port = server.add_secure_port("127.0.0.1:0", door.credentials())
    await server.start()
    async with NodeClient.connect(Address("127.0.0.1", port), pin(SERVER), timeout=2) as client:
        with pytest.raises(Unavailable):
            await client.status()
    await server.stop(0)


async def test_a_stopped_node_is_reported_as_unreachable(tmp_path: Path) -> None:
    async with calling(Address("127.0.0.1", free_port()), PEER) as client:
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            await client.node()
    assert caught.value.code == "UNREACHABLE"
    for home in ("HOME", str(tmp_path)):
        async with NodeClient.operator(tmp_path / "node.sock") as client:
            with pytest.raises(Unavailable, match="no node answers") as caught:
                await client.status()
        assert caught.value.hint == f"start the node with: comity serve --node {home}"
        (tmp_path / "node.toml").touch()


async def test_a_server_without_tls_is_recognised() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with calling(Address("127.0.0.1", port), PEER) as client:
            with pytest.raises(Unavailable) as caught:
                await client.node()
    assert caught.value.code == "NO-TLS"
