"""Commits under which nodes saw different bytes, as far as the logs here show it. Blocking."""

from __future__ import annotations

from comity.node.core import Core
from comity.node.importing.recorded import Recorded, of_nodes
from comity.trust.digest import Digest, short
from comity.trust.statement import Author

MOST = 16
"""Commits that are named at a time."""


def disputes(core: Core) -> list[str]:
    """A sentence for each commit under which nodes of this federation observed different bytes."""
    by_name: dict[str, dict[Digest, list[Recorded]]] = {}
    for found in of_nodes(core):
        by_name.setdefault(found.observed.upstream.name, {}).setdefault(found.observed.artifact, []).append(found)
    contested = ((name, _speakers(core, claims)) for name, claims in by_name.items() if len(claims) > 1)
    sentences = (_sentence(name, claims) for name, claims in contested)
    return [sentence for sentence, _ in zip(sentences, range(MOST), strict=False)]


def _speakers(core: Core, claims: dict[Digest, list[Recorded]]) -> dict[Digest, list[str]]:
    """By artifact, the nodes that say so."""
    records = {a: [core.membership.node(Author("node", item.observed.by)) for item in f] for a, f in claims.items()}
    return {a: list(dict.fromkeys(record.name for record in found if record)) for a, found in records.items()}


def _sentence(name: str, claims: dict[Digest, list[str]]) -> str:
    said = "; ".join(f"{short(artifact)} by {', '.join(nodes)}" for artifact, nodes in sorted(claims.items()))
    return f"different bytes were observed under {name}: {said}"
