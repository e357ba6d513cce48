"""Which announced addresses a node calls: those that the peer proved, beside those of the pinned file, and how often
wrong ones are tried.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.members import Membership, Peer, PeerKey
from comity.node.replication import announced as announcing
from comity.node.replication.announced import (
    AT_FIRST,
    LONGEST_PAUSE,
    PER_HOUR,
    AnnouncedAddresses,
    ConnectionAccounts,
)
from comity.node.replication.link import PeerLink
from comity.transfer.range_client import RangeClient
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.wire.addresses import Address, RangeUrl, is_public
from comity.wire.tls import TlsIdentity, make_certificate, server_context
from support.world import node, private_key, seat

NODE, ANOTHER = node(seat("SG")), node(seat("CH"))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
TLS = private_key("a peer", "ecdsa-p256")
IDENTITY = TlsIdentity(make_certificate(TLS), TLS)
OTHERS = TlsIdentity(make_certificate(private_key("nobody", "ecdsa-p256")), private_key("nobody", "ecdsa-p256"))
LISTED = "listed.example:7443"
MOST_IN_A_MINUTE = 10
"""Connections to addresses of outsiders that one member can make a node open."""


def peer_that(*, mutual: Sequence[str] = (), open_: Sequence[str] = (), listed: Sequence[str] = (LISTED,)) -> Peer:
    """A peer that announced addresses, and that the pinned file lists."""
    record = replace(NODE.record, tls=IDENTITY.certificate)
    peer = Peer(NODE.seat.member, record, NODE.entry.line, tuple(listed), ())
    return replace(peer, announced_mutual=tuple(mutual), announced_open=tuple(open_))


class Scene:
    """A link to a peer, and the clock of its announced addresses."""

    def __init__(
        self, peer: Peer, networks: Sequence[Any] = LOOPBACK, names: dict[str, list[str]] | None = None
    ) -> None:
        self.peer, self.now = peer, 1_000.0
        self.announced = AnnouncedAddresses(
            networks, lambda: self.now, lambda host: (names or {}).get(host) or announcing.addresses_of(host)
        )
        membership = SimpleNamespace(peer=lambda key: self.peer, certificate_seen=lambda key, shown: None)
        self.link = PeerLink(
            cast(Membership, membership), self.announced, cast(TlsIdentity, None), lambda: 0.0, PeerKey.of(NODE.record)
        )

    async def rounds(self, count: int, seconds: float = 1.0) -> None:
        for _ in range(count):
            await self.link.begin()
            self.now += seconds

    def called(self) -> list[str]:
        """Where calls go, in order."""
        return [str(endpoint.target) for endpoint in self.link._endpoints()]


@asynccontextmanager
async def serving(identity: TlsIdentity, connections: list[object] | None = None) -> AsyncIterator[str]:
    """A server that shows a certificate; its address."""
    context = server_context(identity)
    context.set_alpn_protocols(["h2"])
    seen = connections if connections is not None else []
    server = await asyncio.start_server(lambda reader, writer: seen.append(writer), "127.0.0.1", 0, ssl=context)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@contextmanager
def counting() -> Iterator[tuple[str, list[socket.socket]]]:
    """A port that accepts connections and says nothing; those that were made."""
    accepted: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.setblocking(False)
        yield f"127.0.0.1:{listening.getsockname()[1]}", accepted
        with pytest.raises(BlockingIOError):
            while True:
                accepted.append(listening.accept()[0])


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("255.255.255.255", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::101:101", True),
        ("64:ff9b:1::a00:1", False),  # the prefix of a network's own NAT64: it leads to private addresses
        ("::10.0.0.1", False),
        ("::ffff:0:10.0.0.1", False),
        ("fec0::1", False),
        ("192.0.0.8", False),
        ("5f00::1", False),
        ("3fff::1", False),
        ("2002:7f00:1::1", False),
        ("localhost", False),
        ("example.org", False),
    ],
)
def test_an_address_of_this_machine_or_a_private_network_is_not_public_however_it_is_written(
    host: str, public: bool
) -> None:
    assert is_public(host) == public


async def test_an_announced_address_is_called_once_the_peer_has_shown_its_certificate_there() -> None:
    async with serving(IDENTITY) as address:
        scene = Scene(peer_that(mutual=[address]))
        assert scene.called() == [LISTED]
        await scene.rounds(1)
        assert scene.called() == [address, LISTED]


async def test_another_certificate_proves_nothing_and_the_listed_address_stays() -> None:
    async with serving(OTHERS) as address:
        scene = Scene(peer_that(mutual=[address]))
        await scene.rounds(5)
        assert scene.called() == [LISTED]
        assert scene.link.address == LISTED


async def test_a_wrong_announcement_leaves_the_listed_addresses_and_its_correction_is_used() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    async with serving(IDENTITY) as right:
        scene = Scene(peer_that(mutual=[closed], open_=["nowhere.invalid:1"]))
        await scene.rounds(5)
        assert scene.called() == [LISTED]
        scene.peer = replace(scene.peer, announced_mutual=(right,), announced_open=())
        await scene.rounds(1)
        assert scene.called() == [right, LISTED]


async def test_no_connection_is_made_to_a_private_address_that_the_operator_does_not_allow() -> None:
    with counting() as (address, accepted):
        port = address.rpartition(":")[2]
        names = {"inside.example": ["127.0.0.1", "::1"], "mapped.example": ["::ffff:127.0.0.1"]}
        scene = Scene(
            peer_that(
                mutual=[address, f"inside.example:{port}", f"mapped.example:{port}"], open_=[f"localhost:{port}"]
            ),
            networks=(ipaddress.ip_network("10.0.0.0/8"),),
            names=names,
        )
        await scene.rounds(50, seconds=LONGEST_PAUSE)
        assert scene.called() == [LISTED]
        assert "private_networks" in scene.announced.unproven(scene.peer)
    assert accepted == []


async def test_a_name_is_called_at_the_address_that_was_proven_wherever_it_leads_later() -> None:
    async with serving(IDENTITY) as address:
        port = address.rpartition(":")[2]
        names = {"moving.example": ["10.0.0.1", "127.0.0.1"]}
        scene = Scene(peer_that(mutual=[f"moving.example:{port}"]), names=names)
        await scene.rounds(1)
        names["moving.example"] = ["192.168.0.1"]
        assert scene.called() == [address, LISTED]
        assert scene.link.address == f"moving.example:{port}"


async def test_the_addresses_of_one_member_cost_few_connections_in_any_minute_and_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line with as many addresses as it may have, and another line at each round, with a round a second."""
    made = list[float]()

    async def nobody(target: Address, name: str) -> bytes:
        made.append(scene.now)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(announcing, "shown_certificate", nobody)
    scene = Scene(peer_that())
    for turn in range(3_600):
        hosts = [f"127.0.{turn % 250}.{number}:{1 + turn % 60_000}" for number in range(1, 9)]
        scene.peer = peer_that(mutual=hosts, open_=hosts)
        await scene.link.begin()
        scene.now += 1.0
    assert len(made) <= AT_FIRST + PER_HOUR
    windows = Counter[int]()
    for at, first in enumerate(made):
        windows[at] = sum(first <= other < first + 60 for other in made)
    assert max(windows.values()) <= MOST_IN_A_MINUTE
    assert scene.called() == [LISTED]


