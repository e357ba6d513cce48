"""Which nodes count, and where they are thought to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comity.node.membership import Membership, Seat
from comity.trust.claims import Addresses
from comity.trust.errors import Untrusted
from comity.trust.statement import parse_entry
from comity.wire.certs import Pin
from support.federation import Founded, NodeHome, found, make_home


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return found(tmp_path_factory.mktemp("federation"), 2)


def seat(home: NodeHome) -> Seat:
    return Seat.parse(home.card.inception_line, home.card.record_line)


def test_the_other_nodes_of_the_file_are_peers_and_pinned(founded: Founded) -> None:
    first, second = founded.homes
    members = Membership(seat(first), founded.federation)
    assert [peer.name for peer in members.peers] == [second.name]
    assert members.pins() == (Pin.of(second.record.tls),)
    assert members.by_certificate(second.record.tls) == members.peer(second.origin)
    assert members.log_key(first.origin) == first.record.log
    assert members.node(second.record.node) == second.record
    assert members.seated


def test_a_node_is_learned_from_a_record_that_the_charter_proves(founded: Founded, tmp_path: Path) -> None:
    first, second = founded.homes
    alone = replace(founded.federation, nodes=())
    members = Membership(seat(first), alone)
    stranger = make_home(tmp_path / "stranger", 2)
    records = [parse_entry(home.card.record_line) for home in (first, second, stranger)]
    assert [peer.name for peer in members.learn(records)] == [second.name]
    assert members.learn(records) == ()
    assert members.pins() == (Pin.of(second.record.tls),)
    assert members.log_key(stranger.origin) is None


def test_a_node_outside_of_any_federation_knows_itself_only(founded: Founded) -> None:
    first, second = founded.homes
    members = Membership(seat(first), None)
    assert members.peers == () and not members.seated
    assert members.learn([parse_entry(second.card.record_line)]) == ()
    assert members.cosigner_keys() == first.record.cosigners


def test_a_node_moves_where_it_says(founded: Founded) -> None:
    first, second = founded.homes
    members = Membership(seat(first), founded.federation)
    members.relocate(second.origin, Addresses(second.record.node, ("new.example:1",), ()))
    members.relocate("nobody/log", Addresses(second.record.node, ("x.example:1",), ()))
    assert [(peer.name, peer.mutual, peer.open) for peer in members.peers] == [(second.name, ("new.example:1",), ())]


def test_a_record_of_another_member_is_no_seat(founded: Founded) -> None:
    first, second = founded.homes
    with pytest.raises(Untrusted):
        Seat.parse(first.card.inception_line, second.card.record_line)
