"""By what a file on the disk is taken for the same as before, without reading it: what is kept of files is kept with
this.
"""

from __future__ import annotations

import os
from typing import Final, TypeAlias

SETTLED_SECONDS: Final = 2.0
"""What was changed a shorter time ago may change again within the resolution of its times: nothing is kept of it."""

FileState: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the content and of the inode in nanoseconds."""


def file_state(state: os.stat_result) -> FileState:
    """The state of a file: another one once the file was changed or replaced, except by who can set the clock or write
    to the disk itself."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
