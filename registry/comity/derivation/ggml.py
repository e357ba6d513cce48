"""What the gguf package knows: tensor names by architecture, and the quantisers of llama.cpp, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import gguf
import numpy as np
from numpy.typing import NDArray

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
