"""Commits under which nodes saw different bytes, as far as the logs here show it. Blocking."""

from __future__ import annotations

from collections.abc import Iterator

from comity.node.core import Core
from comity.node.importing.recorded import Recorded, all_of
from comity.trust.digest import Digest, short
from comity.trust.statement import Author, parse_entry
from comity.trust.statements.claims import signed_by_node

MOST = 16
"""Commits that are named at a time."""


def disputes(core: Core) -> list[str]:
    """A sentence for each commit under which nodes of this federation observed different bytes."""
    by_name: dict[str, dict[Digest, list[Recorded]]] = {}
    for found in all_of(core):
        by_name.setdefault(found.observed.upstream.name, {}).setdefault(found.observed.artifact, []).append(found)
    contested = ((name, _proven(core, claims)) for name, claims in by_name.items() if len(claims) > 1)
    sentences = (_sentence(name, claims) for name, claims in contested if len(claims) > 1)
    return [sentence for sentence, _ in zip(sentences, range(MOST), strict=False)]


def _proven(core: Core, claims: dict[Digest, list[Recorded]]) -> dict[Digest, list[str]]:
    """By artifact, the nodes that really said so."""
    said = {artifact: list(dict.fromkeys(_speakers(core, found))) for artifact, found in claims.items()}
    return {artifact: nodes for artifact, nodes in said.items() if nodes}


def _speakers(core: Core, found: list[Recorded]) -> Iterator[str]:
    for item in found:
        record = core.membership.node(Author("node", item.observed.by))
        if record is not None and signed_by_node(parse_entry(item.line), record):
            yield record.name


def _sentence(name: str, claims: dict[Digest, list[str]]) -> str:
    said = "; ".join(f"{short(artifact)} by {', '.join(nodes)}" for artifact, nodes in sorted(claims.items()))
    return f"different bytes were observed under {name}: {said}"
