"""Writes what commands do with the files of a home into its audit log."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from comity.content.audit_log import AuditLog, local_user


def recorded_act(home: Path, act: str, subject: str = "", detail: str = "") -> AbstractContextManager[None]:
    """A line before the block runs, and another one if it fails. Raises as `AuditLog.append` does."""
    return AuditLog(home, time.time).recorded(act, local_user(), subject, detail)


@contextmanager
def recorded_if_home(node: str | None, act: str, subject: str, detail: str) -> Iterator[None]:
    """As `recorded_act`, where `node` names a home, or is None and a home is here, and this user may write to it. Who
    may only call the node does nothing there that everybody could not do."""
    home = Path() if node is None else Path(node)
    if (home / "node.toml").is_file() and os.access(home, os.W_OK):
        with recorded_act(home, act, subject, detail):
            yield
    else:
        yield
