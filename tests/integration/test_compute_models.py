"""The memory that a model needs is read from file headers: of a folder, and of nodes, without fetching weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from comity.addons.fit.kv_cache import Cache, UnknownCache
from comity.addons.fit.model_memory import read_model
from comity.transfer.limits import TransferLimits
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity_client.client import Client
from comity_client.home import Home
from support.federation import found, processes
from support.waiting import PATIENCE
from support.weights import gguf, safetensors

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64,
          "rms_norm_eps": 1e-05}  # fmt: skip
TENSORS = {"a": bytes(5_000_000), "b": bytes(7)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "model-00001-of-00002.safetensors").write_bytes(safetensors(TENSORS))
    (made / "model-00002-of-00002.safetensors").write_bytes(safetensors({"c": bytes(100)}))
    (made / "LICENSE").write_text("Do as you like.\n")
    return made


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(Home(tmp_path / "home"), limits=TransferLimits(patience=PATIENCE))


def test_the_memory_of_a_folders_model_is_computed(folder: Path, client: Client) -> None:
    model = read_model(client, folder)
    assert model.weights.by_type == {"U8": 5_000_107}
    assert model.weights.source == "the headers of 2 files"
    assert isinstance(model.cache, Cache)
    assert model.cache.bytes(10, 1, 2) == 2 * 10 * 2 * 64 * 2


def test_a_file_with_an_invalid_header_is_counted_by_its_size(folder: Path, client: Client) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"\xff" * 100)
    first = (folder / "model-00001-of-00002.safetensors").stat().st_size
    assert read_model(client, folder).weights.by_type == {"unknown": first + 100}


@pytest.mark.parametrize("config", [None, b"", b"[]", b"{", b"[" * 100_000, b'{"model_type": 7}'])
def test_an_empty_configuration_leaves_the_cache_unknown(folder: Path, client: Client, config: bytes | None) -> None:
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_bytes(config)
    assert isinstance(read_model(client, folder).cache, UnknownCache)


def test_of_several_quantizations_one_is_chosen(tmp_path: Path, client: Client) -> None:
    for name in ("m-Q4_K_M", "m-Q8_0"):
        (tmp_path / f"{name}.gguf").write_bytes(gguf({"a": bytes(64)}))
    with pytest.raises(Malformed):
        read_model(client, tmp_path)
    model = read_model(client, tmp_path, "*Q8_0*")
    assert model.weights.by_type == {"I8": 64}
    assert isinstance(model.cache, UnknownCache)  # this header has no layers and heads


def test_a_folder_without_weights_fits_nowhere(tmp_path: Path, client: Client) -> None:
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(NotFound) as refused:
        read_model(client, tmp_path)
    assert refused.value.code == "NO-WEIGHTS"


def test_nodes_give_the_same_result_and_no_weights_are_fetched(
    folder: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    founded = found(tmp_path / "nodes", 1)
    client.pin(founded.federation.encode())
    publisher = client.new_publisher("Swiss AI", "CH", founded.homes[0].origin)
    with processes(*founded.homes) as nodes:
        asyncio.run(nodes[0].ready())
        client.publish(folder, "swiss-ai/tiny@v1", publisher=publisher, licence="mit")
        read: list[tuple[int, int]] = []
        keep(monkeypatch, read)
        model = read_model(client, "swiss-ai/tiny@v1")
    here = read_model(client, folder)
    assert (model.weights.by_type, model.cache) == (here.weights.by_type, here.cache)
    assert sum(length for _, length in read) < 10_000, read
    assert all(offset == 0 for offset, _ in read)


def keep(monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int]]) -> None:
    """Record which ranges of blobs are asked for."""
    from comity.wire.client import NodeClient

    real = NodeClient.read

    def noting(self: NodeClient, digest: Digest, offset: int, length: int) -> object:
        read.append((offset, length))
        return real(self, digest, offset, length)

    monkeypatch.setattr(NodeClient, "read", noting)
