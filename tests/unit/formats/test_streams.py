"""Compressed streams: what is unpacked of whole, joined, damaged and endless ones, and the bounds of it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.formats.streams import EMPTY_LZMA, MAX_STREAMS, PACKED_MAGIC, STEPS_OF_STREAM, begins_stream, unpack
from hypothesis import given, settings
from hypothesis import strategies as st


def deflate(data: bytes) -> bytes:
    writer = zlib.compressobj(wbits=-15)
    return writer.compress(data) + writer.flush()


WRITERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "deflate": deflate,
}
TEXT = b"".join(b"line %d of a text\n" % number for number in range(400))


def unpacked(kind: str, data: bytes, work: Work | None = None) -> tuple[bytes, str]:
    found = unpack(kind, BoundedFile.of(data, work or Work()))
    return bytes(found.data), found.error


@pytest.mark.parametrize("kind", WRITERS)
def test_a_whole_stream_is_unpacked(kind: str) -> None:
    for data in (b"", b"a", TEXT, bytes(300_000)):
        assert unpacked(kind, WRITERS[kind](data)) == (data, "")


@pytest.mark.parametrize("kind", WRITERS)
def test_streams_after_one_another_are_all_unpacked(kind: str) -> None:
    data = WRITERS[kind](TEXT) + WRITERS[kind](b"second") + WRITERS[kind](b"third")
    assert unpacked(kind, data) == (TEXT + b"secondthird", "")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_stream_that_ends_early_is_an_error_and_what_precedes_is_kept(kind: str) -> None:
    whole = WRITERS[kind](TEXT)
    for length in range(20, len(whole) - 1, 97):
        data, error = unpacked(kind, whole[:length])
        assert error and TEXT.startswith(data)
    kept, _ = unpacked(kind, whole[:-1])
    assert TEXT.startswith(kept) and (kind in ("bzip2",) or len(kept) > len(TEXT) // 2)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_follows_the_last_stream_is_an_error(kind: str) -> None:
    data, error = unpacked(kind, WRITERS[kind](TEXT) + b"\xffmore bytes that are no stream")
    assert data == TEXT and error


@pytest.mark.parametrize(
    ("kind", "padding"), [("gzip", 1), ("gzip", 500), ("xz", 4), ("lzma", 0), ("lzma", EMPTY_LZMA)]
)
def test_zeros_after_a_stream_are_padding_where_the_loader_takes_them(kind: str, padding: int) -> None:
    assert unpacked(kind, WRITERS[kind](TEXT) + bytes(padding)) == (TEXT, "")


@pytest.mark.parametrize(("kind", "padding"), [("bzip2", 1), ("zlib", 3), ("lzma", EMPTY_LZMA - 1)])
def test_zeros_are_an_error_where_it_does_not(kind: str, padding: int) -> None:
    data, error = unpacked(kind, WRITERS[kind](TEXT) + bytes(padding))
    assert data == TEXT and error


def test_a_stream_of_lzma_after_empty_ones_is_unpacked() -> None:
    empty = bytes(EMPTY_LZMA) * 5_000
    assert unpacked("lzma", WRITERS["lzma"](b"first") + empty + WRITERS["lzma"](b"last")) == (b"firstlast", "")


def loaded(kind: str, data: bytes) -> bytes:
    """What a program reads of a stream before an error."""
    modules: Mapping[str, Any] = {"gzip": gzip, "bzip2": bz2, "xz": lzma, "lzma": lzma}
    read = bytearray()
    with (
        contextlib.suppress(OSError, EOFError, zlib.error, lzma.LZMAError),
        modules[kind].open(io.BytesIO(data)) as file,
    ):
        while byte := file.read(1):
            read += byte
    return bytes(read)


NUMBERS = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(500)) + bytes(5_000)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzma"])
@pytest.mark.parametrize("tenth", [1, 4, 6, 9])
def test_what_a_loader_reads_before_a_damage_is_kept(kind: str, tenth: int) -> None:
    packed = bytearray(WRITERS[kind](NUMBERS))
    at = len(packed) * tenth // 10
    packed[at : at + 30] = b"\xff" * 30
    for before in (b"", WRITERS[kind](b"the first stream")):
        data, error = unpacked(kind, before + bytes(packed))
        assert error and data.startswith(loaded(kind, before + bytes(packed)))


def test_nothing_is_kept_twice() -> None:
    packed = bytearray(zlib.compress(bytes(1_000_000)))
    packed[-1] ^= 1  # the checksum: its error is found in the step that unpacks the most
    data, error = unpacked("zlib", bytes(packed))
    assert error and data == bytes(1_000_000)


def test_unpacking_a_damaged_stream_again_takes_steps() -> None:
    packed = bytearray(WRITERS["xz"](NUMBERS))
    packed[-60:] = b"\xff" * 60
    enough = len(packed) // 16 + 300  # and the steps of reading
    assert unpacked("xz", bytes(packed), Work(steps=enough))[1]
    with pytest.raises(NotInspected, match="more steps"):
        unpacked("xz", bytes(packed), Work(steps=enough - 600))


@pytest.mark.parametrize("kind", WRITERS)
def test_no_more_is_unpacked_than_the_inspection_has_left(kind: str) -> None:
    data = WRITERS[kind](bytes(100_000))
    assert unpacked(kind, data, Work(unpacked=100_000))[1] == ""
    with pytest.raises(NotInspected, match="unpacks to more than"):
        unpacked(kind, data, Work(unpacked=99_999))


@pytest.mark.parametrize("kind", WRITERS)
def test_no_more_packed_bytes_are_taken_than_the_inspection_has_left(kind: str) -> None:
    data = WRITERS[kind](TEXT)
    assert unpacked(kind, data, Work(packed=len(data)))[1] == ""
    with pytest.raises(NotInspected, match="compressed bytes"):
        unpacked(kind, data, Work(packed=len(data) - 1))


def test_streams_of_nothing_are_counted() -> None:
    empty = gzip.compress(b"", mtime=0)
    assert unpacked("gzip", empty * (MAX_STREAMS + 1)) == (b"", "")
    with pytest.raises(NotInspected, match=f"more than {MAX_STREAMS} streams"):
        unpacked("gzip", empty * (MAX_STREAMS + 2))
    with pytest.raises(NotInspected, match="more steps"):
        unpacked("gzip", empty * 101, Work(steps=100 * STEPS_OF_STREAM))


def test_a_stream_that_wants_much_memory_is_not_inspected() -> None:
    greedy = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 97 << 20}])
    with pytest.raises(NotInspected, match="memory"):
        unpacked("xz", greedy)
    head = bytearray(WRITERS["lzma"](TEXT))
    head[1:5] = b"\xff\xff\xff\xff"  # its dictionary would be of 4 GiB: none larger than what is unpacked is needed
    assert unpacked("lzma", bytes(head)) == (TEXT, "")
    assert unpacked("lzma", bytes(head) + bytes(head)) == (TEXT + TEXT, "")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(WRITERS)), st.lists(st.binary(max_size=200), max_size=4), st.binary(max_size=30))
def test_only_the_bounds_stop_an_unpacking(kind: str, parts: list[bytes], more: bytes) -> None:
    whole = b"".join(parts)
    data, error = unpacked(kind, b"".join(WRITERS[kind](part) for part in parts) + more)
    if not more:
        assert (data, error) == ((whole, "") if parts else (b"", "it ends early"))
    else:
        assert data.startswith(whole)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zlib", "lzma"])
def test_each_kind_begins_with_bytes_of_its_own(kind: str) -> None:
    head = WRITERS[kind](TEXT)[:32]
    assert [other for other in ("gzip", "bzip2", "xz", "zlib") if begins_stream(other, head)] == (
        [] if kind == "lzma" else [kind]
    )
    assert begins_stream("lzma", head) == (kind == "lzma")


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("gzip", b"\x1f\x8c"),
        ("bzip2", b"BZh0"),
        ("bzip2", b"BZhx"),
        ("bzip2", b"BZh"),
        ("xz", b"\xfd7zXZ"),
        ("zlib", b"\x78\x9c"),
        ("zlib", b"\x78\x9d\x00"),
        ("zlib", b"\x88\x1c\x00"),
        ("zlib", b"\x79\x01\x00"),
        ("lzma", bytes(13)),
        ("lzma", bytes(13) + b"\1"),
        ("lzma", b"\xe1" + bytes(13)),
        ("lzma", b"\x05" + bytes(13)),
    ],
)
def test_other_bytes_begin_no_stream(kind: str, head: bytes) -> None:
    assert not begins_stream(kind, head)


def test_formats_that_are_not_unpacked_are_known() -> None:
    assert len(set(PACKED_MAGIC)) == len(PACKED_MAGIC)
    assert not [magic for magic in PACKED_MAGIC for kind in WRITERS if begins_stream(kind, magic.ljust(14, b"\1"))]
