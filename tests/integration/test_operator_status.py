"""`comity status` about the node of this machine."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from comity.node.config import NodeConfig
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity_cli.main import command
from comity_client.own_node import operator_socket
from support.federation import NodeHome, converged, found, make_home, serving, until
from support.publisher import Publisher, model, release, send


def status(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["status", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})


def peer(*arguments: str) -> Result:
    line, wide = ["peer", *arguments], {"COLUMNS": "200"}
    return CliRunner().invoke(command, line, catch_exceptions=False, standalone_mode=False, env=wide)


async def counted_once(home: NodeHome) -> bool:
    """Whether the only artifact is held or lacking; while it is copied, it may be counted as both."""
    shown = json.loads((await asyncio.to_thread(status, "--socket", str(home.socket), "--json")).stdout)
    counts = shown["replication"]["counts"]
    return bool(counts["held"] + counts["lacking"] == 1)


@pytest.mark.slow
async def test_an_operator_sees_peers_logs_store_and_callers(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    first, second, third = founded.homes
    what = release(Publisher.generate(), model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(first, second), second.client() as client:
        receipts = (await send(client, what)).receipts
        await converged((first, second), second, least=receipts[-1].index + 1)
        await until(lambda: counted_once(first), what="the copy to be counted once")
        by_socket = await asyncio.to_thread(status, "--socket", str(first.socket), "--json")
        by_home = await asyncio.to_thread(status, "--dir", str(first.directory))
        listed = await asyncio.to_thread(peer, "ls", "--node", str(first.directory), "--json")
        pinged = await asyncio.to_thread(peer, "ping", "--node", str(first.directory), "--json")
        one = await asyncio.to_thread(peer, "ping", second.name, "--node", str(first.directory))
    told = json.loads(by_socket.stdout)
    assert told["schema"] == "comity.dev/node-status/v1"
    assert {peer["name"]: peer["state"] for peer in told["peers"]} == {second.name: "up", third.name: "DOWN"}
    assert {log["origin"]: log["state"] for log in told["logs"]} == {first.origin: "own", second.origin: "follows"}
    assert next(peer for peer in told["peers"] if peer["name"] == third.name)["last_error"]
    assert {"store", "holds", "misbehaviour", "quotas", "warnings", "served"} <= set(told)
    assert by_home.exit_code == 0
    for word in (second.name, third.name, "DOWN", second.origin, "uploads", "artifact"):
        assert word in by_home.stdout
    assert f"{third.name} does not answer" in by_home.stderr
    counts = told["replication"]["counts"]
    assert (counts["held"] + counts["lacking"], counts["min_copies"]) == (1, 3)
    assert {each["name"]: each["state"] for each in json.loads(listed.stdout)["peers"]} == {
        second.name: "up", third.name: "DOWN"
    }  # fmt: skip
    assert (listed.return_value, pinged.return_value, one.return_value) == (5, 5, 0)
    told = json.loads(pinged.stdout)
    assert told["unreachable"] == [third.name]
    assert {(each["peer"], each["port"], each["seconds"] is not None) for each in told["addresses"]} == {
        *((second.name, port, True) for port in ("mutual", "open")),
        *((third.name, port, False) for port in ("mutual", "open")),
    }
    assert "comity 0" in one.stdout and third.name not in one.stdout


@pytest.mark.slow
async def test_a_node_reports_what_it_lacks_why_and_which_artifacts_have_too_few_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founded = found(tmp_path, 2)
    full, origin = founded.homes
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_blocks=1, f_bavail=0, f_frsize=4096))
    what = release(Publisher.generate(), model(tmp_path / "model", weights=300_000), "tests/model@v1")
    async with serving(full, origin), origin.client() as client:
        await send(client, what)
        async with full.operator() as operator, origin.operator() as at_origin:

            async def told() -> bool:
                lacking = (await operator.status()).replication
                counted = (await at_origin.status()).replication
                assert lacking is not None and counted is not None
                counts = [short.copies for short in counted.short]  # 0 until the hold of the origin is read
                return bool(lacking.lacking and lacking.lacking[0].why and counts and all(counts))

            await until(told, what="the reason of the missing copy")
            lacking = (await operator.status()).replication
            counted = (await at_origin.status()).replication
        shown = await asyncio.to_thread(status, "--node", str(full.directory))
    assert lacking is not None and counted is not None
    (item,) = lacking.lacking
    assert (item.name, item.artifact) == ("tests/model@v1", what.artifact)
    assert "free" in item.why
    assert [(short.name, short.copies) for short in counted.short] == [("tests/model@v1", 1)]
    assert "1 artifact: 0 complete here, 1 lacking" in shown.stdout
    assert "tests/model@v1" in shown.stdout and "free" in shown.stdout


def test_no_node_behind_the_socket_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        status("--socket", str(tmp_path / "operator.sock"))
    assert caught.value.code == "UNREACHABLE"


def test_socket_and_home_are_not_given_together(tmp_path: Path) -> None:
    assert status("--socket", "a", "--dir", "b").exit_code == 2


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        (None, {}),
        ("elsewhere.sock", {}),
        ("/run/comity/node.sock", {}),
        (None, {"COMITY_LISTEN_OPERATOR": "from-the-environment.sock"}),
    ],
)
def test_the_socket_path_is_that_of_the_settings(tmp_path: Path, setting: str | None, environ: dict[str, str]) -> None:
    home = make_home(tmp_path / "home", 0)
    if setting is not None:
        home.set("listen", operator=setting)
    node = NodeConfig.load(home.directory / "node.toml", environ)
    assert operator_socket(home.directory, environ) == node.listen.operator


@pytest.mark.parametrize("text", ["[listen\n", "[listen]\noperator = 7\n"])
def test_a_home_that_cannot_be_read_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(Malformed) as caught:
        operator_socket(tmp_path, {})
    assert caught.value.code == "CONFIG"


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", ""),
        ('writer = "node.example:7443"\n[advertise]\nmutual = ["other.example:1"]\n', ", node.example:7443"),
        ('[advertise]\nmutual = ["node.example:7442", "192.0.2.1:1"]\n', ", node.example:7442, 192.0.2.1:1"),
    ],
)
def test_the_home_of_a_front_end_has_no_socket_and_the_next_command_is_told(
    tmp_path: Path, more: str, where: str
) -> None:
    (tmp_path / "node.toml").write_text(f'[node]\nrole = "front-end"\n{more}')
    with pytest.raises(Unavailable) as caught:
        operator_socket(tmp_path, {})
    assert (caught.value.code, caught.value.why) == ("FRONT-END", "a front end has no operator socket")
    assert f"on the machine of its writer{where}, this command with --node HOME" in caught.value.hint
    assert f"comity doctor --node {tmp_path}" in caught.value.hint


def test_a_folder_that_is_no_home_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        operator_socket(tmp_path, {})
