"""Tensors with the same bytes: in other files, under other names, and what is not said where it is not proven."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from comity.formats.tensors import Tensor
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import sha256
from comity_client.identify.disk import DiskFile
from comity_client.identify.piece_cache import PieceCache
from comity_client.identify.tensors import ComparedTensors, WeightFile, compare, read_weight_file
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.weights import gguf, safetensors

LARGE = 300 * 1024
Write: TypeAlias = Callable[[Mapping[str, bytes]], bytes]
SMALL = 1024


def bytes_of(name: str, length: int = LARGE) -> bytes:
    return random.Random(name).randbytes(length)


MODEL = {name: bytes_of(name) for name in ("a", "b", "c", "d")}
NORMS = {name: bytes_of(name, SMALL) for name in ("n1", "n2")}


def read(folder: Path, data: bytes, name: str = "weights") -> WeightFile | None:
    path = folder / name
    path.write_bytes(data)
    return read_weight_file(DiskFile(path, len(data), sha256(data)), None, lambda count: None)


def weights(folder: Path, *files: bytes) -> list[WeightFile]:
    found = [read(folder, data, f"{number}") for number, data in enumerate(files)]
    assert all(found)
    return [each for each in found if each is not None]


def compared(folder: Path, here: list[bytes], published: list[bytes]) -> ComparedTensors:
    (folder / "here").mkdir()
    (folder / "there").mkdir()
    return compare(weights(folder / "here", *here), weights(folder / "there", *published))


def renamed(tensors: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"model.{name}": data for name, data in tensors.items()}


@pytest.mark.parametrize("write", [safetensors, gguf])
def test_all_tensors_are_the_same_under_other_names_and_with_another_header(tmp_path: Path, write: Write) -> None:
    found = compared(tmp_path, [write(renamed(MODEL))], [write(MODEL)])
    assert (found.all_same, found.same, found.same_bytes, found.bytes) == (True, 4, 4 * LARGE, 4 * LARGE)
    assert found.renamed == tuple(f"model.{name} = {name}" for name in MODEL)


@pytest.mark.parametrize("count", [2, 3])
def test_tensors_in_other_shards_are_the_same_and_those_that_are_not_here_are_missing(
    tmp_path: Path, count: int
) -> None:
    names = list(MODEL)
    shards = [safetensors({name: MODEL[name] for name in names[number::count]}) for number in range(count)]
    found = compared(tmp_path, shards, [safetensors(MODEL)])
    assert (found.all_same, found.same, found.renamed, found.of) == (True, 4, (), (str(tmp_path / "there" / "0"),))
    part = compare(weights(tmp_path / "here", *shards[1:]), weights(tmp_path / "there", safetensors(MODEL)))
    assert (part.all_same, part.missing) == (False, tuple(names[0::count]))


def test_a_changed_tensor_is_named_and_one_bit_is_enough(tmp_path: Path) -> None:
    flipped = bytearray(MODEL["c"])
    flipped[1000] ^= 1
    found = compared(tmp_path, [safetensors({**MODEL, "c": bytes(flipped), "e": bytes_of("e")})], [safetensors(MODEL)])
    assert (found.same, found.changed, found.not_found, found.missing) == (3, ("c",), ("e",), ())
    assert not found.all_same and found.found


def test_a_file_that_ends_a_byte_too_early_lacks_the_end_of_one_tensor(tmp_path: Path) -> None:
    cases: list[tuple[Write, int]] = [(safetensors, 1), (gguf, 1), (safetensors, LARGE + 1)]
    for number, (write, lost) in enumerate(cases):
        (tmp_path / f"{number}").mkdir()
        found = compared(tmp_path / f"{number}", [write(MODEL)[:-lost]], [write(MODEL)])
        assert (found.same, found.cut) == ((3, ("d",)) if lost == 1 else (2, ("c", "d")))
        assert (found.changed, found.undecided, found.not_found, found.missing) == ((), (), (), ())


def test_bytes_after_the_last_tensor_change_no_tensor(tmp_path: Path) -> None:
    assert compared(tmp_path, [safetensors(MODEL) + b"more"], [safetensors(MODEL)]).all_same


def test_another_chat_template_changes_no_tensor(tmp_path: Path) -> None:
    here = gguf(MODEL, texts={"tokenizer.chat_template": "{{ harmless }}"})
    assert compared(tmp_path, [here], [gguf(MODEL)]).all_same


def test_of_small_tensors_nothing_is_said_but_that_a_piece_of_them_is_the_same(tmp_path: Path) -> None:
    there = safetensors({**MODEL, **NORMS})
    same = compared(tmp_path, [safetensors({**NORMS, **MODEL})], [there])
    assert same.all_same  # both in one piece, wherever it lies
    other = compare(
        weights(tmp_path / "here", safetensors({**MODEL, **NORMS, "n2": bytes_of("other", SMALL)})),
        weights(tmp_path / "there", there),
    )
    assert (other.same, other.undecided, other.changed) == (4, ("n1", "n2"), ())
    longer = compare(
        weights(tmp_path / "here", safetensors({**MODEL, "n1": bytes_of("n1", SMALL + 1)})),
        weights(tmp_path / "there", there),
    )
    assert longer.changed == ("n1",)  # by its length


def test_the_same_bytes_as_another_type_are_not_the_same_tensor(tmp_path: Path) -> None:
    (there,) = weights(tmp_path, safetensors(MODEL))
    here = replace(there, tensors=tuple(replace(each, dtype="I8") for each in there.tensors))
    found = compare([here], [there])
    assert (found.same, found.retyped, found.found, found.all_same) == (0, tuple(MODEL), True, False)


def test_two_tensors_that_begin_alike_and_end_elsewhere_are_different(tmp_path: Path) -> None:
    """The start of a tensor of several pieces is another tensor."""
    long = bytes_of("long", 9 * 1024 * 1024)
    found = compared(tmp_path, [safetensors({"x": long[: 4 * 1024 * 1024]})], [safetensors({"x": long})])
    assert (found.changed, found.found) == (("x",), False)
    found = compare(
        weights(tmp_path / "here", safetensors({"x": long[:-1] + b"\0", "y": long})),
        weights(tmp_path / "there", safetensors({"x": long})),
    )
    assert (found.changed, found.renamed) == (("x",), ("y = x",))


def test_what_is_no_weight_file_or_changed_since_it_was_hashed_is_not_compared(tmp_path: Path) -> None:
    whole = safetensors(MODEL)
    huge = (
        struct.pack("<Q", 100) + b'{"a":{"dtype":"U8","shape":[9007199254740000],"data_offsets":[0,9007199254740000]}}'
    )
    hostile = [b"", b"text", b"GGUF", b"GGUF" + b"\xff" * 100, struct.pack("<Q", 2**60) + b"{}", whole[:50], huge]
    nested = struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995
    for data in [*hostile, nested, safetensors({}), struct.pack("<Q", 2) + b"{}", huge.ljust(400)]:
        assert read(tmp_path, data) is None
    path = tmp_path / "weights"
    path.write_bytes(whole)
    assert read_weight_file(DiskFile(path, len(whole), sha256(b"before")), None, lambda count: None) is None
    assert read_weight_file(DiskFile(tmp_path / "gone", 1, sha256(b"gone")), None, lambda count: None) is None


def test_pieces_are_hashed_once_and_again_where_what_was_kept_is_damaged(tmp_path: Path) -> None:
    path, data, hashed, cache = tmp_path / "weights", safetensors(MODEL), list[int](), PieceCache(tmp_path)
    path.write_bytes(data)
    file = DiskFile(path, len(data), sha256(data))
    first = read_weight_file(file, cache, hashed.append)
    assert (sum(hashed), first is not None) == (len(data), True)
    assert read_weight_file(file, cache, hashed.append) == first and sum(hashed) == len(data)
    cache.keep(sha256(data), (cache.get(sha256(data)) or b"")[36:])
    assert read_weight_file(file, cache, hashed.append) == first and sum(hashed) == 2 * len(data)
    (tmp_path / "pieces.sqlite").write_bytes(b"no database")
    assert read_weight_file(file, cache, hashed.append) == first


def cut(name: str, data: bytes, lengths: list[int], tensors: list[int]) -> WeightFile:
    """A file of `data` cut into pieces and tensors of these lengths, as far as it goes."""
    records, start = list[PieceRecord](), 0
    for length in [*lengths, len(data)]:
        if piece := data[start : start + length]:
            records.append(PieceRecord(len(piece), bytes.fromhex(sha256(piece))))
        start += length
    made, start = list[Tensor](), 0
    for number, length in enumerate(tensors):
        if start + length <= len(data):
            made.append(Tensor(f"t{number}", "U8", (length,), start, length))
        start += length
    return WeightFile(name, WantedFile(sha256(data), len(data), records), tuple(made))


LENGTHS = st.lists(st.integers(1, 6), max_size=6)
DATA = st.binary(min_size=1, max_size=24).map(lambda data: bytes(each & 1 for each in data))


@given(DATA, LENGTHS, LENGTHS, DATA, LENGTHS, LENGTHS)
@settings(max_examples=examples(300))
def test_whatever_is_said_of_tensors_is_true_however_files_are_cut(
    one: bytes, pieces: list[int], tensors: list[int], other: bytes, other_pieces: list[int], other_tensors: list[int]
) -> None:
    here, there = cut("here", one, pieces, tensors), cut("there", other, other_pieces, other_tensors)
    content = {each.name: one[each.start : each.start + each.length] for each in here.tensors}
    theirs = {each.name: other[each.start : each.start + each.length] for each in there.tensors}
    found = compare([here], [there])
    assert (
        found.tensors
        == len(here.tensors)
        == found.same + sum(map(len, (found.retyped, found.changed, found.undecided, found.not_found, found.cut)))
    )
    assert all(content[name] != theirs[name] for name in found.changed)
    assert not found.not_found or not {*found.not_found} & theirs.keys()
    for pair in found.renamed:
        name, _, twin = pair.partition(" = ")
        assert content[name] == theirs[twin]
    told = {*found.changed, *found.undecided, *found.not_found, *(pair.partition(" = ")[0] for pair in found.renamed)}
    assert all(content[name] == theirs[name] for name in content.keys() - told)
