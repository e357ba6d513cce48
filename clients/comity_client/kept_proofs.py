"""Proofs that earlier pulls left in the user's Hub cache, beside the files. Little is imported where there are none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from comity.trust.claims import Publication
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.evidence import InclusionEvidence
from comity.trust.names import Reference


def default_cache() -> Path:
    """Return the cache path of huggingface_hub: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else
    `~/.cache/huggingface/hub`."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def kept_proofs(stated: Iterable[Publication]) -> tuple[InclusionEvidence, ...]:
    """Return the proofs of publications that pulls of their names left, not verified. Blocking."""
    cache = default_cache()
    names = {each.entry.digest: each.published.name for each in stated}
    if not any((cache / f"models--{name.namespace}--{name.name}").is_dir() for name in names.values()):
        return ()
    from comity.verifier import read_proofs

    from comity_client.pull.destinations import cached

    found: list[InclusionEvidence] = []
    for line, name in names.items():
        # What cannot be read proves nothing: a pull of it says why.
        with contextlib.suppress(NotFound, Malformed, Unavailable):
            found += read_proofs(cached(cache, Reference(name.repository, name.version, None)), {line})
    return tuple(found)
