"""Freed memory is returned to the operating system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from comity.content.heap import return_freed

BLOCK, BLOCKS = 64 << 10, 1024


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(getattr(ctypes.CDLL(None), "malloc_trim", None) is None, reason="needs glibc")
def test_free_memory_between_blocks_in_use_is_returned() -> None:
    blocks = [b"x" * BLOCK for _ in range(BLOCKS)]
    kept = blocks[::16]
    blocks.clear()
    before = resident()
    return_freed()
    assert before - resident() > BLOCK * BLOCKS // 2
    assert len(kept) == BLOCKS // 16
