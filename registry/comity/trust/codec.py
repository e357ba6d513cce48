"""JSON objects whose reader and writer are derived from the dataclasses of their values.

A value is a frozen dataclass. Each field says in its annotation what may be in it, and has the name of the member:

    @frozen
    class Granularity(JsonObject):
        nodes: Annotated[int, JsonNumber(1, MAX_NODES)]
        name: Annotated[str, JsonText(200), "A text describes the member."]

A type without a rule has one of its own: `int` is between 0 and 2**53 - 1, `str` is a line of 1 to 4,096 characters, a
dataclass is an object in the object. `X | None` is None for null. Every member is required but those that `ABSENT`
marks, and no other is allowed. Reading and writing are inverse to each other; reading raises Malformed for a value
beyond a bound, and a count is checked before the items are read.

`comity.wire.codec` does the same for messages; `docs/statement_schemas.py` derives the schemas of docs/schemas.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from comity.trust.encoding import (
    MAX_INTEGER,
    MAX_TEXT,
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    format_time,
    read_time,
)
from comity.trust.frozen import frozen

V = TypeVar("V")


@runtime_checkable
class MemberRule(Protocol):
    """What may be in a member, and how the value is made from it."""

    def read(self, fields: Fields, name: str) -> Any:
        """The value of the member `name`. Raises Malformed."""

    def write(self, value: Any) -> Json: ...


class JsonPlain:
    """A value is in the member as it is."""

    def write(self, value: Any) -> Json:
        return value  # type: ignore[no-any-return]


class JsonText(JsonPlain):
    """`least` to `most` characters on one line; with `lines` on several."""

    def __init__(self, most: int = MAX_TEXT, least: int = 1, *, lines: bool = False) -> None:
        self.most, self.least, self.lines = most, least, lines

    def read(self, fields: Fields, name: str) -> str:
        return fields.text(name, most=self.most, least=self.least, lines=self.lines)


class JsonNumber(JsonPlain):
    def __init__(self, least: int = 0, most: int = MAX_INTEGER) -> None:
        self.least, self.most = least, most

    def read(self, fields: Fields, name: str) -> int:
        return fields.integer(name, least=self.least, most=self.most)


class JsonWord(JsonPlain):
    """One of some words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def read(self, fields: Fields, name: str) -> Any:
        value = fields.take(name)
        if value not in self.words:
            raise fields.error(f"member {name!r} must be one of {', '.join(self.words)}, not {str(value)[:40]!r}")
        return value


class JsonConstant(JsonPlain):
    """One word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def read(self, fields: Fields, name: str) -> str:
        fields.constant(name, self.word)
        return self.word


class JsonFollows(JsonPlain):
    """A text of a form that follows from the whole value."""

    def __init__(self, get: Callable[[Any], str], form: re.Pattern[str]) -> None:
        self.get, self.form = get, form

    def read(self, fields: Fields, name: str) -> Json:
        return fields.take(name)


class JsonFlag(JsonPlain):
    def read(self, fields: Fields, name: str) -> bool:
        return fields.boolean(name)


class JsonDigest(JsonPlain):
    def read(self, fields: Fields, name: str) -> Digest:
        return fields.digest(name)


class JsonAny(JsonPlain):
    """Any JSON but null, as deep as a document may be."""

    def read(self, fields: Fields, name: str) -> Json:
        value = fields.take(name)
        if value is None:
            raise fields.error(f"member {name!r} must not be null")
        return value


class JsonBytes:
    """`least` to `most` bytes, in base64; exactly `size`, if it is given."""

    def __init__(self, most: int = MAX_INTEGER, least: int = 0, *, size: int | None = None) -> None:
        self.most, self.least, self.size = most, least, size

    def read(self, fields: Fields, name: str) -> bytes:
        data = b64decode(fields.take(name), size=self.size)
        if not self.least <= len(data) <= self.most:
            raise fields.error(f"member {name!r} must have at least {self.least} and at most {self.most} bytes")
        return data

    def write(self, value: bytes) -> Json:
        return b64encode(value)


class JsonTime:
    """Seconds since 1970, as `2026-11-25T15:04:05Z`."""

    def read(self, fields: Fields, name: str) -> int:
        return read_time(fields, name)

    def write(self, value: int) -> Json:
        return format_time(value)


class JsonRead:
    """A text of at most `most` characters that a function reads: it raises Malformed for other texts. `form` is the
    name of the form in the schemas' common parts, or the pattern of the text."""

    controls = False
    """Whether a control character may be in it."""

    def __init__(
        self,
        read: Callable[[str], Any],
        form: str | re.Pattern[str],
        *,
        write: Callable[[Any], str] = str,
        most: int = MAX_TEXT,
        least: int = 1,
    ) -> None:
        self.form, self.most, self.least = form, most, least
        self._read, self.write = read, write

    def read(self, fields: Fields, name: str) -> Any:
        return self._read(fields.text(name, most=self.most, least=self.least))


