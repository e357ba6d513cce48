"""Vectors of key rotation: an identity from its inception on, valid and invalid rotations, growth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.encoding import canonical
from comity.trust.identity import Inception, InceptionStatement
from comity.trust.keys import HybridSigner
from comity.trust.rotation import LogCut, RotationChain, follow, parse_rotation, rotation_statement
from comity.trust.statement import Entry, sign_statement
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.proof import ConsistencyProof
from support.rotations import Owned, begun

ORIGIN: Final = "node.example/log"
FIRST: Final = begun("vector", keys=2, recovery=3)


def rotations() -> dict[str, Any]:
    cut = LogCut(ORIGIN, 3, bytes.fromhex(_root(3)))
    second, one = FIRST.to("vector second", keys=3, recovery=3, cut=[cut])
    third, two = second.to("vector third", home="elsewhere.example/log")
    _, rival = FIRST.to("vector rival")
    again = _again(one, second)
    chains = {
        "in any order": [two, one],
        "one rotation, signed by other recovery keys, is one": [one, again, two],
        "two rotations of one state: the chain ends before them, and both are reached": [one, rival, two],
        "without the one between": [two],
    }
    return {
        "about": "Rotations as log lines, with Ed25519 signatures. A state is named by the SHA-256 of canonical JSON "
        "{identity, keys, threshold, recovery}, keys by the SHA-256 of their JSON, sorted; a rotation by that of its "
        "body with `identity` and without `by` and `used`. `chains` lead from the inception: `states` is the way "
        "before any fork, `reached` every state on every branch.",
        "inception": _announced().line.decode(),
        "accepted": [_case(FIRST, second, one), _case(second, third, two)],
        "refused": _refused(one, second),
        "chains": [_chain(why, entries) for why, entries in chains.items()],
    }


def growth() -> dict[str, Any]:
    sizes = [(1, 2), (3, 8), (4, 8), (7, 20), (20, 20)]
    good = _consistency(3, 8).decode()
    return {
        "about": "Proofs of growth (objects/ of an evidence pack) of a log whose entries are the numbers 0, 1, 2 … in "
        "ASCII; a cut of size n has the root that stands under n.",
        "roots": {str(size): _root(size) for size in sorted({size for pair in sizes for size in pair})},
        "accepted": [{"old": old, "new": new, "data": _consistency(old, new).decode()} for old, new in sizes],
        "refused": {
            "no line feed at the end": good[:-1],
            "another version": good.replace("v1", "v2", 1),
            "a second spelling of a number": good.replace("3 8", "03 8"),
            "shrinking": good.replace("3 8", "8 3"),
            "an empty line": good + "\n",
        },
    }


def _announced() -> Entry:
    inception = Inception("publisher", FIRST.state.keys, FIRST.state.recovery, ORIGIN, "", "vector")
    return sign_content(InceptionStatement(inception), *FIRST.keys)


def _case(before: Owned, after: Owned, entry: Entry) -> dict[str, Any]:
    rotation, _ = parse_rotation(entry)
    return {
        "before": before.state.digest,
        "after": after.state.digest,
        "rotation": rotation.digest,
        "named_by": canonical({"identity": rotation.identity, **rotation.to_json()}).decode(),
        "line": entry.line.decode(),
    }


def _again(entry: Entry, after: Owned) -> Entry:
    rotation, _ = parse_rotation(entry)
    used = FIRST.recovery[1:]
    return sign_statement(rotation_statement(rotation, [key.public for key in used]), *used, *after.keys)


def _refused(entry: Entry, after: Owned) -> list[dict[str, str]]:
    rotation, used = parse_rotation(entry)
    recovery, new = FIRST.recovery[:2], after.keys

    def signed(by: Iterable[HybridSigner], **change: Any) -> Entry:
        names = change.pop("used", used)
        return sign_statement(rotation_statement(replace(rotation, **change), names), *by)

    made = {
        "one of three recovery keys": signed([recovery[0], *new], used=used[:1]),
        "a recovery key that it names did not sign": signed([recovery[0], *new]),
        "a new key did not sign": signed([*recovery, *new[1:]]),
        "signed by the keys that are retired": signed([*FIRST.keys, *new], used=[key.public for key in FIRST.keys]),
        "a recovery key that was revealed is named again": signed([*recovery, *new], recovery=FIRST.state.recovery[:1]),
        "another number": signed([*recovery, *new], seq=2),
        "another state": signed([*recovery, *new], prev=after.state.digest),
    }
    return [{"why": why, "line": item.line.decode()} for why, item in made.items()]


def _chain(why: str, entries: list[Entry]) -> dict[str, Any]:
    chain: RotationChain = follow(FIRST.state, entries)
    return {
        "why": why,
        "lines": [entry.line.decode() for entry in entries],
        "states": [state.digest for state in chain.states],
        "reached": [state.digest for state in chain.reached],
        "disputes": len(chain.disputes),
    }


def _tree(size: int) -> MemoryTree:
    tree = MemoryTree()
    for number in range(size):
        tree.append(leaf_hash(b"%d" % number))
    return tree


def _root(size: int) -> str:
    return _tree(size).root().hex()


def _consistency(old: int, new: int) -> bytes:
    return ConsistencyProof(ORIGIN, old, new, consistency_proof(old, new, _tree(new).node)).encode()
