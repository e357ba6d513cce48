"""`comity init`: what a new home says, declares and warns of, and which shapes of keys are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.node.config import NodeConfig
from comity_cli.commands.init import command
from comity_client.node_card import NodeCard
from support.run_command import printed, refused, run, said

WORDS = ("--jurisdiction", "CH", "--org", "Example Institute", "--name", "node-ch.example.org")
FAR = ("--mutual", "node-ch.example.org:7443", "--open", "node-ch.example.org:7444")


def test_a_home_has_settings_keys_and_a_card(tmp_path: Path) -> None:
    home = tmp_path / "home"
    document = printed(command, *WORDS, *FAR, "--dir", home)
    card = NodeCard.read(home / "node-card.json")
    assert (document["id"], document["origin"]) == (card.inception.id, "node-ch.example.org/log")
    assert Path(document["card"]) == home / "node-card.json"
    assert card.open == ("node-ch.example.org:7444",) and card.mutual == ("node-ch.example.org:7443",)
    assert NodeConfig.load(home / "node.toml", environ={}).gateway.http == "127.0.0.1:7480"
    assert list((home / "offline").glob("*.pem"))


def test_an_address_of_this_machine_alone_is_a_warning(tmp_path: Path) -> None:
    local = said(command, *WORDS, "--dir", tmp_path / "local")
    assert "this node advertises 127.0.0.1:7443 and 127.0.0.1:7444, which other machines cannot reach" in local
    assert "other machines cannot reach" not in said(command, *WORDS, *FAR, "--dir", tmp_path / "far")


def test_founders_are_told_who_types_the_next_command_and_what_they_need_for_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (hint,) = (line for line in said(command, *WORDS, *FAR, "--dir", home).splitlines() if "to found one" in line)
    assert f"the first founder gets the cards of all others (yours is {home / 'node-card.json'}), and types" in hint
    assert hint.endswith(f"comity found --node {home} --with CARD…")


def test_a_place_is_declared_only_where_it_is_given(tmp_path: Path) -> None:
    run(command, *WORDS, *FAR, "--dir", tmp_path / "none")
    assert NodeCard.read(tmp_path / "none" / "node-card.json").record.place is None
    run(command, *WORDS, *FAR, "--dir", tmp_path / "cloud", "--cloud", "Example Cloud", "--reach", "US")
    place = NodeCard.read(tmp_path / "cloud" / "node-card.json").record.place
    assert place is not None
    assert (place.operator, place.cloud, set(place.reach)) == ("Example Institute", "Example Cloud", {"CH", "US"})
    for option, value in (("--operator", "Example Hosting"), ("--cloud", "Example Cloud"), ("--reach", "US")):
        run(command, *WORDS, *FAR, "--dir", tmp_path / option, option, value)
        assert NodeCard.read(tmp_path / option / "node-card.json").record.place is not None


def test_several_keys_sign_by_more_than_half(tmp_path: Path) -> None:
    text = said(command, *WORDS, *FAR, "--governance-keys", 3, "--dir", tmp_path / "three")
    assert "2 of 3 governance keys sign" in text
    assert len(list((tmp_path / "three" / "offline").glob("governance*.pem"))) == 3
    assert "governance keys sign" not in said(command, *WORDS, *FAR, "--dir", tmp_path / "one")


@pytest.mark.parametrize(
    "words",
    [
        ("--governance-keys", "0"),
        ("--governance-keys", "2", "--threshold", "3"),
        ("--threshold", "0"),
        ("--recovery-keys", "-1"),
    ],
)
def test_keys_that_could_never_sign_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    refused(command, *WORDS, *FAR, *words, "--dir", tmp_path / "home")
    assert not (tmp_path / "home" / "node-card.json").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--jurisdiction", "Atlantis!"), ("--mutual", "no address"), ("--name", "no name/x")]
)
def test_a_value_that_no_node_has_is_refused(tmp_path: Path, option: str, value: str) -> None:
    words = list(WORDS + FAR)
    words[words.index(option) + 1] = value
    refused(command, *words, "--dir", tmp_path / "home")
    assert not (tmp_path / "home" / "node-card.json").exists()


def test_a_home_is_made_once(tmp_path: Path) -> None:
    assert run(command, *WORDS, *FAR, "--dir", tmp_path / "home").exit_code == 0
    before = (tmp_path / "home" / "node-card.json").read_bytes()
    assert run(command, *WORDS, *FAR, "--dir", tmp_path / "home").exit_code != 0
    assert (tmp_path / "home" / "node-card.json").read_bytes() == before
