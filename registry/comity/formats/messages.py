"""Reads Protocol Buffers messages of models, which have no magic bytes: ONNX, SentencePiece and TensorFlow graphs.

A message is recognised by the numbers and types of its fields, which must fill the file to its end. Fields are stepped
over; numbers of tensors are not read. Sources: onnx.proto, sentencepiece_model.proto, saved_model.proto, graph.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from comity.formats.source import BoundedFile, Cursor, NotInspected
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_FIELDS: Final = 1_000_000
"""Fields of one message and the messages in it."""
MAX_NESTED: Final = 16
WINDOW: Final = 1024
_LENGTH_DELIMITED: Final = 2
_ONNX: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Wire types of the fields of an ONNX ModelProto, by field number."""
_SAVED_MODEL: Final = {1: 0, 2: 2}
_GRAPH: Final = {1: 2, 2: 2, 3: 0, 4: 2, 5: 2}
_TENSOR: Final = {1: 0, 2: 0, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2, 16: 2}
_SENTENCEPIECE: Final = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
_KNOWN_DOMAINS: Final = frozenset(
    {
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"),
        *("com.microsoft", "com.microsoft.nchwc", "com.microsoft.dml", "com.ms.internal.nhwc", "org.pytorch.aten"),
    }
)
_PYTHON_OPERATORS: Final = frozenset({b"PythonOp", b"PythonOpGrad", b"PyOp", b"PyCustomOp"})


@frozen
class Field:
    """A field of a message: `length` bytes at `at`, or the value `number` of a varint."""

    key: int
    kind: int
    at: int
    length: int
    number: int = 0


def fields(source: BoundedFile, start: int, end: int) -> Iterator[Field]:
    """The fields of the message from `start` to `end`. Raises Malformed."""
    cursor = Cursor(source, start, end, WINDOW)
    while cursor.position < end:
        cursor.step()
        key = varint(cursor)
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield Field(number, kind, cursor.position, 0, varint(cursor))
        elif kind == _LENGTH_DELIMITED:
            length = varint(cursor)
            at = cursor.position
            cursor.skip(length)
            yield Field(number, kind, at, length)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            cursor.skip(width)
            yield Field(number, kind, cursor.position - width, width)
        else:
            raise Malformed("not a message", why="unknown wire type")


def varint(cursor: Cursor) -> int:
    """A number in groups of seven bits, as Protocol Buffers and Thrift write it. Raises Malformed."""
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.uint(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("not a message", why="a number of more than 10 bytes")


def _has_fields(source: BoundedFile, known: Mapping[int, int], required: set[int]) -> bool:
    """Whether the whole file is fields of these numbers and types, with the required ones. Raises NotInspected."""
    seen = set[int]()
    try:
        for count, item in enumerate(fields(source, 0, source.size)):
            if known.get(item.key) != item.kind or count > MAX_FIELDS:
                return False
            seen.add(item.key)
    except NotInspected:
        raise
    except Malformed:
        return False
    return required <= seen


def is_onnx(source: BoundedFile) -> bool:
    """Whether the whole file is fields of an ONNX model, including version and graph."""
    return _has_fields(source, _ONNX, {1, 7})


def is_saved_model(source: BoundedFile) -> bool:
    """Whether the whole file is fields of a TensorFlow SavedModel."""
    return source.read_at(0, 1) == b"\x08" and _has_fields(source, _SAVED_MODEL, {1, 2})


def is_graph(source: BoundedFile) -> bool:
    """Whether the whole file is fields of a TensorFlow graph. Other messages look the same: ask only by name."""
    return _has_fields(source, _GRAPH, {1})


def is_tensor(source: BoundedFile) -> bool:
    """Whether the whole file is fields of one tensor of ONNX. Other messages look the same: ask only by name."""
    return _has_fields(source, _TENSOR, {2})


def is_sentencepiece(source: BoundedFile) -> bool:
    """Whether the file begins with SentencePiece pieces, each a text and a score, and is fields of such a model to its
    end."""
    if source.read_at(0, 1) != b"\n":
        return False
    data = source.read_at(0, source.size) if source.size <= MAX_SENTENCEPIECE else b""
    position = pieces = 0
    while position + 2 <= len(data) and data[position] == 0x0A and data[position + 1] < 0x80:
        if data[position + 2 : position + 3] != b"\n":
            return False
        position += 2 + data[position + 1]
        pieces += 1
    source.work.step(pieces)
    if pieces < 3 or position > len(data):
        return False
    try:
        return all(_SENTENCEPIECE.get(item.key) == item.kind for item in fields(source, position, source.size))
    except NotInspected:
        raise
    except Malformed:
        return False


MAX_SENTENCEPIECE: Final = 32 * 1024 * 1024


@dataclass(slots=True)
class OnnxFindings:
    """What an ONNX model refers to: operators of other domains, and files with external data."""

    operators: dict[str, None] = field(default_factory=dict)
    outside: dict[str, None] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)


