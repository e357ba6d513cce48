"""Tensors of two folders: by name, type, shape and the hash of their bytes. Or, where bytes are not here, how much of
the second's weights has the same pieces as the first's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.derivation.differences import read_exactly
from comity.derivation.weights import Located, Weights, readable
from comity.trust.manifest import Manifest
from comity.trust.pieces import PieceRecord

from comity_client.comparing.texts import KeyChange

BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorChanges:
    """Names of tensors; `changed` says in which of type, shape and bytes. `bytes` counts those of the second side."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    same: int
    same_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Of `bytes` of weights on the second side, so many are in pieces or files that the first side has too."""

    shared: int
    bytes: int


def compare_tensors(before: Weights, first: Manifest, after: Weights, second: Manifest) -> TensorChanges:
    """Both sides' files have to be as their manifests say. Raises Unavailable, Conflict."""
    one, other = _named(before), _named(after)
    changed, same, same_bytes = [], 0, 0
    for name in sorted(one.keys() & other.keys()):
        what = _difference(one[name], first, other[name], second)
        if what:
            changed.append((name, what))
        else:
            same, same_bytes = same + 1, same_bytes + other[name].tensor.length
    return TensorChanges(
        added=tuple(sorted(other.keys() - one.keys())),
        removed=tuple(sorted(one.keys() - other.keys())),
        changed=tuple(changed),
        same=same,
        same_bytes=same_bytes,
        bytes=sum(located.tensor.length for located in other.values()),
    )


def compare_facts(before: Weights, after: Weights) -> tuple[KeyChange, ...]:
    """What two GGUF models say of themselves in numbers and short texts, where each side has one; their tokenizers are
    not read."""
    models = [[group for group in side.groups if group.gguf] for side in (before, after)]
    if any(len(groups) != 1 for groups in models):
        return ()
    one, other = ({key: str(value) for key, value in groups[0].facts.items()} for groups in models)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return tuple(KeyChange(key, one.get(key), other.get(key)) for key in keys)


def compare_pieces(before: Iterable[PieceRecord], after: Iterable[PieceRecord]) -> Shared:
    """How many bytes of `after` are in pieces that `before` has."""
    known = {record.sha256 for record in before}
    records = list(after)
    return Shared(sum(r.length for r in records if r.sha256 in known), sum(r.length for r in records))


def _named(weights: Weights) -> dict[str, Located]:
    """Tensors by name; where several groups are there, with the group's name before it."""
    alone = len(weights.groups) == 1
    return {
        name if alone else f"{group.key}: {name}": located
        for group in weights.groups
        for name, located in group.tensors.items()
    }


def _difference(one: Located, first: Manifest, other: Located, second: Manifest) -> str:
    """In what two tensors of one name differ; empty where in nothing."""
    before, after = one.tensor, other.tensor
    if before.dtype != after.dtype:
        return f"{before.dtype} became {after.dtype}"
    if before.shape != after.shape:
        return f"{list(before.shape)} became {list(after.shape)}"
    files = first.by_path[one.file].sha256, second.by_path[other.file].sha256
    if files[0] == files[1] and before.start == after.start:
        return ""  # one place of one file
    return "" if _hash(one) == _hash(other) else "other bytes"


def _hash(located: Located) -> bytes:
    digest = hashlib.sha256()
    tensor = located.tensor
    with readable(located.path), located.path.open("rb") as file:
        for start in range(0, tensor.length, BLOCK):
            digest.update(read_exactly(file, tensor.start + start, min(BLOCK, tensor.length - start)))
    return digest.digest()
