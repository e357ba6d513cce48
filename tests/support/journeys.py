"""The page that counts the commands of each journey, docs/journeys.md: its table and its lines."""

from __future__ import annotations

import re
from typing import Final

from support.fenced import ROOT, blocks

PAGE: Final = "docs/journeys.md"
TEXT: Final = (ROOT / PAGE).read_text("utf-8")
COUNTS: Final = {
    name: int(count) for name, count in re.findall(r"^\| \[(.+?)\]\(.*?\) \|.*\| (\d+) \|$", TEXT, re.MULTILINE)
}
"""The table: how many commands each journey takes."""


def counted(journey: str) -> int:
    return COUNTS[journey]


def lines_of(journey: str) -> list[str]:
    """The commands of a journey, in order."""
    return [line for block in blocks(PAGE) if block.section == journey for line in block.commands]


def program_of(journey: str) -> str:
    """The Python program that a section shows."""
    (section,) = (text for text in TEXT.split("\n## ") if text.startswith(f"{journey}\n"))
    (program,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(program)
