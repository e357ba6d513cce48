"""The JSON Schemas of the documents that commands print, derived from their classes (`comity_cli.document`).

Members may be added to a document, so every object allows others. `docs/generate.py` writes them to docs/schemas.
Source: JSON Schema 2020-12.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from comity.trust.encoding import MAX_INTEGER, Digest
from comity.wire.codec import Number, OneOf
from comity_cli.document import INLINE, KINDS, Absent, member_name, schema_name

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DIGEST: Final = "../common.json#/$defs/digest"
_PLAIN: Final[Mapping[Any, Mapping[str, Any]]] = {
    str: {"type": "string"},
    os.PathLike: {"type": "string"},
    bytes: {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
    bool: {"type": "boolean"},
    float: {"type": "number", "minimum": 0},
    int: {"type": "integer", "minimum": 0},
    Digest: {"$ref": _DIGEST},
}
_ALONE: Final = ("$ref", "enum")


def document_schema(*described: type) -> dict[str, Any]:
    """The JSON Schema of a kind of documents, of one class or of several."""
    made = [_titled(each) for each in described]
    if len(made) == 1:
        return {"$schema": _DIALECT, **made[0]}
    return {"$schema": _DIALECT, "title": "; or ".join(each["title"] for each in made), "oneOf": made}


def _titled(described: type) -> dict[str, Any]:
    title, _, description = inspect.cleandoc(described.__doc__ or "").partition("\n\n")
    made = _object(described, {"schema": {"const": schema_name(KINDS[described])}})
    about = {"description": " ".join(description.split())} if description else {}
    return {"title": " ".join(title.split()).rstrip("."), **about, **made}


def _object(described: type, first: Mapping[str, Any] | None = None) -> dict[str, Any]:
    properties, required = dict(first or {}), list(first or ())
    hints = _hints(described)
    for each in fields(described):
        if each.metadata == INLINE:
            inner = _object(hints[each.name])
            properties |= inner["properties"]
            required += inner["required"]
            continue
        name, hint = member_name(each), hints[each.name]
        if name not in properties and Absent not in get_args(hint):
            required.append(name)
        properties[name] = _member(hint)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": True}


def _hints(described: type) -> dict[str, Any]:
    """The annotations of a class, by the names of its module: a field may be called `bytes`. Where they are not enough,
    the names count that the module imports for type checkers only."""
    try:
        return get_type_hints(described, localns={}, include_extras=True)
    except NameError:
        module = sys.modules[described.__module__]
    names = {**vars(module), **_names_for_type_checkers(module)}
    return get_type_hints(described, globalns=names, localns={}, include_extras=True)


def _names_for_type_checkers(module: ModuleType) -> dict[str, Any]:
    """What `if TYPE_CHECKING:` imports in a module: commands start without these modules."""
    blocks = [each for each in ast.parse(inspect.getsource(module)).body if isinstance(each, ast.If)]
    imports = [
        each
        for block in blocks
        if ast.unparse(block.test) == "TYPE_CHECKING"
        for each in block.body
        if isinstance(each, ast.ImportFrom) and each.module
    ]
    return {
        name.asname or name.name: getattr(import_module(each.module or ""), name.name)
        for each in imports
        for name in each.names
    }


def _member(hint: Any) -> dict[str, Any]:
    """The schema of a value of this type. Raises TypeError for a type that documents do not have."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _annotated(hint)
    if kind is Literal:
        return {"enum": list(inner)}
    if isinstance(hint, type) and issubclass(hint, os.PathLike):
        hint = os.PathLike
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if kind in (Union, UnionType):
        (one,) = (part for part in inner if part not in (NoneType, Absent))
        return _or_null(_member(one)) if NoneType in inner else _member(one)
    if kind is tuple and inner[-1] is ...:
        return {"type": "array", "items": _member(inner[0])}
    if kind is tuple:
        items = [_member(each) for each in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if kind is Mapping:
        names = {} if inner[0] is str else {"propertyNames": _member(inner[0])}
        return {"type": "object", **names, "additionalProperties": _member(inner[1])}
    if is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    raise TypeError(f"a document has no member of the type {hint}")


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in found or found["type"] == "object":
        return {"oneOf": [{"type": "null"}, found]}
    return {**found, "type": [found["type"], "null"]}


def _annotated(hint: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for each in hint.__metadata__:
        if isinstance(each, str):
            told["description"] = each
        elif isinstance(each, Number) and each.most <= MAX_INTEGER:
            told["maximum"] = each.most
        elif isinstance(each, OneOf):
            told["enum"] = sorted(each.words)
        elif isinstance(each, dict):
            told |= each
    return told if any(name in told for name in _ALONE) else _member(hint.__origin__) | told
