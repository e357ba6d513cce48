"""The front matter of a model card: a publisher's claims about a model, of which only the simplest YAML is read.

`key: value`, `key: [a, b]`, and `key:` with items on lines that begin with a dash. Anything else is skipped, never
guessed.

    ---
    library_name: transformers
    base_model: org/name
    language:
      - de
    ---

Source: the Hub's documentation of model cards, "Model card metadata".
"""

from __future__ import annotations

import re
from typing import Final

CARD_FILE: Final = "README.md"
MAX_CARD_FILE: Final = 256 * 1024
"""Bytes: the front matter of a longer file is not read."""
MAX_LINES: Final = 500
MAX_ITEMS: Final = 64
"""Items of one list."""

_ENTRY: Final = re.compile(r"([a-z_]{1,40}):(.*)\Z")
_ITEM: Final = re.compile(r"-\s(.*)\Z")
_WORD: Final = re.compile(r"[\w.:/+-][\w .:/+-]{0,99}\Z", re.A)


def front_matter(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the values of each key at the beginning of a Markdown file that this module can read."""
    lines = data.decode("utf-8", "replace").splitlines()[: MAX_LINES + 1]
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        entry, item = _ENTRY.match(line), _ITEM.match(line.lstrip())
        if entry:
            key = entry[1]
            found[key] = _values(entry[2])
        elif item and key and len(found[key]) < MAX_ITEMS:
            found[key] += _values(item[1])
        elif line.strip():
            key = ""
    return found


def _values(text: str) -> tuple[str, ...]:
    text = text.strip()
    listed = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
    bare = (word.strip().strip("\"'").strip() for word in listed[:MAX_ITEMS])
    return tuple(word for word in bare if _WORD.match(word))
