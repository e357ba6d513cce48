"""Accusations that nodes keep against logs, verified again by the client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.rules.misbehaviour import ROOTS
from comity.trust.errors import NotFound
from comity.wire.log import ShownMisbehaviour
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, fork
from support.world import Log


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    with FakeFederation().running() as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file())
    return client


def note(log: Log) -> bytes:
    return log.checkpoint().signed(log.key).encode()


def two_histories(log: Log) -> ShownMisbehaviour:
    other = fork(log, 1)
    other.append(b"another second line")
    return ShownMisbehaviour(ROOTS, log.origin, (note(log), note(other)))


def test_a_proof_that_nodes_keep_is_proven_here_once(federation: FakeFederation, client: Client) -> None:
    first, second, liar, _ = federation.nodes
    proof = two_histories(liar.log)
    first.misbehaving = [proof]
    second.misbehaving = [ShownMisbehaviour(proof.kind, proof.origin, proof.parts[::-1])]
    (found,) = client.accusations()
    assert (found.proven, found.log, found.why) == (True, liar.node.origin, "")
    assert set(found.nodes) == {first.node.record.name, second.node.record.name}


def test_an_invalid_proof_is_only_the_claim_of_the_node_that_shows_it(
    federation: FakeFederation, client: Client
) -> None:
    slanderer, victim, *_ = federation.nodes
    honest = note(victim.log)
    slanderer.misbehaving = [ShownMisbehaviour(ROOTS, victim.node.origin, (honest, honest))]
    (found,) = client.accusations()
    assert (found.proven, found.nodes) == (False, (slanderer.node.record.name,))
    assert found.why


def test_a_log_that_no_pinned_federation_knows_is_accused_by_claim_only(
    federation: FakeFederation, client: Client
) -> None:
    proof = two_histories(federation.nodes[0].log)
    federation.nodes[1].misbehaving = [ShownMisbehaviour(proof.kind, "elsewhere.example/log", proof.parts)]
    (found,) = client.accusations()
    assert not found.proven


def test_only_the_named_node_is_asked(federation: FakeFederation, client: Client) -> None:
    first, second, liar, _ = federation.nodes
    first.misbehaving = [two_histories(liar.log)]
    assert client.accusations([second.node.record.name]) == []
    assert len(client.accusations([first.node.record.name])) == 1
    with pytest.raises(NotFound):
        client.accusations(["nobody"])


def test_the_command_line_marks_proofs_and_claims(
    federation: FakeFederation, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slanderer, victim, liar, _ = federation.nodes
    honest = note(victim.log)
    slanderer.misbehaving = [two_histories(liar.log), ShownMisbehaviour(ROOTS, victim.node.origin, (honest, honest))]
    monkeypatch.setenv("COMITY_HOME", str(client.home.root))
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(command, ["log", "misbehaviour", "--all"], catch_exceptions=False).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert "proven here" in lines[liar.node.origin]
    assert f"claimed by {slanderer.node.record.name}" in lines[victim.node.origin]
    arguments = ["log", "misbehaviour", "--node", slanderer.node.record.name, "--json"]
    told = json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).stdout)
    assert {item["log"]: item["basis"] for item in told["accusations"]} == {
        liar.node.origin: "proven",
        victim.node.origin: "claimed",
    }
