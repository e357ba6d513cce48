"""The halves of this room that need the extra `[gguf]`, imported when they are first used; without it an error says how
to get it. The standard library suffices to compare tensors that were copied, into one file or over several.

The ways from a tensor of one type to one of another.

copy                    the same bytes
widen                   to FP32, which holds every number of FP16 and BF16
bf16-nearest-even       casts that round (`casts`)
bf16-toward-zero
f16-nearest-even
q8_0, q4_0, q4_1, …     quantisers of ggml (`ggml`)
…+llama-rows            with the rows of query and key turned for rotary positions first, as llama.cpp's converter
                        does: of the h rows of each head, in the order 0, h/2, 1, h/2 + 1, …
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from comity.formats.tensors import Tensor
from comity.trust.errors import Unavailable


def load_casts() -> ModuleType:
    """Raises Unavailable (NO-GGUF)."""
    return _extra("casts")


def load_ggml() -> ModuleType:
    """Raises Unavailable (NO-GGUF)."""
    return _extra("casts")


def tools_installed() -> bool:
    """Whether the extra is there; nothing of it is imported."""
    try:
        return find_spec("gguf") is not None and find_spec("numpy") is not None
    except ImportError:  # from a finder that refuses
        return False


def tool_versions() -> dict[str, str]:
    """What computed it: the versions of Comity and of the packages of the extra, where they are installed."""
    used = ("comity", "gguf", "numpy") if tools_installed() else ("comity",)
    return {name: metadata.version(name) for name in used}


def _extra(module: str) -> ModuleType:
    try:
        return import_module(f"comity.derivation.{module}")
    except ImportError as error:
        raise Unavailable(
            "casts and GGUF files cannot be re-derived here",
            why=f"the packages for it are not installed ({error})",
            hint="pip install 'comity[gguf]'",
            code="NO-GGUF",
        ) from error


MAX_HEAD: Final = 16 * 1024 * 1024
"""Elements of a head: its rows are turned as a whole."""
FLOATS: Final = ("F32", "F16", "BF16")
QUANTISED: Final = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
_CASTS: Final = {"F32": ["widen"], "BF16": ["bf16-nearest-even", "bf16-toward-zero"], "F16": ["f16-nearest-even"]}


@dataclass(frozen=True, slots=True)
class ConversionStep:
    """One way. `rows` is the number of rows of a head where they are turned, else 0; `columns` the elements a row."""

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
        """Whether it needs numpy."""
        return self.kind != "copy" or bool(self.rows)

    def turn(self, source: bytes) -> bytes:
        """The bytes of whole heads, with their rows turned where this way turns them."""
        if not self.rows:
            return source
        import numpy as np

        row = self.columns * (4 if self.source == "F32" else 2)
        heads = np.frombuffer(source, np.uint8).reshape(-1, 2, self.rows // 2, row)
        return heads.swapaxes(1, 2).tobytes()

    def make(self, source: bytes) -> Any:
        """What the child should hold where the parent holds `source`: words of one element each, or bytes of blocks."""
        casts = load_casts()
        if self.target in QUANTISED and self.kind != "copy":
            return load_ggml().quantise(casts.values(source, self.source), self.target)
        rounding = casts.ZERO if self.kind == "bf16-toward-zero" else casts.NEAREST
        return casts.cast(casts.values(source, self.source), self.target, rounding)


def steps_between(parent: Tensor, child: Tensor, heads: int = 0) -> list[ConversionStep]:
    """The ways that the types of both allow, the likeliest first.

    Args:
        heads: into how many heads a converter may have turned the rows; 0 where it has no reason to.
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
