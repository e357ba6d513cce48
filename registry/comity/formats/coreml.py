"""Reads Core ML models: which classes of an app they name, and which other files.

A custom model or layer is a class of the app that loads it; a linked model is another file. All other layers and
operations are the runtime's own. Source: Core ML Tools, Model.proto, NeuralNetwork.proto, MIL.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from comity.formats.messages import MAX_FIELDS, MAX_NESTED, MAX_TEXT, Field, fields
from comity.formats.source import BoundedFile, NotInspected
from comity.trust.errors import Malformed

_VARINT, _BYTES = 0, 2
_TYPES: Final = range(200, 3001)
_PIPELINES: Final = {200: True, 201: True, 202: False}
"""Fields that hold a pipeline, and whether it is one field deeper."""
_NETWORKS: Final = frozenset({303, 403, 500})
_CUSTOM, _LINKED, _PROGRAM, _SERIALIZED = 555, 556, 502, 3000
_CUSTOM_LAYER, _BRANCH, _LOOP = 500, 605, 615
_INSIDE: Final = "@model_path/"


def is_coreml(source: BoundedFile) -> bool:
    """Whether the whole file is fields of a Core ML model, including version, description and type. Raises
    NotInspected."""
    seen, types = set[int](), 0
    if source.read_at(0, 1) != b"\x08":
        return False
    try:
        for item in fields(source, 0, source.size):
            known = _VARINT if item.key in (1, 10) else _BYTES if item.key == 2 or item.key in _TYPES else None
            if item.kind != known:
                return False
            seen.add(item.key)
            types += item.key in _TYPES
    except NotInspected:
        raise
    except Malformed:
        return False
    return {1, 2} <= seen and types == 1


@dataclass(slots=True)
class CoreMlFindings:
    """The classes of an app that a model names, and the files that it names outside its folder."""

    classes: dict[str, None] = field(default_factory=dict)
    outside: dict[str, None] = field(default_factory=dict)


class CoreMlReader:
    """Walks the models of a pipeline, the layers of networks and the operations of programs."""

    def __init__(self, source: BoundedFile) -> None:
        self._source = source
        self._fields = 0
        self._found = CoreMlFindings()

    def read(self) -> CoreMlFindings:
        """Raises Malformed, NotInspected."""
        self._model(Field(0, _BYTES, 0, self._source.size), 0)
        return self._found

    def _in(self, item: Field, depth: int) -> Iterator[Field]:
        if depth > MAX_NESTED:
            raise NotInspected(f"models of more than {MAX_NESTED} levels")
        for inner in fields(self._source, item.at, item.at + item.length):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise NotInspected(f"more than {MAX_FIELDS} fields")
            yield inner

    def _all(self, item: Field, depth: int, *path: int) -> Iterator[Field]:
        """The fields that are reached by these numbers, one within another."""
        for inner in self._in(item, depth):
            if inner.key == path[0] and inner.kind == _BYTES:
                if len(path) == 1:
                    yield inner
                else:
                    yield from self._all(inner, depth, *path[1:])

    def _model(self, model: Field, depth: int) -> None:
        for item in self._in(model, depth):
            if item.key in _PIPELINES:
                for inner in self._all(item, depth, *((1, 1) if _PIPELINES[item.key] else (1,))):
                    self._model(inner, depth + 1)
            elif item.key in _NETWORKS:
                self._network(item, depth)
            elif item.key == _PROGRAM:
                for block in self._all(item, depth, 2, 2, 3, 2):
                    self._block(block, depth)
            elif item.key == _CUSTOM:
                self._named(item, depth, 1)
            elif item.key in (_LINKED, _SERIALIZED):
                raise NotInspected("a model within a Core ML model that is linked, or serialised")

    def _network(self, network: Field, depth: int) -> None:
        for layer in self._all(network, depth, 1):
            for item in self._in(layer, depth):
                if item.key == _CUSTOM_LAYER:
                    self._named(item, depth, 10)
                elif item.key in (_BRANCH, _LOOP):
                    bodies = (1, 2) if item.key == _BRANCH else (3, 4)
                    for body in self._in(item, depth):
                        if body.key in bodies:
                            self._network(body, depth + 1)

    def _named(self, custom: Field, depth: int, number: int) -> None:
        names = [self._text(item) for item in self._all(custom, depth, number)]
        self._found.classes[names[-1] if names else "?"] = None

    def _block(self, block: Field, depth: int) -> None:
        for operation in self._all(block, depth, 3):
            for item in self._in(operation, depth):
                if item.key == 4:
                    self._block(item, depth + 1)
                elif item.key == 5:
                    for value in self._all(item, depth, 2):
                        self._value(value, depth)
                elif item.key == 2:
                    for value in self._all(item, depth, 2, 1, 2):
                        self._value(value, depth)

    def _value(self, value: Field, depth: int) -> None:
        for item in self._all(value, depth, 5, 1):
            name = self._text(item)
            if not name.startswith(_INSIDE) or ".." in name.replace("\\", "/").split("/"):
                self._found.outside[name] = None

    def _text(self, item: Field) -> str:
        if item.length > MAX_TEXT:
            raise NotInspected(f"a name of {item.length} bytes")
        return self._source.read_exactly(item.at, item.length).decode("utf-8", "replace")
