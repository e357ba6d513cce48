"""Files of whisper.cpp, fastText and Core ML's weights: each count leads to the end of the file, or it is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from comity.formats.binaries import (
    MAX_DIMENSIONS,
    MAX_TENSORS,
    MAX_WORD,
    MAX_WORDS,
    check_coreml_weights,
    check_fasttext,
    check_ggml,
    is_coreml_weights,
)
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.trust.errors import Malformed
from support.model_files import WORDS, coreml_weights, fasttext, whisper


def check(by: Callable[[BoundedFile], None], data: bytes, work: Work | None = None) -> None:
    by(BoundedFile.of(data, work or Work()))


def ggml(
    *tensors: bytes, parameters: tuple[int, ...] = (9,) * 10 + (0,), words: tuple[bytes, ...] = (b"a",), count: int = -1
) -> bytes:
    """A model of whisper.cpp without filters; `count` is the number of words that it states."""
    texts = b"".join(struct.pack("<I", len(word)) + word for word in words)
    head = b"lmgg" + struct.pack("<11I", *parameters) + struct.pack("<2I", 0, 0)
    return head + struct.pack("<I", len(words) if count < 0 else count) + texts + b"".join(tensors)


def tensor(sides: tuple[int, ...] = (4,), kind: int = 0, name: bytes = b"w", data: bytes = bytes(16)) -> bytes:
    head = struct.pack("<3I", len(sides), len(name), kind)
    return head + struct.pack(f"<{len(sides)}I", *sides) + name + data


@pytest.mark.parametrize("place", range(10))
@pytest.mark.parametrize(("number", "taken"), [(0, False), (1, True), (MAX_WORDS - 1, True), (MAX_WORDS, False)])
def test_each_parameter_of_ggml_but_the_type_is_a_size(place: int, number: int, taken: bool) -> None:
    parameters = [9] * 11
    parameters[place] = number
    data = ggml(tensor(), parameters=tuple(parameters))
    if taken:
        check(check_ggml, data)
    else:
        with pytest.raises(Malformed, match=r"not a model of whisper\.cpp"):
            check(check_ggml, data)


def test_the_type_of_ggml_may_be_any() -> None:
    for kind in (0, 2**32 - 1):
        check(check_ggml, ggml(tensor(), parameters=(9,) * 10 + (kind,)))


def test_words_of_ggml_have_bounds() -> None:
    check(check_ggml, ggml(words=(b"w" * MAX_WORD,)))
    with pytest.raises(Malformed, match="name is too long"):
        check(check_ggml, ggml(words=(b"w" * (MAX_WORD + 1),)))
    with pytest.raises(Malformed, match="too many words"):
        check(check_ggml, ggml(count=MAX_WORDS + 1))
    with pytest.raises(Malformed, match="truncated"):
        check(check_ggml, ggml(count=MAX_WORDS))
    with pytest.raises(NotInspected):
        check(check_ggml, ggml(words=(b"",) * 2000), Work(steps=1000))


def test_tensors_of_ggml_have_bounds() -> None:
    check(check_ggml, ggml(tensor((2, 1, 2, 1)), tensor((64,), 8, data=bytes(68))))
    with pytest.raises(Malformed, match="unknown kind"):
        check(check_ggml, ggml(tensor((1,) * (MAX_DIMENSIONS + 1))))
    with pytest.raises(Malformed, match="unknown kind"):
        check(check_ggml, ggml(tensor(kind=4)))
    with pytest.raises(Malformed, match="truncated"):
        check(check_ggml, ggml(tensor((2**32 - 1,) * 4)))
    with pytest.raises(Malformed, match="name is too long"):
        check(check_ggml, ggml(tensor(name=b"n" * (MAX_WORD + 1))))
    smallest = tensor((0,), data=b"", name=b"")
    check(check_ggml, ggml(*(smallest,) * (MAX_TENSORS - 1)))
    with pytest.raises(Malformed, match=f"more than {MAX_TENSORS} tensors"):
        check(check_ggml, ggml(*(smallest,) * MAX_TENSORS))


@pytest.mark.parametrize("magic", [b"tjgg", b"ggml", b""])
def test_other_formats_of_ggml_are_named_as_old(magic: bytes) -> None:
    with pytest.raises(Malformed, match="old versions"):
        check(check_ggml, magic + ggml()[4:] if magic else b"")


HEAD = 4 + 4 + 12 * 4 + 8
"""Bytes of a fastText file before its words."""


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("quantised", [False, True])
def test_fasttext_is_read_to_its_end(quantised: bool) -> None:
    data = fasttext(quantised=quantised)
    check(check_fasttext, data)
    with pytest.raises(Malformed, match="more follows"):
        check(check_fasttext, data + b"\0")
    for length in range(8, len(data), 7):
        with pytest.raises(Malformed):
            check(check_fasttext, data[:length])


@pytest.mark.parametrize("version", [10, 13, 2**32 - 1])
def test_another_version_of_fasttext_is_refused(version: int) -> None:
    with pytest.raises(Malformed, match="unknown version"):
        check(check_fasttext, changed(fasttext(), 4, struct.pack("<I", version)))


def test_a_dictionary_of_fasttext_has_bounds() -> None:
    data = fasttext()
    with pytest.raises(Malformed, match="too many words"):
        check(check_fasttext, changed(data, HEAD, struct.pack("<I", MAX_WORDS + 1)))
    with pytest.raises(Malformed, match="too many words"):
        check(check_fasttext, changed(data, HEAD + 20, struct.pack("<q", MAX_WORDS + 1)))
    check(check_fasttext, changed(data, HEAD + 20, struct.pack("<q", -(2**63))))  # not pruned
    check(check_fasttext, fasttext(words=("w" * (MAX_WORD - 1),)))
    with pytest.raises(Malformed, match="a word is too long"):
        check(check_fasttext, fasttext(words=("w" * MAX_WORD,)))


def test_pruned_words_of_fasttext_are_stepped_over() -> None:
    data = changed(fasttext(), HEAD + 20, struct.pack("<q", 2))
    matrix = len(data) - (1 + 16 + 5 * 16) - (1 + 16 + 2 * 16)
    check(check_fasttext, data[:matrix] + bytes(16) + data[matrix:])
    with pytest.raises(Malformed):
        check(check_fasttext, data)


def test_a_flag_of_fasttext_is_zero_or_one() -> None:
    data = fasttext(quantised=True)
    flag = HEAD + 28 + sum(len(word.encode()) + 10 for word in WORDS)
    assert data[flag] == 1
    with pytest.raises(Malformed, match="not a flag"):
        check(check_fasttext, changed(data, flag, b"\2"))


def test_blobs_of_coreml_follow_one_another_to_the_end() -> None:
    data = coreml_weights(b"1" * 100, b"2" * 64)
    assert is_coreml_weights(data[:68])
    check(check_coreml_weights, data)
    check(check_coreml_weights, coreml_weights(b"1" * 100)[: 128 + 100])  # the padding may be missing
    with pytest.raises(Malformed, match="do not fill the file"):
        check(check_coreml_weights, coreml_weights(b"1" * 100)[: 128 + 99])
    with pytest.raises(Malformed, match="do not fill the file"):
        check(check_coreml_weights, data + b"\0")
    with pytest.raises(Malformed, match="do not follow"):
        check(check_coreml_weights, changed(coreml_weights(b"1" * 64), 64 + 16, struct.pack("<Q", 100)))
    with pytest.raises(Malformed):
        check(check_coreml_weights, changed(data, 64 + 8, struct.pack("<Q", 2**64 - 1)))
    with pytest.raises(Malformed, match="do not follow"):
        check(check_coreml_weights, changed(data, 64, b"\0"))


@pytest.mark.parametrize("count", [0, MAX_TENSORS * 10 + 1, 2**32 - 1])
def test_a_count_of_blobs_that_no_model_has_is_refused(count: int) -> None:
    with pytest.raises(Malformed, match="count of blobs"):
        check(check_coreml_weights, changed(coreml_weights(b"1"), 0, struct.pack("<I", count)))


def test_more_blobs_than_the_file_has_are_refused() -> None:
    with pytest.raises(Malformed):
        check(check_coreml_weights, changed(coreml_weights(b"1" * 64), 0, struct.pack("<I", 2)))


def test_weights_of_coreml_are_known_by_version_and_mark() -> None:
    head = coreml_weights(b"1")[:68]
    assert not is_coreml_weights(changed(head, 4, b"\1"))
    assert not is_coreml_weights(changed(head, 64, b"\0"))
    assert not is_coreml_weights(head[:67])


def test_a_vocabulary_of_whisper_is_as_the_program_writes_it() -> None:
    check(check_ggml, whisper())
    with pytest.raises(Malformed):
        check(check_ggml, whisper()[:-1])
