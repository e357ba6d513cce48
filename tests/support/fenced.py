"""Fenced blocks of Markdown pages that hold commands for a shell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("", "sh")
"""The marks of a block of commands; other marks are for settings, code and formats."""
_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(r"^## ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """The `number`-th block of commands of a page, from 1. In a transcript, commands begin with `$ ` and the other
    lines are their output. Otherwise every line is a command. `section`: the heading of the second level above it.
    """

    page: str
    number: int
    mark: str
    text: str
    section: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.page, self.number

    @property
    def commands(self) -> list[str]:
        """The commands; a line that ends with a backslash continues on the next one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        shown = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return shown or [line for line in lines if line.strip()]


def blocks(*patterns: str) -> tuple[Block, ...]:
    """The blocks of commands of every page that matches, in order. Patterns are relative to the repository."""
    pages = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    found = []
    for path in pages:
        opening, *sections = _SECTION.split(path.read_text("utf-8"))
        headed = [("", opening), *((text.partition("\n")[0], text) for text in sections)]
        marked = [(*block, heading) for heading, text in headed for block in _BLOCK.findall(text) if block[0] in SHELL]
        name = path.relative_to(ROOT).as_posix()
        found += [Block(name, number, *block) for number, block in enumerate(marked, 1)]
    return tuple(found)
