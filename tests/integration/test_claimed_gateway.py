"""`comity env --node`: the gateway URL that a node claims, from its settings to a shell; and false claims."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.node.config import NodeConfig
from comity.trust.errors import ComityError
from comity.wire.addresses import Address, GatewayUrl
from comity.wire.client import NodeClient
from comity.wire.node import NodeFacts
from comity_cli.lab.lab import Lab
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation
from support.federation import WITH_GATEWAY, NodeProcess, found
from support.ports import free_port

TOLD = "https://models.example.org/hub"


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's home of its own, and a current folder that is no home of a node."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    with FakeFederation(("CH",)).running() as made:
        pin(made.file())
        yield made


def pin(federation: bytes) -> None:
    Client(Home.default()).pin(federation)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


@pytest.mark.parametrize("named", ["url", "home", "lab folder", "lab node"])
def test_a_gateway_is_named_by_its_url_a_home_or_a_lab(named: str, tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    node = lab / "node-ch"
    node.mkdir(parents=True)
    (node / "node.toml").write_text(
        '[listen]\nopen = "127.0.0.1:7444"\n[gateway]\nurl = "https://models.example.org"\n'
    )
    (lab / "federation.json").write_text("{}")
    where = {
        "url": "https://models.example.org",
        "home": str(node),
        "lab folder": str(lab),
        "lab node": str(lab / "node-ch"),
    }[named]
    told = json.loads(run("env", "--node", where, "--json").stdout)["endpoint"]
    assert (told["url"], told["basis"]) == ("https://models.example.org", "given" if named == "url" else "settings")


def refused(*arguments: str) -> ComityError:
    ran = run(*arguments)
    assert isinstance(ran.exception, ComityError)
    assert ran.stdout == ""
    return ran.exception


def evaluated(shell: str, lines: str) -> dict[str, str]:
    """The environment of a program that `shell` starts after it has evaluated `lines`."""
    script = f'eval "$1"; exec {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    ran = subprocess.run([shell, "-c", script, shell, lines], env={}, capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout))


def test_a_pinned_node_gives_the_url_of_its_gateway(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 1)
    (home,), url = founded.homes, f"http://127.0.0.1:{free_port()}"
    home.set("gateway", http=url.removeprefix("http://"), url=url)
    pin(founded.federation.encode())
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
        asyncio.run(node.ready())
        printed = run("env", "--node", home.name)
        assert evaluated("sh", printed.stdout)["HF_ENDPOINT"] == url
        assert "claims" in printed.stderr
        assert "claims" not in printed.stdout
        document = json.loads(run("env", "--json").stdout)
        assert document["endpoint"] == {"url": url, "basis": "claimed", "node": home.name}
        assert document["set"]["HF_ENDPOINT"] == url
        (state,) = json.loads(run("status", "--json").stdout)["nodes"]
        assert state["gateway_claimed"] == url
        assert f"{home.name} {url}" in " ".join(run("status").stdout.split())
        ask = "import os, urllib.request; print(urllib.request.urlopen(os.environ['HF_ENDPOINT'] + '/healthz').status)"
        own = [
            sys.executable,
            "-m",
            "comity_cli.main",
            "run-with",
            "--node",
            home.name,
            "--",
            sys.executable,
            "-c",
            ask,
        ]
        assert subprocess.run(own, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout == "200\n"


@pytest.mark.parametrize("asked", [("env",), ("run-with", "--", "true")], ids=["env", "run-with"])
def test_a_node_without_a_gateway_url_is_reported_with_the_next_step(
    federation: FakeFederation, asked: tuple[str, ...]
) -> None:
    error = refused(*asked)
    assert error.code == "NO-GATEWAY"
    assert "--node URL" in error.hint


@pytest.mark.parametrize(
    "lie",
    [
        "https://models.example.org/$(touch pwned)",
        "https://models.example.org/`touch pwned`",
        "https://models.example.org;touch pwned",
        "https://models.example.org'\ntouch pwned #",
        "https://models.example.org/\x1b]0;pwned\x07",
        "https://me:hf_secret@models.example.org",
        "https://models.example.org/?token=hf_secret",
        "file:///etc/passwd",
        "https://models.example.org/" + "x" * 4096,
    ],
    ids=["command", "backquotes", "two commands", "two lines", "terminal", "password", "query", "scheme", "length"],
)
def test_a_hostile_gateway_url_reaches_no_shell_and_no_terminal(federation: FakeFederation, lie: str) -> None:
    federation.nodes[0].gateway = GatewayUrl(lie, "https", Address("models.example.org", 443))
    assert refused("env").code == refused("run-with", "--", "true").code == "GATEWAY-URL"
    (state,) = json.loads(run("status", "--json").stdout)["nodes"]
    assert (state["reachable"], state["gateway_claimed"]) == (False, "")
    assert "pwned" not in run("status").output


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_values_are_quoted_even_if_the_parser_accepted_anything(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    hostile = "https://models.example.org/'$(touch pwned)`touch pwned`\"; touch pwned\\"
    monkeypatch.setattr(GatewayUrl, "parse", lambda text: GatewayUrl(text, "https", Address("x", 443)))
    printed = run("env", "--url", hostile)
    assert evaluated(shell, printed.stdout)["HF_ENDPOINT"] == hostile
    assert not Path("pwned").exists()


def test_the_user_is_asked_for_a_node_if_there_are_several() -> None:
    with FakeFederation(("CH", "ES")).running() as federation:
        pin(federation.file())
        federation.nodes[1].gateway = GatewayUrl.parse(TOLD)
        first, second = (fake.node.record.name for fake in federation.nodes)
        error = refused("env")
        assert (error.code, first in error.why, second in error.why) == ("NO-GATEWAY", True, True)
        assert json.loads(run("env", "--node", second, "--json").stdout)["endpoint"]["url"] == TOLD
        assert refused("env", "--node", "nobody").hint == "comity status"


def test_without_a_pin_no_node_is_known() -> None:
    assert refused("env").code == "NO-NODES"


def test_a_folder_that_is_named_is_not_passed_over(federation: FakeFederation, tmp_path: Path) -> None:
    federation.nodes[0].gateway = GatewayUrl.parse(TOLD)
    name = federation.nodes[0].node.record.name
    assert refused("env", "--dir", str(tmp_path), "--node", name).code == "NO-GATEWAY"


def test_a_distant_nodes_loopback_url_is_not_used(federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    async def node(client: NodeClient) -> NodeFacts:
        return NodeFacts("comity/far", "node.example/log", gateway=GatewayUrl.parse("http://127.0.0.1:7480"))

    monkeypatch.setattr(NodeClient, "connected", node)  # nobody is at the distant address
    monkeypatch.setattr(NodeClient, "node", node)
    assert json.loads(run("env", "--json").stdout)["set"]["HF_ENDPOINT"] == "http://127.0.0.1:7480"
    federation._addresses = dict.fromkeys(federation._addresses, "192.0.2.1:7444")
    monkeypatch.setenv("COMITY_HOME", str(Path("far").absolute()))
    pin(federation.file())
    error = refused("env")
    assert (error.code, "this machine" in error.why) == ("NO-GATEWAY", True)


def test_the_nodes_of_a_lab_give_their_gateway_addresses(tmp_path: Path) -> None:
    for node in Lab.create(tmp_path / "lab", {}).nodes:
        told = NodeConfig.load(node.home / "node.toml", environ={}).gateway.advertised_url()
        assert str(told) == node.endpoint
