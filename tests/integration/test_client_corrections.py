"""What a publisher states again about the same bytes: licences are spelled, and the newest statement counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.errors import Malformed
from comity_cli.main import main
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.fakes import FakeFederation

FILES = {"LICENSE": b"Apache License\n", "README.md": b"# Tiny\n", "model.safetensors": bytes(range(256)) * 64}


@pytest.fixture
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def publisher(client: Client) -> Publisher:
    return client.new_publisher("Lab One", "CH", "node-ch.example/log")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for path, data in FILES.items():
        (folder / path).write_bytes(data)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, client: Client, *words: str) -> object:
    monkeypatch.setenv("COMITY_HOME", str(client.home.root))
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_a_licence_is_published_as_spdx_spells_it(client: Client, publisher: Publisher, source: Path) -> None:
    client.publish(source, "lab/tiny@v1", publisher=publisher, licence="apache-2.0 or mit")
    shown = client.show("lab/tiny@v1").publication
    assert shown is not None and shown.published.licence.spdx == "Apache-2.0 OR MIT"


def test_a_mistyped_licence_is_refused_before_anything_is_hashed(
    client: Client, publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(Malformed) as caught:
        client.publish(tmp_path / "no folder", "lab/tiny@v1", publisher=publisher, licence="Apache2")
    assert (caught.value.code, caught.value.hint.partition(",")[0]) == ("BAD-LICENCE", "--licence Apache-2.0")


@pytest.mark.parametrize("option", ["--licence", "--license"])
def test_a_licence_is_given_in_either_spelling_of_the_option(
    option: str,
    client: Client,
    publisher: Publisher,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("publish", str(source), "--as", "lab/tiny@v1", option)
    assert run(monkeypatch, client, *words, "Apache2", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BAD-LICENCE"
    assert run(monkeypatch, client, *words, "llama3", option.replace("--", "--unlisted-")) == 0
    shown = client.show("lab/tiny@v1").publication
    assert shown is not None and shown.published.licence.spdx == "llama3"
