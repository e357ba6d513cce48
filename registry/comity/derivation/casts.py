"""Floating point casts, bit for bit, in numpy: FP32, FP16 and BF16 to one another.

Rounding is to nearest, ties to even, as in torch, numpy and ggml; for BF16 also towards zero (the upper half of the
word), which some writers do. Elements that are NaN have to stay NaN; which of the NaNs is not compared, since writers
differ in it and no computation does.


What the gguf package knows: tensor names by architecture, and the quantisers of llama.cpp, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

Bits: TypeAlias = "NDArray[np.uint16] | NDArray[np.uint32]"

WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2}
NEAREST: Final = "nearest-even"
ZERO: Final = "toward-zero"


def values(data: bytes, dtype: str) -> NDArray[np.float32]:
    """The numbers in `data`, which FP32 holds exactly."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    if dtype == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def bits(data: bytes, dtype: str) -> Bits:
    """Elements as they lie there, one word each."""
    return np.frombuffer(data, "<u4") if dtype == "F32" else np.frombuffer(data, "<u2")


def cast(numbers: NDArray[np.float32], dtype: str, rounding: str = NEAREST) -> Bits:
    """`numbers` in the type called `dtype`, one word each."""
    if dtype == "F32":
        return numbers.view(np.uint32)
    if dtype == "F16":
        with np.errstate(all="ignore"):
            return numbers.astype(np.float16).view(np.uint16)
    words = numbers.view(np.uint32)
    if rounding == NEAREST:
        words = words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))
    words = np.where(np.isnan(numbers), numbers.view(np.uint32) | np.uint32(0x00400000), words)
    return (words >> np.uint32(16)).astype(np.uint16)


def is_nan(words: Bits, dtype: str) -> NDArray[np.bool_]:
    """Which elements are NaN."""
    infinity = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}[dtype]
    mask = (1 << (8 * WIDTHS[dtype] - 1)) - 1
    found: NDArray[np.bool_] = (words & words.dtype.type(mask)) > words.dtype.type(infinity)
    return found


def unequal(expected: Bits, here: Bits, dtype: str) -> NDArray[np.bool_]:
    """Which elements differ, two NaNs never."""
    differ: NDArray[np.bool_] = expected != here
    if differ.any():
        differ &= ~(is_nan(expected, dtype) & is_nan(here, dtype))
    return differ


QUANTISED: Final = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
"""The types that the package quantises bit for bit as llama.cpp's reference does. Of K- and I-quants it has no
quantiser, and llama.cpp's may have used an importance matrix."""


def name_map(architecture: str, layers: int) -> Callable[[str], str | None] | None:
    """From names in safetensors to names in GGUF; None for an architecture that the package does not know."""
    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        return None
    mapping = gguf.get_tensor_name_map(known[architecture], layers)
    return lambda name: mapping.get_name(name, try_suffixes=(".weight", ".bias"))


def quantise(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """The bytes of `values`, a whole number of blocks, in the type called `dtype`."""
    with np.errstate(all="ignore"):  # a stranger's weights may hold anything
        made = gguf.quants.quantize(values.reshape(1, -1), gguf.GGMLQuantizationType[dtype])
    return made.reshape(-1)
