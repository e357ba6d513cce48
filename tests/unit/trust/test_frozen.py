"""A class that `frozen` makes is the class that `dataclasses` makes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

import pytest
from comity.trust.frozen import frozen

T = TypeVar("T")


def standard(described: type[T]) -> type[T]:
    return dataclass(frozen=True, slots=True)(described)


def described(decorator: Callable[[type], type]) -> tuple[Any, Any]:
    """A class with every form of field that the product has, and one that inherits from it."""

    class Base:
        """Said of it."""

        kind: ClassVar[str] = "base"
        first: int
        second: tuple[str, ...] = ("x",)
        made: list[int] = field(default_factory=list)
        hidden: int = field(default=3, repr=False, compare=False)
        derived: int = field(init=False)
        counted: int = field(init=False, default=7)
        named: bool = field(default=False, kw_only=True, metadata={"name": "Named"})

        def __post_init__(self) -> None:
            object.__setattr__(self, "derived", self.first + 1)

        @property
        def double(self) -> int:
            return 2 * self.first

    base: Any = decorator(Base)

    class Inheriting(base):  # type: ignore[misc]
        second: tuple[str, ...] = ("y",)
        last: int = 9

    return base, decorator(Inheriting)


@pytest.fixture(name="pairs")
def _pairs() -> list[tuple[Any, Any]]:
    """Each class by `frozen`, and by `dataclasses`."""
    return list(zip(described(frozen), described(standard), strict=True))


def test_values_have_the_same_fields_and_the_same_text(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        for given, named in (((1,), {}), ((1, ("a",), [4]), {"named": True, "hidden": 5})):
            value, expected = ours(*given, **named), theirs(*given, **named)
            assert repr(value) == repr(expected)
            assert [getattr(value, each.name) for each in fields(value)] == [
                getattr(expected, each.name) for each in fields(expected)
            ]
            assert value.double == 2


def test_fields_signature_and_patterns_are_the_same(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        shown = [
            [
                (each.name, each.type, each.init, each.compare, each.kw_only, dict(each.metadata))
                for each in fields(kind)
            ]
            for kind in (ours, theirs)
        ]
        assert shown[0] == shown[1]
        assert ours.__match_args__ == theirs.__match_args__
        assert ours.__slots__ == theirs.__slots__
        assert parameters(ours) == parameters(theirs)
        assert get_type_hints(ours) == get_type_hints(theirs)
        assert (ours.__qualname__, ours.__module__) == (theirs.__qualname__, theirs.__module__)
    assert pairs[0][0].__doc__ == "Said of it."


def parameters(kind: type) -> list[tuple[object, ...]]:
    """Of a constructor; of one whose default is made for each value, without that."""
    found = inspect.signature(kind).parameters.values()
    return [(each.name, each.kind, each.annotation, each.name == "made" or each.default) for each in found]


def test_what_is_asked_first_makes_no_difference() -> None:
    asked: list[Callable[[Any], object]] = [
        lambda kind: kind.__match_args__,
        lambda kind: is_dataclass(kind),
        lambda kind: kind.__hash__,
        lambda kind: kind.__eq__,
        lambda kind: kind(1),
    ]
    for ask in asked:
        for kind in described(frozen):
            ask(kind)
            assert kind(1) == kind(1, hidden=4)
            assert kind(1) != kind(2)


def test_equality_and_hash_leave_out_what_is_not_compared(pairs: list[tuple[Any, Any]]) -> None:
    (base, _), (inheriting, _) = pairs
    value = base(1, made=())
    assert value == base(1, made=(), hidden=8)
    assert hash(value) == hash(base(1, made=(), hidden=8))
    assert value != base(1, made=(), named=True)
    assert value != inheriting(1, ("x",), made=())
    assert value != 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(base(1))


def test_a_value_does_not_change(pairs: list[tuple[Any, Any]]) -> None:
    for ours, _ in pairs:
        value = ours(1)
        with pytest.raises(FrozenInstanceError, match="cannot assign to field 'first'"):
            value.first = 2
        with pytest.raises(FrozenInstanceError, match="cannot delete field 'first'"):
            del value.first
        assert not hasattr(value, "__dict__")
        assert replace(value, first=5) == ours(5)


def test_a_list_that_is_made_for_a_value_is_its_own(pairs: list[tuple[Any, Any]]) -> None:
    for ours, _ in pairs:
        assert ours(1).made is not ours(1).made


def test_missing_and_unknown_arguments_are_refused(pairs: list[tuple[Any, Any]]) -> None:
    for ours, _ in pairs:
        with pytest.raises(TypeError, match="first"):
            ours()
        with pytest.raises(TypeError, match="unknown"):
            ours(1, unknown=2)


def test_a_class_keeps_the_methods_that_it_has() -> None:
    @frozen
    class Own:
        number: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

    assert repr(Own(1)) == "own"
    assert Own(1) == Own(2)
    assert hash(Own(1)) != hash(Own(2))


def test_a_base_calls_its_own_constructor() -> None:
    """What a class makes late is made for that class, also when it is asked through another."""

    @frozen
    class Base:
        number: int

    class Counting(Base):
        def __init__(self, number: int) -> None:
            super().__init__(number + 1)

    assert Counting(1).number == 2
    assert Base(1).number == 1


def test_a_class_with_a_parameter() -> None:
    @frozen
    class Box(Generic[T]):
        content: T

    assert Box[int](3).content == 3
    assert Box("a") == Box[str]("a")


def test_a_class_without_fields() -> None:
    @frozen
    class Nothing:
        pass

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()).endswith("Nothing()")


def test_a_class_of_dataclasses_may_inherit() -> None:
    @frozen
    class Base:
        number: int

    @dataclass(frozen=True, slots=True, order=True)
    class Ordered(Base):
        text: str = ""

    assert Ordered(1) < Ordered(2)
    assert copy.copy(Ordered(1, "a")) == Ordered(1, "a")


def test_values_are_copied_and_pickled_as_before(pairs: list[tuple[Any, Any]]) -> None:
    for ours, _ in pairs:
        value = ours(1, ("a",), [4], named=True)
        assert copy.copy(value) == copy.deepcopy(value) == value
        assert copy.deepcopy(value).made is not value.made
    assert pickle.loads(pickle.dumps(Pickled(1, "a"))) == Pickled(1, "a")


@frozen
class Pickled:
    number: int
    text: str = ""


def test_a_pattern_matches_by_position() -> None:
    match Pickled(3, "x"):
        case Pickled(number, text):
            assert (number, text) == (3, "x")
        case _:
            pytest.fail("no match")


def test_a_method_is_made_when_it_is_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a class costs where it is imported: nothing is compiled for it before its first value."""
    made: list[dict[str, bool]] = []

    def counting(**options: bool) -> Any:
        made.append(options)
        return dataclass(**options)

    monkeypatch.setattr("comity.trust.frozen.dataclass", counting)

    @frozen
    class Late:
        number: int

    assert not made
    assert Late(1).number != Late(2).number
    assert len(made) == 1
    assert len({Late(1), Late(1), Late(2)}) == 2
    assert len(made) == 2
