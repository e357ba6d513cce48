"""Codecs of messages, derived from the dataclasses of their values.

A value is a frozen dataclass. Each field says in its annotation what may be in it, and has the name of the field of the
message:

    class PeerStatus:
        name: Annotated[str, Text(limits.NAME)]
        lag: int
        logs: Annotated[tuple[Digest, ...], Items(limits.LOGS)]

    PEER = MessageCodec(PeerStatus, operator_pb2.PeerStatus)

A type without a rule has one of its own: `int` is between 0 and `limits.INTEGER`, `Digest` has 32 bytes, a dataclass is
a message in the message. `X | None` is None for a field that is absent, or empty where the message cannot tell these
apart. Fields of a class that has no such annotations (those of `comity.trust`) get their rules as arguments.

Encoding and decoding are inverse to each other. Decoding raises Malformed for a value beyond a bound; a count is
checked before the items are read. Source: protocol, section 9.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import islice
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.wire import limits
from comity.wire.errors import clean
from comity.wire.fields import (
    encode_digest,
    read_absolute_path,
    read_data,
    read_digest,
    read_hash,
    read_integer,
    read_line,
    read_log,
    read_many,
    read_origin,
    read_text,
)

V = TypeVar("V")
M = TypeVar("M", bound=Message)


@runtime_checkable
class FieldRule(Protocol):
    """What may be in a field of a message, and how its value is made from it."""

    @property
    def write(self) -> Callable[[Any], Any] | None:
        """What a value is in the message; None: the same."""

    def reader(self, what: str) -> Callable[[Any], Any] | None:
        """The value of what is in the message, or Malformed; None: the same. `what` names the field in an error."""


class Unchanged:
    """Each value of the message's type."""

    write: Callable[[Any], Any] | None = None

    def reader(self, what: str) -> Callable[[Any], Any] | None:
        return None


class Exact(Unchanged):
    """A printable text of at most `limit` bytes that a program reads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def reader(self, what: str) -> Callable[[str], str]:
        return lambda raw: read_text(raw, what, self.limit)


class Text(Exact):
    """A line of at most `limit` bytes for people. It may quote others, so it is cleaned before it is sent."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.write = lambda value: clean(value, limit)


class OneOf(Unchanged):
    """One of some words."""

    def __init__(self, words: Collection[str]) -> None:
        self.words = words

    def reader(self, what: str) -> Callable[[str], str]:
        def read(raw: str) -> str:
            if raw not in self.words:
                raise Malformed(f"unknown {what}", why=f"expected one of {', '.join(sorted(self.words))}")
            return raw

        return read


class Data(Unchanged):
    """At most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def reader(self, what: str) -> Callable[[bytes], bytes]:
        return lambda raw: read_data(raw, what, self.limit)


class Number(Unchanged):
    def __init__(self, least: int = 0, most: int = limits.INTEGER) -> None:
        self.least, self.most = least, most

    def reader(self, what: str) -> Callable[[int], int]:
        return lambda raw: read_integer(raw, what, least=self.least, most=self.most)


class Read(Unchanged):
    """What a function reads: it raises Malformed for other values."""

    def __init__(self, read: Callable[[Any], Any], write: Callable[[Any], Any] | None = None) -> None:
        self.read = read
        self.write = write

    def reader(self, what: str) -> Callable[[Any], Any]:
        return self.read


LINE: Final = Read(read_line)
"""A log entry."""
LINE_OR_NONE: Final = Read(lambda raw: read_line(raw) if raw else b"")
ORIGIN: Final = Read(read_origin)
SHA256_BYTES: Final = Read(read_hash)
"""The bytes of a SHA-256 digest."""
LOG: Final = Read(read_log)
"""The origin or the verifier key of a log."""
SHA256: Final = Read(read_digest, encode_digest)
DIGEST_OR_NONE: Final = Read(lambda raw: read_digest(raw) if raw else "", bytes.fromhex)
AbsolutePath: TypeAlias = Annotated[Path, Read(read_absolute_path, str)]
ShownName: TypeAlias = Annotated[str, Text(limits.NAME)]
Sentence: TypeAlias = Annotated[str, Text(limits.STATUS_TEXT)]


class Items:
    """At most `limit` items. `of`: the rule of each; by default the item's type has it. `cut`: further ones are left
    out when they are sent, where the list is one of examples."""

    def __init__(self, limit: int, of: FieldRule | None = None, *, cut: bool = False) -> None:
        self.limit, self.of, self.cut = limit, of, cut

    def write(self, value: Collection[Any]) -> Collection[Any]:
        value = list(islice(value, self.limit)) if self.cut else value
        return value if self.of is None or self.of.write is None else list(map(self.of.write, value))

    def reader(self, what: str) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        read = None if self.of is None else self.of.reader(what)
        return lambda raw: read_many(raw, what, self.limit, read or _same)


def _same(value: V) -> V:
    return value


@frozen
class At:
    """The field of the message, where it has another name than the value's. `object.size` is in its field `object`."""

    path: str


