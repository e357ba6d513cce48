"""For how long keys speak: what a signature is worth once its keys were rotated away.

A signature by any keys of an identity stays its signature. Whether it was made while those keys were its own is another
question, and a thief of old keys hopes that nobody asks. A rotation answers it by its *cut*: what already stood in a
log when the keys were retired was said before. An owner who pins a rotation asks: from then on retired keys count only
below the cut of the rotation that retired them. To everybody else it is shown. Source: protocol, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.trust.digest import Digest
from comity.trust.errors import ComityError
from comity.trust.rotation import Chain, Cut, KeyState, Step, closure
from comity.trust.statement import Entry
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.growth import Growth
from comity.trust.tlog.merkle import leaf_hash, verify_inclusion
from comity.trust.tlog.proof import TlogProof

Growths: TypeAlias = Mapping[tuple[str, int, int], Sequence[Growth]]

CURRENT: Final = "signed by its current keys, as far as is known here"
BEFORE: Final = "signed by keys that are retired now, before the cut"
UNKNOWN: Final = "signed by keys that are retired now: after the cut, or unknown"


@dataclass(frozen=True, slots=True)
class Tenure:
    """What is known of the keys behind one signature.

    `text` says it to people. `accepted` is what a pinned rotation makes of it, True where none is pinned; None where
    the pinned rotation is not among the claims.
    """

    text: str
    accepted: bool | None


def tenure(entry: Entry, chain: Chain, pinned: Digest | None, proofs: Iterable[bytes], growths: Growths) -> Tenure:
    """Judge the keys that signed `entry`.

    Args:
        chain: its author's, from the inception on.
        pinned: the rotation (`Rotation.digest`) that the policy pins for this author.
        proofs: tlog-proofs that are said to be about `entry`. Who signed their checkpoints does not matter: the author
            itself signed the cut.
        growths: consistency proofs that are at hand.

    More steps, proofs and growths can only turn None into something, and False into True (I4).
    """
    seen = {place for proof in proofs if (place := _place(entry, proof)) is not None}
    signers = frozenset(chain.signers(entry.envelope))

    retiring = [step for state in signers for step in chain.leaving.get(state, ())]
    in_time = [step for step in retiring if any(_below(step.rotation.cut_of(p.origin), p, growths) for p in seen)]
    text = BEFORE if in_time else UNKNOWN
    if any(state not in chain.leaving for state in signers):
        text = CURRENT
    if pinned is None:
        return Tenure(text, True)
    pins = [step for step in chain.steps if step.rotation.digest == pinned]
    if not pins:
        return Tenure(f"{text}; the rotation that the policy pins is not here", None)
    if not _after(pins, chain).isdisjoint(signers):
        return Tenure(f"{text}; not before the rotation that the policy pins", True)
    if any(step in in_time for step in _leading_to(pins, chain)):
        return Tenure(BEFORE, True)
    return Tenure(f"{UNKNOWN}; the policy pins a later rotation", False)


@dataclass(frozen=True, slots=True)
class _Place:
    """Leaf `index` of a tree that somebody calls the one of `origin`, of `size` leaves with `root`."""

    origin: str
    index: int
    size: int
    root: bytes


def _place(entry: Entry, data: bytes) -> _Place | None:
    try:
        proof = TlogProof.parse(data)
        checkpoint = Checkpoint.parse(proof.checkpoint.text)
        verify_inclusion(leaf_hash(entry.line), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    except ComityError:
        return None  # `standing` says what is wrong with it
    return _Place(checkpoint.origin, proof.index, checkpoint.size, checkpoint.root)


def _below(cut: Cut | None, place: _Place, growths: Growths) -> bool:
    """Whether the leaf is one of those that `cut` counts: its tree is the cut's own, or one grows into the other."""
    if cut is None or cut.origin != place.origin or place.index >= cut.size:
        return False
    if place.size == cut.size:
        return place.root == cut.root
    (old, old_root), (new, new_root) = sorted([(cut.size, cut.root), (place.size, place.root)])
    return any(_holds(growth, old_root, new_root) for growth in growths.get((cut.origin, old, new), ()))


def _holds(growth: Growth, old_root: bytes, new_root: bytes) -> bool:
    try:
        growth.verify(old_root, new_root)
    except ComityError:
        return False
    return True


def _after(pins: list[Step], chain: Chain) -> frozenset[KeyState]:
    """The states to which the pinned rotation leads, and all that follow."""
    return closure((step.after for step in pins), lambda state: [step.after for step in chain.leaving.get(state, ())])


def _leading_to(pins: list[Step], chain: Chain) -> list[Step]:
    """The pinned rotation, and those before it."""
    arriving: dict[KeyState, list[KeyState]] = {}
    for step in chain.steps:
        arriving.setdefault(step.after, []).append(step.before)
    earlier = closure((step.before for step in pins), lambda state: arriving.get(state, ()))
    return [*pins, *(step for step in chain.steps if step.after in earlier)]
