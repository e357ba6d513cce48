"""What people look for first about a model: parameters, task, context length, base model.

The parameters are counted in the heads of the weight files, the context length is read from `config.json` or the head
of a GGUF file, and the rest from the card: all of it the publisher's claims, in files that were hashed when they
arrived. A file that is not here, or that cannot be read within `MAX_READ_BYTES` for the whole artifact, says nothing.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Final

from comity.content.blobs import BlobStore
from comity.formats.model_card import CARD_FILE, MAX_CARD_FILE, front_matter
from comity.formats.source import RangeFile
from comity.formats.tensors import read_gguf, read_safetensors
from comity.gateway.hub.card import small_file
from comity.node.services.kept_answers import KeptAnswers
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, Json, parse_json
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

CONFIG: Final = "config.json"
MAX_CONFIG: Final = 1024 * 1024
MAX_READ_BYTES: Final = 16 * 1024 * 1024
"""Of the heads of all weight files of one artifact."""
MAX_SHARDS: Final = 512
MAX_KEPT: Final = 16 * 1024 * 1024
"""Bytes in memory of the facts that are kept: the front matter of a card alone may have 256 KiB."""
BUFFER: Final = 64 * 1024
MAX_ARCHITECTURES: Final = 8
MAX_NAME: Final = 100
"""Characters of an architecture or a kind of model."""
_CONTEXT: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_OTHER_COPIES: Final = ("consolidated", "original/", "onnx/", "openvino/")
"""How paths begin of further copies of the same weights."""
_LISTS: Final = frozenset({"tags", "datasets", "metrics", "language"})
"""Keys of a card whose value is a list, also of one item."""


@frozen
class ModelFacts:
    """`parameters` by the type of their numbers; `context` in tokens, 0 if nothing says it; `card` has the front matter
    of the model card."""

    architectures: tuple[str, ...] = ()
    model_type: str = ""
    context: int = 0
    parameters: Mapping[str, int] = field(default_factory=dict)
    gguf: bool = False
    card: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def task(self) -> str:
        return next(iter(self.card.get("pipeline_tag", ())), "")

    @property
    def base_models(self) -> tuple[str, ...]:
        return self.card.get("base_model", ())

    def hub_fields(self) -> dict[str, object]:
        """Return the fields `config`, and `safetensors` or `gguf`, as the Hub's API has them."""
        config = {"architectures": list(self.architectures), "model_type": self.model_type}
        shown: dict[str, object] = {name: value for name, value in config.items() if value}
        fields: dict[str, object] = {"config": shown} if shown else {}
        if self.gguf:
            context = {"context_length": self.context} if self.context else {}
            fields["gguf"] = {"total": self.total, "architecture": self.model_type, **context}
        elif self.parameters:
            fields["safetensors"] = {"parameters": dict(self.parameters), "total": self.total}
        return fields

    @property
    def hub_card(self) -> dict[str, object]:
        """The card as the Hub's API has it: single values, and lists."""
        return {name: _card_value(name, value) for name, value in self.card.items() if value}


def facts_weight(facts: ModelFacts) -> int:
    """Bytes of facts in memory, about."""
    words = (word for name, values in facts.card.items() for word in (name, *values))
    return 2_000 + sum(100 + len(word) for word in (*words, *facts.architectures, *facts.parameters))


class KnownFacts:
    """The facts of the artifacts that were shown last: they are those of the artifact's bytes for ever. Not
    thread-safe: call from the event loop.

    Args:
        most: bytes in memory of all of them together.
    """

    def __init__(self, store: BlobStore, pools: Pools, most: int = MAX_KEPT) -> None:
        self._store = store
        self._pools = pools
        self._kept = KeptAnswers[ModelFacts](most)

    async def of(self, artifact: Digest, manifest: Manifest) -> ModelFacts:
        """Return the facts of an artifact; those from a file that is not here yet are looked for again."""
        if (known := self._kept.get(None, artifact)) is not None:
            return known
        facts, whole = await self._pools.files(read_model_facts, manifest, self._store)
        if whole:
            self._kept.keep(None, artifact, facts, facts_weight(facts))
        return facts


