"""Arbitrary bytes of a weight file: readers raise only ComityError, and pieces cover the file exactly."""

from __future__ import annotations

import io
import itertools
import json
import struct
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

import pytest
from comity.content.blobs import piece_lengths
from comity.formats import TensorLayout
from comity.formats.tensors import read_gguf_layout, read_safetensors_layout
from comity.rules.pieces import SMALL_TENSOR, TENSOR_LAYOUT, fixed_pieces
from comity.trust.artifact import PIECE_SIZE
from comity.trust.errors import ComityError
from hypothesis import example, given
from hypothesis import strategies as st
from support import weights

Reader: TypeAlias = Callable[[BinaryIO, int], TensorLayout]

MIB = 1024 * 1024
READERS = [read_safetensors_layout, read_gguf_layout]
TENSORS = st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=8)
EDITS = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=9)), max_size=4)


def sound(layout: TensorLayout, size: int) -> bool:
    bounds = (layout.header_end - 1, *layout.starts, size)
    return 0 <= layout.header_end <= size and list(bounds) == sorted(set(bounds))


@pytest.mark.parametrize("read_layout", READERS)
@given(data=st.binary(max_size=400), magic=st.sampled_from([b"", b"GGUF\x03\0\0\0", b"\x10\0\0\0\0\0\0\0{"]))
def test_arbitrary_bytes_are_refused_or_understood(read_layout: Reader, data: bytes, magic: bytes) -> None:
    data = magic + data
    try:
        layout = read_layout(io.BytesIO(data), len(data))
    except ComityError:
        return
    assert sound(layout, len(data))


@pytest.mark.parametrize(
    ("read_layout", "write"), [(read_safetensors_layout, weights.safetensors), (read_gguf_layout, weights.gguf)]
)
@given(tensors=TENSORS, edits=EDITS, cut=st.just(0) | st.integers(0, 300))
def test_damaged_headers_are_refused_or_understood(
    read_layout: Reader,
    write: Callable[[dict[str, bytes]], bytes],
    tensors: dict[str, bytes],
    edits: list[tuple[int, bytes]],
    cut: int,
) -> None:
    body = bytearray(write(tensors))
    for at, change in edits:
        at %= len(body)
        body[at : at + len(change)] = change
    data = bytes(body[: max(0, len(body) - cut)])
    try:
        layout = read_layout(io.BytesIO(data), len(data))
    except ComityError:
        return
    assert sound(layout, len(data))


@given(size=st.integers(0, 2**64 - 1), data=st.binary(max_size=100))
def test_a_false_size_is_refused_by_our_own_error(size: int, data: bytes) -> None:
    for read_layout in READERS:
        for prefix in (b"GGUF" + struct.pack("<IQQ", 3, 1, 1), b"\x02\0\0\0\0\0\0\0{}"):
            try:
                read_layout(io.BytesIO(prefix + data), size)
            except ComityError:
                continue


@given(
    lengths=st.lists(
        st.integers(0, 3 * PIECE_SIZE) | st.integers(SMALL_TENSOR - 2, SMALL_TENSOR + 2) | st.integers(0, 9000),
        max_size=30,
    ),
    paddings=st.tuples(st.integers(0, 9000), st.integers(0, 9000)),
)
@example(lengths=[SMALL_TENSOR - 1] * 40, paddings=(0, 7 * MIB))
@example(lengths=[PIECE_SIZE, PIECE_SIZE + 1, 2 * PIECE_SIZE], paddings=(0, 4 * MIB))
@example(lengths=[], paddings=(4 * MIB - 10, 4 * MIB - 11))
def test_tensors_give_the_same_pieces_at_any_offset(lengths: list[int], paddings: tuple[int, int]) -> None:
    data_pieces = []
    for padding in paddings:
        header = header_of(lengths, padding)
        layout, pieces = piece_lengths("m.safetensors", io.BytesIO(header), len(header) + sum(lengths))
        assert layout == TENSOR_LAYOUT
        assert sum(pieces) == len(header) + sum(lengths)
        assert all(1 <= piece <= PIECE_SIZE for piece in pieces)
        data_pieces.append(pieces[len(fixed_pieces(len(header))) :])
    first, second = data_pieces
    assert first == second


@given(lengths=st.lists(st.integers(1, 2 * SMALL_TENSOR), min_size=1, max_size=60))
def test_each_large_tensor_begins_a_piece_and_small_ones_share(lengths: list[int]) -> None:
    header = header_of(lengths, 0)
    size = len(header) + sum(lengths)
    _, pieces = piece_lengths("m.safetensors", io.BytesIO(header), size)
    cuts = set(itertools.accumulate(pieces, initial=0))
    starts = itertools.accumulate(lengths[:-1], initial=len(header))
    assert all(start in cuts for start, length in zip(starts, lengths, strict=True) if length >= SMALL_TENSOR)
    small_runs = sum(key for key, _ in itertools.groupby(lengths, key=lambda length: length < SMALL_TENSOR))
    assert len(pieces) <= 1 + sum(length >= SMALL_TENSOR for length in lengths) + small_runs + sum(lengths) // (
        PIECE_SIZE - SMALL_TENSOR
    )


@given(size=st.integers(0, 100 * PIECE_SIZE), path=st.text(max_size=5))
def test_fixed_pieces_tile_the_file_within_bounds(size: int, path: str) -> None:
    _, pieces = piece_lengths(path, io.BytesIO(), size)
    assert sum(pieces) == size
    assert all(piece == PIECE_SIZE for piece in pieces[:-1])


def header_of(lengths: list[int], padding: int) -> bytes:
    """A safetensors header, `padding` bytes longer than necessary, of tensors with these lengths."""
    ends = itertools.accumulate(lengths)
    tensors = {
        str(number): {"data_offsets": [end - length, end]}
        for number, (length, end) in enumerate(zip(lengths, ends, strict=True))
    }
    text = json.dumps(tensors).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text
