"""The decorator of frozen dataclasses: a class has its slots at once, and each method when it is first asked for.

    @frozen
    class Member:
        name: Name
        keys: tuple[PublicKey, ...] = ()

This is `@dataclass(frozen=True, slots=True)`, which compiles six methods where a class is declared: a third of what a
command took, which declares hundreds of classes and uses few. Here `dataclasses` makes the same methods, of a second
class with the same fields, from which they are taken. A class that has an order, or values that change, is one of
`dataclasses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError, dataclass, field, fields, is_dataclass
from typing import Any, Final, NoReturn, TypeVar, cast, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(described: type[T]) -> type[T]:
    """Decorator: makes a frozen dataclass of a class, which must have its annotations as texts."""
    content: dict[str, Any] = {name: value for name, value in vars(described).items() if name not in _UNSLOTTED}
    hints: Mapping[str, str] = content.get("__annotations__", {})
    own = {name: hint for name, hint in hints.items() if not hint.startswith("ClassVar")}
    declared = {name: content.pop(name) for name in own if name in content} | {"__annotations__": own}
    inherited = {name for base in described.__mro__[1:] for name in vars(base).get("__slots__", ())}
    content |= {
        "__slots__": tuple(name for name in own if name not in inherited),
        "__qualname__": described.__qualname__,
    }
    later = {name: Later(name, declared) for name in _MADE if content.get(name) is None}
    metaclass: Any = type(described)
    made = metaclass(described.__name__, described.__bases__, content | later | _REFUSING)
    return cast("type[T]", made)


class Later:
    """An attribute of a class that is made when it is first asked for, and then takes this one's place.

    Args:
        declared: the annotations and defaults of the class's own fields, as in its body.
    """

    def __init__(self, name: str, declared: Mapping[str, Any]) -> None:
        self._name, self._declared = name, declared

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, instance: object, kind: type) -> Any:
        made = vars(_alike(self._owner, self._declared, _MADE[self._name]))
        for name, options in _MADE.items():
            if options == _MADE[self._name] and isinstance(vars(self._owner).get(name), Later):
                setattr(self._owner, name, made[name])
        found = vars(self._owner)[self._name]
        return found.__get__(instance, kind) if callable(found) else found


def _alike(made: type, declared: Mapping[str, Any], options: Mapping[str, bool]) -> type:
    """A dataclass with the same fields: those of the bases, and those that are `declared`."""
    fields_of_bases: dict[str, Field[Any]] = {}
    for base in reversed(made.__mro__[1:]):
        fields_of_bases |= {each.name: each for each in fields(base)} if is_dataclass(base) else {}
    hints = {name: each.type for name, each in fields_of_bases.items()} | declared["__annotations__"]
    content = {
        name: getattr(made, name) for name in ("__module__", "__qualname__", "__post_init__") if hasattr(made, name)
    }
    content |= {"__doc__": "Its fields.", **fields_of_bases, **declared, "__annotations__": hints}
    return dataclass(**options)(type(made.__name__, (), content))


def _refuse(self: object, name: str, *value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


_UNSLOTTED: Final = ("__dict__", "__weakref__")
_REFUSING: Final = {"__setattr__": _refuse, "__delattr__": _refuse}
_CONSTRUCTED: Final = {"frozen": True, "slots": True, "repr": False, "eq": False}
_COMPARED: Final = {"unsafe_hash": True, "init": False, "repr": False}
"""`unsafe_hash` gives the hash of a frozen class, without the two methods that refuse a change: `_REFUSING` does."""
_MADE: Final[Mapping[str, Mapping[str, bool]]] = {
    "__init__": _CONSTRUCTED,
    "__getstate__": _CONSTRUCTED,
    "__setstate__": _CONSTRUCTED,
    "__match_args__": _CONSTRUCTED,
    "__dataclass_fields__": _CONSTRUCTED,
    "__dataclass_params__": _CONSTRUCTED,
    "__eq__": _COMPARED,
    "__hash__": _COMPARED,
    "__repr__": {"init": False, "eq": False},
}
"""What is made, and with which options of `dataclass`: what most classes do not use is not compiled with the rest."""
