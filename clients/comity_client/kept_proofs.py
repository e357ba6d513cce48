"""Proofs that earlier pulls left in the user's Hub cache, beside the files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from comity.evidence_pack import read_proofs
from comity.trust.claims import Publication
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.evidence import InclusionEvidence
from comity.trust.names import Reference

from comity_client.hub_cache import cached, default_cache


def kept_proofs(stated: Iterable[Publication]) -> tuple[InclusionEvidence, ...]:
    """Return the proofs of publications that pulls of their names left, not verified. Blocking."""
    cache = default_cache()
    names = {each.entry.digest: each.published.name for each in stated}
    if not any((cache / f"models--{name.namespace}--{name.name}").is_dir() for name in names.values()):
        return ()
    found: list[InclusionEvidence] = []
    for line, name in names.items():
        # What cannot be read proves nothing: a pull of it says why.
        with contextlib.suppress(NotFound, Malformed, Unavailable):
            found += read_proofs(cached(cache, Reference(name.repository, name.version, None)), {line})
    return tuple(found)