async def test_one_member_uses_up_no_other_members_connections() -> None:
    accounts = ConnectionAccounts()
    wrong, honest = Digest(NODE.seat.id), Digest(ANOTHER.seat.id)
    taken = [accounts.take(wrong, 0.0) for _ in range(2 * AT_FIRST)]
    assert taken == [True] * AT_FIRST + [False] * AT_FIRST
    assert accounts.take(honest, 0.0)
    assert not accounts.take(wrong, 3600 / PER_HOUR - 1)
    assert accounts.take(wrong, 3600 / PER_HOUR + 1)
    accounts.give_back(honest, 0.0)
    accounts.give_back(honest, 0.0)
    assert [accounts.take(honest, 0.0) for _ in range(AT_FIRST + 1)].count(True) == AT_FIRST


async def test_an_address_that_stops_answering_is_left_for_the_listed_one_and_proven_again_later() -> None:
    connections = list[object]()
    async with serving(IDENTITY, connections) as address:
        scene = Scene(peer_that(mutual=[address]))
        await scene.rounds(1)
        used = scene.link.client
        assert scene.link.failed(Unavailable("the node does not answer"))
        assert scene.called() == [LISTED] and used not in scene.link._clients.values()
        await scene.rounds(1, seconds=0)
        assert scene.called() == [LISTED], "it is not tried again at once"
        await scene.rounds(2, seconds=LONGEST_PAUSE)
        assert scene.called() == [address, LISTED]
    await scene.link.close()


async def test_a_server_that_proves_itself_and_fails_every_call_is_not_called_without_pause() -> None:
    connections = list[object]()
    async with serving(IDENTITY, connections) as address:
        scene = Scene(peer_that(mutual=[address]))
        for _ in range(600):
            await scene.rounds(1)
            if scene.link.address == address:
                scene.link.failed(Unavailable("the node does not answer"))
        assert len(connections) <= MOST_IN_A_MINUTE * 2
    await scene.link.close()


async def test_a_peer_with_a_new_certificate_proves_its_addresses_again() -> None:
    async with serving(IDENTITY) as address:
        scene = Scene(peer_that(mutual=[address]))
        await scene.rounds(1)
        scene.peer = replace(scene.peer, record=replace(scene.peer.record, tls=OTHERS.certificate))
        await scene.rounds(1)
        assert scene.called() == [LISTED]


def test_a_place_of_files_is_connected_to_as_an_announced_address_is() -> None:
    """The host that the pinned file names may serve files at another port, whatever its network is."""
    names = {"files.example": ["127.0.0.1"], "public.example": ["127.0.0.1", "1.1.1.1"]}
    announced = AnnouncedAddresses((), lambda: 0.0, lambda host: names.get(host) or announcing.addresses_of(host))
    permission = announced.permit(peer_that(listed=["10.0.0.7:7443"]))
    assert permission.connecting(Address.parse("10.0.0.7:7445")) == Address("10.0.0.7", 7445)
    assert permission.connecting(Address.parse("public.example:443")) == Address("1.1.1.1", 443)
    for refused in ("127.0.0.1:22", "files.example:443", "169.254.169.254:80"):
        with pytest.raises(Refused) as private:
            permission.connecting(Address.parse(refused))
        assert private.value.code == "PRIVATE-ADDRESS"
    assert permission.connecting(Address.parse("10.0.0.7:7445"))
    with pytest.raises(Refused) as limited:
        permission.connecting(Address.parse("10.0.0.7:7445"))
    assert limited.value.code == "ADDRESS-LIMIT"
    permission.served()
    assert permission.connecting(Address.parse("10.0.0.7:7445"))


def test_a_file_at_a_private_address_is_not_asked_for() -> None:
    with counting() as (address, accepted):
        permission = AnnouncedAddresses((), lambda: 0.0).permit(peer_that())
        client = RangeClient(Address.parse(address), None, permission)
        with pytest.raises(ComityError) as refused:
            client.ask(RangeUrl.parse(f"https://{address}/blob"), 0, 10, 1.0)
        assert refused.value.code == "PRIVATE-ADDRESS"
        client.close()
    assert accepted == []
