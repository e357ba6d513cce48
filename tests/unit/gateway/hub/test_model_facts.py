"""What files say about a model: counted and read in heads of a bounded length; what cannot be read says nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from comity.content.blobs import FolderStore
from comity.gateway.hub import model_facts
from comity.gateway.hub.model_facts import KnownFacts, ModelFacts, facts_weight, read_model_facts
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from support.weights import gguf

CARD = b"---\nbase_model: org/base\npipeline_tag: fill-mask\nlanguage: de\nlicense: mit\n---\n# T\n"
CONFIG = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512, "eps": 1e-12}


def safetensors(*tensors: tuple[str, list[int], int]) -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for number, (kind, shape, length) in enumerate(tensors):
        header[f"t{number}"] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + length]}
        end += length
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def stored(folder: Path, **files: bytes) -> tuple[Manifest, FolderStore]:
    store, entries = FolderStore(folder), []
    for path, data in files.items():
        entries.append(FileEntry(path.replace("__", "."), len(data), sha256(data)))
        store.put(sha256(data), data)
    return Manifest.of(entries), store


WEIGHTS = safetensors(("BF16", [4, 8], 64), ("F32", [3], 12))


def test_the_facts_of_a_model_are_in_its_heads_its_config_and_its_card(tmp_path: Path) -> None:
    more = safetensors(("BF16", [10], 20))
    manifest, store = stored(
        tmp_path, config__json=json.dumps(CONFIG).encode(), README__md=CARD, a__safetensors=WEIGHTS, b__safetensors=more
    )
    facts, whole = read_model_facts(manifest, store)
    assert whole and (facts.parameters, facts.total) == ({"BF16": 42, "F32": 3}, 45)
    assert (facts.context, facts.task, facts.base_models) == (512, "fill-mask", ("org/base",))
    assert facts.hub_fields() == {
        "config": {"architectures": ["BertModel"], "model_type": "bert"},
        "safetensors": {"parameters": {"BF16": 42, "F32": 3}, "total": 45},
    }
    assert facts.hub_card == {
        "base_model": "org/base",
        "pipeline_tag": "fill-mask",
        "language": ["de"],
        "license": "mit",
    }


def test_a_gguf_is_counted_once_whatever_its_types(tmp_path: Path) -> None:
    one = gguf({"w": bytes(96)}, texts={})
    manifest, store = stored(tmp_path, m_Q4__gguf=one, m_Q8__gguf=gguf({"w": bytes(64)}), mmproj__gguf=one)
    facts, _ = read_model_facts(manifest, store)
    assert facts.gguf and facts.hub_fields() == {
        "config": {"model_type": "llama"},
        "gguf": {"total": 96, "architecture": "llama"},
    }


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": True, "n_ctx": 7}, 7),
        ({"max_position_embeddings": -1}, 0),
        ({"max_position_embeddings": "512"}, 0),
        ({}, 0),
        ([], 0),
    ],
)
def test_the_context_length_is_a_number_that_the_config_has(tmp_path: Path, config: object, context: int) -> None:
    manifest, store = stored(tmp_path, config__json=json.dumps(config).encode())
    assert read_model_facts(manifest, store)[0].context == context


@pytest.mark.parametrize("data", [b"{", b'{"architectures": [1, "\\u0007", "' + b"x" * 101 + b'"]}', b"[" * 5000])
def test_a_hostile_config_says_nothing(tmp_path: Path, data: bytes) -> None:
    manifest, store = stored(tmp_path, config__json=data)
    assert read_model_facts(manifest, store) == (ModelFacts(), True)


def test_weights_with_long_heads_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, store = stored(tmp_path, a__safetensors=WEIGHTS, b__safetensors=safetensors(("F32", [1], 4)))
    monkeypatch.setattr(model_facts, "MAX_READ_BYTES", len(WEIGHTS) - 80)
    assert read_model_facts(manifest, store)[0].parameters == {}
    monkeypatch.undo()
    assert read_model_facts(manifest, store)[0].total == 36


async def test_long_cards_are_kept_within_a_number_of_bytes(tmp_path: Path) -> None:
    """A publisher may fill each README with front matter: kept by number, two thousand of them were half a gigabyte."""
    lines = b"".join(b"k%s: [%s]\n" % (bytes([97 + n // 26, 97 + n % 26]), b"word, " * 60) for n in range(400))
    manifests = list[Manifest]()
    for number in range(3):
        card = b"---\npipeline_tag: task-%d\n%s---\n" % (number, lines)
        manifest, store = stored(tmp_path / "store", README__md=card)
        manifests.append(manifest)
    pools = Pools()
    weight = facts_weight(read_model_facts(manifests[0], store)[0])
    assert weight > 400 * 60 * len("word")
    known = KnownFacts(store, pools, most=2 * weight)
    for manifest in manifests:
        await known.of(manifest.digest, manifest)
    for manifest in manifests:
        store.remove(manifest.files[0].sha256)
    found = [(await known.of(manifest.digest, manifest)).task for manifest in manifests]
    assert found == ["", "task-1", "task-2"], "the first one was displaced, and its file is not here any more"
    pools.close()


async def test_a_file_that_arrives_later_is_read_then(tmp_path: Path) -> None:
    manifest, store = stored(tmp_path / "whole", README__md=CARD, a__safetensors=WEIGHTS)
    empty, pools = FolderStore(tmp_path / "empty"), Pools()
    known = KnownFacts(empty, pools)
    assert await known.of(manifest.digest, manifest) == ModelFacts()
    for entry in manifest.files:
        empty.put(entry.sha256, b"".join(store.iterate(entry.sha256, 0, entry.size)))
    assert (await known.of(manifest.digest, manifest)).total == 35
    for entry in manifest.files:
        empty.remove(entry.sha256)
    assert (await known.of(manifest.digest, manifest)).total == 35, "it is kept"
    pools.close()
