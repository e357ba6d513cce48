"""RFC 6962 Merkle trees: leaf and node hashes, roots, and verified proofs of inclusion and of consistency.

Hashes are raw 32-byte SHA-256 values. Verification needs only the proof. Trees that grow and their tiles are in
`comity.rules.tree_proofs` and `comity.rules.tiles`; signatures over roots are in `note`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from comity.trust.errors import Malformed, Untrusted

HASH_SIZE: Final = 32
MAX_SIZE: Final = 2**63 - 1
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash over `leaf_hashes` (RFC 6962, 2.1)."""
    level = list(leaf_hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        lone = level[-1:] if len(level) % 2 else []  # has its left sibling on a higher level, or is the root
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + lone
    return level[0]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that `leaf` (a leaf hash) is leaf `index` of the tree with `size` leaves and `root` (RFC 9162, 2.1.3.2).

    Raises Untrusted(code="INCLUSION"). The proof does not prove `size`; take it from a signed checkpoint.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise _no_inclusion(f"no leaf {index} in a tree of {size}")
    sides = list(_siblings_left(index, size - 1))
    if len(proof) != len(sides):
        raise _no_inclusion(f"{len(proof)} hashes instead of {len(sides)}")
    check_hashes((leaf, root, *proof))
    result = leaf
    for left, sibling in zip(sides, proof, strict=True):
        result = node_hash(sibling, result) if left else node_hash(result, sibling)
    if result != root:
        raise _no_inclusion("it gives another root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the tree (`new`, `new_root`) extends the tree (`old`, `old_root`) (RFC 9162, 2.1.4.2).

    If `old` is 0 or `new`, the proof is empty. Raises Untrusted(code="CONSISTENCY").
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise _no_consistency(f"bad tree sizes {old} and {new}")
    if (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
        raise _no_consistency("another root for the same leaves")
    check_hashes((old_root, new_root))
    if old in (0, new):
        if proof:
            raise _no_consistency(f"{len(proof)} hashes instead of none")
        return
    complete = (old & -old).bit_length() - 1  # levels on which the old tree's right edge is complete
    sides = list(_siblings_left((old - 1) >> complete, (new - 1) >> complete))
    path = (old_root, *proof) if old == 1 << complete else proof
    if len(path) != len(sides) + 1:
        raise _no_consistency(f"{len(path)} hashes on the path instead of {len(sides) + 1}")
    check_hashes(path)
    start, *siblings = path
    old_result = new_result = start
    for left, sibling in zip(sides, siblings, strict=True):
        if left:
            old_result, new_result = node_hash(sibling, old_result), node_hash(sibling, new_result)
        else:
            new_result = node_hash(new_result, sibling)
    if (old_result, new_result) != (old_root, new_root):
        raise _no_consistency("it gives other roots")


def _siblings_left(index: int, last: int) -> Iterator[bool]:
    """For each sibling from node `index` up to the root: whether it is a left one. `last` is the level's last node."""
    while last:
        left = bool(index & 1) or index == last
        while left and not index & 1:  # a right node without sibling moves up until it has one
            index, last = index >> 1, last >> 1
        yield left
        index, last = index >> 1, last >> 1


def check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise Malformed("not a tree hash", why=f"expected {HASH_SIZE} bytes")


def _no_inclusion(why: str) -> Untrusted:
    return Untrusted("bad inclusion proof", why=why, code="INCLUSION")


def _no_consistency(why: str) -> Untrusted:
    return Untrusted("bad consistency proof", why=why, code="CONSISTENCY")