def read_model_facts(manifest: Manifest, store: BlobStore) -> tuple[ModelFacts, bool]:
    """Return the facts of an artifact, and whether every file that says them is stored here. Blocking."""
    config = _config(small_file(manifest, store, CONFIG, MAX_CONFIG))
    card = front_matter(small_file(manifest, store, CARD_FILE, MAX_CARD_FILE))
    weights = _weight_files(manifest)
    named = [manifest.by_path[path] for path in (CONFIG, CARD_FILE) if path in manifest.by_path]
    whole = all(store.has(entry.sha256) for entry in [*named, *weights] if entry.size)
    counted = _count(weights, store)
    if counted is None:
        return ModelFacts(_architectures(config), _name(config.get("model_type")), _context(config), card=card), whole
    parameters, metadata = counted
    architecture = metadata.get("general.architecture", "")
    if weights and weights[0].path.endswith(".gguf") and isinstance(architecture, str):
        context = metadata.get(f"{architecture}.context_length", 0)
        found = context if isinstance(context, int) and context > 0 else _context(config)
        return ModelFacts((), architecture[:MAX_NAME], found, parameters, True, card), whole
    kind = _name(config.get("model_type"))
    return ModelFacts(_architectures(config), kind, _context(config), parameters, False, card), whole


def _weight_files(manifest: Manifest) -> list[FileEntry]:
    """The safetensors files of a model, or else its first GGUF: further ones are the same model in other types."""
    tensors = [e for e in manifest.files if e.path.endswith(".safetensors") and not e.path.startswith(_OTHER_COPIES)]
    if tensors:
        return tensors if len(tensors) <= MAX_SHARDS else []
    return [e for e in manifest.files if e.path.endswith(".gguf") and "mmproj" not in e.path][:1]


def _count(entries: list[FileEntry], store: BlobStore) -> tuple[dict[str, int], Mapping[str, int | str]] | None:
    """The parameters of these files by type, and what the head of the last one says; None if one cannot be read."""
    found, metadata, budget = Counter[str](), dict[str, int | str](), _Budget(MAX_READ_BYTES)
    try:
        for entry in entries:
            read = read_gguf if entry.path.endswith(".gguf") else read_safetensors
            with io.BufferedReader(RangeFile(budget.reader(store, entry.sha256), entry.size), BUFFER) as file:
                table = read(file, entry.size)
            for tensor in table.tensors:
                found[tensor.dtype] += tensor.elements
            metadata |= table.metadata
    except (ComityError, OSError):
        return None
    return dict(found), metadata


class _Budget:
    """Bytes that may still be read."""

    def __init__(self, left: int) -> None:
        self._left = left

    def reader(self, store: BlobStore, digest: Digest) -> Callable[[int, int], bytes]:
        """Reads a blob at an offset. Raises Malformed once more was read than allowed."""

        def read(offset: int, length: int) -> bytes:
            self._left -= length
            if self._left < 0:
                raise Malformed("the heads of the weights are too long", why=f"more than {MAX_READ_BYTES} bytes")
            return b"".join(store.iterate(digest, offset, length))

        return read


def _config(data: bytes) -> Mapping[str, Json]:
    try:
        found = parse_json(data, limit=MAX_CONFIG, what=CONFIG, text_fractions=True) if data else {}
    except Malformed:
        return {}
    return found if isinstance(found, Mapping) else {}


def _context(config: Mapping[str, Json]) -> int:
    """The tokens of a model's context; of a model for several kinds of input, of its text."""
    text = config.get("text_config")
    return next(_contexts(config, text if isinstance(text, Mapping) else {}), 0)


def _contexts(*places: Mapping[str, Json]) -> Iterator[int]:
    for place in places:
        for name in _CONTEXT:
            value = place.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                yield value


def _architectures(config: Mapping[str, Json]) -> tuple[str, ...]:
    found = config.get("architectures")
    return tuple(filter(None, map(_name, found[:MAX_ARCHITECTURES]))) if isinstance(found, list) else ()


def _name(value: Json) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable() else ""


def _card_value(name: str, values: tuple[str, ...]) -> object:
    return list(values) if name in _LISTS or len(values) > 1 else values[0]
