"""Records of files are asked for together with the index that names their layouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from comity.rules.pieces import (
    FIXED_LAYOUT,
    TENSOR_LAYOUT,
    PieceIndex,
    PieceLayout,
    encode_records,
    records_root,
)
from comity.trust.artifact import PIECE_SIZE, FileEntry, Manifest, PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity_client.ahead import AskedAhead
from comity_client.pull.fetch import Layouts, likely_layout

WEIGHTS = FileEntry("model.safetensors", PIECE_SIZE + 100, sha256(b"weights"))
RECORDS = (PieceRecord(PIECE_SIZE, bytes(32)), PieceRecord(100, bytes([1] * 32)))
MANIFEST = Manifest((WEIGHTS,))


def index(layout: str) -> bytes:
    return PieceIndex(((WEIGHTS.path, PieceLayout(layout, len(RECORDS), records_root(RECORDS))),)).encode()


class Node:
    """Gives its index when it was asked for records, and these records in these layouts."""

    def __init__(self, index: bytes, **records: bytes) -> None:
        self.index, self.given, self.told = index, records, list[str]()
        self.asked = asyncio.Event()

    async def object(self, digest: str) -> bytes:
        await self.asked.wait()
        return self.index

    async def records(self, digest: str, layout: str) -> bytes:
        self.told.append(layout)
        self.asked.set()
        name = layout.partition("-4")[0]
        if name not in self.given:
            raise NotFound("no such records")
        return self.given[name]


class Session:
    """Asks one node."""

    def __init__(self, node: Node) -> None:
        self.ahead, self._node = AskedAhead(), node

    async def first(self, question: Any, what: str) -> Any:
        return await question(self._node)

    async def answers(self, question: Any, *, first: object = ()) -> AsyncGenerator[Any, None]:
        try:
            answer = await question(self._node)
        except NotFound:
            return
        yield answer


async def found_at(node: Node) -> tuple[PieceRecord, ...]:
    session: Any = Session(node)
    layouts = Layouts(session, MANIFEST, [sha256(node.index)])
    layouts.begin(MANIFEST.files)
    async with asyncio.timeout(10):
        (want,) = [want async for want in layouts.layouts_of(WEIGHTS)]
    return tuple(want.records)


async def test_records_are_asked_for_before_the_index_is_here() -> None:
    node = Node(index(TENSOR_LAYOUT), tensor=encode_records(RECORDS))
    assert await found_at(node) == RECORDS
    assert node.told == [TENSOR_LAYOUT], "and not again"


@pytest.mark.parametrize("wrong", [b"", bytes(40), encode_records(RECORDS[::-1])])
async def test_records_of_another_layout_or_wrong_ones_are_asked_for_again(wrong: bytes) -> None:
    node = Node(index(FIXED_LAYOUT), tensor=wrong, fixed=encode_records(RECORDS))
    assert await found_at(node) == RECORDS
    assert node.told == [TENSOR_LAYOUT, FIXED_LAYOUT]


async def test_a_node_without_records_in_the_guessed_layout_is_asked_for_those_of_the_index() -> None:
    node = Node(index(FIXED_LAYOUT), fixed=encode_records(RECORDS))
    assert await found_at(node) == RECORDS


def test_nobody_is_asked_for_the_records_of_a_file_that_is_one_piece() -> None:
    sizes = {"vocabulary.txt": None, "weights.GGUF": TENSOR_LAYOUT}
    assert {path: likely_layout(FileEntry(path, 300_000, sha256(b""))) for path in sizes} == sizes
    assert likely_layout(FileEntry("vocabulary.txt", PIECE_SIZE + 1, sha256(b""))) == FIXED_LAYOUT
