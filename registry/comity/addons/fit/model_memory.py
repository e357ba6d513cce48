"""What a model needs in memory: its weights, and its KV-cache.

Models are read from a folder or from nodes. From a node come `config.json`, complete and hashed, and the first pieces
of weight files, each hashed against the piece index of a signed statement. If headers cannot be read, the sizes in the
manifest count.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from comity_client.artifact_client import ArtifactClient
from comity_client.evidence.proofs import fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.pull.destinations import cached_folder
from comity_client.pull.fetch import Layouts, fetch_small_file
from comity_client.session import Session
from comity_client.weight_headers import fetch_header

from comity.addons.fit.kv_cache import Cache, UnknownCache, cache_of, cache_of_gguf
from comity.bounded_file import read_bounded
from comity.formats.tensors import TensorTable, tensor_reader
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.frozen import frozen

_SUFFIXES: Final = (".safetensors", ".gguf", ".bin", ".pth", ".pt")
"""In order of preference: a model is often published in several formats."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.[a-z]+$)")
_OTHER_COPY: Final = ("consolidated", "original/", "metal/", "onnx/", "openvino/", "tf_model", "training_args")
"""Path prefixes of further copies of the same weights, or of files without weights."""


class ArtifactFile(Protocol):
    """A file of an artifact: its path and its size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


L = TypeVar("L", bound=ArtifactFile)


@frozen
class ModelWeights:
    """Size of the tensors of a model.

    Attributes:
        by_type: bytes by number type as named in the files; `unknown` if no header was read.
        source: source of the numbers, for people.
        files: the paths that were counted.
    """

    by_type: Mapping[str, int]
    source: str
    files: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.by_type.values())

    @property
    def types(self) -> tuple[str, ...]:
        """Number types, largest total first."""
        return tuple(sorted(self.by_type, key=lambda name: (-self.by_type[name], name)))


def weight_files(entries: Iterable[L], pattern: str = "") -> tuple[L, ...]:
    """The weight files of one model: all that match `pattern`, else those of the preferred format.

    Raises NotFound (NO-WEIGHTS), Malformed (WHICH-WEIGHTS) if there are several models.
    """
    listed = tuple(entries)
    if pattern:
        chosen = tuple(entry for entry in listed if fnmatchcase(entry.path, pattern))
        if not chosen:
            raise NotFound("no weights", why=f"no file matches {pattern!r}", code="NO-WEIGHTS")
        return chosen
    for suffix in _SUFFIXES:
        found = [e for e in listed if e.path.endswith(suffix) and not e.path.startswith(_OTHER_COPY)]
        if found:
            return _one_model(found)
    raise NotFound("no weights", why=f"no file ends in {', '.join(_SUFFIXES)}", code="NO-WEIGHTS")


def by_size(entries: Sequence[ArtifactFile]) -> ModelWeights:
    """Weights by file size, including headers, which are less than 0.1 %."""
    counted = tuple(entry.path for entry in entries)
    return ModelWeights({"unknown": sum(entry.size for entry in entries)}, f"{_files(counted)}, by size alone", counted)


def by_headers(tensors: Iterable[Mapping[str, int]], paths: Sequence[str]) -> ModelWeights:
    """Weights by the headers of `paths`; each header as bytes by number type."""
    total: dict[str, int] = {}
    for types in tensors:
        for name, count in types.items():
            total[name] = total.get(name, 0) + count
    return ModelWeights(total, f"the headers of {_files(paths)}", tuple(paths))


def _one_model(found: Sequence[L]) -> tuple[L, ...]:
    gguf = found[0].path.endswith(".gguf")
    models = {_SHARD.sub("", entry.path) for entry in found if not _is_projector(entry.path)}
    if gguf and len(models) > 1:
        shown = ", ".join(sorted(models)[:6])
        raise Malformed("several models in one artifact", why=f"it has {shown}",
                        hint="choose the files of one: --file '*Q4_K_M*'", code="WHICH-WEIGHTS")  # fmt: skip
    return tuple(found)


def _is_projector(path: str) -> bool:
    return path.rpartition("/")[2].startswith("mmproj")


def _files(paths: Sequence[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"


@frozen
class Model:
    """The memory needs of a model."""

    title: str
    weights: ModelWeights
    cache: Cache | UnknownCache


CONFIG: Final = "config.json"
MAX_CONFIG: Final = 1024 * 1024
MAX_HEADERS: Final = 512
"""Maximum files whose headers are read; a model with more files counts by size."""
MAX_CONCURRENT: Final = 8


@frozen
class LocalFile:
    """A file in a folder."""

    path: str
    size: int


def model_in(folder: Path, pattern: str = "") -> Model:
    """The model in `folder`. Raises NotFound without weights, Malformed (WHICH-WEIGHTS) for several models."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and ".comity" not in p.relative_to(folder).parts)
    files = weight_files((LocalFile(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths), pattern)
    tables = [_table_in(folder / file.path, file) for file in files[:MAX_HEADERS]]
    config = read_bounded(folder / CONFIG, MAX_CONFIG) if (folder / CONFIG).is_file() else None
    return _model(folder.name, files, tables, config)


async def model_of(resolution: Resolution, pattern: str = "") -> Model:
    """The model of a resolved reference. Raises NotFound, Unavailable, Malformed (WHICH-WEIGHTS)."""
    session = resolution.inquiry.session
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    files = weight_files(manifest.files, pattern)
    published = resolution.publication.published if resolution.publication else None
    layouts = Layouts.named(session, manifest, resolution.evidence.claims, published)
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def head(entry: FileEntry) -> TensorTable | None:
        async with limit:
            header = await fetch_header(session, layouts, entry)
        return header.table if header else None

    tables = await asyncio.gather(*(head(entry) for entry in files[:MAX_HEADERS]))
    listed = manifest.by_path.get(CONFIG)
    config = await _config(session, listed) if listed and listed.size <= MAX_CONFIG else None
    return _model(resolution.title, files, tables, config)


def _model(
    title: str,
    files: Sequence[LocalFile] | Sequence[FileEntry],
    tables: Sequence[TensorTable | None],
    config: bytes | None,
) -> Model:
    read = [table for table in tables if table is not None]
    complete = len(read) == len(files)
    weights = by_headers(map(_types, read), [file.path for file in files]) if complete else by_size(files)
    return Model(title, weights, _cache(files[0].path, read, config))


def _types(table: TensorTable) -> Mapping[str, int]:
    types: dict[str, int] = {}
    for tensor in table.tensors:
        types[tensor.dtype] = types.get(tensor.dtype, 0) + tensor.length
    return types


def _cache(path: str, tables: Sequence[TensorTable], config: bytes | None) -> Cache | UnknownCache:
    if path.endswith(".gguf"):
        return cache_of_gguf(tables[0].metadata) if tables else UnknownCache("its header could not be read")
    if config is None:
        return UnknownCache(f"{CONFIG} is missing or could not be fetched")
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return UnknownCache(f"{CONFIG} is not JSON")
    return cache_of(parsed) if isinstance(parsed, dict) else UnknownCache(f"{CONFIG} is not a JSON object")


def _table_in(path: Path, file: LocalFile) -> TensorTable | None:
    try:
        with path.open("rb") as opened:
            return _read(file.path, opened, file.size)
    except (OSError, Malformed):
        return None


def _read(path: str, opened: BinaryIO, size: int) -> TensorTable | None:
    reader = tensor_reader(path)
    return reader(opened, size) if reader else None


async def _config(session: Session, entry: FileEntry) -> bytes | None:
    try:
        return await fetch_small_file(session, entry)
    except ComityError:
        return None


def read_model(client: ArtifactClient, what: Path | str, pattern: str = "", hub_cache: Path | None = None) -> Model:
    """Return the memory needs of a model, for `fit.fit`: from a folder, from the copy in a Hub cache, or from nodes, of
    which only headers are fetched. Raises as `User.resolve` does; NotFound if there are no weights, Malformed
    (WHICH-WEIGHTS) if `pattern` must select one of several models."""
    folder, user = Path(what), client.user

    async def ask(session: Session) -> Model:
        return await model_of(await user.resolve(session, str(what)), pattern)

    if isinstance(what, str) and not folder.is_dir():
        try:
            folder = cached_folder(what, hub_cache)
        except NotFound:
            return user.run(ask)
        return replace(model_in(folder, pattern), title=what)  # a snapshot is named by its commit
    return model_in(folder, pattern)