class OnnxReader:
    """Walks the graphs of an ONNX model: nodes, the graphs and tensors in their attributes, initializers, functions."""

    def __init__(self, source: BoundedFile) -> None:
        self._source = source
        self._fields = 0
        self._found = OnnxFindings()

    def read(self) -> OnnxFindings:
        """Raises Malformed, NotInspected."""
        for item in self._walk(0, self._source.size, 0):
            if item.key == 7:
                self._graph(item, 0)
            elif item.key == 25:
                self._function(item)
        found = self._found
        for name in [name for name in found.operators if name.rpartition("::")[0] in found.domains]:
            del found.operators[name]
        return found

    def _walk(self, at: int, length: int, depth: int) -> Iterator[Field]:
        if depth > MAX_NESTED:
            raise NotInspected(f"graphs of more than {MAX_NESTED} levels")
        for item in fields(self._source, at, at + length):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise NotInspected(f"more than {MAX_FIELDS} fields")
            yield item

    def _graph(self, graph: Field, depth: int) -> None:
        for item in self._walk(graph.at, graph.length, depth):
            if item.key == 1:
                self._node(item, depth)
            elif item.key == 5:
                self._tensor(item, depth)
            elif item.key == 15:
                self._sparse(item, depth)

    def _function(self, function: Field) -> None:
        for item in self._walk(function.at, function.length, 0):
            if item.key == 7:
                self._node(item, 0)
            elif item.key == 10:
                self._found.domains.add(self._text(item).decode("utf-8", "replace"))

    def _node(self, node: Field, depth: int) -> None:
        operator = domain = b""
        for item in self._walk(node.at, node.length, depth):
            if item.key == 4:
                operator = self._text(item)
            elif item.key == 7:
                domain = self._text(item)
            elif item.key == 5:
                self._attribute(item, depth + 1)
        space = domain.decode("utf-8", "replace")
        if space not in _KNOWN_DOMAINS or operator in _PYTHON_OPERATORS:
            self._found.operators[f"{space}::{operator.decode('utf-8', 'replace')}"] = None

    def _attribute(self, attribute: Field, depth: int) -> None:
        for item in self._walk(attribute.at, attribute.length, depth):
            if item.key in (6, 11):
                self._graph(item, depth + 1)
            elif item.key in (5, 10):
                self._tensor(item, depth)
            elif item.key in (22, 23):
                self._sparse(item, depth)

    def _sparse(self, sparse: Field, depth: int) -> None:
        for item in self._walk(sparse.at, sparse.length, depth):
            if item.key in (1, 2) and item.kind == _LENGTH_DELIMITED:
                self._tensor(item, depth)

    def _tensor(self, tensor: Field, depth: int) -> None:
        for item in self._walk(tensor.at, tensor.length, depth):
            if item.key == 13:
                pair = {each.key: self._text(each) for each in self._walk(item.at, item.length, depth)}
                location = pair.get(2, b"").decode("utf-8", "replace")
                if pair.get(1) == b"location" and not is_inside(location):
                    self._found.outside[location] = None

    def _text(self, item: Field) -> bytes:
        if item.length > MAX_TEXT:
            raise NotInspected(f"a name of {item.length} bytes")
        return self._source.read_exactly(item.at, item.length)


MAX_TEXT: Final = 4096


def is_inside(location: str) -> bool:
    """Whether the path that a file names is within the folder of the file."""
    path = PurePosixPath(location.replace("\\", "/"))
    return bool(location) and not path.is_absolute() and ".." not in path.parts and ":" not in location[:3]
