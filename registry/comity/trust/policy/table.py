"""Reading a TOML table key by key: each is asked for, typed, and nothing is left over."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from comity.trust.errors import Malformed

T = TypeVar("T")


class Table:
    """A TOML table of which every key has to be asked for.

    Args:
        value: the parsed TOML.
        what: the table's name, for errors.

    Every reader raises Malformed for a value of another type, `done` for a key that nobody asked for.
    """

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise wrong(what, "expected a table")
        self._rest = dict(value)
        self._asked: list[str] = []
        self.what = what

    def take(self, key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
        self._asked.append(key)
        value = self._rest.pop(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise wrong(self.what, f"{key!r} has the wrong type")
        return value

    def table(self, key: str) -> Table:
        return Table(self.take(key, dict, {}), f"{self.what}.{key}")

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise wrong(self.what, f"{key!r} must be strings")
        return tuple(value)

    def each(self, key: str, read: Callable[[str], T], default: Sequence[str] = ()) -> tuple[T, ...]:
        """The strings called `key`, each as `read` understands it."""
        items = self.strings(key, default)
        with naming(self.what, key):
            return tuple(read(item) for item in items)

    def done(self) -> None:
        for key in self._rest:
            close = difflib.get_close_matches(key, self._asked, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(self._asked)}"
            raise Malformed(f"{self.what} has an unknown key {key!r}", why=hint, code="POLICY-SYNTAX")


def wrong(what: str, why: str) -> Malformed:
    return Malformed(f"{what} is malformed", why=why, code="POLICY-SYNTAX")


@contextlib.contextmanager
def naming(what: str, key: str) -> Iterator[None]:
    """A value that is malformed is the policy's defect, at this key."""
    try:
        yield
    except Malformed as error:
        raise wrong(what, f"{key!r}: {error}") from error
