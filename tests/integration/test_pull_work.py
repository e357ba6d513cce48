"""How much a pull computes: the evidence is parsed, bound and proven once, on short stacks. Counts, no times."""

from __future__ import annotations

from pathlib import Path

import comity_client.evidence.resolve
import comity_client.pull.pull  # noqa: F401  # loaded before it is counted
import pytest
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, release
from support.own_calls import own_calls
from support.weights import as_tensor
from support.world import identity

FILES = {"config.json": b'{"hidden_size":8}\n', "model.safetensors": as_tensor(bytes(1024 * 1024))}


def test_a_pull_proves_each_line_signature_and_proof_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = release(tmp_path / "source", FILES, by=identity("Swiss AI", "CH"))
    client = Client(Home(tmp_path / "home"))
    with FakeFederation().running() as federation:
        federation.publish(made)
        client.pin(federation.file())
        with own_calls(monkeypatch) as work:
            pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert pulled.verdict.accepted
    assert (pulled.files, len(work.included)) == (2, len(federation.nodes) + 1), (
        "a publication, and a hold of each node"
    )
    assert 1 <= work.named["bind_nodes"] <= 2
    assert set(work.parsed.values()) == {1}
    assert set(work.included.values()) == {1}
    assert set(work.signatures.values()) == {1}
    assert work.mean_stack < 11
