"""The fault points of the write path, by process and operation. They are in the order in which an operation meets them,
where each run of the operation passes all of them.
"""

from __future__ import annotations

COMMIT = ("before-commit", "after-commit")
FILE = ("fsync", "rename", "folder", "done")
MOVED = ("rename", "folder", "source", "done")
"""Steps of a file that is moved from another folder."""
BLOB = [f"blob.{step}" for step in ("fsync", *MOVED)]


def commits(*steps: str) -> list[str]:
    return [f"ledger.{step}.{when}" for step in steps for when in COMMIT]


def files(*kinds: str) -> list[str]:
    return [f"{kind}.{step}" for kind in kinds for step in FILE]


AT_START = [
    *commits("migrate", "fence"),
    "ledger.sums.begin",
    *commits("epoch"),
    "folders.fsync",
    "store.fsync",
    *commits("create"),
    *commits("times"),
    *files("continuity"),
]
AT_STOP = ["ledger.sums.fsync", "ledger.sums.end"]
"""Points at which `test_ledger_kills` kills a ledger."""
NODE_SCRUBS = files("scrub")
"""At the end of a round, which a restarted node reaches again without new work."""
NODE_PUBLISHES = [*BLOB, "blob.again", *commits("share", "pieces", "append", "note", "cosign"), "ledger.append.grown"]
AUDIT_LOG = ["audit.fsync", "audit.folder", *files("audit.head")]
"""Before an operator's action. `test_audit_log` kills the log at them."""
NODE_STAGES = commits("stage")
"""Of a log that is too long for one step."""
NODE_ADOPTS = ["blob.link"]
NODE_MIRRORS = [
    *BLOB,
    "partial.piece",
    "partial.fsync",
    *commits("advance", "cosign", "pieces", "append", "note", "intake", "revisit", "custody"),
    *commits("charges", "publications", "holds"),
    "ledger.advance.grown",
]
IDENTITY = ["key.fsync", "key.folder", *files("inception"), "publisher.rename", "publisher.folder", "publisher.done"]
CLIENT_PUBLISHES = [*files("statement", "memory")]
CLIENT_PINS = [*files("trust")]
CLIENT_PULLS = [
    "folders.fsync",
    *files("memory"),
    *(f"placed.{when}" for when in COMMIT),
    "unsynced.rename",
    "partial.piece",
    "partial.fsync",
    *(f"place.{step}" for step in ("fsync", *MOVED)),
    *files("pack"),
]
CLIENT_FILLS_A_CACHE = [*(f"link.{step}" for step in MOVED), *(f"ref.{step}" for step in ("fsync", *MOVED))]

ALL = frozenset(
    (
        *AT_START,
        *AT_STOP,
        *NODE_SCRUBS,
        *NODE_PUBLISHES,
        *NODE_ADOPTS,
        *AUDIT_LOG,
        *NODE_MIRRORS,
        *NODE_STAGES,
        *CLIENT_PINS,
        *IDENTITY,
        *CLIENT_PUBLISHES,
        *CLIENT_PULLS,
        *CLIENT_FILLS_A_CACHE,
    )
)
