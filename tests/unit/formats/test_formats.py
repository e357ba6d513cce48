"""Weight-file headers: those of real writers are read, and what exceeds a bound is refused before memory is used."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from comity.content.blobs import piece_lengths
from comity.formats import TensorLayout
from comity.formats.tensors import MAX_SAFETENSORS_HEADER_READ, read_gguf_layout, read_safetensors_layout
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE
from comity.trust.errors import Malformed
from support import weights

MIB = 1024 * 1024


def read_safetensors(data: bytes) -> TensorLayout:
    return read_safetensors_layout(io.BytesIO(data), len(data))


def read_gguf(data: bytes) -> TensorLayout:
    return read_gguf_layout(io.BytesIO(data), len(data))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def cut(path: str, data: bytes) -> tuple[str, list[int]]:
    return piece_lengths(path, io.BytesIO(data), len(data))


def test_safetensors_tensors_start_where_their_bytes_are() -> None:
    data = weights.safetensors({"a": b"A" * 100, "empty": b"", "b": b"B" * 50}, {"format": "pt"})
    layout = read_safetensors(data)
    assert [data[start : start + 1] for start in layout.starts] == [b"A", b"B"]
    assert layout.header_end == layout.starts[0] == len(data) - 150


def test_gguf_tensors_start_where_their_bytes_are() -> None:
    data = weights.gguf({"a": b"A" * 100, "b": b"B" * 50}, tokens=("<s>", "hello", "wörld"))
    layout = read_gguf(data)
    assert [data[start : start + 1] for start in layout.starts] == [b"A", b"B"]
    assert layout.header_end == layout.starts[0]


@pytest.mark.parametrize("alignment", [1, 8, 32, 4096])
def test_gguf_data_begins_at_the_alignment_the_file_states(alignment: int) -> None:
    data = weights.gguf({"a": b"A" * 5, "b": b"B"}, alignment=alignment)
    assert [data[start : start + 1] for start in read_gguf(data).starts] == [b"A", b"B"]


def test_a_file_without_tensors_is_all_header() -> None:
    data = weights.safetensors({})
    assert read_safetensors(data) == TensorLayout(len(data), ())
    data = GGUF_3 + struct.pack("<QQ", 0, 0)  # nothing to align, so it is not padded
    assert read_gguf(data) == TensorLayout(len(data), ())


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"[]", b""),
        (b"{", b""),
        (b'{"a":{"dtype":"U8","shape":[4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0]}}', b"1234"),
        (b'{"a":{"data_offsets":["0","4"]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,3]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,5]}}', b"1234"),
        (b'{"a":{"data_offsets":[1,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[-1,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,2]},"b":{"data_offsets":[3,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,3]},"b":{"data_offsets":[2,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,6]},"b":{"data_offsets":[6,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,4]},"a":{"data_offsets":[0,4]}}', b"1234"),
        (b'{"a":{"data_offsets":[0,99999999999999999999]}}', b"1234"),
        (b"[" * 100_000, b""),
    ],
)
def test_a_safetensors_header_that_does_not_tile_the_file_is_refused(header: bytes, data: bytes) -> None:
    with pytest.raises(Malformed):
        read_safetensors(with_header(header, data))


@pytest.mark.parametrize("length", [1, 2**32, 2**63, 2**64 - 1])
def test_a_safetensors_header_longer_than_the_file_is_not_allocated(length: int) -> None:
    with pytest.raises(Malformed):
        read_safetensors(struct.pack("<Q", length))


def test_a_safetensors_header_beyond_the_bound_is_refused_unread() -> None:
    file = io.BytesIO(struct.pack("<Q", MAX_SAFETENSORS_HEADER_READ + 1))
    with pytest.raises(Malformed):
        read_safetensors_layout(file, 1 << 40)
    assert file.tell() == 8


def gguf_of_empty_names(count: int) -> bytes:
    infos = b"".join(struct.pack("<QIIQ", 0, 0, 0, 32 * number) for number in range(count))
    return GGUF_3 + struct.pack("<QQ", count, 0) + infos


GGUF_3 = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        GGUF_3 + struct.pack("<QQ", 2**63, 0),
        GGUF_3 + struct.pack("<QQ", 0, 2**63) + bytes(1000),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 2**60),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<I", 77),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1) + bytes(100),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**60) + bytes(100),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 12, 2**61) + bytes(100),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 17) + b"general.alignment" + struct.pack("<II", 4, 0),
        GGUF_3 + struct.pack("<QQQ", 0, 1, 17) + b"general.alignment" + struct.pack("<II", 4, 33),
        GGUF_3 + struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 8, 0, 7) + bytes(100),
        GGUF_3 + struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 8, 0, 2**40) + bytes(100),
        GGUF_3 + struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<I", 2**31) + bytes(100),
    ],
)
def test_a_gguf_header_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_gguf(data)


@pytest.mark.parametrize(
    ("read", "made", "bound"),
    [
        (
            read_safetensors,
            lambda: with_header(('{"\U0001f600":[' + '{"a":1},' * 249_000 + "{}]}").encode()),
            128 * MIB,
        ),
        (read_safetensors, lambda: with_header(b"[" + b"{}," * 2_700_000 + b"{}]"), 9 * MIB),
        (read_gguf, lambda: gguf_of_empty_names(100_000) + bytes(4 * MIB), 32 * MIB),
        (read_gguf, lambda: gguf_of_empty_names(1_000_000) + bytes(32 * MIB), MIB),
    ],
    ids=["wide characters and many objects", "too many values", "many tensors", "too many tensors"],
)
def test_a_hostile_header_holds_no_more_than_the_stated_bound(
    read: Callable[[bytes], TensorLayout], made: Callable[[], bytes], bound: int
) -> None:
    data = made()
    tracemalloc.start()
    try:
        read(data)
    except Malformed:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < bound


def test_a_tensor_file_is_cut_at_its_tensors() -> None:
    big, small = bytes(5 * MIB), bytes(100)
    data = weights.safetensors({"a": small, "b": small, "big": big, "c": small})
    header = len(data) - len(big) - 3 * len(small)
    assert cut("m/model.safetensors", data) == (TENSOR_LAYOUT, [header, 200, PIECE_SIZE, MIB, 100])


@pytest.mark.parametrize("path", ["model.safetensors", "MODEL.SAFETENSORS", "model.gguf", "model.bin", "safetensors"])
def test_a_file_that_does_not_parse_is_cut_every_4_mib(path: str) -> None:
    assert cut(path, bytes(9 * MIB)) == (FIXED_LAYOUT, [PIECE_SIZE, PIECE_SIZE, MIB])


def test_a_name_says_which_header_to_expect() -> None:
    data = weights.gguf({"a": bytes(MIB)})
    assert cut("a.gguf", data)[0] == TENSOR_LAYOUT
    assert cut("a.safetensors", data)[0] == FIXED_LAYOUT


def test_a_file_of_too_many_pieces_is_refused_before_they_are_listed() -> None:
    with pytest.raises(Malformed):
        piece_lengths("sparse", io.BytesIO(), MAX_PIECES * PIECE_SIZE + 1)
