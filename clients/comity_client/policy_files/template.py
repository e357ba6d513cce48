"""A policy to start from: every table with a comment, the owner's pins filled in, the undecided commented out.

The federation files that it pins are copied beside it, so that both can be carried to a machine without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.errors import Conflict
from comity.verifier import read_bounded

from comity_client.owner.trust_store import Pin

_HEAD: Final = """\
# What has to hold before a model may be used here. Keep this file under change control: a report names its SHA-256.
#   comity policy check FILE      does it hold together, and what could never pass?
#   comity policy explain FILE    the same in plain words
schema = "comity/policy/v1"

# Whose words count. A federation file, and the charter body of it that you compared with two members, by voice.
"""
_NO_PIN: Final = """\
# [[pin]]
# file = "federation.json"
# body = "…"
"""
_REST: Final = """
# Whose models. Empty: whoever the names here, or the pinned charters, say.
[publishers]
# accept = ["51aa…"]
# names = { swiss-ai = "51aa…" }

# How many other members must have seen it, and where. "publisher" excludes its jurisdiction and its log's.
[cosigners]
at_least = 2
jurisdictions = 2
outside = ["publisher"]
post_quantum = false

# Licences that you accept, as SPDX expressions. To have it decide, add "licence" to rows.require.
[licences]
# accept = ["apache-2.0", "mit"]

# What it was made from. To have it decide, add "lineage" to rows.require.
[lineage]
# parents_by_digest = true
# refuse_licence_conflicts = true

# What in a file may run. Everything else that would run is refused, by the row "file safety". Kinds, paths, sha256:…
[safety]
allow = ["chat-template"]
# formats = ["safetensors", "gguf", "json", "text"]

# Documents that have to come with it. To have it decide, add "documents" to rows.require.
[documents]
# require = ["card"]

# Whose warnings refuse. All others are shown.
[advisories]
# refuse_from = ["51aa…"]

# How fresh the evidence has to be. No clock is read: move the moment on when you review this file.
[time]
# as_of = 2026-01-01T00:00:00Z
# max_age_days = 30

# Which rows of the report have to pass. The others are shown and decide nothing.
[rows]
require = ["artifact", "bytes", "signatures", "key policy", "transparency", "cosigners", "file safety"]
"""


def write_policy(path: Path, pins: Sequence[Pin]) -> tuple[Path, ...]:
    """Write a policy to `path`, and beside it the federation files that it pins. Returns what was written: a federation
    file that is there already serves several policies.

    Raises Conflict where the policy, or another file under the name of a federation's, is there already; OutOfSpace,
    Unavailable.
    """
    beside = {path.parent / f"federation-{pin.id[:8]}.json": pin for pin in pins}
    if path.exists():
        hint = f"comity policy new --out OTHER{path.suffix}"
        raise Conflict(f"{path} exists", why="a policy is not overwritten", hint=hint)
    copies = {file: pin.federation.encode() for file, pin in beside.items()}
    new = {file: data for file, data in copies.items() if not _holds(file, data)}
    for file, data in new.items():
        durable.write_file(file, data, mode=0o644, point="policy")
    pinned = (f'[[pin]]\nfile = "{file.name}"\nbody = "{pin.body}"\n' for file, pin in beside.items())
    durable.write_file(path, (_HEAD + ("\n".join(pinned) or _NO_PIN) + _REST).encode(), mode=0o644, point="policy")
    return (path, *new)


def _holds(file: Path, data: bytes) -> bool:
    """Whether an earlier policy in the same folder has left this copy. Raises Conflict where it is another file."""
    if not file.exists():
        return False
    if file.stat().st_size != len(data) or read_bounded(file, len(data)) != data:
        why = "it is not the federation file that is pinned, and is not overwritten"
        raise Conflict(f"{file} exists", why=why, hint="write the policy into a folder of its own")
    return True
