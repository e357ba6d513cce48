"""States of a chained hash over any lengths and splits, against a SHA-256 written from the standard."""

from __future__ import annotations

import hashlib
from unittest.mock import patch

import pytest
from comity import hashing
from comity.hashing import INITIAL_STATE, ContinueFrom, FileHash, load
from hypothesis import given
from hypothesis import strategies as st
from support import sha256 as oracle

ENGINE = load()
pytestmark = pytest.mark.skipif(ENGINE is None, reason="needs libcrypto.so.3 (OpenSSL 3)")


def engine() -> ContinueFrom:
    assert ENGINE is not None
    return ENGINE


@given(data=st.binary(max_size=400), split=st.integers(0, 6), parts=st.lists(st.integers(0, 400), max_size=4))
def test_a_hash_continued_anywhere_gives_the_hash_of_the_whole(data: bytes, split: int, parts: list[int]) -> None:
    offset = min(split * 64, len(data) // 64 * 64)
    first = engine()(INITIAL_STATE, 0)
    for start, stop in zip([0, *sorted(parts)], [*sorted(parts), offset], strict=True):
        first.update(bytearray(data[min(start, offset) : min(stop, offset)]))
    assert first.state() == oracle.state_after(data[:offset])
    second = engine()(first.state(), offset)
    second.update(data[offset:])
    assert second.digest() == hashlib.sha256(data).digest()


@given(data=st.binary(max_size=500), piece=st.sampled_from([64, 128, 192]), parts=st.lists(st.integers(0, 200)))
def test_the_states_of_a_file_do_not_depend_on_how_it_is_read(data: bytes, piece: int, parts: list[int]) -> None:
    with patch.object(hashing, "PIECE_SIZE", piece):
        hashed, at = FileHash(len(data), engine()), 0
        for length in [*parts, len(data)]:
            hashed.update(bytearray(data[at : at + length]))
            at += length
    assert hashed.digest() == hashlib.sha256(data).digest()
    assert hashed.states == [oracle.state_after(data[:end]) for end in range(piece, len(data), piece)]


@given(state=st.binary(min_size=32, max_size=32), blocks=st.integers(0, 1 << 50), data=st.binary(max_size=200))
def test_any_state_at_any_offset_continues_as_the_standard_says(state: bytes, blocks: int, data: bytes) -> None:
    hashed = engine()(state, 64 * blocks)
    hashed.update(data)
    assert hashed.digest() == oracle.digest_from(data, state, 64 * blocks)


def test_no_state_is_after_no_bytes() -> None:
    hashed = FileHash(1)
    hashed.update(b"")
    hashed.update(b"\0")
    assert hashed.states in (None, [])
    assert hashed.digest() == hashlib.sha256(b"\0").digest()
