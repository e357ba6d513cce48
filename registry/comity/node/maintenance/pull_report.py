"""The counts of pulls of a home, for its operator: the file is read, whether the node runs or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from comity.node.config import NodeConfig
from comity.node.pull_counts import PULLS_FILE, WeekCount, counted_file, read_weeks
from comity.trust.artifact import Manifest


def pull_weeks(
    file: Path, manifest: Manifest | None, most: int, environ: Mapping[str, str] = os.environ
) -> list[WeekCount]:
    """The newest weeks in which an artifact was pulled from the node of a `node.toml`; without a manifest, the files of
    which clients got the end. Blocking. Raises Unavailable, and as `NodeConfig.load`."""
    path = NodeConfig.load(file, environ).storage.ledger.with_name(PULLS_FILE)
    return read_weeks(path, counted_file(manifest) if manifest else None, most)
