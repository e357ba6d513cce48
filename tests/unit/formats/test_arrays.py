"""Headers of NumPy's files: the bytes of an array, whether it holds objects, and which literals are refused."""

from __future__ import annotations

import math
import struct

import pytest
from comity.formats.arrays import (
    MAX_ARRAYS,
    MAX_DIMENSIONS,
    MAX_HEADER,
    ArrayHeader,
    is_array,
    read_array_header,
    read_arrays,
)
from comity.formats.source import MAX_STEPS, BoundedFile, NotInspected, Work
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st


def written(header: str | bytes, body: bytes = b"", version: int = 1) -> bytes:
    text = header if isinstance(header, bytes) else header.encode("utf-8" if version == 3 else "latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body


def described(descr: str, shape: str = "(1,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def header_of(text: str | bytes, version: int = 1) -> ArrayHeader:
    return read_array_header(BoundedFile.of(written(text, version=version), Work()), 0)


def holds_objects(data: bytes, *, whole: bool = True) -> bool:
    return read_arrays(BoundedFile.of(data, Work()), whole=whole)


@pytest.mark.parametrize(
    ("descr", "width"),
    [
        ("'<f4'", 4),
        ("'|u1'", 1),
        ("'>c16'", 16),
        ("'|b1'", 1),
        ("'?'", 1),
        ("'<U10'", 40),
        ("'|S7'", 7),
        ("'|V0'", 0),
        ("'<M8[ns]'", 8),
        ("'<m8'", 8),
        ("[('a', '<f4'), ('b', '<i2')]", 6),
        ("[('a', '<f4', (3, 2))]", 24),
        ("[(('title', 'a'), '<f4'), ('b', [('c', '|u1'), ('d', '<f8')])]", 13),
        ("[]", 0),
    ],
)
def test_the_bytes_of_an_element_are_those_of_its_type(descr: str, width: int) -> None:
    text = described(descr, "(5,)")
    assert header_of(text) == ArrayHeader(10 + len(text), 5 * width, False)


@pytest.mark.parametrize("descr", ["'|O'", "'O8'", "[('a', '<f4'), ('b', '|O')]", "[('a', [('b', '|O', (2,))])]"])
def test_objects_are_found_in_fields_too(descr: str) -> None:
    assert header_of(described(descr)).objects
    assert holds_objects(written(described(descr), b"\x80\x04N."))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), max_size=6),
    st.booleans(),
    st.sampled_from([1, 2, 3]),
)
def test_what_numpy_writes_is_read(shape: list[int], fortran: bool, version: int) -> None:
    text = str({"descr": "<f8", "fortran_order": fortran, "shape": tuple(shape)}) + " \n"
    start = (10 if version == 1 else 12) + len(text)
    assert header_of(text, version) == ArrayHeader(start, 8 * math.prod(shape), False)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1)}",  # not a tuple
        "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}",
        "{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': ()}",
        "{'descr': '|' 'O', 'fortran_order': False, 'shape': ()}",  # joined literals
        r"{'descr': '\x7cO', 'fortran_order': False, 'shape': ()}",
        "{'descr': b'|O', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()} or 1",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ()}{}",
        "{1: '<f4', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (",
        "{'descr': '<f4' 'fortran_order': False, 'shape': ()}",
        "('descr',)",
        "]",
        "",
        "{'descr': 'f99999999999', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<q4', 'fortran_order': False, 'shape': ()}",
        "{'descr': 4, 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': ()}",
        "{'descr': [(('a', 1), '<f4')], 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a', '<f4', (True,))], 'fortran_order': False, 'shape': ()}",
    ],
)
def test_a_header_that_numpy_does_not_write_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        header_of(text)


@pytest.mark.parametrize("version", [0, 4, 255])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(Malformed, match="other bytes"):
        header_of(described("'<f4'"), version)


def test_a_header_of_version_3_is_text() -> None:
    assert header_of(described("[('größe', '<f4')]"), 3).length == 4
    assert header_of(described("[('größe', '<f4')]"), 2).length == 4  # before, Latin-1
    with pytest.raises(Malformed, match="not text"):
        header_of(described("[('größe', '<f4')]").encode("latin-1"), 3)


def test_a_header_has_at_most_so_many_bytes_levels_and_dimensions() -> None:
    assert header_of(described("'<f4'").ljust(MAX_HEADER), 2).length == 4
    with pytest.raises(Malformed, match=f"a header of {MAX_HEADER + 1} bytes"):
        header_of(described("'<f4'").ljust(MAX_HEADER + 1), 2)
    sides = "1, " * MAX_DIMENSIONS
    assert header_of(described("'<f4'", f"({sides})")).length == 4
    with pytest.raises(Malformed, match="a shape"):
        header_of(described("'<f4'", f"({sides}1)"))
    nested = "'<f4'"
    for _ in range(3):
        nested = f"[('a', {nested})]"
    assert header_of(described(nested)).length == 4
    with pytest.raises(Malformed, match="too many levels"):
        header_of(described(f"[('a', {nested})]"))
    with pytest.raises(Malformed, match="too many levels"):
        header_of("(" * 30_000)


def test_a_length_beyond_the_file_is_refused() -> None:
    data = written(described("'<f4'"), bytes(4))
    assert not holds_objects(data)
    for length in range(len(data)):
        with pytest.raises(Malformed):
            holds_objects(data[:length])


def test_arrays_follow_one_another_to_the_end() -> None:
    numbers = written(described("'<f4'"), bytes(4))
    assert not holds_objects(numbers * 3)
    assert holds_objects(numbers * 2 + written(described("'|O'")))
    assert not holds_objects(written(described("'<f4'", "(9,)")), whole=False)
    with pytest.raises(Malformed, match="shorter than its header says"):
        holds_objects(written(described("'<f4'", "(9,)"), bytes(35)))
    with pytest.raises(Malformed, match=r"other bytes|truncated"):
        holds_objects(numbers + b"cos\nsystem\n")


def test_one_file_has_at_most_so_many_arrays() -> None:
    empty = written(described("'<f4'", "(0,)"))
    assert not holds_objects(empty * MAX_ARRAYS)
    with pytest.raises(Malformed, match=f"more than {MAX_ARRAYS} arrays"):
        holds_objects(empty * (MAX_ARRAYS + 1))


def test_a_long_header_takes_steps_by_its_length() -> None:
    data = written(described("'<f4'").ljust(MAX_HEADER), version=2)
    with pytest.raises(NotInspected):
        read_array_header(BoundedFile.of(data, Work(steps=MAX_HEADER // 2)), 0)
    assert read_array_header(BoundedFile.of(data, Work(steps=MAX_HEADER)), 0).length == 4
    assert MAX_STEPS > MAX_HEADER


def test_only_the_magic_bytes_make_an_array() -> None:
    assert is_array(BoundedFile.of(b"\x93NUMPY", Work()))
    assert not is_array(BoundedFile.of(b"\x93NUMP", Work()))
    assert not is_array(BoundedFile.of(b"\x93NUMPZ", Work()))
