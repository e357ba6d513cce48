"""`comity diff` over folders and references, with fake nodes behind the real wire."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from comity.addons.derivation.diff import GGUF, Shared, TensorChanges, compare
from comity.trust.errors import NotFound
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.derivations import Named, flip, llama_gguf, sharded, write_safetensors
from support.fakes import FakeFederation

LARGE = os.urandom(3 * 1024 * 1024)
WEIGHTS: list[Named] = [
    ("a.weight", "F32", (8, 8), bytes(256)),
    ("b.weight", "U8", (len(LARGE),), LARGE),
    ("c.weight", "F32", (4,), bytes(16)),
]


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def lab(client: Client) -> Publisher:
    return client.new_publisher("Lab One", "CH", "node-ch.example/log")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    folder = write_safetensors(tmp_path / "one" / "model.safetensors", WEIGHTS).parent
    (folder / "config.json").write_text('{"layers": 2, "torch_dtype": "float32"}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 1}}}')
    (folder / "LICENSE").write_text("Apache\n")
    return folder


@pytest.fixture
def two(tmp_path: Path, one: Path) -> Path:
    folder = write_safetensors(
        tmp_path / "two" / "model.safetensors", [*WEIGHTS[:2], ("d.weight", "F32", (1,), bytes(4))]
    ).parent
    flip(folder / "model.safetensors", "a.weight", 3, 4)
    (folder / "config.json").write_text('{"layers": 2, "torch_dtype": "bfloat16"}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "c": 1}}}')
    (folder / "COPYING").write_text("Apache\n")
    return folder


def run(*words: str | Path) -> str:
    ran = CliRunner().invoke(command, ["diff", *map(str, words)], standalone_mode=False, catch_exceptions=False)
    assert not ran.return_value
    return ran.output


def test_two_folders_are_compared_down_to_tensors_keys_and_tokens(client: Client, one: Path, two: Path) -> None:
    found = compare(client, one, two)
    assert [(old.path, new.path) for old, new in found.files.renamed] == [("LICENSE", "COPYING")]
    assert {old.path for old, _ in found.files.changed} == {"config.json", "model.safetensors", "tokenizer.json"}
    tensors = found.tensors
    assert isinstance(tensors, TensorChanges)
    assert (tensors.same, tensors.same_bytes) == (1, len(LARGE))
    assert tensors.changed == (("a.weight", "other bytes"),)
    assert (tensors.added, tensors.removed) == (("d.weight",), ("c.weight",))
    (change,) = found.keys["config.json"] or ()
    assert (change.key, change.before, change.after) == ("torch_dtype", '"float32"', '"bfloat16"')
    assert found.tokens is not None
    assert (found.tokens.added, found.tokens.removed) == (1, 1)
    assert not found.unread


def test_shards_differ_in_files_and_in_no_tensor(tmp_path: Path, client: Client, one: Path) -> None:
    found = compare(client, one, sharded(tmp_path / "cut", WEIGHTS, 2))
    assert isinstance(found.tensors, TensorChanges)
    assert (found.tensors.same, found.tensors.changed, found.tensors.added) == (3, (), ())
    assert found.files.same == 0


def test_references_that_are_not_here_are_compared_by_pieces_and_small_files(
    client: Client, lab: Publisher, one: Path, two: Path
) -> None:
    client.publish(one, "lab/tiny@v1", publisher=lab, licence="Apache-2.0")
    client.publish(two, "lab/tiny@v2", publisher=lab, licence="MIT")
    found = compare(client, "lab/tiny@v1", "lab/tiny@v2")
    assert (found.before.folder, found.after.folder) == (None, None)
    assert isinstance(found.tensors, Shared)
    assert len(LARGE) <= found.tensors.shared < found.tensors.bytes
    assert found.keys["config.json"]
    assert found.tokens is not None
    text = run("lab/tiny@v1", "lab/tiny@v2")
    assert "its bytes are not here" in text
    assert "tensors were not read" in text
    assert "Apache-2.0 → MIT, as claimed" in text


def test_a_file_that_became_empty_at_nodes_is_compared(client: Client, lab: Publisher, one: Path, two: Path) -> None:
    (two / "config.json").write_bytes(b"")
    client.publish(one, "lab/tiny@v1", publisher=lab, licence="MIT")
    client.publish(two, "lab/tiny@v2", publisher=lab, licence="MIT")
    found = compare(client, "lab/tiny@v1", "lab/tiny@v2")
    assert found.keys == {"config.json": None}
    assert not found.unread


def test_pulled_artifacts_are_compared_by_their_tensors(client: Client, lab: Publisher, one: Path, two: Path) -> None:
    for number, folder in enumerate((one, two), 1):
        client.publish(folder, f"lab/tiny@v{number}", publisher=lab, licence="MIT")
        client.pull(f"lab/tiny@v{number}")
    found = compare(client, "lab/tiny@v1", "lab/tiny@v2")
    assert isinstance(found.tensors, TensorChanges)
    mixed = compare(client, "lab/tiny@v1", two)
    assert isinstance(mixed.tensors, TensorChanges)


def test_a_folder_against_a_reference_shares_pieces(client: Client, lab: Publisher, one: Path, two: Path) -> None:
    client.publish(two, "lab/tiny@v2", publisher=lab, licence="MIT")
    found = compare(client, one, "lab/tiny@v2")
    assert isinstance(found.tensors, Shared)
    assert found.tensors.shared >= len(LARGE)


def test_different_publishers_are_a_difference(client: Client, lab: Publisher, one: Path) -> None:
    other = client.new_publisher("Lab Two", "ES", "node-es.example/log")
    (one / "more.txt").write_text("x")
    client.publish(one, "lab/tiny@v1", publisher=lab, licence="MIT")
    (one / "more.txt").write_text("y")
    client.publish(one, "elsewhere/tiny@v1", publisher=other, licence="MIT")
    document = json.loads(run("lab/tiny@v1", "elsewhere/tiny@v1", "--json"))
    before, after = document["vouching"]["signatures"]
    assert "Lab One" in before["summary"]
    assert "Lab Two" in after["summary"]
    assert document["licence"] == ["MIT", "MIT"]
    assert [document[side]["basis"] for side in ("before", "after")] == ["claims", "claims"]


def test_two_gguf_files_are_compared_by_their_metadata(tmp_path: Path, client: Client) -> None:
    floats: list[Named] = [("model.embed_tokens.weight", "F32", (4, 32), bytes(512))]
    for name, heads in (("first", 4), ("second", 8)):
        llama_gguf(tmp_path / name / "m.gguf", floats, "Q8_0", 1, heads, 2)
    found = compare(client, tmp_path / "first", tmp_path / "second")
    assert [(c.key, c.before, c.after) for c in found.keys[GGUF] or ()] == [("llama.attention.head_count", "4", "8")]
    assert isinstance(found.tensors, TensorChanges)
    assert found.tensors.same == 1


def test_equal_files_are_reported_as_equal(client: Client, one: Path) -> None:
    assert "the same files, byte for byte" in run(one, one)


def test_weights_with_a_damaged_header_are_reported_as_not_compared(client: Client, one: Path, two: Path) -> None:
    (two / "model.safetensors").write_bytes(b"\xff" * 4096)
    found = compare(client, one, two)
    assert isinstance(found.tensors, Shared)
    assert found.tensors.shared == 0
    assert any("model.safetensors cannot be read" in why for why in found.unread)


def test_an_artifact_that_no_node_has_is_named(client: Client, one: Path) -> None:
    with pytest.raises(NotFound, match="lab/none"):
        compare(client, one, "lab/none@v1")
