"""Weights that were made from published ones, by a cast or by quantising: they stay unknown unless they are published
themselves, and are called derived by nobody but who computed that and signed it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comity.addons.derivation.derive import derive, log_derivation
from comity_client.client import Client
from comity_client.home import Home
from comity_client.identify.identify import Identified
from comity_client.identify.judging import KnownArtifact
from support.derivations import Named, each, flip, llama_gguf, to_bf16, write_safetensors
from support.fakes import FakeFederation, release

WIDTH, WORDS = 128, 1024
CHANGED = "model.layers.0.self_attn.q_proj.weight"
Maker = Callable[[Path, list[Named]], Path]


def tensor(name: str, *shape: int) -> Named:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    words = random.Random(name).choices((0x3F8CCCCD, 0xBEAAAAAB, 0x3DCCCCCD), k=count)
    return name, "F32", shape, b"".join(word.to_bytes(4, "little") for word in words)


WEIGHTS = [
    tensor("model.embed_tokens.weight", WORDS, WIDTH),
    tensor("model.layers.0.input_layernorm.weight", WIDTH),
    tensor(CHANGED, WIDTH, WIDTH),
    tensor("model.norm.weight", WIDTH),
]


def cast(folder: Path, weights: list[Named]) -> Path:
    return write_safetensors(folder / "model.safetensors", each(weights, to_bf16))


def quantised(folder: Path, weights: list[Named]) -> Path:
    return llama_gguf(folder / "model-q8_0.gguf", weights, "Q8_0", 1, 4, 4)


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeFederation]:
    with FakeFederation().running(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture
def client(running: FakeFederation, tmp_path: Path) -> Client:
    made = Client(Home(tmp_path / "home"))
    made.pin(running.file())
    return made


def is_unknown(found: Identified) -> bool:
    """Whether nothing at all is said of the only file."""
    matched = found.matched
    nothing = not (matched.folders or matched.files or found.artifacts or found.tensors.same or found.unsure)
    return nothing and len(matched.unknown) == 1


def only_artifact(found: Identified) -> KnownArtifact:
    (known,) = found.artifacts.values()
    return known


@pytest.mark.parametrize(("make", "relation"), [(cast, "converted"), (quantised, "quantized")])
def test_what_was_made_of_published_weights_is_called_so_where_somebody_proved_it_and_nowhere_else(
    running: FakeFederation, client: Client, tmp_path: Path, make: Maker, relation: str
) -> None:
    parent = write_safetensors(tmp_path / "parent" / "model.safetensors", WEIGHTS)
    running.publish(
        release(tmp_path / "p", {parent.name: parent.read_bytes()}, by=running.publisher, name="swiss-ai/parent@v1")
    )
    child = make(tmp_path / "child", WEIGHTS)
    assert is_unknown(client.identify([child]))

    made = release(tmp_path / "c", {child.name: child.read_bytes()}, by=running.publisher, name="swiss-ai/child@v1")
    running.publish(made)
    known = only_artifact(client.identify([child]))
    assert (known.title, known.derived) == ("swiss-ai/child@v1", ())

    checker = client.new_publisher("Checking lab", "ES", "node-es.example/log")
    derivation = derive(client.local_copy(child.parent), client.local_copy(parent.parent))
    log_derivation(client, derivation, publisher=checker, nodes=["node-es.example"])
    known = only_artifact(client.identify([child]))
    (said,) = known.derived
    assert (known.artifact, said.parent) == (derivation.child.artifact, derivation.parent.artifact)
    assert (said.title, said.relation, said.exact) == ("swiss-ai/parent@v1", relation, True)
    assert said.equal == said.tensors == len(derivation.comparison.tensors)


def test_a_cast_file_with_one_bit_changed_is_not_the_one_that_was_proven(
    running: FakeFederation, client: Client, tmp_path: Path
) -> None:
    parent = write_safetensors(tmp_path / "parent" / "model.safetensors", WEIGHTS)
    child = cast(tmp_path / "child", WEIGHTS)
    for number, path in enumerate((parent, child)):
        files = {path.name: path.read_bytes()}
        running.publish(
            release(tmp_path / f"{number}", files, by=running.publisher, name=f"swiss-ai/model-{number}@v1")
        )
    checker = client.new_publisher("Checking lab", "ES", "node-es.example/log")
    derivation = derive(client.local_copy(child.parent), client.local_copy(parent.parent))
    log_derivation(client, derivation, publisher=checker, nodes=["node-es.example"])
    flip(child, CHANGED, 5, 2)
    found = client.identify([child])
    assert [each.path for each in found.matched.unknown] == [child] and not found.artifacts
    (same,) = found.tensors.same
    assert same.artifact == derivation.child.artifact
    assert CHANGED in (*same.compared.changed, *same.compared.undecided)
    assert same.compared.same < same.compared.tensors and not same.compared.all_same
