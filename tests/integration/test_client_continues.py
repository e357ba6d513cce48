"""`comity continues` and what `comity show` says of it: who names which bytes, and what is logged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.rules.continuation import Continues
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity_cli.main import command
from comity_client.client import Client
from comity_client.publishers import Publisher
from support.fakes import FakeFederation
from support.world import seat

ORIGIN = f"hf:org/tiny@{'1f' * 20}"
OTHER = sha256(b"other")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["--json", *(str(word) for word in words)])
    assert result.exit_code == 0, (result.output, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def refused(*words: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert isinstance(result.exception, ComityError), result.output
    return result.exception.code


@pytest.fixture
def name(client: Client, tmp_path: Path, publisher: Publisher) -> str:
    """An artifact that the publisher published."""
    named = f"lab-{publisher.id[:8]}/kept@v1"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights.bin").write_bytes(publisher.id.encode() * 100)
    run("publish", tmp_path / "source", "--licence", "mit", "--as", named)
    return named


def test_members_corroborate_what_a_publisher_says(name: str, federation: FakeFederation, publisher: Publisher) -> None:
    def say(code: str, artifact: str) -> None:
        by = seat(code)
        said = Continues(by.inception.author, Digest(artifact), origin, 0)
        federation.nodes[0]._append(sign_content(said, by.signer).line)

    origin = f"hf:org/tiny-{publisher.id[:8]}@{'1f' * 20}"
    artifact = run("continues", name, "--of", origin)["artifact"]
    assert run("show", name)["continues"] == [
        {"origin": origin, "members": [], "claimed_by_others": 1, "other_bytes": []}
    ]
    for code, digest in (("CH", artifact), ("SG", artifact), ("ES", OTHER)):
        say(code, digest)
    (continued,) = run("show", name)["continues"]
    assert continued["members"] == [seat("CH").id, seat("SG").id]
    assert continued["other_bytes"] == [{"artifact": OTHER, "members": [seat("ES").id]}]
    shown = " ".join(CliRunner().invoke(command, ["show", name]).output.split())
    assert "2 members: Institute CH (CH), Institute SG (SG), and 1 who counts for no member" in shown
    assert "Institute ES (ES) name other bytes" in shown


def test_what_counts_already_is_not_logged_again_and_is_withdrawn_once(name: str, federation: FakeFederation) -> None:
    assert refused("continues", name, "--of", ORIGIN, "--withdraw") == "CONTINUES-STATED"
    run("continues", name, "--of", ORIGIN)
    before = [len(node.log.lines) for node in federation.nodes]
    assert refused("continues", name, "--of", ORIGIN) == "CONTINUES-STATED"
    assert refused("continues", name, "--of", "org/tiny@v1") == "BAD-ORIGIN"
    assert [len(node.log.lines) for node in federation.nodes] == before
    run("continues", name, "--of", ORIGIN, "--withdraw")
    assert run("show", name)["continues"] == []
    run("continues", name, "--of", ORIGIN)
    assert [each["origin"] for each in run("show", name)["continues"]] == [ORIGIN]
