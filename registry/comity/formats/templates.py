"""What a Jinja template does: the loops and attributes that it has, and how it would reach internals of Python.

Runtimes render chat templates in a sandbox. A template that needs the sandbox to hold is named: internals of Python are
reached through names with two underscores, which can be spelled with escapes, joined from parts or made by filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_NAMED: Final = 6
"""Loops and attributes that are named."""
_INTERNALS: Final = re.compile(
    r"__(class|subclasses|globals|builtins|import|mro|bases?|init|getattribute|getattr|getitem|dict|code|reduce|loader"
    r"|call|self|func|closure|module|name|doc|wrapped|spec|new)(_ex)?__"
    r"|\|\s*attr\b|\b(lipsum|cycler|joiner)\b|\b(namespace|self)\s*(\.\s*_|\[)|\bos\s*\.\s*(system|popen)\b"
    r"|\.\s*(mro|format_map|gi_frame|cr_frame|f_globals|f_builtins|func_globals|tb_frame)\b"
)
_BUILT_NAME: Final = re.compile(
    r"""(['"])_+\1|(['"])(?:_+\w+|\w+__)\2\s*[~+%]|[~+]\s*(['"])\w*__\3|%c|\|\s*(map|selectattr)\s*\([^)]*_"""
)
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|N\{([^}]{1,40})\})"
)
_JOINT: Final = re.compile(r"""(['"])\s*[~+]?\s*(['"])""")
_BLOCK: Final = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_STRING: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_LOOP: Final = re.compile(r"\bfor\s+[\w\s,()]{1,80}?\s+in\s+([\w.]{1,40})")
_ATTRIBUTE: Final = re.compile(r"[\w)\]]\.([A-Za-z_]\w{0,39})|\[\s*['\"](\w{1,40})['\"]\s*\]")


def active_in_template(template: bytes) -> Iterator[str]:
    """Active content of a template. What it loops over and reads is named, for a person who decides."""
    text = template.decode("utf-8", "replace")
    code = " ".join(match[1] for match in _BLOCK.finditer(text))
    yield "chat-template" + _summary(code)
    plain = _ESCAPE.sub(_character, text)
    joined = _JOINT.sub("", plain)
    for spelled in (text, plain, joined):
        if match := _INTERNALS.search(spelled):
            yield f"template-escape: {match[0][:40]}"
            return
    if match := _BUILT_NAME.search(_ESCAPE.sub(_character, code)):
        yield f"template-escape: it builds a name with {match[0][:40]}"


def _character(match: re.Match[str]) -> str:
    digits = next((match[group] for group in (1, 2, 3) if match[group]), "")
    if not digits:
        return chr(int(match[4], 8)) if match[4] else "_" if "LOW LINE" in (match[5] or "").upper() else match[0]
    number = int(digits, 16)
    return chr(number) if number < 0x110000 else match[0]


def _summary(code: str) -> str:
    loops = dict.fromkeys(match[1] for match in _LOOP.finditer(_STRING.sub("''", code)))
    attributes = dict.fromkeys(match[1] or match[2] for match in _ATTRIBUTE.finditer(code))
    parts = [f"loops over {_named(loops)}"] if loops else []
    parts += [f"reads {_named(attributes)}"] if attributes else []
    return f": {'; '.join(parts)}" if parts else ""


def _named(names: dict[str, None]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(sorted(names)[:MAX_NAMED]) + more
