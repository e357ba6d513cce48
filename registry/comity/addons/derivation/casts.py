"""Bit-exact casts between FP32, FP16 and BF16 in numpy, and tensor names and quantisers of the gguf package.

Casts round to nearest, ties to even, as torch, numpy and ggml do; BF16 also towards zero (the upper half of the FP32
word), as some writers do. NaN elements must stay NaN; NaN payloads are not compared, because writers differ in them and
no computation depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

Bits: TypeAlias = "NDArray[np.uint16] | NDArray[np.uint32]"

WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2}
NEAREST_EVEN: Final = "nearest-even"
TOWARD_ZERO: Final = "toward-zero"


def values(data: bytes, dtype: str) -> NDArray[np.float32]:
    """The numbers in `data` as FP32, which is exact."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    if dtype == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def bits(data: bytes, dtype: str) -> Bits:
    """The elements in `data`, one word each."""
    return np.frombuffer(data, "<u4") if dtype == "F32" else np.frombuffer(data, "<u2")


def cast(numbers: NDArray[np.float32], dtype: str, rounding: str = NEAREST_EVEN) -> Bits:
    """`numbers` in the type `dtype`, one word each."""
    if dtype == "F32":
        return numbers.view(np.uint32)
    if dtype == "F16":
        with np.errstate(all="ignore"):
            return numbers.astype(np.float16).view(np.uint16)
    words = numbers.view(np.uint32)
    if rounding == NEAREST_EVEN:
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
    """Which elements differ; two NaNs are equal."""
    differ: NDArray[np.bool_] = expected != here
    if differ.any():
        differ &= ~(is_nan(expected, dtype) & is_nan(here, dtype))
    return differ


def name_map(architecture: str, layers: int) -> Callable[[str], str | None] | None:
    """A function from safetensors names to GGUF names; None if the package does not know the architecture."""
    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        return None
    mapping = gguf.get_tensor_name_map(known[architecture], layers)
    return lambda name: mapping.get_name(name, try_suffixes=(".weight", ".bias"))


def quantise(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """The bytes of `values`, a whole number of blocks, in the type `dtype`."""
    with np.errstate(all="ignore"):  # untrusted weights may hold any value
        made = gguf.quants.quantize(values.reshape(1, -1), gguf.GGMLQuantizationType[dtype])
    return made.reshape(-1)
