"""What a Jinja template does: the loops and attributes that it has, and how it would reach internals of Python.

Runtimes render chat templates in a sandbox. A template that needs the sandbox to hold is named: internals of Python are
reached through names with two underscores, which can be spelled with escapes, joined from parts or made by filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from comity.formats.source import NotInspected, Work

MAX_TEMPLATE: Final = 256 * 1024
"""Bytes of a template. Chat templates have at most some ten thousand."""
STEPS_OF_TEMPLATE: Final = 32
PASSES: Final = 64
"""Searches of the whole template, some of which are slow."""
MAX_NAMED: Final = 6
"""Loops and attributes that are named."""
_INTERNALS: Final = re.compile(
    r"__(class|subclasses|globals|builtins|import|mro|bases?|init|getattribute|getattr|getitem|dict|code|reduce|loader"
    r"|call|self|func|closure|module|name|doc|wrapped|spec|new)(_ex)?__"
    r"|\|\s*attr\b|\b(lipsum|cycler|joiner)\b|\b(namespace|self)\s*(\.\s*_|\[)|\bos\s*\.\s*(system|popen)\b"
    r"|\.\s*(mro|format_map|gi_frame|cr_frame|f_globals|f_builtins|func_globals|tb_frame)\b"
)
_BUILT_NAME: Final = re.compile(
    r"""(['"])_++\1|(['"])(?:_\w++|\w++(?<=\w__))\2\s?[~+%]|[~+]\s?(['"])\w*+(?<=__)\3|%c"""
)
_MAPPED: Final = re.compile(r"(\|\s?(?:map|selectattr)\s?\()|\)|_")
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|N\{([^}]{1,40})\})"
)
_JOINT: Final = re.compile(r"""(['"])\s?[~+]?\s?(['"])""")
_BLANKS: Final = re.compile(r"\s{2,}")
_DELIMITER: Final = re.compile(r"\{[{%]|[%}]\}")
_STRING: Final = re.compile(
    r"""'(?:[^'\\]++|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)""", re.DOTALL
)  # one without an end goes to the end of the text: else each quote in it would begin another search
_LOOP: Final = re.compile(r"\bfor\s[\w\s,()]{1,80}?\sin\s([\w.]{1,40})")
_ATTRIBUTE: Final = re.compile(r"[\w)\]]\.([A-Za-z_]\w{0,39})|\[\s?['\"](\w{1,40})['\"]\s?\]")


def active_in_template(template: bytes, work: Work) -> Iterator[str]:
    """Active content of a template. What it loops over and reads is named, for a person who decides. Raises
    NotInspected."""
    if len(template) > MAX_TEMPLATE:
        raise NotInspected(f"a template of more than {MAX_TEMPLATE >> 10} KiB")
    work.step(STEPS_OF_TEMPLATE)
    work.search(PASSES * len(template))
    text = _BLANKS.sub(" ", template.decode("utf-8", "replace"))
    code = " ".join(_code(text))
    yield "chat-template" + _summary(code)
    plain = _ESCAPE.sub(_character, text)
    joined = _JOINT.sub("", plain)
    for spelled in (text, plain, joined):
        if match := _INTERNALS.search(spelled):
            yield f"template-escape: {match[0][:40]}"
            return
    spelled = _ESCAPE.sub(_character, code)
    if match := _BUILT_NAME.search(spelled):
        yield f"template-escape: it builds a name with {match[0][:40]}"
    elif (name := _mapped_name(spelled)) is not None:
        yield f"template-escape: it builds a name with {name[:40]}"


def _code(text: str) -> Iterator[str]:
    """What is between the delimiters of statements and expressions; without an end, the rest of the text."""
    start = None
    for match in _DELIMITER.finditer(text):
        if start is None and match[0][0] == "{":
            start = match.end()
        elif start is not None and match[0][0] != "{":
            yield text[start : match.start()]
            start = None
    if start is not None:
        yield text[start:]


def _mapped_name(code: str) -> str | None:
    """The beginning of a filter that takes attributes by a name with an underscore; None if there is none."""
    begun = None
    for match in _MAPPED.finditer(code):
        if match[1]:
            begun = match[1]
        elif match[0] == ")":
            begun = None
        elif begun is not None:
            return begun
    return None


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
