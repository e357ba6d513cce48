"""`[publishers]`: whose models are accepted, under which names, by which keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comity.trust.digest import Digest, parse_digest
from comity.trust.names import check_segment
from comity.trust.policy.table import Table, naming


@dataclass(frozen=True, slots=True)
class Publishers:
    """Accepted identities (empty: any), owners of namespaces, and rotations that identities are held to."""

    accept: frozenset[Digest] = frozenset()
    names: Mapping[str, Digest] = field(default_factory=dict)
    rotations: Mapping[Digest, Digest] = field(default_factory=dict)


def read_publishers(table: Table) -> Publishers:
    made = Publishers(
        accept=frozenset(table.each("accept", parse_digest)), names=_names(table), rotations=_rotations(table)
    )
    table.done()
    return made


def _names(table: Table) -> dict[str, Digest]:
    names = table.take("names", dict, {}).items()
    with naming(table.what, "names"):
        return {check_segment(name, "namespace"): parse_digest(item) for name, item in names}


def _rotations(table: Table) -> dict[Digest, Digest]:
    pinned = table.take("rotations", dict, {}).items()
    with naming(table.what, "rotations"):
        return {parse_digest(identity): parse_digest(rotation) for identity, rotation in pinned}
