"""One way to name a node: `--node` takes a name, a URL, a socket or a home; earlier spellings are still accepted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from comity.trust.errors import Conflict, NotFound
from comity_cli.command import Command
from comity_cli.main import COMMANDS, command
from comity_cli.nodes import home_option, member_node_options, node_option, nodes_option
from comity_cli.output import Output
from comity_client.copies import copies_of_federation
from comity_client.own_node import local_socket, own_socket
from comity_client.session import RemoteNode, Session
from comity_client.uplink import find_node
from support.federation import Founded, found

FOLDERS = {
    ("init", "--dir"),
    ("approve", "--dir"),
    ("approvals end", "--dir"),
    ("continues", "--dir"),
    ("vouch", "--dir"),
    ("offer show", "--html"),
    ("report show", "--html"),
    ("verify", "--html"),
}
"""Options that name a folder to be made, or one whose keys sign: no node."""


def shown_options() -> Iterator[tuple[str, click.Option]]:
    root = click.Context(command)
    for name in COMMANDS:
        made = command.get_command(root, name)
        verbs = {f"{name} {verb}": sub for verb, sub in getattr(made, "commands", {}).items()} or {name: made}
        for called, sub in verbs.items():
            assert isinstance(sub, click.Command)
            context = click.Context(sub)
            yield from (
                (called, option)
                for option in sub.params
                if isinstance(option, click.Option) and option.get_help_record(context) is not None
            )


def test_no_help_page_names_a_node_in_another_way() -> None:
    spelled = {(called, (option.get_help_record(click.Context(click.Command("x"))) or ("",))[0].split()[0].rstrip(","))
               for called, option in shown_options()}  # fmt: skip
    others = {(called, flag) for called, flag in spelled if flag in ("--to", "--log", "--socket", "--dir", "--url")}
    assert others - FOLDERS == set()
    assert len([flag for _, flag in spelled if flag == "--node"]) > 30


def taken(*arguments: str, option: Any) -> dict[str, Any]:
    """The arguments that a command gets from its command line."""
    got: dict[str, Any] = {}
    made = click.command(cls=Command, name="x")(option(lambda **options: got.update(options)))
    made.main(list(arguments), standalone_mode=False)
    return got


@pytest.mark.parametrize("flag", ["--node", "--to"])
def test_a_node_is_named_once_by_any_spelling(flag: str) -> None:
    option = node_option("", old=("--to",))
    assert taken(flag, "node-ch", option=option) == {"node": "node-ch"}
    assert taken(option=option) == {"node": None}
    with pytest.raises(click.UsageError):
        taken("--node", "a", "--to", "b", option=option)


def test_several_nodes_keep_their_order() -> None:
    assert taken("--log", "a", "--node", "b", option=nodes_option("", old=("--log",))) == {"nodes": ("a", "b")}


def test_a_home_is_named_by_any_spelling(tmp_path: Path) -> None:
    for flag in ("--node", "--dir"):
        assert taken(flag, str(tmp_path), option=home_option("")) == {"home": tmp_path}


def test_a_command_that_signs_takes_a_home_and_another_node_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "inception.line").touch()
    home, option = str(tmp_path), member_node_options("", "")
    both = {"home": tmp_path, "to": "node-ch"}
    assert taken("--node", home, option=option) == {"home": tmp_path, "to": None}
    assert taken("--node", "node-ch", option=option) == {"home": Path(), "to": "node-ch"}
    for arguments in (
        ("--node", home, "--node", "node-ch"),
        ("--node", "node-ch", "--node", home),
        ("--dir", home, "--to", "node-ch"),
        ("--dir", home, "--node", "node-ch"),
    ):
        assert taken(*arguments, option=option) == both
    with pytest.raises(click.UsageError):
        taken("--node", "node-ch", "--node", "node-es", option=option)


@pytest.fixture
def founded(tmp_path: Path) -> Founded:
    return found(tmp_path, 2)


def test_a_socket_and_a_home_name_the_node_of_this_machine(founded: Founded, monkeypatch: pytest.MonkeyPatch) -> None:
    home = founded.homes[0]
    assert local_socket(str(home.directory)) == home.socket
    assert local_socket("unix:/run/comity.sock") == Path("/run/comity.sock")
    monkeypatch.chdir(home.directory)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("other")
        assert local_socket("other") == Path("other")
    assert local_socket(".") == own_socket(None) == Path("operator.sock")


@pytest.mark.parametrize("name", ["node-ch.example", "node-ch.example/log", "https://node-ch.example:7444"])
def test_a_name_or_a_url_is_no_path(name: str) -> None:
    assert local_socket(name) is None
    with pytest.raises(NotFound, match="this machine"):
        own_socket(name)


def test_a_folder_that_is_no_home_is_said_to_lack_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name was taken for that of a node elsewhere."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(NotFound, match="folder is not a node's home") as caught:
        own_socket("folder")
    assert (caught.value.code, caught.value.why) == ("NO-HOME", "node.toml is missing")


@pytest.mark.parametrize("path", ["/nowhere", "./nowhere", "..", "~/nowhere"])
def test_a_path_without_a_node_is_refused_with_the_next_step(path: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        local_socket(path)
    assert caught.value.code == "NO-HOME"
    assert "--node HOME" in caught.value.hint


@pytest.mark.parametrize("words", ["copies", "log check node-ch/log", "copies --node node-ch", "env"])
def test_without_a_pinned_federation_the_next_step_is_to_pin_one(words: str, tmp_path: Path) -> None:
    asked = CliRunner(env={"COMITY_HOME": str(tmp_path)}).invoke(command, words.split(), obj=Output())
    assert isinstance(asked.exception, NotFound)
    assert (asked.exception.code, asked.exception.hint) == ("NO-NODES", "comity trust pin FILE")


def test_join_from_another_folder_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = CliRunner(env={"COMITY_HOME": str(tmp_path)}).invoke(command, ["join", __file__], obj=Output())
    assert isinstance(asked.exception, NotFound)
    assert asked.exception.code == "NO-HOME"
    assert "node-card.json" in asked.exception.why
    assert "--node HOME" in asked.exception.hint


async def test_a_node_is_found_by_name_log_member_address_or_url(founded: Founded) -> None:
    session = Session([founded.federation])
    for node in session.nodes:
        (address,) = node.addresses
        for name in (node.name, node.record.origin, node.member.name, address, f"https://{address}"):
            assert await find_node(session, name) is node


async def test_a_list_of_copies_is_asked_of_a_node_by_any_of_its_names(
    founded: Founded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def own_name(node: RemoteNode, question: object) -> str:
        return node.name

    monkeypatch.setattr(RemoteNode, "ask", own_name)
    session = Session([founded.federation])
    for node in session.nodes:
        for name in (node.name, node.record.origin, node.member.name, f"https://{node.addresses[0]}"):
            asked: Any = await copies_of_federation(session, name)
            assert asked == node.name
    with pytest.raises(NotFound, match="nobody"):
        await copies_of_federation(session, "nobody")


async def test_a_member_that_is_called_like_another_node_does_not_take_its_name(founded: Founded) -> None:
    session = Session([founded.federation])
    first, second = session.nodes
    object.__setattr__(first.member, "name", second.name)
    assert session.named(second.name) is second


async def test_a_member_that_gives_its_node_the_name_of_another_one_does_not_take_it(founded: Founded) -> None:
    for order in (1, -1):
        session = Session([founded.federation])
        session.nodes = session.nodes[::order]
        first, second = session.nodes
        name = second.name
        object.__setattr__(first.record, "name", name)
        try:
            assert session.named(name) is second  # the owner of the origin NAME/log
        finally:
            object.__setattr__(first.record, "name", first.record.origin.removesuffix("/log"))


async def test_a_name_that_no_owner_of_a_log_has_is_not_decided_by_order(founded: Founded) -> None:
    session = Session([founded.federation])
    first, second = session.nodes
    names = first.name, second.name
    for node in session.nodes:
        object.__setattr__(node.record, "name", "models")
    try:
        with pytest.raises(Conflict) as caught:
            session.named("models")
        assert caught.value.code == "AMBIGUOUS-NODE"
        assert str(first.record.log) in caught.value.why
        assert str(second.record.log) in caught.value.why
        key = caught.value.hint.rpartition("--node ")[2]
        assert session.named(key.strip("'")) is first  # the next command works
    finally:
        for node, name in zip(session.nodes, names, strict=True):
            object.__setattr__(node.record, "name", name)
