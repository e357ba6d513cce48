"""Casts compared with arithmetic on single numbers; comparisons that do not depend on how tensors are sharded."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from comity.addons.derivation import casts
from comity.addons.derivation.casts import quantise
from comity.addons.derivation.check import WeightFiles, compare, read_weights
from comity.addons.derivation.steps import QUANTISED
from comity.trust.errors import ComityError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.derivations import Named, llama_gguf, write_safetensors
from support.examples import examples

words = st.integers(0, 2**32 - 1) | st.sampled_from(
    [base + step for base in (0, 0x00800000, 0x3F800000, 0x477FE000, 0x7F7F0000, 0x7F800000, 0xFF800000, 0x80000000)
     for step in (-0x8000, -1, 0, 1, 0x7FFF, 0x8000, 0x8001, 0x18000)]
).map(lambda word: word % 2**32)  # fmt: skip


def number(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


def of_bf16(half: int) -> float:
    return number(half << 16)


def cast(word: int, dtype: str, rounding: str = casts.NEAREST_EVEN) -> int:
    return int(casts.cast(np.array([word], "<u4").view("<f4"), dtype, rounding)[0])


@given(words)
@settings(max_examples=examples(300))
def test_bf16_is_the_nearest_with_ties_to_even(word: int) -> None:
    value, made = number(word), cast(word, "BF16")
    if math.isnan(value):
        assert math.isnan(of_bf16(made))
        return
    assert math.copysign(1, of_bf16(made)) == math.copysign(1, value)
    below = (word >> 16) & 0x7FFF
    if below == 0x7F80:
        assert made == word >> 16
        return
    largest = Fraction(2) ** 128  # the value that infinity has for rounding
    low, high = (Fraction(of_bf16(half)) if half < 0x7F80 else largest for half in (below, below + 1))
    exact = Fraction(abs(value))
    nearest = below if exact - low < high - exact else below + 1 if exact - low > high - exact else below + below % 2
    assert made & 0x7FFF == nearest


@given(words)
def test_bf16_towards_zero_is_the_upper_sixteen_bits(word: int) -> None:
    if not math.isnan(number(word)):
        assert cast(word, "BF16", casts.TOWARD_ZERO) == word >> 16


@given(words)
@settings(max_examples=examples(300))
def test_fp16_equals_that_of_the_standard_library(word: int) -> None:
    value, made = number(word), cast(word, "F16")
    if math.isnan(value):
        assert math.isnan(struct.unpack("<e", struct.pack("<H", made))[0])
        return
    try:
        expected = struct.pack("<e", value)
    except OverflowError:
        expected = struct.pack("<e", math.copysign(math.inf, value))
    assert struct.pack("<H", made) == expected


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 2 * 2]), st.sampled_from(["F16", "BF16"]))
def test_a_widened_value_rounds_back_to_itself(data: bytes, dtype: str) -> None:
    made = casts.cast(casts.values(data, dtype), dtype)
    assert not casts.unequal(made, casts.bits(data, dtype), dtype).any()


def test_a_nan_is_no_infinity_and_any_nan_is_a_nan() -> None:
    assert casts.is_nan(np.array([0x7F81, 0xFFC0], "<u2"), "BF16").all()
    assert not casts.is_nan(np.array([0x7F80, 0xFF80], "<u2"), "BF16").any()
    assert casts.unequal(np.array([0x7FC0], "<u2"), np.array([0x7F80], "<u2"), "BF16").all()
    assert not casts.unequal(np.array([0x7FC0], "<u2"), np.array([0xFFFF], "<u2"), "BF16").any()
    assert cast(0x7F800001, "BF16") & 0x7FFF > 0x7F80


def single(value: float) -> float:
    """Rounded to FP32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def half(value: float) -> bytes:
    return struct.pack("<e", value)


def away(value: float) -> int:
    """Rounded to the nearest integer, ties away from zero, as roundf does."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def q8_0(values: list[float]) -> bytes:
    """One block, as ggml's quantize_row_q8_0_ref: every operation in FP32."""
    scale = single(max(map(abs, values)) / 127)
    inverse = single(1 / scale) if scale else 0.0
    return half(scale) + struct.pack("<32b", *(away(single(value * inverse)) for value in values))


def q4_0(values: list[float]) -> bytes:
    """One block, as ggml's quantize_row_q4_0_ref: every operation in FP32."""
    largest = max(values, key=abs)
    scale = single(largest / -8)
    inverse = single(1 / scale) if scale else 0.0
    levels = [min(15, int(single(single(value * inverse) + 8.5))) for value in values]
    return half(scale) + bytes(low | high << 4 for low, high in zip(levels[:16], levels[16:], strict=True))