class JsonItems:
    """`least` to `most` items; with `once` none is there twice. `of`: the rule of each; by default its type has it.
    `form` is the name of the form in the schemas' common parts, where these have it."""

    def __init__(
        self, most: int, least: int = 0, *, of: MemberRule | None = None, once: bool = False, form: str | None = None
    ) -> None:
        self.most, self.least, self.once, self.form = most, least, once, form
        self.of = cast(MemberRule, of)

    def read(self, fields: Fields, name: str) -> tuple[Any, ...]:
        items = fields.items(name, most=self.most, least=self.least)
        found = tuple(self.of.read(fields.alone(name, item), name) for item in items)
        if self.once and len(set(found)) != len(found):
            raise fields.error(f"member {name!r} lists something twice")
        return found

    def write(self, value: Sequence[Any]) -> Json:
        return list(map(self.of.write, value))


class JsonRow:
    """A list with one item for each of these rules."""

    def __init__(self, *of: MemberRule) -> None:
        self.of = of

    def read(self, fields: Fields, name: str) -> tuple[Any, ...]:
        items = fields.items(name, most=len(self.of), least=len(self.of))
        return tuple(rule.read(fields.alone(name, item), name) for rule, item in zip(self.of, items, strict=True))

    def write(self, value: Sequence[Any]) -> Json:
        return [rule.write(item) for rule, item in zip(self.of, value, strict=True)]


class JsonMap:
    """An object of at most `most` members with any names of a pattern, or with some of the given names. `of`: the rule
    of each; by default its type has it."""

    def __init__(self, most: int, names: re.Pattern[str] | Sequence[str], *, of: MemberRule | None = None) -> None:
        self.most, self.names = most, names
        self.of = cast(MemberRule, of)

    def read(self, fields: Fields, name: str) -> dict[str, Any]:
        raw = fields.take(name)
        if not isinstance(raw, Mapping) or len(raw) > self.most or not all(map(self.allows, raw)):
            names = f"of the names {', '.join(self.names)}" if isinstance(self.names, tuple) else "short names"
            raise fields.error(f"member {name!r} must be an object of at most {self.most} {names}")
        inner = fields.within(name, raw)
        return {each: self.of.read(inner, each) for each in raw}

    def write(self, value: Mapping[str, Any]) -> Json:
        return {name: self.of.write(item) for name, item in value.items()}

    def allows(self, name: str) -> bool:
        return bool(self.names.match(name)) if isinstance(self.names, re.Pattern) else name in self.names


