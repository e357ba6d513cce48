"""Quotes texts of others for YAML, and finds those that need no quotes."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_ESCAPED: Final = {'"': '\\"', "\\": "\\\\"}


def to_yaml(value: str) -> str:
    """A double-quoted YAML scalar in ASCII that parsers read back as `value`."""
    return '"' + "".join(map(_character, value)) + '"'


def plain_or_empty(value: str) -> str:
    """`value` if it needs no quotes anywhere, else an empty text."""
    return value if _PLAIN.match(value) else ""


def _character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
