"""Reading a JSON object member by member: each is named, typed and bounded, and nothing is left over unless allowed."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import MAX_INTEGER, Json
from comity.trust.errors import Malformed

MAX_TEXT = 4096
CONTROLS = ("Cc", "Zl", "Zp")  # what could make one line look like two


class Fields:
    """A JSON object of which every member has to be asked for.

    Args:
        value: the parsed JSON.
        what: the document's name, for errors.

    Every reader raises Malformed where the member is absent, of another type, or out of bounds.
    """

    def __init__(self, value: Json, what: str) -> None:
        if not isinstance(value, Mapping):
            raise Malformed(f"{what} is malformed", why="expected a JSON object")
        self._members = dict(value)
        self._what = what

    def has(self, name: str) -> bool:
        return name in self._members

    def take(self, name: str) -> Json:
        if name not in self._members:
            raise self.error(f"member {name!r} is missing")
        return self._members.pop(name)

    def text(self, name: str, *, most: int = MAX_TEXT, least: int = 1, lines: bool = False) -> str:
        """A string of `least` to `most` characters without control characters; `lines` allows line feeds and tabs."""
        value = self.take(name)
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise self.error(f"member {name!r} must be a string of {least} to {most} characters")
        allowed = "\n\t" if lines else ""
        if not value.isprintable() and any(unicodedata.category(c) in CONTROLS and c not in allowed for c in value):
            raise self.error(f"member {name!r} holds a control character")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.text(name)
        if value not in choices:
            raise self.error(f"member {name!r} must be one of {', '.join(choices)}, not {value[:40]!r}")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = MAX_INTEGER) -> int:
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(f"member {name!r} must be an integer from {least} to {most}")
        return value

    def digest(self, name: str) -> Digest:
        return bare_digest(self.take(name))

    def items(self, name: str, *, most: int, least: int = 0) -> Sequence[Json]:
        value = self.take(name)
        if isinstance(value, str) or not isinstance(value, Sequence) or not least <= len(value) <= most:
            raise self.error(f"member {name!r} must be a list of {least} to {most} items")
        return value

    def digests(self, name: str, *, most: int, least: int = 0) -> tuple[Digest, ...]:
        return tuple(bare_digest(item) for item in self.items(name, most=most, least=least))

    def object(self, name: str) -> Fields:
        return Fields(self.take(name), f"{self._what}.{name}")

    def constant(self, name: str, expected: str) -> None:
        value = self.take(name)
        if value != expected:
            raise self.error(f"member {name!r} must be {expected!r}, not {str(value)[:60]!r}")

    def done(self) -> None:
        """Refuse members that nobody asked for: a document that is named by its hash has no room for riders."""
        if self._members:
            raise self.error(f"unknown member {sorted(self._members)[0][:60]!r}")

    def error(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=why)
