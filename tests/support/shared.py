"""Reference material that is beside the repository on some machines, and is not part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def shared(relative: str) -> Path:
    """A file or folder of the shared material. Skips the test where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"no shared material here: ../shared/{relative}")
    return path
