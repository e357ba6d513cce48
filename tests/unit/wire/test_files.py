"""Prefixes of the digests of files."""

from __future__ import annotations

import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.files import FILE_PREFIXES, FilePrefixes, file_pair, file_pairs, file_reference, prefix_of
from hypothesis import given
from hypothesis import strategies as st
from support.file_prefixes import prefixes_of


@given(st.integers(0, 32), st.lists(st.binary(max_size=4), min_size=1, max_size=20))
def test_each_digest_is_within_the_bounds_of_its_prefix_alone(bits: int, data: list[bytes]) -> None:
    files = [sha256(each) for each in data]
    asked = prefixes_of(bits, files)
    assert FILE_PREFIXES.decode(FILE_PREFIXES.encode(asked)) == asked
    for file in files:
        reference = file_reference(file)
        within = [prefix for prefix, first, last in asked.bounds() if first <= reference <= last]
        assert within == [prefix_of(reference, bits)]


def test_prefixes_of_no_bits_are_one() -> None:
    assert prefixes_of(0, [Digest("00" * 32), Digest("ff" * 32)]).prefixes == (0,)
    assert list(FilePrefixes(0, (0,)).bounds()) == [(0, bytes(16), b"\xff" * 16)]


@pytest.mark.parametrize(
    ("bits", "prefixes"),
    [(33, [0]), (4, [16]), (4, [1, 1]), (4, [2, 1]), (0, [1]), (16, range(limits.FILE_PREFIXES + 1))],
)
def test_malformed_prefixes_are_refused(bits: int, prefixes: list[int]) -> None:
    with pytest.raises(Malformed):
        FILE_PREFIXES.decode(artifact_pb2.FindFilesRequest(bits=bits, prefixes=prefixes))


def test_files_are_cut_from_the_joined_ones() -> None:
    files = [(file_reference(sha256(b"%d" % number)), sha256(b"artifact %d" % number)) for number in range(5)]
    joined = b"".join(file_pair(*each) for each in files)
    assert list(file_pairs(joined)) == files
    with pytest.raises(Malformed):
        list(file_pairs(joined[1:]))
