"""A policy that is written for one artifact: what it accepts, and that it can be met."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import NotFound
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from support import weights
from support.fakes import FakeFederation

NAME = "lab/tiny@v1"


@pytest.fixture(name="federation")
def _federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture(name="client")
def _client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


def run(*arguments: str) -> object:
    """Run the command; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_it_accepts_the_publisher_alone_passes_check_and_says_what_to_decide(
    tmp_path: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(weights.safetensors({"a": b"A" * 4096}))
    publisher = client.new_publisher("Lab One", "CH", "node-ch.example/log")
    client.publish(source, NAME, publisher=publisher, licence="MIT")
    file = tmp_path / "policy.toml"
    assert run("policy", "new", "--for", NAME, "--out", str(file)) == 0
    said = capsys.readouterr().out
    assert "compare by telephone" in said and "the publisher says MIT" in said
    assert client.policy(file).publishers == {publisher.id}
    assert 'accept = ["MIT"]' in file.read_text()
    assert run("policy", "check", str(file)) == 0
    assert "can be met" in capsys.readouterr().out


def test_an_unknown_name_writes_nothing(tmp_path: Path, client: Client) -> None:
    file = tmp_path / "policy.toml"
    assert run("policy", "new", "--for", NAME, "--out", str(file)) == NotFound.exit_status
    assert not file.exists()
