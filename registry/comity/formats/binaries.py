"""Reads model files of whisper.cpp (ggml), of fastText and the weights of Core ML, each to its end.

These loaders copy numbers and words into memory, and call nothing that a file names. Such a file is recognised only if
every count in it leads from its first byte to its last one. Sources: whisper.cpp, `whisper_model_load`; fastText,
`FastText::loadModel`, `Dictionary::load`, `QMatrix::load`; Core ML Tools, MILBlob, `StorageFormat`.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from comity.formats.source import BoundedFile, Cursor
from comity.formats.tensors import BLOCKS
from comity.trust.errors import Malformed

GGML_MAGIC: Final = b"lmgg"
FASTTEXT_MAGIC: Final = struct.pack("<i", 793712314)
MAX_WORDS: Final = 3_000_000
MAX_WORD: Final = 4096
MAX_TENSORS: Final = 10_000
MAX_DIMENSIONS: Final = 4
_GGML_PARAMETERS: Final = 11
_FASTTEXT_VERSIONS: Final = (11, 12)
_BLOB_VERSION: Final = 2
_BLOB_MARK: Final = b"\xef\xbe\xad\xde"
_BLOB_ALIGNMENT: Final = 64


def check_ggml(source: BoundedFile) -> None:
    """Raises Malformed if the file is not a model of whisper.cpp to its end, NotInspected."""
    if source.read_at(0, 4) != GGML_MAGIC:
        raise Malformed("ggml: a format of old versions of llama.cpp")
    cursor = Cursor(source, 4, source.size, 16 * 1024)
    parameters = [cursor.uint(4) for _ in range(_GGML_PARAMETERS)]
    if not all(0 < number < MAX_WORDS for number in parameters[:-1]):
        raise Malformed("ggml: not a model of whisper.cpp")
    cursor.skip(4 * _product(cursor, 2))
    words = cursor.uint(4)
    if words > MAX_WORDS:
        raise Malformed("ggml: too many words", why=str(words))
    for _ in range(words):
        cursor.step()
        cursor.skip(_at_most(cursor.uint(4), MAX_WORD))
    for _ in range(MAX_TENSORS):
        if cursor.position == source.size:
            return
        _ggml_tensor(cursor)
    raise Malformed(f"ggml: more than {MAX_TENSORS} tensors")


def _product(cursor: Cursor, count: int) -> int:
    return math.prod(cursor.uint(4) for _ in range(count))


def _ggml_tensor(cursor: Cursor) -> None:
    dimensions, name, kind = (cursor.uint(4) for _ in range(3))
    if dimensions > MAX_DIMENSIONS or kind not in BLOCKS:
        raise Malformed("ggml: a tensor of an unknown kind")
    elements = _product(cursor, dimensions)
    cursor.skip(_at_most(name, MAX_WORD))
    _, block, width = BLOCKS[kind]
    cursor.skip(elements // block * width)


def _at_most(length: int, most: int) -> int:
    if length > most:
        raise Malformed("a name is too long", why=f"{length} bytes")
    return length


def check_fasttext(source: BoundedFile) -> None:
    """Raises Malformed if the file is not a fastText model to its end, NotInspected."""
    cursor = Cursor(source, 4, source.size, 64 * 1024)
    if cursor.uint(4) not in _FASTTEXT_VERSIONS:
        raise Malformed("fasttext: an unknown version")
    cursor.skip(12 * 4 + 8)
    words = cursor.uint(4)
    cursor.skip(4 + 4 + 8)
    pruned = struct.unpack("<q", cursor.take(8))[0]
    if words > MAX_WORDS or pruned > MAX_WORDS:
        raise Malformed("fasttext: too many words", why=str(words))
    for _ in range(words):
        cursor.step()
        if not cursor.skip_to_zero(MAX_WORD):
            raise Malformed("fasttext: a word is too long")
        cursor.skip(8 + 1)
    cursor.skip(8 * max(0, pruned))
    quantised = _fasttext_flag(cursor)
    _fasttext_matrix(cursor, quantised)
    _fasttext_matrix(cursor, _fasttext_flag(cursor) and quantised)
    if cursor.position != source.size:
        raise Malformed("fasttext: more follows after its end")


def _fasttext_flag(cursor: Cursor) -> bool:
    value = cursor.uint(1)
    if value > 1:
        raise Malformed("fasttext: not a flag")
    return bool(value)


def _fasttext_matrix(cursor: Cursor, quantised: bool) -> None:
    if not quantised:
        cursor.skip(4 * cursor.uint(8) * cursor.uint(8))
        return
    normed = _fasttext_flag(cursor)
    rows, _ = cursor.uint(8), cursor.uint(8)
    cursor.skip(cursor.uint(4))
    _skip_quantiser(cursor)
    if normed:
        cursor.skip(rows)
        _skip_quantiser(cursor)


def _skip_quantiser(cursor: Cursor) -> None:
    dimension = cursor.uint(4)
    cursor.skip(3 * 4 + dimension * 256 * 4)


def is_coreml_weights(head: bytes) -> bool:
    """Whether a file with these first bytes begins as the weights of a Core ML package."""
    mark = head[_BLOB_ALIGNMENT : _BLOB_ALIGNMENT + 4]
    return head[4:8] == struct.pack("<I", _BLOB_VERSION) and mark == _BLOB_MARK


def check_coreml_weights(source: BoundedFile) -> None:
    """Raises Malformed if the file is not blobs to its end, each after its description."""
    count, position = int.from_bytes(source.read_exactly(0, 4), "little"), _BLOB_ALIGNMENT
    if not 0 < count <= MAX_TENSORS * 10:
        raise Malformed("coreml: a count of blobs that no model has", why=str(count))
    for _ in range(count):
        mark, _, size, at = struct.unpack("<4sIQQ", source.read_exactly(position, 24))
        if mark != _BLOB_MARK or at != position + _BLOB_ALIGNMENT:
            raise Malformed("coreml: blobs do not follow one another")
        end = at + size
        position = end + -end % _BLOB_ALIGNMENT
    if not end <= source.size <= position:
        raise Malformed("coreml: blobs do not fill the file")