weights = st.floats(-1000, 1000, width=32).filter(lambda value: value == 0 or abs(value) > 1e-5)


@pytest.mark.parametrize(("dtype", "reference"), [("Q8_0", q8_0), ("Q4_0", q4_0)])
@given(st.lists(weights, min_size=32, max_size=32))
@settings(max_examples=examples(150))
def test_a_quantised_block_equals_plain_arithmetic(
    dtype: str, reference: Callable[[list[float]], bytes], values: list[float]
) -> None:
    assert quantise(np.array(values, np.float32), dtype).tobytes() == reference(values)


tensors = st.lists(
    st.tuples(st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6})?", fullmatch=True), st.binary(max_size=40)),
    min_size=1,
    max_size=8,
    unique_by=lambda tensor: tensor[0],
)


@given(tensors, st.data())
@settings(max_examples=examples(60), deadline=None)
def test_another_distribution_of_tensors_over_files_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, named: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    made: list[Named] = [(name, "U8", (len(body),), body) for name, body in named]
    folders = []
    for side in ("child", "parent"):
        folder = tmp_path_factory.mktemp(side)
        order = data.draw(st.permutations(made))
        homes = data.draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))
        for home in set(homes):
            dealt = [tensor for tensor, where in zip(order, homes, strict=True) if where == home]
            write_safetensors(folder / f"part-{home}.safetensors", dealt)
        folders.append(folder)
    child, parent = (read_weights(folder, [path.name for path in folder.iterdir()]) for folder in folders)
    found = compare(child, parent)
    assert found.exact
    assert found.bytes == sum(len(body) for _, body in named)


@given(tensors, st.integers(0), st.integers(0, 7))
@settings(max_examples=examples(60), deadline=None)
def test_any_bit_of_any_tensor_is_found(
    tmp_path_factory: pytest.TempPathFactory, named: list[tuple[str, bytes]], at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("bit")
    made: list[Named] = [(name, "U8", (len(body),), body) for name, body in named]
    total = sum(len(body) for _, body in named)
    if total == 0:
        return
    (path,) = [write_safetensors(folder / "parent" / "m.safetensors", made)]
    changed = bytearray(path.read_bytes())
    position = len(changed) - total + at % total
    changed[position] ^= 1 << bit
    (folder / "child").mkdir()
    (folder / "child" / "m.safetensors").write_bytes(changed)
    child, parent = (read_weights(folder / side, ["m.safetensors"]) for side in ("child", "parent"))
    (altered,) = [tensor for tensor in compare(child, parent).tensors if not tensor.equal]
    assert altered.difference is not None
    assert altered.difference.offset == position
    assert altered.difference.elements == 1


def test_weights_that_are_nan_are_compared_too() -> None:
    odd = np.array([math.nan, math.inf, -math.inf, 1e-45, *[0.0] * 28], np.float32)
    for dtype in QUANTISED:
        assert quantise(odd, dtype).tobytes() == quantise(odd, dtype).tobytes()
    for dtype in casts.WIDTHS:
        assert len(casts.cast(odd, dtype)) == 32


FLOATS: list[Named] = [("model.embed_tokens.weight", "F32", (4, 32), struct.pack("<128f", *range(128)))]
FLOATS += [(f"model.layers.0.self_attn.{name}_proj.weight", "F32", (32, 32), bytes(4096)) for name in "qk"]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, WeightFiles]:
    """A folder to write a child into, the bytes of a good one, and its parent."""
    folder = tmp_path_factory.mktemp("hostile")
    good = llama_gguf(folder / "good" / "m.gguf", FLOATS, "Q8_0", 1, 4, 2).read_bytes()
    write_safetensors(folder / "parent" / "m.safetensors", FLOATS)
    (folder / "child").mkdir()
    return folder / "child", good, read_weights(folder / "parent", ["m.safetensors"])


@given(
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4), st.none() | st.integers(0, 900)
)
@settings(max_examples=examples(200), deadline=None)
def test_a_hostile_gguf_is_refused_or_compared_and_never_more(
    family: tuple[Path, bytes, WeightFiles], changes: list[tuple[int, int]], cut: int | None
) -> None:
    folder, good, parent = family
    data = bytearray(good)
    for at, value in changes:
        data[at % min(len(data), 900)] = value
    (folder / "m.gguf").write_bytes(data[:cut])
    try:
        found = compare(read_weights(folder, ["m.gguf"]), parent)
    except ComityError:
        return
    assert len(found.equal) <= len(found.tensors)
