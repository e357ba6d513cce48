"""On which line of a policy file something stands, for errors. TOML's own parser does not say."""

from __future__ import annotations

import json
import re
from typing import Final

_HEADER: Final = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.\"-]+)\s*\]\]?\s*(?:#.*)?\Z")


class Lines:
    """The lines of a policy. A search and never more: what it does not find has no number."""

    def __init__(self, text: str = "") -> None:
        self._lines = text.splitlines()

    def find(self, table: str, key: str, value: str | None = None) -> int | None:
        """The line, from 1 on, of `key` in `[table]`, or of `value` in what follows it; None where it is not found."""
        inside, found = not table, None
        for number, line in enumerate(self._lines, 1):
            if (header := _HEADER.match(line)) is not None:
                if found is not None:
                    break
                inside = header[1] == table
            if inside and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
                found = number
            if found is not None and (value is None or json.dumps(value, ensure_ascii=False) in line):
                return number
        return found
