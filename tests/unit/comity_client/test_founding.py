"""Founding a federation: node homes, cards, the first charter, and the sealed federation file."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.federation_file import Federation
from comity.node.config import NodeConfig
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed, Untrusted
from comity_client.charter.joining import extended_federation
from comity_client.charter.state import CharterMaterial, compute_charter_state
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings, NewNode, init_node, node_toml
from comity_client.signing.seat_keys import SeatShape
from comity_client.signing.votes import find_keys
from pydantic import BaseModel
from support.world import found as founded
from support.world import node, seat

FOUNDERS = ("CH", "SG", "ES")


def found(root: Path, code: str) -> NodeCard:
    return init_node(
        root / code,
        NewNode(
            jurisdiction=code,
            org=f"Institute {code}",
            node_name=f"node-{code.lower()}.example",
            mutual="127.0.0.1:7443",
            open_="node.example.org:7444",
        ),
    )


@pytest.fixture
def cards(tmp_path: Path) -> list[NodeCard]:
    return [found(tmp_path, code) for code in FOUNDERS]


@pytest.fixture
def body(cards: list[NodeCard]) -> Body:
    return draft_genesis(cards)


def test_a_node_card_reads_back(tmp_path: Path, cards: list[NodeCard]) -> None:
    assert NodeCard.parse((tmp_path / "CH" / "node-card.json").read_bytes()) == cards[0]


def test_a_log_has_the_name_that_its_operator_chose_or_one_from_its_key(tmp_path: Path) -> None:
    where: dict[str, Any] = {
        "jurisdiction": "CH",
        "org": "Institute",
        "mutual": "127.0.0.1:7443",
        "open_": "127.0.0.1:7444",
    }
    card = init_node(tmp_path / "node", NewNode(node_name="node-ch", origin="sigsum.org/v1/tree/{key}", **where))
    assert card.record.origin == f"sigsum.org/v1/tree/{hashlib.sha256(card.record.log.public).hexdigest()}"
    assert card.inception.home == card.record.origin
    with pytest.raises(Malformed):
        init_node(tmp_path / "other", NewNode(node_name="node-ch", origin="has+plus", **where))
    assert not (tmp_path / "other").exists()


def test_the_keys_of_a_new_node_are_private(tmp_path: Path, cards: list[NodeCard]) -> None:
    home = tmp_path / "CH"
    keys = sorted(home.rglob("*.pem"))
    assert [path.relative_to(home).as_posix() for path in keys] == [
        "keys/cosigner.pem",
        "keys/log.pem",
        "keys/online.pem",
        "keys/tls.pem",
        "offline/governance.pem",
        "offline/recovery.pem",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert {stat.S_IMODE((home / name).stat().st_mode) for name in ("keys", "offline")} == {0o700}


def seat_of(root: Path, shape: SeatShape) -> NodeCard:
    where: dict[str, Any] = {"mutual": "127.0.0.1:7443", "open_": "127.0.0.1:7444"}
    return init_node(
        root, NewNode(jurisdiction="FR", org="Institute", node_name="node-fr.example", **where, seat=shape)
    )


def test_every_governance_key_is_made_with_an_empty_vote_file(tmp_path: Path) -> None:
    card = seat_of(tmp_path / "FR", SeatShape(governance=3, recovery=3))
    offline = tmp_path / "FR" / "offline"
    assert sorted(path.name for path in offline.glob("[!.]*")) == [
        *(f"governance-{number}.{suffix}" for number in (1, 2, 3) for suffix in ("pem", "votes")),
        *(f"recovery-{number}.pem" for number in (1, 2, 3)),
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in offline.iterdir()} == {0o600}
    for key in find_keys(offline, card.inception.keys):
        assert key.votes.load(Digest("0" * 64)).lost(Digest("0" * 64)) is None


def test_more_than_half_of_the_governance_keys_sign_unless_the_owner_asks_for_more(tmp_path: Path) -> None:
    assert seat_of(tmp_path / "two", SeatShape(governance=3)).inception.keys.threshold == 2
    assert seat_of(tmp_path / "all", SeatShape(governance=3, threshold=3)).inception.keys.threshold == 3


@pytest.mark.parametrize(
    "shape", [SeatShape(governance=0), SeatShape(governance=8), SeatShape(recovery=0), SeatShape(3, threshold=1)]
)
def test_a_seat_that_no_record_can_describe_is_refused_before_anything_is_written(
    tmp_path: Path, shape: SeatShape
) -> None:
    with pytest.raises(Malformed):
        seat_of(tmp_path / "FR", shape)
    assert not (tmp_path / "FR").exists()


def test_a_founder_with_several_keys_consents_by_its_threshold(tmp_path: Path, cards: list[NodeCard]) -> None:
    body = draft_genesis([*cards, seat_of(tmp_path / "FR", SeatShape(governance=3))])
    (tmp_path / "FR" / "offline" / "governance-1.pem").unlink()
    assert consent_to(body, tmp_path / "FR")
    (tmp_path / "FR" / "offline" / "governance-2.pem").unlink()
    with pytest.raises(Untrusted, match="2 of its 3 keys must sign") as caught:
        consent_to(body, tmp_path / "FR")
    assert caught.value.code == "TOO-FEW-KEYS"


def test_the_configuration_shows_every_setting_and_its_default(tmp_path: Path, cards: list[NodeCard]) -> None:
    written = tomllib.loads((tmp_path / "CH" / "node.toml").read_text())
    settings = {
        (section, key): setting
        for section, field in NodeConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key, setting in field.annotation.model_fields.items()
        if key != "s3"
    }
    assert {(section, key) for section, values in written.items() for key in values} == set(settings)
    for section in ("storage", "federation", "replication", "publishing", "limits"):
        for key, value in written[section].items():
            default = settings[section, key].default
            shown = "" if default is None else str(default) if isinstance(default, Path) else default
            shown = list(shown) if isinstance(shown, tuple) else shown
            assert value == shown, key


def test_the_configuration_listens_on_addresses_and_advertises_names(tmp_path: Path, cards: list[NodeCard]) -> None:
    config = tomllib.loads((tmp_path / "CH" / "node.toml").read_text())
    assert config["listen"]["mutual"] == "127.0.0.1:7443"
    assert config["listen"]["open"] == "0.0.0.0:7444"
    assert config["advertise"]["open"] == ["node.example.org:7444"]


def test_a_socket_path_too_long_for_the_kernel_is_moved(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    found(deep, "CH")
    operator = tomllib.loads((deep / "CH" / "node.toml").read_text())["listen"]["operator"]
    assert len(operator) <= 100


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path, cards: list[NodeCard]) -> None:
    before = (tmp_path / "CH" / "keys" / "log.pem").read_bytes()
    with pytest.raises(Conflict):
        found(tmp_path, "CH")
    assert (tmp_path / "CH" / "keys" / "log.pem").read_bytes() == before


@pytest.mark.parametrize("field", [{"node_name": "a node"}, {"jurisdiction": "Schweiz"}, {"mutual": "nowhere"}])
def test_a_bad_name_writes_nothing(tmp_path: Path, field: dict[str, str]) -> None:
    arguments: dict[str, Any] = {
        "jurisdiction": "CH",
        "org": "X",
        "node_name": "n",
        "mutual": "127.0.0.1:1",
        "open_": "127.0.0.1:2",
        **field,
    }
    with pytest.raises(Malformed):
        init_node(tmp_path / "node", NewNode(**arguments))
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize(
    ("code", "hint"),
    [("UK", 'write "GB"'), ("Switzerland", 'write "CH"'), ("spain", 'write "ES"'), ("ZZ", "write two capital letters")],
)
def test_a_node_is_not_made_for_a_jurisdiction_that_does_not_exist(tmp_path: Path, code: str, hint: str) -> None:
    with pytest.raises(Malformed) as refused:
        found(tmp_path, code)
    assert (refused.value.hint or "").startswith(hint)
    assert not (tmp_path / code).exists()


def test_a_jurisdiction_that_the_charter_names_is_kept(tmp_path: Path) -> None:
    assert found(tmp_path, "antarctic-treaty").inception.jurisdiction == "antarctic-treaty"


def test_two_founders_cannot_give_their_nodes_one_name(tmp_path: Path, cards: list[NodeCard]) -> None:
    where: dict[str, Any] = {"mutual": "127.0.0.1:7443", "open_": "127.0.0.1:7444"}
    name = cards[0].record.name.upper()
    other = init_node(tmp_path / "BR", NewNode(jurisdiction="BR", org="Institute BR", node_name=name, **where))
    with pytest.raises(Conflict) as refused:
        draft_genesis([*cards, other])
    assert refused.value.code == "NODE-NAME-TAKEN"


def test_the_same_cards_give_a_draft_with_the_same_bytes(cards: list[NodeCard], body: Body) -> None:
    assert draft_genesis(reversed(cards)).data == body.data


def test_a_federation_that_all_founders_consented_to_is_sealed(
    tmp_path: Path, cards: list[NodeCard], body: Body
) -> None:
    federation = seal_federation(body, [consent_to(body, tmp_path / code) for code in FOUNDERS], cards)
    assert Federation.parse(federation.encode()) == federation
    assert {node.record.origin for node in federation.nodes} == {f"node-{c.lower()}.example/log" for c in FOUNDERS}


def test_a_genesis_that_lacks_one_consent_is_refused_by_name(tmp_path: Path, cards: list[NodeCard], body: Body) -> None:
    with pytest.raises(Untrusted, match="Institute ES"):
        seal_federation(body, [consent_to(body, tmp_path / code) for code in ("CH", "SG")], cards)


def test_no_member_consents_to_a_charter_without_its_seat(tmp_path: Path, cards: list[NodeCard]) -> None:
    with pytest.raises(Untrusted) as caught:
        consent_to(draft_genesis(cards[1:]), tmp_path / "CH")
    assert caught.value.code == "NOT-MY-SEAT"


def test_a_governance_key_on_another_machine_consents_as_well(
    tmp_path: Path, cards: list[NodeCard], body: Body
) -> None:
    stick = tmp_path / "stick.pem"
    (tmp_path / "CH" / "offline" / "governance.pem").rename(stick)
    assert consent_to(body, tmp_path / "CH", governance=[stick])


def test_a_card_with_another_members_record_is_refused(cards: list[NodeCard]) -> None:
    mixed = dataclasses.replace(cards[0], record=cards[1].record, record_line=cards[1].record_line)
    with pytest.raises(Untrusted):
        NodeCard.parse(mixed.encode())


def test_a_new_node_never_gets_one_port_twice(tmp_path: Path) -> None:
    where: dict[str, Any] = {"jurisdiction": "CH", "org": "X", "node_name": "n"}
    where |= {"mutual": "127.0.0.1:7443", "open_": "127.0.0.1:7479"}
    init_node(tmp_path / "node", NewNode(**where))
    config = NodeConfig.load(tmp_path / "node" / "node.toml", environ={})
    assert config.listeners == {
        "listen.mutual": "127.0.0.1:7443",
        "listen.open": "127.0.0.1:7479",
        "gateway.http": "127.0.0.1:7480",
        "gateway.files": "127.0.0.1:7482",
        "gateway.ranges": "127.0.0.1:7481",
    }
    with pytest.raises(Malformed) as caught:
        init_node(tmp_path / "other", NewNode(**where, listeners=ListenSettings(ranges="127.0.0.1:7480")))
    assert caught.value.code == "PORT-TWICE" and not (tmp_path / "other").exists()


@pytest.mark.parametrize("address", ["here", "7480", "localhost:7480", "127.0.0.1:x", "127.0.0.1:65536", "[::1:7480"])
@pytest.mark.parametrize("listener", ["http", "files", "ranges", "metrics"])
def test_a_listener_that_is_no_address_is_refused_before_anything_is_written(
    tmp_path: Path, listener: str, address: str
) -> None:
    card: Any = SimpleNamespace(mutual=("127.0.0.1:7443",), open=("127.0.0.1:7444",))
    with pytest.raises(Malformed) as caught:
        node_toml(tmp_path, card, ListenSettings(**{listener: address}))
    assert f"--{listener}" in caught.value.hint


def test_a_newer_federation_file_keeps_two_nodes_of_one_name() -> None:
    nodes = [node(seat(code), "node.example") for code in FOUNDERS]
    federation = founded(nodes)
    newer = extended_federation(federation, compute_charter_state(federation.body, CharterMaterial()))
    assert {each.record.member for each in newer.nodes} == {each.record.member for each in nodes}
