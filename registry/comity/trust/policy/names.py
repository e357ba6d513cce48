"""The names of the rows, in the order in which a verdict shows them."""

from __future__ import annotations

from typing import Final

ROWS: Final = (
    "artifact",
    "bytes",
    "signatures",
    "key policy",
    "transparency",
    "cosigners",
    "replicas",
    "lineage",
    "licence",
    "file safety",
    "documents",
    "notes",
    "disputes and advisories",
    "time",
    "crypto health",
    "policy",
)
DEFAULT_REQUIRED: Final = ("artifact", "bytes", "signatures", "transparency", "cosigners", "file safety")
