"""The steps from a tensor of one type to one of another.

    copy                    the same bytes
    widen                   to FP32, which holds every number of FP16 and BF16
    bf16-nearest-even       casts that round (`casts`)
    bf16-toward-zero
    f16-nearest-even
    q8_0, q4_0, q4_1, …     quantisers of ggml (`casts`)
    …+llama-rows            with the rows of query and key permuted for rotary positions first, as llama.cpp's converter
                            does: of the h rows of each head, in the order 0, h/2, 1, h/2 + 1, …

Casts and quantisers need the extra `[gguf]`, imported on first use; without it an error says how to install it. The
standard library is enough to compare copied tensors, in one file or several.
"""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from comity.formats.tensors import Tensor
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen


def load_casts() -> ModuleType:
    """Raises Unavailable (NO-GGUF)."""
    try:
        return import_module("comity.addons.derivation.casts")
    except ImportError as error:
        raise Unavailable(
            "casts and GGUF files cannot be re-derived on this machine",
            why=f"the required packages are not installed ({error})",
            hint="pip install 'comity[gguf]'",
            code="NO-GGUF",
        ) from error


def tools_installed() -> bool:
    """Whether the extra is installed; nothing is imported."""
    try:
        return find_spec("gguf") is not None and find_spec("numpy") is not None
    except ImportError:  # from an import hook that refuses
        return False


def tool_versions() -> dict[str, str]:
    """The versions of Comity and of the installed packages of the extra."""
    used = ("comity", "gguf", "numpy") if tools_installed() else ("comity",)
    return {name: metadata.version(name) for name in used}


MAX_HEAD: Final = 16 * 1024 * 1024
"""Elements of a head, whose rows are permuted as a whole."""
FLOATS: Final = ("F32", "F16", "BF16")
QUANTISED: Final = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
"""Types that the gguf package quantises bit for bit as llama.cpp's reference does. It has no quantiser for K- and
I-quants, and llama.cpp's may have used an importance matrix."""
_CASTS: Final = {"F32": ["widen"], "BF16": ["bf16-nearest-even", "bf16-toward-zero"], "F16": ["f16-nearest-even"]}


@frozen
class ConversionStep:
    """One step. `rows` is the number of rows of a head if they are permuted, else 0; `columns` the elements per row."""

    kind: str
    source: str
    target: str
    rows: int = 0
    columns: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}+llama-rows" if self.rows else self.kind

    @property
    def numeric(self) -> bool:
        """Whether the step needs numpy."""
        return self.kind != "copy" or bool(self.rows)

    def permute_rows(self, source: bytes) -> bytes:
        """The bytes of whole heads, with their rows permuted if the step has `rows`."""
        if not self.rows:
            return source
        import numpy as np

        row = self.columns * (4 if self.source == "F32" else 2)
        heads = np.frombuffer(source, np.uint8).reshape(-1, 2, self.rows // 2, row)
        return heads.swapaxes(1, 2).tobytes()

    def convert(self, source: bytes) -> Any:
        """The child's data for the parent's bytes `source`: one word per element, or the bytes of blocks."""
        casts = load_casts()
        if self.target in QUANTISED and self.kind != "copy":
            return casts.quantise(casts.values(source, self.source), self.target)
        rounding = casts.TOWARD_ZERO if self.kind == "bf16-toward-zero" else casts.NEAREST_EVEN
        return casts.cast(casts.values(source, self.source), self.target, rounding)


def steps_between(parent: Tensor, child: Tensor, heads: int = 0) -> list[ConversionStep]:
    """The steps that both types allow, most likely first.

    Args:
        heads: the number of heads by which a converter may have permuted the rows; 0 if it does not.
    """
    kinds = _kinds(parent.dtype, child.dtype)
    straight = [ConversionStep(kind, parent.dtype, child.dtype) for kind in kinds]
    count = child.shape[0] if child.shape else 0
    if not heads or not child.elements or count % (2 * heads) or parent.dtype not in FLOATS:
        return straight
    rows, columns = count // heads, child.elements // count
    if rows * columns > MAX_HEAD:
        return straight
    return [ConversionStep(kind, parent.dtype, child.dtype, rows, columns) for kind in kinds] + straight


def _kinds(source: str, target: str) -> list[str]:
    if source == target:
        return ["copy"]
    if source not in FLOATS:
        return []
    return [target.lower()] if target in QUANTISED else _CASTS.get(target, [])
