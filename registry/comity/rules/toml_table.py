"""Reads the tables of a TOML file that a person wrote, key by key. Pure.

Every error names the place, as `service 2 'chat', fallback 1, copies.outside`, and what would be right there. Unknown
keys are refused, with the known key that is closest.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Final, TypeVar

from comity.trust.errors import Malformed

T = TypeVar("T")

MAX_BYTES: Final = 1024 * 1024
MAX_SHOWN: Final = 60
"""Characters of a wrong value that an error shows."""


def read_toml(data: bytes, what: str) -> TomlTable:
    """The document of a file, of which errors speak as `what`. Raises Malformed."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"{what} is malformed", why=f"{len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        return TomlTable(tomllib.loads(data.decode("utf-8")), what)
    except (ValueError, RecursionError) as error:  # invalid TOML or UTF-8
        raise Malformed(f"{what} is malformed", why=f"not TOML: {str(error)[:200]}") from error


class TomlTable:
    """A table. Each method takes one key and raises Malformed for a missing or wrong value; `done` raises Malformed for
    keys that were not taken.

    Args:
        value: the parsed TOML.
        what: the kind of file, for errors.
        place: where in the file the table is, for errors; empty for the document itself.
    """

    def __init__(self, value: dict[str, Any], what: str, place: str = "") -> None:
        self._unread = dict(value)
        self._known: list[str] = []
        self._what = what
        self.place = place

    def has(self, key: str) -> bool:
        """Whether the key is there and was not taken."""
        return key in self._unread

    def text(self, key: str, *, most: int = 200) -> str:
        """Text of 1 to `most` printable characters on one line."""
        value = self._take(key)
        if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
            raise self.wrong(key, f"a text of 1 to {most} printable characters", value)
        return value

    def one_of(self, key: str, words: Sequence[str]) -> str:
        value = self._take(key)
        if value not in words:
            raise self.wrong(key, " or ".join(f'"{word}"' for word in words), value)
        return str(value)

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number within these bounds; the default needs not be."""
        value: object = self._take(key, default)
        if value is default and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}", value)
        return value

    def day(self, key: str) -> date:
        """A date without a time."""
        value = self._take(key)
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.wrong(key, "a date without quotes, such as 2027-06-30", value)
        return value

    def texts(self, key: str, *, most: int, of: int = 200) -> tuple[str, ...]:
        """A list of at most `most` texts of 1 to `of` printable characters; empty if the key is missing."""
        value = self._take(key, [])
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(key, f"a list of at most {most} texts", value)
        for text in value:
            if not isinstance(text, str) or not 1 <= len(text) <= of or not text.isprintable():
                raise self.wrong(key, f"a list of texts of 1 to {of} printable characters", text)
        return tuple(value)

    def parsed(self, key: str, read: Callable[[str], T], right: str) -> T:
        """What `read` makes of the text of `key`; `right` says in words what it accepts."""
        return self.parse(key, self.text(key), read, right)

    def parse(self, key: str, text: str, read: Callable[[str], T], right: str) -> T:
        """What `read` makes of `text`, which was in `key`."""
        try:
            return read(text)
        except Malformed as error:
            raise self.wrong(key, right, text) from error

    def table(self, key: str) -> TomlTable:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a table", value)
        return TomlTable(value, self._what, f"{self.place}, {key}" if self.place else key)

    def tables(self, key: str, *, most: int, name: str) -> tuple[TomlTable, ...]:
        """1 to `most` tables `[[key]]`; places are numbered as `name 1`, with the table's own `name` if it has one."""
        value = self._take(key, [])
        if not isinstance(value, list) or not 1 <= len(value) <= most or not all(isinstance(v, dict) for v in value):
            raise self.wrong(key, f"1 to {most} tables [[{key}]]", value)
        return tuple(TomlTable(item, self._what, self._numbered(name, n, item)) for n, item in enumerate(value, 1))

    def _numbered(self, name: str, number: int, item: dict[str, Any]) -> str:
        own = item.get("name")
        named = f" {own[:MAX_SHOWN]!r}" if isinstance(own, str) else ""
        return (f"{self.place}, " if self.place else "") + f"{name} {number}{named}"

    def done(self) -> None:
        """Raises Malformed for keys that were not taken."""
        for key in self._unread:
            close = difflib.get_close_matches(key, self._known, 1)
            right = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(set(self._known)))}"
            raise self.error(f"unknown key {key[:MAX_SHOWN]!r}; {right}")

    def wrong(self, key: str, right: str, value: object) -> Malformed:
        """The error for a value of `key`: what would be right, and what was found."""
        if value is None:
            return self.error(f"{key!r} is missing; it must be {right}")
        shown = str(value) if not isinstance(value, str) else repr(value)
        return self.error(f"{key!r} must be {right}, not {shown[:MAX_SHOWN]}")

    def error(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=f"{self.place}: {why}" if self.place else why)

    def _take(self, key: str, default: object = None) -> Any:
        self._known.append(key)
        return self._unread.pop(key, default)
