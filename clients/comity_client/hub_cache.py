"""Where huggingface_hub keeps repositories on this machine, and what pulls left there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.trust.artifact import MAX_MANIFEST
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.evidence import PACK
from comity.trust.names import UPSTREAM, Reference

MAX_REF: Final = 64
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")


def default_cache() -> Path:
    """Return the cache path of huggingface_hub: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else
    `~/.cache/huggingface/hub`."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def cached(cache: Path, reference: Reference) -> Path:
    """Return the snapshot of a reference in a Hub cache, without a network. Raises NotFound."""
    repository = (reference.repository or "*").removeprefix(UPSTREAM).replace("/", "--")
    for found in sorted(cache.glob(f"models--{repository}")):
        for snapshot in _named(found, reference):
            if (snapshot / PACK).is_dir():
                return snapshot
    raise NotFound(f"{reference} is not in {cache}", hint=f"comity pull {reference}")


def _named(repository: Path, reference: Reference) -> list[Path]:
    snapshots = repository / "snapshots"
    if reference.digest is not None:
        return [s for s in sorted(snapshots.glob("*")) if _is_artifact(s, reference.digest)]
    if reference.mirrored and _COMMIT.match(reference.version or ""):
        return [snapshots / (reference.version or "")]
    ref = repository / "refs" / (reference.version or "main")
    try:
        commit = read_bounded(ref, MAX_REF).decode("ascii", "replace").strip()
    except (NotFound, Malformed):
        return []
    return [snapshots / commit] if _COMMIT.match(commit) else []


def _is_artifact(snapshot: Path, digest: Digest) -> bool:
    try:
        return sha256(read_bounded(snapshot / PACK / "manifest.json", MAX_MANIFEST)) == digest
    except (NotFound, Malformed):
        return False
