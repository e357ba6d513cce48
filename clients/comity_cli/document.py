"""The JSON documents that commands print with `--json`: a frozen dataclass each, of which value and schema are derived.

    @document("version")
    class VersionDocument:
        '''The version, as `comity version --json` prints it.'''

        version: str
        python: str

The first paragraph of its docstring is the title of the schema, the others are the description. Where commands print
several documents of one kind, each has a class, and the schema is one of theirs. A field is a member of
the JSON object, by its own name or `field(metadata=named(…))`. What the schema says of a member follows from its type:

    str, bool, Literal[…]         as they are
    int, float                    0 or more
    Digest                        64 hex digits
    Path                          its text
    bytes                         lower-case hex digits
    X | None                      null too
    X | Absent                    left out where it is ABSENT
    tuple[X, ...], tuple[X, Y]    a list of any length; of exactly these items
    Mapping[str, X]               an object with any names
    a dataclass                   an object; with `field(metadata=INLINE)`, its members stand among those around it,
                                  and a later field of the same name takes the place of one
    Annotated[X, ...]             a text describes the member; a dict has further keywords of the schema, of which
                                  `$ref` and `enum` stand alone; `Number` and `OneOf` of `comity.wire.codec` count here

Members may be added to a document. `docs/document_schemas.py` derives the schemas: no command needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, Final, TypeVar, dataclass_transform

from comity.trust.frozen import frozen

T = TypeVar("T")

INLINE: Final[Mapping[str, bool]] = {"inline": True}
"""Metadata of a field whose members stand among those of its object."""
KINDS: Final[dict[type, str]] = {}
"""The kind of each class of documents whose module was imported: the second part of a document's `schema`."""


class Absent:
    """The type of ABSENT, which is the value of a member that this document does not have."""


ABSENT: Final = Absent()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def document(kind: str) -> Callable[[type[T]], type[T]]:
    """Decorator: makes a frozen dataclass of the documents of a kind, with `comity.dev/KIND/v1` as their schema."""

    def declare(described: type[T]) -> type[T]:
        made = frozen(described)
        KINDS[made] = kind
        return made

    return declare


def named(name: str) -> Mapping[str, str]:
    """Metadata of a field whose member has another name: one that Python reserves, or an old one."""
    return {"name": name}


def member_name(each: Field[Any]) -> str:
    """The name of the member of a field."""
    return str(each.metadata.get("name", each.name))


def schema_name(kind: str) -> str:
    """What the member `schema` says in every document of a kind."""
    return f"comity.dev/{kind}/v1"


def members(value: Any) -> dict[str, Any]:
    """The members of a dataclass as JSON has them, in the order of its fields."""
    found: dict[str, Any] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if each.metadata == INLINE:
            found |= members(item)
        elif item is not ABSENT:
            found[member_name(each)] = _json(item)
    return found


def _json(value: Any) -> Any:
    if is_dataclass(value):
        return members(value)
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
