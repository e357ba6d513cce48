"""Which test modules need an add-on: in a core without the folder `comity/addons` they are not collected."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ADDONS: Final = find_spec("comity.addons") is not None
"""Whether this is a product with add-ons."""
_TESTS: Final = Path(__file__).resolve().parents[1]
_SUPPORT: Final = re.compile(r"^\s*from (support|fuzz)(?:\.(\w+))? import ([\w, ]+|\()", re.MULTILINE)


@cache
def needs_addons(module: Path) -> bool:
    """Whether a module of the tests imports an add-on, or a part of the tests that does."""
    text = module.read_text("utf-8")
    if "comity.addons" in text or "from comity import addons" in text:
        return True
    named = ((folder, part or each) for folder, part, many in _SUPPORT.findall(text) for each in many.split(", "))
    parts = {_TESTS / folder / f"{part}.py" for folder, part in named} - {module}
    return any(needs_addons(part) for part in parts if part.exists())
