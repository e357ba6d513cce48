"""A model as far as memory is concerned, read from a folder, or from nodes without fetching its weights.

From a node come `config.json`, whole and hashed, and the first pieces of weight files, each hashed against the piece
index that a signed statement names. Headers that cannot be read are passed over: the manifest always says sizes.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from comity.formats.tensors import Table, reader_of
from comity.transfer.plan import Wanted
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.manifest import FileEntry, Manifest
from comity.verifier import read_bounded
from comity.wire.client import NodeClient

from comity_client.compute.attention import Cache, UnknownCache, cache_of, cache_of_gguf
from comity_client.compute.fitting import Model
from comity_client.compute.weights import by_headers, by_size, weight_files
from comity_client.evidence.catalogue import Resolution
from comity_client.evidence.collecting import fetch_object
from comity_client.nodes.session import Question, Session
from comity_client.pulling.layouts import Layouts, named_indexes

CONFIG: Final = "config.json"
MAX_CONFIG: Final = 1024 * 1024
MAX_HEADERS: Final = 512
"""Files whose headers are read; a model cut into more is judged by sizes."""
HEAD_BYTES: Final = 32 * 1024 * 1024
"""The longest header that is fetched."""
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file in a folder."""

    path: str
    size: int


def model_in(folder: Path, pattern: str = "") -> Model:
    """The model in `folder`. Raises NotFound without weights, Malformed (WHICH-WEIGHTS) for several models."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and ".comity" not in p.relative_to(folder).parts)
    files = weight_files((OnDisk(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths), pattern)
    tables = [_table_in(folder / file.path, file) for file in files[:MAX_HEADERS]]
    config = read_bounded(folder / CONFIG, MAX_CONFIG) if (folder / CONFIG).is_file() else None
    return _model(folder.name, files, tables, config)


async def model_of(session: Session, resolution: Resolution, pattern: str = "") -> Model:
    """The model that a reference stands for. Raises NotFound, Unavailable, Malformed (WHICH-WEIGHTS)."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    files = weight_files(manifest.files, pattern)
    publication = resolution.publication
    first = publication.published.pieces.digest if publication else None
    layouts = Layouts(session, manifest, named_indexes(resolution.gathered.readings, first))
    turn = asyncio.Semaphore(AT_ONCE)

    async def head(entry: FileEntry) -> Table | None:
        async with turn:
            return await _table_from(session, layouts, entry)

    tables = await asyncio.gather(*(head(entry) for entry in files[:MAX_HEADERS]))
    listed = manifest.by_path.get(CONFIG)
    config = await _whole(session, listed) if listed and listed.size <= MAX_CONFIG else None
    return _model(resolution.title, files, tables, config)


def _model(
    title: str, files: Sequence[OnDisk] | Sequence[FileEntry], tables: Sequence[Table | None], config: bytes | None
) -> Model:
    read = [table for table in tables if table is not None]
    complete = len(read) == len(files)
    weights = by_headers(map(_types, read), [file.path for file in files]) if complete else by_size(files)
    return Model(title, weights, _cache(files[0].path, read, config))


def _types(table: Table) -> Mapping[str, int]:
    types: dict[str, int] = {}
    for tensor in table.tensors:
        types[tensor.dtype] = types.get(tensor.dtype, 0) + tensor.length
    return types


def _cache(path: str, tables: Sequence[Table], config: bytes | None) -> Cache | UnknownCache:
    if path.endswith(".gguf"):
        return cache_of_gguf(tables[0].facts) if tables else UnknownCache("its header could not be read")
    if config is None:
        return UnknownCache(f"{CONFIG} is not there, or could not be had")
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return UnknownCache(f"{CONFIG} is not JSON")
    return cache_of(parsed) if isinstance(parsed, dict) else UnknownCache(f"{CONFIG} is no JSON object")


def _table_in(path: Path, file: OnDisk) -> Table | None:
    try:
        with path.open("rb") as opened:
            return _read(file.path, opened, file.size)
    except (OSError, Malformed):
        return None


def _read(path: str, opened: BinaryIO, size: int) -> Table | None:
    reader = reader_of(path)
    return reader(opened, size) if reader else None


async def _table_from(session: Session, layouts: Layouts, entry: FileEntry) -> Table | None:
    """What the head of a file says; more of it is fetched as long as it might be cut off in the middle."""
    try:
        want = await _cut(layouts, entry)
        pieces = 1
        while True:
            head = await session.first(_pieces(want, pieces), f"nobody gives the head of {entry.path}")
            try:
                return _read(entry.path, io.BytesIO(head), entry.size)
            except Malformed:
                if pieces >= len(want.records) or len(head) >= HEAD_BYTES:
                    return None
            pieces = min(2 * pieces, len(want.records))
    except ComityError:
        return None


async def _cut(layouts: Layouts, entry: FileEntry) -> Wanted:
    async with aclosing(layouts.ways(entry)) as ways:
        async for want in ways:
            return want
    raise Unavailable(f"{entry.path} cannot be had in pieces", why="no statement names a piece index")


def _pieces(want: Wanted, count: int) -> Question[bytes]:
    """The first `count` pieces of a blob, each with its hash."""
    end = want.offsets[count]

    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, want.digest, end)
        for number in range(count):
            offset, length = want.span(number)
            if bytes.fromhex(sha256(data[offset : offset + length])) != want.records[number].sha256:
                raise Untrusted("not the bytes asked for", why=f"piece {number} has another hash", code="BAD-PIECE")
        return data

    return ask


async def _whole(session: Session, entry: FileEntry) -> bytes | None:
    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, entry.sha256, entry.size)
        if sha256(data) != entry.sha256:
            raise Untrusted("not the bytes asked for", why=f"{entry.path} has another hash", code="BAD-PIECE")
        return data

    try:
        return await session.first(ask, f"nobody gives {entry.path}")
    except ComityError:
        return None


async def _bytes(node: NodeClient, digest: Digest, length: int) -> bytes:
    async with aclosing(node.read(digest, 0, length)) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    if len(data) != length:
        raise NotFound("not whole", why=f"{len(data)} of {length} bytes came")
    return data
