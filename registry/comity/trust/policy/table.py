"""Reading a TOML table key by key: each is asked for, typed, and nothing is left over."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from comity.trust.errors import Malformed
from comity.trust.policy.lines import Lines

T = TypeVar("T")


class Table:
    """A TOML table of which every key has to be asked for.

    Args:
        value: the parsed TOML.
        what: the table's name, for errors.
        lines: where errors look up their line.

    Every reader raises Malformed for a value of another type, `done` for a key that nobody asked for.
    """

    def __init__(self, value: object, what: str, lines: Lines | None = None) -> None:
        if not isinstance(value, dict):
            raise wrong(what, "expected a table")
        self._rest = dict(value)
        self._asked: list[str] = []
        self.what = what
        self.lines = lines or Lines()

    def take(self, key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
        self._asked.append(key)
        value = self._rest.pop(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"{key!r} has the wrong type")
        return value

    def table(self, key: str) -> Table:
        return Table(self.take(key, dict, {}), f"{self.what}.{key}", self.lines)

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise self.wrong(key, f"{key!r} must be strings")
        return tuple(value)

    def each(self, key: str, read: Callable[[str], T], default: Sequence[str] = ()) -> tuple[T, ...]:
        """The strings called `key`, each as `read` understands it."""
        return tuple(self._read(key, item, read) for item in self.strings(key, default))

    def wrong(self, key: str, why: str, hint: str = "", value: str | None = None) -> Malformed:
        """The error that `key`, or `value` in it, is; with the line where it stands."""
        line = self.lines.find(self.what.partition(".")[2], key, value)
        return wrong(self.what, f"line {line}: {why}" if line else why, hint)

    def _read(self, key: str, item: str, read: Callable[[str], T]) -> T:
        try:
            return read(item)
        except Malformed as error:
            raise self.wrong(key, f"{key!r}: {error}", error.hint, item) from error

    def done(self) -> None:
        for key in self._rest:
            close = difflib.get_close_matches(key, self._asked, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(self._asked)}"
            raise Malformed(f"{self.what} has an unknown key {key!r}", why=hint, code="POLICY-SYNTAX")


def wrong(what: str, why: str, hint: str = "") -> Malformed:
    return Malformed(f"{what} is malformed", why=why, hint=hint, code="POLICY-SYNTAX")


@contextlib.contextmanager
def naming(what: str, key: str) -> Iterator[None]:
    """A value that is malformed is the policy's defect, at this key."""
    try:
        yield
    except Malformed as error:
        raise wrong(what, f"{key!r}: {error}") from error