class Merged:
    """A dataclass whose fields are fields of the same message, with their rules where they have no annotations."""

    def __init__(self, **rules: _Said) -> None:
        self.rules = rules


@frozen
class Constant:
    """A field of the value that the message does not have."""

    value: Any


_Said: TypeAlias = "FieldRule | At | Merged | Constant | tuple[FieldRule | At, ...]"
_OWN_RULES: Final[Mapping[Any, FieldRule]] = {int: Number(), bool: Unchanged(), Digest: SHA256}


class MessageCodec(Generic[V, M]):
    """The codec of one message. It is a rule too, for a field that has such a message.

    Args:
        value: the dataclass.
        message: the message's class.
        check: called with each decoded value; raises Malformed if its fields do not fit together.
        rules: for fields of `value` that have no annotation.
    """

    def __init__(
        self, value: type[V], message: type[M], check: Callable[[V], object] | None = None, /, **rules: _Said
    ) -> None:
        self._value = value
        self.message = message
        self._check = check
        self._rules = rules

    def encode(self, value: V) -> M:
        return self.message(**self.fields_of(value))

    def decode(self, message: M) -> V:
        """Raises Malformed."""
        value = self._value(*[field.read(message) for field in self._fields])
        if self._check is not None:
            self._check(value)
        return value

    def fields_of(self, value: V) -> dict[str, Any]:
        """The fields of the message."""
        found: dict[str, Any] = {}
        for field in self._fields:
            field.write(value, found)
        return found

    write = encode

    def reader(self, what: str) -> Callable[[M], V]:
        return self.decode

    @cached_property
    def _fields(self) -> list[_Field]:
        hints = _hints(self._value)
        names = [field.name for field in dataclasses.fields(cast(Any, self._value)) if field.init]
        return [_field(name, hints[name], self._rules.get(name), self.message) for name in names]


@frozen
class _Field:
    """A field of a value: how it gets from the value among the fields of a message, and how it is read from one."""

    write: Callable[[Any, dict[str, Any]], None]
    read: Callable[[Any], Any]


def _field(name: str, hint: Any, given: _Said | None, message: type[Message]) -> _Field:
    kind, said = split_hint(hint)
    optional = get_origin(kind) in (Union, UnionType)
    if optional:
        kind, more = split_hint(next(part for part in get_args(kind) if part is not NoneType))
        said = (*said, *more)
    if given is not None:
        said = given if isinstance(given, tuple) else (given,)
    get = attrgetter(name)
    if (constant := _first(said, Constant)) is not None:
        return _Field(lambda value, found: None, lambda message: constant.value)
    if (inner := _first(said, Merged)) is not None:
        merged: MessageCodec[Any, Any] = MessageCodec(kind, message, **inner.rules)
        return _Field(lambda value, found: found.update(merged.fields_of(get(value))), merged.decode)
    at = _first(said, At)
    path = at.path if at is not None else name
    inside, _, last = path.rpartition(".")
    holder: Any = message.DESCRIPTOR
    field = (holder.fields_by_name[inside].message_type if inside else holder).fields_by_name[last]
    rule = _rule(kind, said, field)
    read = rule.reader(name.replace("_", " "))
    return _Field(_writer(get, rule.write, inside, last), _reader(path, read, optional, field.has_presence))


