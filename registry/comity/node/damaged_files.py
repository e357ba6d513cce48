"""Says that a damaged file beside the ledger was kept under another name, and a new one begun."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

_log: Final = structlog.get_logger("comity.node")


def warn_of_kept_file(kept: Path, why: str) -> None:
    """Log the new path of a damaged file, and what is wrong with it."""
    _log.warning("a damaged file was kept under another name", kept=str(kept), why=why)
