"""The gateway that `env` and `run-with` use: where its URL is from, and what is said of it."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity_cli import gateways
from comity_cli.gateways import Endpoint, check_answers, endpoint, gateway_options, warn_of_proxy
from support.run_command import run


@pytest.fixture(autouse=True, name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; the nodes of the user claim a gateway."""

    class Nodes:
        def gateway(self, node: str) -> Any:
            if node == "nobody":
                raise NotFound("no such node", code="NO-NODES")
            return SimpleNamespace(url=f"https://{node or 'only'}.example", node=node or "only")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gateways, "client", Nodes)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path


def home(path: Path, text: str = '[gateway]\nhttp = "127.0.0.1:7480"\n') -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "node.toml").write_text(text)
    return path


def found(directory: Path | None = None, node: str | None = None, url: str = "") -> tuple[Endpoint, str]:
    """The endpoint, and what is warned of."""
    got: list[Endpoint] = []

    @click.command()
    def command() -> None:
        got.append(endpoint(directory, node, url))

    result = run(command)
    if result.exception:
        raise result.exception
    return got[0], result.output


def test_a_url_is_taken_as_it_is_given() -> None:
    assert found(url="https://a.example") == (Endpoint("https://a.example", "given"), "")
    assert found(node="http://b.example:1") == (Endpoint("http://b.example:1", "given"), "")
    assert found(node="http://b.example:1", url="https://a.example")[0].url == "https://a.example"


def test_a_home_has_its_url_in_its_settings(folder: Path) -> None:
    here = Endpoint("http://127.0.0.1:7480", "settings")
    assert found(node=str(home(folder / "node")))[0] == here
    assert found(directory=folder / "node")[0] == here
    home(folder)
    assert found()[0] == here
    secure = '[gateway]\nhttp = "0.0.0.0:7480"\ncertificate = "x.pem"\n'
    assert found(node=str(home(folder / "secure", secure)))[0].url == "https://127.0.0.1:7480"
    named = '[gateway]\nhttp = "127.0.0.1:1"\nurl = "https://models.example"\n'
    assert found(node=str(home(folder / "named", named)))[0].url == "https://models.example"


def test_an_operator_socket_names_the_home_that_it_is_in(folder: Path) -> None:
    home(folder / "n")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("n/o.sock")
        assert found(node="n/o.sock")[0].basis == "settings"
    (folder / "n" / "node.toml").unlink()
    assert found(node="n/o.sock")[0].basis == "claimed"


def test_a_lab_has_the_node_of_that_name_or_the_first(folder: Path) -> None:
    for port, name in enumerate(("node-ch", "node-es"), 1):
        home(folder / "lab" / name, f'[gateway]\nhttp = "127.0.0.1:{port}"\n')
    assert found(node=str(folder / "lab"))[0].url == "http://127.0.0.1:1"
    assert found(directory=folder / "lab", node="node-es")[0].url == "http://127.0.0.1:2"
    with pytest.raises(NotFound, match="no node 'node-kr'") as raised:
        found(directory=folder / "lab", node="node-kr")
    assert raised.value.code == "NO-GATEWAY"


def test_a_folder_without_a_node_is_refused_and_not_asked_elsewhere(folder: Path) -> None:
    with pytest.raises(NotFound, match="neither a node nor a lab") as raised:
        found(directory=folder)
    assert raised.value.code == "NO-GATEWAY"


@pytest.mark.parametrize("port", ["", "127.0.0.1:0"])
def test_a_home_without_a_fixed_port_has_no_url(folder: Path, port: str) -> None:
    with pytest.raises(NotFound) as raised:
        found(node=str(home(folder / "node", f'[gateway]\nhttp = "{port}"\n')))
    assert raised.value.code == "NO-GATEWAY"


def test_what_a_node_claims_is_a_warning(folder: Path) -> None:
    place, text = found(node="node-kr")
    assert place == Endpoint("https://node-kr.example", "claimed", "node-kr")
    assert "is the gateway that node-kr claims to have; this is not proven" in " ".join(text.split())
    assert found()[0] == Endpoint("https://only.example", "claimed", "only")
    with pytest.raises(ComityError) as raised:
        found(node="nobody")
    assert raised.value.code == "NO-NODES"


def warned(url: str) -> str:
    @click.command()
    def command() -> None:
        warn_of_proxy(url)

    result = run(command)
    if result.exception:
        raise result.exception
    return " ".join(result.output.split())


def test_a_proxy_matters_for_gateways_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned("https://models.example") == ""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:tiger@proxy.example:1")
    text = warned("https://models.example/")
    assert "HTTPS_PROXY is set: clients ask models.example through that proxy" in text and "tiger" not in text
    assert "export NO_PROXY=models.example" in text
    assert warned("http://127.0.0.1:7480") == warned("http://[::1]:7480") == ""
    with pytest.raises(Malformed):
        warned("no url")
    monkeypatch.setenv("no_proxy", "x")
    assert warned("https://models.example") == ""


def test_a_gateway_that_does_not_listen_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
        check_answers(place)
    with pytest.raises(Unavailable, match="no gateway answers at http://127") as raised:
        check_answers(place)
    assert raised.value.code == "UNREACHABLE" and "comity serve" in raised.value.hint


@pytest.mark.parametrize(
    ("url", "port"), [("http://a.example", 80), ("https://a.example", 443), ("https://a.example:1", 1)]
)
def test_the_port_of_a_scheme_is_the_default(monkeypatch: pytest.MonkeyPatch, url: str, port: int) -> None:
    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        tried.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(socket, "create_connection", connect)
    check_answers(url)
    assert tried == [("a.example", port)]


def test_the_options_are_given_to_the_command(folder: Path) -> None:
    got: dict[str, Any] = {}

    @click.command()
    @gateway_options
    def command(**options: Any) -> None:
        got.update(options)

    run(command)
    assert got == {"node": None, "directory": None, "url": "", "token_file": None, "ca": None}
    run(command, "--node", "x", "--token-file", "t", "--ca", "c", "--url", "u", "--dir", "d")
    expected = {"node": "x", "directory": Path("d"), "url": "u", "token_file": Path("t"), "ca": Path("c")}
    assert got == expected
