"""A second checker of misbehaviour proofs, written from the formats alone, without Comity's code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True)
class Head:
    size: int
    root: bytes


def convicts(kind: str, parts: Sequence[bytes], vkey: str) -> bool:
    """Whether `parts` prove that the log of `vkey` has shown two histories."""
    first, second = parts
    if kind == "roots":
        one, other = open_note(first, vkey), open_note(second, vkey)
        return one.size == other.size and one.root != other.root
    if kind == "leaves":
        one_index, one_leaf = _included(first, vkey)
        other_index, other_leaf = _included(second, vkey)
        return one_index == other_index and one_leaf != other_leaf
    if kind == "history":
        return any(_began_otherwise(a, b, vkey) for a, b in ((first, second), (second, first)))
    return False


def open_note(note: bytes, vkey: str) -> Head:
    """The checkpoint in a note that the log signed. Raises ValueError, InvalidSignature."""
    name, key_id, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)
    if public[0] != 1:
        raise ValueError("not an Ed25519 log key")
    text, _, signatures = note.decode().rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, signer, blob = line.split(" ")
        data = base64.b64decode(blob)
        if (dash, signer, data[:4].hex()) == ("—", name, key_id):
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(data[4:], text.encode())
            origin, size, root = text.splitlines()
            if origin != name:
                raise ValueError("another log's checkpoint")
            return Head(int(size), base64.b64decode(root))
    raise ValueError("the log did not sign it")


def _included(part: bytes, vkey: str) -> tuple[int, bytes]:
    """Leaf index and leaf hash that a part (leaf hash, then a C2SP tlog-proof) proves into a signed checkpoint."""
    leaf, (head, note) = part[:32], part[32:].split(b"\n\n", 1)
    header, *rest = head.decode().split("\n")
    if header != "c2sp.org/tlog-proof@v1" or not rest[0].startswith("index "):
        raise ValueError("not a tlog-proof")
    index, hashes = int(rest[0].removeprefix("index ")), [base64.b64decode(line) for line in rest[1:]]
    checkpoint = open_note(note, vkey)
    if _root_by_inclusion(leaf, index, checkpoint.size, hashes) != checkpoint.root:
        raise ValueError("the leaf is not in that tree")
    return index, leaf


def _began_otherwise(smaller: bytes, larger: bytes, vkey: str) -> bool:
    """Whether `larger` (a root, a consistency proof from it, a note) shows that its tree does not extend `smaller`."""
    try:
        claimed = open_note(smaller, vkey)
        count = larger[32]
        hashes = [larger[at : at + 32] for at in range(33, 33 + 32 * count, 32)]
        head = open_note(larger[33 + 32 * count :], vkey)
    except (ValueError, IndexError, InvalidSignature):
        return False
    roots = _roots_by_consistency(claimed.size, head.size, hashes, larger[:32])
    return roots == (larger[:32], head.root) and larger[:32] != claimed.root


def _root_by_inclusion(leaf: bytes, index: int, size: int, hashes: Sequence[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    node, last, result = index, size - 1, leaf
    for sibling in hashes:
        if node & 1 or node == last:
            result = _node(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = _node(result, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return result


def _roots_by_consistency(old: int, new: int, hashes: Sequence[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """RFC 9162, section 2.1.4.2: the roots of both trees that follow from the proof."""
    path = list(hashes)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if node & 1 or node == last:
            first, second = _node(sibling, first), _node(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = _node(second, sibling)
        node, last = node >> 1, last >> 1
    return first, second


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
