"""Where the value of a setting comes from: a flag, a variable of the environment, a line of `node.toml`, or a default.

TOML's parser does not tell lines. `setting_lines` feeds it the file statement by statement instead: a statement is the
smallest run of lines that parses. So a value over several lines, a dotted key or an inline table is found as the parser
reads it, and no second grammar exists.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

MAX_STATEMENT_LINES: Final = 1000
"""Lines of one statement that are tried. Settings behind a longer one have no known line."""


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """The source of a value. `where` names the variable, or the file with the line if it is known."""

    kind: Literal["default", "file", "environment", "flag"]
    where: str = ""

    def __str__(self) -> str:
        return {
            "default": "default",
            "file": self.where,
            "environment": f"the variable {self.where} in the environment",
            "flag": "the command line",
        }[self.kind]


def file_origin(file: Path, lines: Mapping[str, int], setting: str) -> SettingOrigin:
    """The origin of a setting in `file`, or of the table above it if the setting itself has no line."""
    parts = setting.split(".")
    above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    line = next((lines[name] for name in above if name in lines), None)
    return SettingOrigin("file", str(file) if line is None else f"{file}:{line}")


def setting_lines(text: str) -> dict[str, int]:
    """The line, from 1, of each key and each table header in valid TOML, by `section.key`."""
    lines, table = dict[str, int](), ""
    for number, statement, document in _statements(text):
        paths = list(_paths(document))
        if statement.lstrip().startswith("["):
            table = paths[0] if paths else ""
            lines.setdefault(table, number)
        else:
            for path in paths:
                lines.setdefault(f"{table}.{path}" if table else path, number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with the number of its first line, and what it says alone."""
    pending, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            first = number
        pending += line + "\n"
        try:
            document = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            if number - first >= MAX_STATEMENT_LINES:
                return
            continue
        yield first, pending, document
        pending = ""


def _paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The path of each value, and of each empty table."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key
