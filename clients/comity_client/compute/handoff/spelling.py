"""Spelling strangers' words so that a shell, YAML and a comment take them as words and nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Final

from comity.trust.spelling import plain

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_ESCAPED: Final = {'"': '\\"', "\\": "\\\\"}


def shell(value: str) -> str:
    """One word for a POSIX shell, on one line: what would break the line is spelled out."""
    return shlex.quote(plain(value))


def yaml(value: str) -> str:
    """A double-quoted YAML scalar in ASCII, which every parser reads back as `value`."""
    return '"' + "".join(map(_character, value)) + '"'


def comments(lines: Iterable[str], sign: str = "# ") -> str:
    """A comment line for each of `lines`, whatever they hold."""
    return "".join(f"{sign}{plain(line)}\n" for line in lines)


def word(value: str) -> str:
    """`value` where it is a plain word, which needs no quotation anywhere; else nothing."""
    return value if _WORD.match(value) else ""


def _character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
