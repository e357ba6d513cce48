"""How many connections a node keeps to a peer that moves often, and which of its certificates it has met."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.members import Membership, Peer, PeerKey
from comity.node.replication.announced import AnnouncedAddresses
from comity.node.replication.link import MAX_CLIENTS, PeerLink
from comity.trust.node_records import MAX_ADDRESSES
from comity.wire.client import NodeClient
from comity.wire.tls import TlsIdentity, make_certificate
from support.world import node, private_key, seat

NODE = node(seat("SG"))
KEY = PeerKey.of(NODE.record)
SAME = [f"node-{number}.example:7443" for number in range(MAX_ADDRESSES)]


class Connection:
    """A client that counts how it is closed."""

    def __init__(self, opened: list[Connection]) -> None:
        self.grace: float | None = None
        self.closed = False
        self._opened = opened
        opened.append(self)

    def with_timeout(self, _: float) -> Connection:
        return self

    async def close(self, grace: float | None = None) -> None:
        self.grace, self.closed = grace, True
        self._opened.remove(self)


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Connection] = []
        self.all: list[Connection] = []
        self.peer = Peer(NODE.seat.member, NODE.record, NODE.entry.line, (), ())
        self.met: list[bytes] = []
        """Certificates that the peer has presented."""
        membership = SimpleNamespace(peer=lambda key: self.peer, certificate_seen=self._seen)
        self.link = PeerLink(
            cast(Membership, membership), AnnouncedAddresses((), lambda: 0.0), cast(TlsIdentity, None), lambda: 0.0, KEY
        )

        def connect(*_: Any) -> NodeClient:
            self.all.append(Connection(self.opened))
            return cast(NodeClient, self.all[-1])

        monkeypatch.setattr(self.link, "_connect", connect)

    def _seen(self, key: PeerKey, certificate: bytes) -> None:
        self.met.append(certificate)

    def announce(self, certificate: bytes) -> None:
        """A newer record of the peer names a certificate, which it does not present yet."""
        newer = replace(self.peer.record, tls=certificate)
        self.peer = replace(self.peer, record=newer, alternate=self.peer.record)

    def move(self, *addresses: str) -> None:
        self.peer = Peer(NODE.seat.member, NODE.record, NODE.entry.line, addresses, ())


async def test_a_peer_that_moves_without_end_costs_a_bounded_number_of_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    for number in range(3 * MAX_CLIENTS):
        scene.move(f"node-{number}.example:7443")
        assert scene.link.client is not None
        await _turn()
    assert len(scene.opened) <= MAX_CLIENTS
    assert all(made.grace for made in scene.all if made.closed)
    await scene.link.close()
    assert scene.opened == []


async def test_the_connections_to_all_addresses_of_a_peer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.move(*SAME)
    kept = scene.link.authenticated()
    for number in range(3 * MAX_CLIENTS):
        scene.move(f"other-{number}.example:7443", *SAME)
        assert scene.link.authenticated()[1:] == kept
        await _turn()


async def test_a_call_that_goes_on_does_not_meet_a_certificate_that_is_only_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If it did, the one that the peer still presents would no longer be accepted."""
    scene = Scene(monkeypatch)
    scene.move(*SAME)
    before, later = scene.link.client, make_certificate(private_key("later", "ecdsa-p256"))
    scene.announce(later)
    scene.link.seen(before)
    assert scene.met == [NODE.record.tls]
    scene.link.seen(scene.link.client)
    assert scene.met == [NODE.record.tls, later]


async def test_a_peer_that_answers_and_has_no_address_any_more_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.move(*SAME)
    before = scene.link.client
    scene.move()
    scene.link.seen(before)
    assert scene.link.state.reachable


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