class JsonInner:
    """A value that has `to_json`, and `from_json` that makes it."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._derived = issubclass(kind, JsonObject)

    def read(self, fields: Fields, name: str) -> Any:
        return self.kind.read(fields.object(name)) if self._derived else self.kind.from_json(fields.take(name))

    def write(self, value: Any) -> Json:
        return value.to_json()  # type: ignore[no-any-return]


class OrNull:
    """A value, or null."""

    def __init__(self, of: MemberRule) -> None:
        self.of = of

    def read(self, fields: Fields, name: str) -> Any:
        return None if fields.is_null(name) else self.of.read(fields, name)

    def write(self, value: Any) -> Json:
        return None if value is None else self.of.write(value)


class OrAbsent(OrNull):
    """A value, or no member."""

    def read(self, fields: Fields, name: str) -> Any:
        return self.of.read(fields, name) if fields.has(name) else None


@frozen
class JsonPath:
    """The member, where it has another name than the field. `object.size` is in the member `object`."""

    path: str


@frozen
class JsonMerged:
    """A dataclass whose members are members of the same object, or of the object that is the member `path`. One that
    may be None is so where its first member is absent."""

    path: str = ""


@frozen
class Given:
    """A field that is no member: what reads the object gives its value, by this word."""

    word: str


class _Absent:
    """The type of ABSENT."""


ABSENT: Final = _Absent()
"""Marks a field that may be None, and then is no member."""

Path: TypeAlias = tuple[str, ...]
Parts: TypeAlias = dict[Path, Fields]
"""An object, and those in it whose members are fields of the same value; by their paths."""
_Make: TypeAlias = Callable[[Parts, Mapping[str, Any]], Any]
"""Makes a value of parts, and of what is given by its word."""


@frozen
class JsonMember:
    """A member of an object.

    Attributes:
        get: its value, of the value of the whole.
        about: what describes it.
        optional: whether it may be absent; `get` gives None then.
    """

    path: Path
    rule: MemberRule
    get: Callable[[Any], Any]
    about: str = ""
    optional: bool = False


@frozen
class Shape:
    """The members of a class. `inner` are the paths of objects whose members are fields of the same value, outer ones
    first, and whether they may be absent; `given` are the fields that are no members, by the word of each."""

    make: _Make
    members: tuple[JsonMember, ...]
    constants: tuple[JsonMember, ...]
    inner: Mapping[Path, bool]
    given: Mapping[str, str]


class JsonObject:
    """A value that is an object in JSON."""

    __slots__ = ()
    constants: ClassVar[Mapping[str, str | JsonFollows]] = {}
    """Members that no field has, by their paths."""

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Raises Malformed."""
        return cls.read(Fields(value, cls.__name__.lower()))

    @classmethod
    def read(cls, fields: Fields, **given: Any) -> Self:
        """The value of all members of `fields`. Raises Malformed, also for other members."""
        shape = shape_of(cls)
        parts: Parts = {(): fields}
        for path, optional in shape.inner.items():
            outer, name = parts[path[:-1]], path[-1]
            parts[path] = outer.alone() if optional and not outer.has(name) else outer.object(name)
        constants = [(each, each.rule.read(parts[each.path[:-1]], each.path[-1])) for each in shape.constants]
        value: Self = shape.make(parts, given)
        for member, found in constants:
            if found != member.get(value):
                raise fields.error(f"{'.'.join(member.path)!r} must be {member.get(value)!r}, not {str(found)[:60]!r}")
        for part in parts.values():
            part.done()
        return value

    def to_json(self) -> dict[str, Json]:
        shape, made = shape_of(type(self)), dict[str, Any]()
        for member in (*shape.constants, *shape.members):
            value = member.get(self)
            if value is not None or not member.optional:
                inner = made
                for name in member.path[:-1]:
                    inner = inner.setdefault(name, {})
                inner[member.path[-1]] = member.rule.write(value)
        return made


_SHAPES: Final[dict[Any, Shape]] = {}


def shape_of(kind: Any) -> Shape:
    """The members of a class. Raises TypeError for a field without a rule."""
    if kind not in _SHAPES:
        _SHAPES[kind] = _shape(kind)
    return _SHAPES[kind]


def _shape(kind: Any) -> Shape:
    make, members = _fields(kind, (), ())
    constants = tuple(_constant(path, value) for path, value in kind.constants.items())
    inner: dict[Path, bool] = {}
    for member in (*constants, *members):
        for end in range(1, len(member.path)):
            inner[member.path[:end]] = inner.get(member.path[:end], True) and member.optional
    outer_first = dict(sorted(inner.items(), key=lambda item: len(item[0])))
    hints = get_type_hints(kind, localns={}, include_extras=True)
    given = {word.word: name for name, hint in hints.items() if (word := _first(_split(hint)[1], Given))}
    return Shape(make, members, constants, outer_first, given)


