"""How a file is cut into pieces: at its tensors where we can read its header, else every 4 MiB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import BinaryIO, Final, TypeAlias

from comity.formats import TensorLayout, gguf, safetensors
from comity.trust.errors import Malformed
from comity.trust.pieces import FIXED, MAX_PIECES, PIECE, TENSOR, fixed_pieces, tensor_pieces

_Reader: TypeAlias = Callable[[BinaryIO, int], TensorLayout]

_READERS: Final[Mapping[str, _Reader]] = {".safetensors": safetensors.read_layout, ".gguf": gguf.read_layout}


def piece_lengths(path: str, file: BinaryIO, size: int) -> tuple[str, list[int]]:
    """The layout's name and the lengths of the pieces of a file of `size` bytes, which they tile exactly.

    The name in `path` says which header to expect; one that does not parse is nobody's fault here, the file is then
    cut as any other. Raises Malformed for a file of more than MAX_PIECES pieces, and OSError where `file` does.
    """
    if size > MAX_PIECES * PIECE:
        raise Malformed("file too large", why=f"{size} bytes, at most {MAX_PIECES * PIECE}", code="FILE-TOO-LARGE")
    if read_layout := _READERS.get(PurePosixPath(path).suffix.lower()):
        try:
            found = read_layout(file, size)
            return TENSOR, tensor_pieces(size, found.header_end, found.starts)
        except Malformed:
            pass
    return FIXED, fixed_pieces(size)
