"""The one repository that other people's programs read in tests: whatever stopped one of them is in it.

It has an empty file, names that an address has to quote, deep folders, a model in shards with its index, GGUF files, a
tokenizer with the embeddings of its words as ONNX, records, the parts of a pipeline, and a card that names its parent.
Everything is generated, so a test of a client needs nothing but the client.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.rules.git_ids import commit_id
from comity.trust.statements import Parent
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found
from support.ports import free_port
from support.publisher import Publisher, Release, release, send
from support.seeded import seeded_bytes
from support.tiny_onnx import embedding_lookup
from support.weights import gguf, safetensors

PARENT, CHILD = "tests/base", "tests/odd"
ODD: Final = (
    ".hidden",
    "%41.txt",
    "100%.txt",
    "a b.txt",
    "a+b.txt",
    "a&b=c;d.txt",
    "deep/er/and/deeper/still/été/日本語.txt",
    "it's [1] {2}.txt",
    "notes #1.md",
    "who?.txt",
)
"""Paths that stopped programs which do not quote them, or quote them twice. The text of each file is its path."""
SHARD: Final = "model-00001-of-00002.safetensors"
"""The largest file: clients that fetch in ranges do so from 10 MiB on."""
SHARDS: Final[Mapping[str, tuple[str, int]]] = {
    SHARD: ("encoder", 11_000_000),
    "model-00002-of-00002.safetensors": ("head", 400_000),
}
GGUF: Final = "tiny-Q4_K_M.gguf"
GGUFS: Final[Mapping[str, int]] = {
    GGUF: 2_500_000,
    "tiny-Q8_0.gguf": 3_000_000,
    "mmproj-F16.gguf": 1000,
    "split-Q6_K-00001-of-00002.gguf": 100,
}
RECORDS: Final = ({"text": "a", "label": 0}, {"text": "b", "label": 1})
ROWS: Final = "tests/rows"
DATA: Final = "data/train.jsonl"
"""The records of the model, in it and in the dataset ROWS."""
SENTENCE: Final = "Nobody can take it away."
WORDS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "nobody", "can", "take", "it", "away", ".")
TOKENS: Final = [2, 5, 6, 7, 8, 9, 10, 3]
"""The sentence by the tokenizer, which is BERT's with these words alone."""
WIDTH: Final = 8
EMBEDDINGS: Final = tuple(
    tuple((31 * row + 17 * column) % 97 / 97 - 0.5 for column in range(WIDTH)) for row in range(len(WORDS))
)
"""The vector of each word."""
CARD: Final = f"---\nbase_model: {PARENT}\nlicense: mit\n---\n# Odd\n"


@dataclass(frozen=True)
class ClientRepository:
    """A publisher and what it published: a model, its parent, and the data of the model as a dataset."""

    publisher: Publisher
    folder: Path
    parent: Release
    child: Release
    data: Release

    @property
    def hashes(self) -> dict[str, str]:
        return self.child.hashes

    @property
    def commit(self) -> str:
        return commit_id(self.child.ingested.manifest)

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    async def send(self, home: NodeHome) -> int:
        """Publish them at a node whose charter binds the namespace `tests` to the publisher. Returns the size that its
        log has with all their lines."""
        async with home.client() as client:
            sent = [await send(client, each) for each in (self.parent, self.child, self.data)]
        return 1 + max(receipt.index for each in sent for receipt in each.receipts)


@dataclass(frozen=True)
class ServedRepository:
    """A node with its gateway as a process of its own, so that tests of any event loop, or of none, can use it."""

    url: str
    node: NodeProcess
    repository: ClientRepository


def make_repository(folder: Path) -> ClientRepository:
    publisher = Publisher.generate()
    parent = release(
        publisher, written(folder / "base", {"README.md": b"# Base\n", "config.json": b"{}\n"}), f"{PARENT}@v1"
    )
    made = written(folder / "odd", _files())
    lineage = (Parent("quantized", f"{PARENT}@v1", parent.artifact),)
    child = release(publisher, made, f"{CHILD}@v1", lineage=lineage)
    rows = written(folder / "rows", {DATA: (made / DATA).read_bytes()})
    return ClientRepository(publisher, made, parent, child, release(publisher, rows, f"{ROWS}@v1", kind="dataset"))


@contextlib.asynccontextmanager
async def served(repository: ClientRepository, folder: Path, **gateway: object) -> AsyncIterator[ServedRepository]:
    """A node that has the repository; `gateway` are settings of that section."""
    (home,) = found(folder, 1, namespaces={"tests": repository.publisher.id}).homes
    http = f"127.0.0.1:{free_port()}"
    home.set("gateway", http=http, **gateway)
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
        await node.ready()
        await repository.send(home)
        yield ServedRepository(f"http://{http}", node, repository)


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder with these files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def _files() -> dict[str, bytes]:
    shards = {path: safetensors({name: seeded_bytes(size, name)}) for path, (name, size) in SHARDS.items()}
    index = {"metadata": {}, "weight_map": {name: path for path, (name, _) in SHARDS.items()}}
    table = b"".join(struct.pack(f"<{WIDTH}f", *row) for row in EMBEDDINGS)
    return {
        "README.md": CARD.encode(),
        "empty.txt": b"",
        **{path: path.encode() for path in ODD},
        **shards,
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{path: gguf({"embedding": seeded_bytes(size, path)}) for path, size in GGUFS.items()},
        **{path: json.dumps(document).encode() for path, document in _tokenizer().items()},
        "onnx/model.onnx": embedding_lookup(table, len(WORDS), WIDTH),
        "data/train.jsonl": "".join(json.dumps(record) + "\n" for record in RECORDS).encode(),
        "model_index.json": b'{"_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}',
        "scheduler/scheduler_config.json": b'{"num_train_timesteps": 7}',
    }


def _tokenizer() -> dict[str, object]:
    """A BERT without layers and its tokenizer, as transformers writes them."""
    special = {f"{word.strip('[]').lower()}_token": word for word in WORDS[:5]}
    ends = [{"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]")]
    wrapped = [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]]
    ids = {word: number for number, word in enumerate(WORDS)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[word], "content": word, **flags, "special": True} for word in special.values()],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": wrapped,
            "pair": [
                *wrapped,
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }
    sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "max_position_embeddings": 16,
        **sizes,
    }
    return {
        "config.json": config,
        "special_tokens_map.json": special,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": 16,
            "do_lower_case": True,
            **special,
        },
    }
