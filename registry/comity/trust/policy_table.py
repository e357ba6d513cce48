"""Reads TOML tables key by key, and says in which line of the file something is wrong."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from comity.trust.errors import Malformed

_HEADER: Final = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.\"-]+)\s*\]\]?\s*(?:#.*)?\Z")
T = TypeVar("T")


class PolicyTable:
    """A TOML table that is read key by key.

    Args:
        value: the parsed TOML.
        what: the table's name, for errors.
        lines: line numbers for errors.

    Each read method raises Malformed if the value has the wrong type. `done` raises Malformed for keys that were not
    read.
    """

    def __init__(self, value: object, what: str, lines: PolicyLines | None = None) -> None:
        if not isinstance(value, dict):
            raise malformed(what, "expected a table")
        self._unread = dict(value)
        self._known_keys: list[str] = []
        self.what = what
        self.lines = lines or PolicyLines()

    def __bool__(self) -> bool:
        """Whether the table has keys that were not read."""
        return bool(self._unread)

    def take(self, key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
        self._known_keys.append(key)
        value = self._unread.pop(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"{key!r} has the wrong type")
        return value

    def table(self, key: str) -> PolicyTable:
        return PolicyTable(self.take(key, dict, {}), f"{self.what}.{key}", self.lines)

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise self.error(key, f"{key!r} must be strings")
        return tuple(value)

    def parse_each(self, key: str, read: Callable[[str], T], default: Sequence[str] = ()) -> tuple[T, ...]:
        """Return the strings of `key`, each parsed by `read`."""
        return tuple(self._parse(key, item, read) for item in self.strings(key, default))

    def list_in(self, table: str, key: str, read: Callable[[str], T]) -> tuple[T, ...]:
        """Return the strings of `key`, the only key of the table `table`, each parsed by `read`."""
        only = self.table(table)
        found = only.parse_each(key, read)
        only.done()
        return found

    def error(self, key: str, why: str, hint: str = "", value: str | None = None) -> Malformed:
        """Return the error for `key`, or for `value` in it, with its line number."""
        line = self.lines.find(self.what.partition(".")[2], key, value)
        return malformed(self.what, f"line {line}: {why}" if line else why, hint)

    def _parse(self, key: str, item: str, read: Callable[[str], T]) -> T:
        try:
            return read(item)
        except Malformed as error:
            raise self.error(key, f"{key!r}: {error}", error.hint, item) from error

    def done(self) -> None:
        for key in self._unread:
            close = difflib.get_close_matches(key, self._known_keys, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(self._known_keys)}"
            raise Malformed(f"{self.what} has an unknown key {key!r}", why=hint, code="POLICY-SYNTAX")


class PolicyLines:
    """Line numbers of a policy file, found by text search, because the TOML parser does not report them."""

    def __init__(self, text: str = "") -> None:
        self._lines = text.splitlines()

    def find(self, table: str, key: str, value: str | None = None) -> int | None:
        """Return the line (from 1) of `key` in `[table]`, or of `value` after that key; None if not found."""
        inside, found = not table, None
        for number, line in enumerate(self._lines, 1):
            if (header := _HEADER.match(line)) is not None:
                if found is not None:
                    break
                inside = header[1] == table
            if inside and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
                found = number
            if found is not None and (value is None or json.dumps(value, ensure_ascii=False) in line):
                return number
        return found


def malformed(what: str, why: str, hint: str = "") -> Malformed:
    return Malformed(f"{what} is malformed", why=why, hint=hint, code="POLICY-SYNTAX")


@contextlib.contextmanager
def malformed_at(what: str, key: str) -> Iterator[None]:
    """Raise a Malformed of the body again as a policy error (POLICY-SYNTAX) at `key`."""
    try:
        yield
    except Malformed as error:
        raise malformed(what, f"{key!r}: {error}") from error