def _fields(kind: Any, at: Path, holders: Path) -> tuple[_Make, tuple[JsonMember, ...]]:
    """What makes a value of members below the path `at`, and these members. `holders` are the attributes that lead to
    the value."""
    hints = get_type_hints(kind, localns={}, include_extras=True)
    steps, members = list[tuple[Path | None, str, Callable[[Any, Any], Any]]](), list[JsonMember]()
    for field in dataclasses.fields(kind):
        one, said, optional = _split(hints[field.name])
        if not field.init:
            continue
        if given := _first(said, Given):
            steps.append((None, "", _taken(given.word)))
        elif merged := _first(said, JsonMerged):
            make, inner = _fields(one, (*at, *_path(merged.path)), (*holders, field.name))
            steps.append((None, "", _unless_absent(make, inner[0].path) if optional else make))
            holder = attrgetter(".".join((*holders, field.name)))
            members.extend(_optional(each, len(at) + 1, holder) if optional else each for each in inner)
        else:
            named, rule = _first(said, JsonPath), rule_of(one, said)
            if optional:
                rule = (OrAbsent if ABSENT in said else OrNull)(rule)
            path = (*at, *_path(named.path if named else field.name))
            steps.append((path[:-1], path[-1], rule.read))
            get = attrgetter(".".join((*holders, field.name)))
            members.append(JsonMember(path, rule, get, _first(said, str) or "", isinstance(rule, OrAbsent)))

    def made(parts: Parts, given: Mapping[str, Any]) -> Any:
        return kind(*[read(parts, given) if at is None else read(parts[at], name) for at, name, read in steps])

    return made, tuple(members)


def rule_of(kind: Any, said: Sequence[Any] = ()) -> MemberRule:
    """The rule of a field of this type, of which its annotation says this. Raises TypeError if it has none."""
    rule = next((each for each in said if isinstance(each, MemberRule)), None)
    if isinstance(rule, JsonItems | JsonMap) and rule.of is None:
        one, inner, optional = _split(get_args(kind)[0 if isinstance(rule, JsonItems) else 1])
        of = rule_of(one, inner)
        rule.of = OrNull(of) if optional else of
    if rule is not None:
        return rule
    if kind in _OWN_RULES:
        return _OWN_RULES[kind]
    if hasattr(kind, "from_json"):
        return JsonInner(kind)
    raise TypeError(f"a member needs a rule: {kind}")


_OWN_RULES: Final[Mapping[Any, MemberRule]] = {
    int: JsonNumber(),
    str: JsonText(),
    bool: JsonFlag(),
    Digest: JsonDigest(),
}


def _split(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """A type, what its annotation says, and whether the value may be None."""
    kind, said = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    if get_origin(kind) not in (Union, UnionType):
        return kind, said, False
    kind, more, _ = _split(next(part for part in get_args(kind) if part is not NoneType))
    return kind, (*said, *more), True


def _first(said: Sequence[Any], kind: type[V]) -> V | None:
    return next((each for each in said if isinstance(each, kind)), None)


def _path(text: str) -> Path:
    return tuple(text.split(".")) if text else ()


def _constant(path: str, value: str | JsonFollows) -> JsonMember:
    if isinstance(value, JsonFollows):
        return JsonMember(_path(path), value, value.get)
    return JsonMember(_path(path), JsonConstant(value), lambda whole: value)


def _taken(word: str) -> _Make:
    return lambda parts, given: given[word]


def _unless_absent(make: _Make, first: Path) -> _Make:
    return lambda parts, given: make(parts, given) if parts[first[:-1]].has(first[-1]) else None


def _optional(member: JsonMember, depth: int, holder: Callable[[Any], Any]) -> JsonMember:
    """A member of the value that `holder` gets, which may be None. `depth` is that of members of the object itself."""
    rule = OrAbsent(member.rule) if len(member.path) == depth else member.rule
    get = member.get
    return replace(member, rule=rule, get=lambda whole: None if holder(whole) is None else get(whole), optional=True)
