"""`comity derive check` by the public API and by the command: small weights, fake nodes behind the real wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.addons.derivation.derive import Derivation, derive
from comity.trust.errors import Conflict, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statement import parse_entry
from comity.trust.statements import Derived
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.derivations import Named, each, flip, sharded, to_bf16, write_safetensors
from support.fakes import FakeFederation

WEIGHTS: list[Named] = [(f"layer.{n}.weight", "F32", (8, 8), bytes(range(n, n + 256 - n)) + bytes(n)) for n in range(6)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Client:
    return Client(Home(home))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = write_safetensors(tmp_path / "parent" / "model.safetensors", WEIGHTS).parent
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def child(tmp_path: Path) -> Path:
    return sharded(tmp_path / "child", each(WEIGHTS, to_bf16), 2)


def derivation_of(client: Client, child: Path, parent: Path) -> Derivation:
    return derive(client.local_copy(child), client.local_copy(parent))


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(command, ["derive", "check", *map(str, words)], standalone_mode=False)


def test_an_exact_derivation_is_a_statement_about_both_digests(client: Client, child: Path, parent: Path) -> None:
    found = derivation_of(client, child, parent)
    said = found.statement_by(client.new_publisher("Lab", "CH", "").inception.author)
    assert (said.result, said.relation) == ("exact", "converted")
    assert (said.child, said.parent) == (found.child.artifact, found.parent.artifact)
    assert said.tensors.total == said.tensors.equal == len(WEIGHTS)


def test_shards_are_the_same_weights(client: Client, tmp_path: Path, parent: Path) -> None:
    assert derivation_of(client, sharded(tmp_path / "cut", WEIGHTS, 3), parent).relation == "same-weights"


@pytest.fixture
def publisher(client: Client, federation: FakeFederation) -> Publisher:
    client.pin(federation.file({}))
    return client.new_publisher("Checking lab", "ES", "node-es.example/log")


def test_the_result_of_a_check_is_logged_and_proven(
    child: Path, parent: Path, publisher: Publisher, federation: FakeFederation
) -> None:
    ran = run(child, parent, "--log", "node-es.example", "--sign-as", "Checking lab", "--json")
    assert ran.return_value == 0, ran.output
    document = json.loads(ran.output)
    logged = document["receipt"]["logged"][0]
    node = next(node for node in federation.nodes if node.log.origin == "node-es.example/log")
    said = Derived.parse(parse_entry(node.log.lines[logged["index"]]).statement)
    assert said.by == publisher.inception.author
    assert (said.child, said.parent) == (document["child"]["artifact"], document["parent"]["artifact"])
    assert said.steps == document["steps"] == {"bf16-nearest-even": len(WEIGHTS)}


def test_the_command_names_the_element_that_was_altered(home: Path, child: Path, parent: Path) -> None:
    exact = run(child, parent)
    assert exact.return_value == 0
    assert "EXACT" in exact.output
    flip(child / "model-00002-of-00002.safetensors", "layer.3.weight", 17, 2)
    altered = run(child, parent)
    assert altered.return_value == 8
    assert "EXACT" not in altered.output
    assert "layer.3.weight: element 17 has bytes" in altered.output
    (difference,) = json.loads(run(child, parent, "--json").output)["differences"]
    assert (difference["tensor"], difference["element"], difference["differing"]) == ("layer.3.weight", 17, 1)


def test_a_label_without_a_node_is_a_mistake(home: Path, child: Path, parent: Path) -> None:
    ran = run(child, parent, "--sign-as", "Checking lab")
    assert "--sign-as goes with --node" in str(ran.exception)


def test_sides_that_cannot_be_compared_say_why(client: Client, tmp_path: Path, child: Path, parent: Path) -> None:
    with pytest.raises(Conflict) as same:
        derivation_of(client, parent, parent)
    assert same.value.code == "SAME-ARTIFACT"
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "pytorch_model.bin").write_bytes(b"?")
    with pytest.raises(NotFound, match=r"pytorch_model\.bin") as none:
        derivation_of(client, bare, parent)
    assert none.value.code == "NO-WEIGHTS"
    with pytest.raises(NotFound, match="one file"):
        client.local_copy(str(parent / "model.safetensors"))
    with pytest.raises(NotFound):
        client.local_copy("inst/nowhere@v1", hub_cache=tmp_path)
    (child / "link").symlink_to("model-00001-of-00002.safetensors")
    with pytest.raises(Malformed) as link:
        client.local_copy(child)
    assert link.value.code == "NOT-A-FILE"


def test_files_that_are_not_those_of_their_manifest_are_not_compared(client: Client, parent: Path) -> None:
    pack = parent / ".comity"
    pack.mkdir()
    (pack / "manifest.json").write_bytes(client.local_copy(parent).manifest.encode())
    assert client.local_copy(parent).title == "parent"
    (parent / "config.json").write_text("{ }")
    with pytest.raises(Untrusted, match=r"config\.json") as changed:
        client.local_copy(parent)
    assert changed.value.code == "NOT-AS-LISTED"
    (parent / "config.json").write_text("{}")
    (parent / "more.json").write_text("{}")
    with pytest.raises(Untrusted, match=r"more\.json"):
        client.local_copy(parent)
    (parent / "more.json").unlink()
    (parent / "config.json").unlink()
    with pytest.raises(Unavailable, match=r"config\.json") as missing:
        client.local_copy(parent)
    assert missing.value.code == "PARTLY-HERE"


def test_a_file_that_changes_after_it_was_hashed_proves_nothing(client: Client, child: Path, parent: Path) -> None:
    sides = client.local_copy(child), client.local_copy(parent)
    flip(parent / "model.safetensors", "layer.3.weight", 17, 4)
    with pytest.raises(Conflict) as changed:
        derive(*sides)
    assert changed.value.code == "CHANGED"