def _writer(
    get: Callable[[Any], Any], write: Callable[[Any], Any] | None, inside: str, last: str
) -> Callable[[Any, dict[str, Any]], None]:
    def put(value: Any, found: dict[str, Any]) -> None:
        if (one := get(value)) is not None:
            (found.setdefault(inside, {}) if inside else found)[last] = one if write is None else write(one)

    return put


def _reader(path: str, read: Callable[[Any], Any] | None, optional: bool, presence: bool) -> Callable[[Any], Any]:
    get = attrgetter(path)
    if not optional:
        return get if read is None else lambda message: read(get(message))
    decode = read or _same
    if presence:
        return lambda message: decode(get(message)) if message.HasField(path) else None
    return lambda message: decode(raw) if (raw := get(message)) else None


def _hints(value: type) -> dict[str, Any]:
    """The annotations of a class, by the names of its module: a field may be called `bytes`."""
    return get_type_hints(value, localns={}, include_extras=True)


def split_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what its annotation says."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _first(said: Sequence[Any], kind: type[V]) -> V | None:
    return next((each for each in said if isinstance(each, kind)), None)


def _rule(kind: Any, said: Sequence[Any], field: Any) -> FieldRule:
    """The rule of a field with this descriptor. Raises TypeError for a type that needs one and has none."""
    rule = next((each for each in said if isinstance(each, FieldRule)), None)
    if isinstance(rule, Items) and rule.of is None:
        return Items(rule.limit, _rule(*split_hint(get_args(kind)[0]), field), cut=rule.cut)
    if rule is not None:
        return rule
    if kind in _OWN_RULES:
        return _OWN_RULES[kind]
    if dataclasses.is_dataclass(kind) and field.message_type is not None:
        return MessageCodec(cast("type[Any]", kind), GetMessageClass(field.message_type))
    raise TypeError(f"the field {field.full_name} needs a rule: {kind}")


class OneOfCodec(Generic[V, M]):
    """The codec of a message that is one of several kinds, as a `oneof` of it says. A kind is a dataclass, for a
    message or for one field.

    Args:
        message: the message's class.
        oneof: the name of the group, which an error names.
        kinds: the dataclass of each field of the group.
    """

    def __init__(self, message: type[M], oneof: str, /, **kinds: type[V]) -> None:
        self.message = message
        self._oneof = oneof
        self._kinds = kinds

    def encode(self, value: V) -> M:
        name, write = self._writers[type(value)]
        return self.message(**{name: write(value)})

    def decode(self, message: M) -> V:
        """Raises Malformed."""
        name = message.WhichOneof(self._oneof)
        if name not in self._readers:
            raise Malformed(f"unknown {self._oneof}", why="the message has none that is known here")
        return self._readers[name](getattr(message, name))

    @cached_property
    def _rules(self) -> dict[str, FieldRule]:
        fields = self.message.DESCRIPTOR.fields_by_name
        return {name: _kind_rule(kind, fields[name]) for name, kind in self._kinds.items()}

    @cached_property
    def _readers(self) -> dict[str, Callable[[Any], V]]:
        return {name: rule.reader(name) or _same for name, rule in self._rules.items()}

    @cached_property
    def _writers(self) -> dict[type, tuple[str, Callable[[V], Any]]]:
        return {kind: (name, self._rules[name].write or _same) for name, kind in self._kinds.items()}


def _kind_rule(kind: Any, field: Any) -> FieldRule:
    """The rule of a kind: of its message, or of its one field."""
    if field.message_type is not None:
        return _rule(kind, (), field)
    ((name, hint),) = _hints(kind).items()
    inner = _rule(*split_hint(hint), field)
    read, write = inner.reader(name) or _same, inner.write or _same
    return Read(lambda raw: kind(read(raw)), lambda value: write(getattr(value, name)))
