"""The modules of the product, as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TOPS: Final = (ROOT / "registry", ROOT / "clients")


def modules() -> Mapping[str, Path]:
    """Each module and package by its name, such as `comity.node.app`, with its file."""
    return {
        ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__"): path
        for top in TOPS
        for path in top.rglob("*.py")
    }
