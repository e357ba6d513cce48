"""What a node's home says about its member and its settings.

inception.line    who it is
rotations.lines   its `rotated` lines, oldest first; absent before the first
node-record.line  which node is its own
node.toml         what its operator decided
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from comity.content import durable
from comity.trust.dsse import MAX_LINE
from comity.trust.errors import Malformed, NotFound
from comity.trust.identity import Inception, check_inception
from comity.trust.statement import Entry, parse_entry
from comity.verifier import read_bounded

ROTATIONS: Final = "rotations.lines"
MAX_ROTATIONS: Final = 1000
MAX_SETTINGS: Final = 1024 * 1024


def settings_of(home: Path) -> dict[str, Any]:
    """What is written in node.toml, as it is written. Raises NotFound, Malformed (CONFIG)."""
    file = home / "node.toml"
    if not file.is_file():
        hint = "name your node's home: --dir HOME"
        raise NotFound(f"{home.absolute()} is no node's home", why="node.toml is missing", hint=hint, code="NO-HOME")
    try:
        return tomllib.loads(read_bounded(file, MAX_SETTINGS).decode())
    except ValueError as error:  # TOML and UTF-8 alike
        raise Malformed(f"{file} is not TOML", why=str(error), code="CONFIG") from error


def read_line(path: Path) -> bytes:
    """The one line in `path`, without its line feed. Raises NotFound, Malformed."""
    line = read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def own_inception(home: Path) -> Inception:
    """Raises NotFound, Malformed, Untrusted."""
    return check_inception(parse_entry(read_line(home / "inception.line")))


def own_rotations(home: Path) -> list[Entry]:
    """The `rotated` lines that a home notes. Raises Malformed."""
    try:
        data = read_bounded(home / ROTATIONS, MAX_ROTATIONS * MAX_LINE)
    except NotFound:
        return []
    return [parse_entry(line) for line in data.splitlines()]


def note_rotation(home: Path, rotated: Entry) -> None:
    """Add a `rotated` line, unless it is there. Raises OutOfSpace, Unavailable."""
    lines = dict.fromkeys((*(entry.line for entry in own_rotations(home)), rotated.line))
    durable.write_file(home / ROTATIONS, b"".join(line + b"\n" for line in lines), mode=0o644, point="home")
