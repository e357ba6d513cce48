"""For how long keys speak: what a signature is worth once its keys were rotated away.

A signature by any keys of an identity stays its signature. Whether it was made while those keys were its own is another
question, and a thief of old keys hopes that nobody asks. A rotation answers it by its *cut*: what already stood in a
log when the keys were retired was said before. An owner who pins a rotation asks: from then on retired keys count only
below the cut of the rotation that retired them. To everybody else it is shown. Source: protocol, section 3.


Keys in other hands: `key-compromise` advisories about an identity, from an entry of its home log on.

    {"kind":"key-compromise","severity":"critical","text":"the laptop is gone",
     "key":"5f01…","since":{"origin":"node-ch/log","index":812}}

The subject is the identity, `key` one of its keys by the SHA-256 of its JSON. What the identity itself says counts: by
any keys that it ever had, since whoever else holds them gains nothing by saying so. The same words by somebody else are
a claim.
Statements below the entry stand as they stood; of one by that key that is not proven to be below, nobody can tell whose
it is. Source: protocol, section 5.


How far one publication gets: its publisher, the logs that hold it, who cosigned. Steps (3) to (6) of `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from comity.trust.claims import BoundNode, Publication, Readings, WitnessedEntry, witness
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import InclusionEvidence, Remark
from comity.trust.policy import Policy
from comity.trust.rotation import KeyState, LogCut, RotationChain, RotationStep, closure
from comity.trust.statement import Entry
from comity.trust.statements import parse_advisory
from comity.trust.tlog.merkle import leaf_hash, verify_inclusion
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import Growth, TlogProof

Growths: TypeAlias = Mapping[tuple[str, int, int], Sequence[Growth]]

CURRENT: Final = "signed by its current keys, as far as is known here"
BEFORE: Final = "signed by keys that are retired now, before the cut"
UNKNOWN: Final = "signed by keys that are retired now: after the cut, or unknown"


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """What is known of the keys behind one signature.

    `text` says it to people. `accepted` is what a pinned rotation makes of it, True where none is pinned; None where
    the pinned rotation is not among the claims.
    """

    text: str
    accepted: bool | None


def tenure(
    entry: Entry, chain: RotationChain, pinned: Digest | None, proofs: Iterable[bytes], growths: Growths
) -> KeyValidity:
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
        return KeyValidity(text, True)
    pins = [step for step in chain.steps if step.rotation.digest == pinned]
    if not pins:
        return KeyValidity(f"{text}; the rotation that the policy pins is not here", None)
    if not _after(pins, chain).isdisjoint(signers):
        return KeyValidity(f"{text}; not before the rotation that the policy pins", True)
    if any(step in in_time for step in _leading_to(pins, chain)):
        return KeyValidity(BEFORE, True)
    return KeyValidity(f"{UNKNOWN}; the policy pins a later rotation", False)


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


def _below(cut: LogCut | None, place: _Place, growths: Growths) -> bool:
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


def _after(pins: list[RotationStep], chain: RotationChain) -> frozenset[KeyState]:
    """The states to which the pinned rotation leads, and all that follow."""
    return closure((step.after for step in pins), lambda state: [step.after for step in chain.leaving.get(state, ())])


def _leading_to(pins: list[RotationStep], chain: RotationChain) -> list[RotationStep]:
    """The pinned rotation, and those before it."""
    arriving: dict[KeyState, list[KeyState]] = {}
    for step in chain.steps:
        arriving.setdefault(step.after, []).append(step.before)
    earlier = closure((step.before for step in pins), lambda state: arriving.get(state, ()))
    return [*pins, *(step for step in chain.steps if step.after in earlier)]


@dataclass(frozen=True, slots=True)
class CompromiseNotice:
    """The owner's proven word that `key` was in other hands from entry `index` of the log `origin` on."""

    entry: Entry
    key: Digest
    origin: str
    index: int
    severity: str
    text: str


def notices(readings: Readings, publication: Publication) -> tuple[CompromiseNotice, ...]:
    """What its publisher says of keys that signed `publication`; the earliest entry first."""
    used = {key.id for state in publication.chain.signers(publication.entry.envelope) for key in state.keys.keys}
    found = (_notice(entry, publication) for entry in readings.entries if entry.statement.predicate == "advisory")
    return tuple(sorted((each for each in found if each and each.key in used), key=lambda each: each.index))


def _notice(entry: Entry, publication: Publication) -> CompromiseNotice | None:
    if entry.statement.by != publication.publisher.author:
        return None
    try:
        advisory = parse_advisory(entry.statement)
    except ComityError:
        return None
    said = advisory.compromise
    if said is None or advisory.artifact != publication.publisher.id:
        return None
    if not publication.chain.signed(entry.envelope):
        return None
    return CompromiseNotice(entry, said.key, said.origin, said.index, advisory.severity, advisory.text)


def stands_before(notice: CompromiseNotice, witnessed: Iterable[WitnessedEntry]) -> bool | None:
    """Whether the statement is proven to be in the log below the notice's entry; None where no proof of that log is
    here."""
    indexes = [seen.index for seen in witnessed if seen.origin == notice.origin]
    return min(indexes) < notice.index if indexes else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How far one publication gets: accepted by the key policy, proven in logs, cosigned.

    `named` is True for whom the owner pinned or a pinned charter binds, False for somebody else, None where nobody is
    named. `jurisdictions` are the publisher's: its own claim, and what pinned bodies say of a seat with its id.
    """

    publication: Publication
    named: bool | None
    tenure: KeyValidity
    jurisdictions: frozenset[str]
    witnessed: tuple[WitnessedEntry, ...]
    broken: tuple[Remark, ...]
    unbound: tuple[Remark, ...]

    @property
    def accepted(self) -> bool | None:
        """`named`, but False where the policy pins a rotation and nothing here shows that these keys count after it."""
        return self.named if self.tenure.accepted else False

    def best(self, policy: Policy) -> WitnessedEntry | None:
        def merit(seen: WitnessedEntry) -> tuple[bool, int, int]:
            counted = seen.counted(policy.cosigners, self.jurisdictions)
            return seen.satisfies(policy.cosigners, self.jurisdictions), len(counted), -seen.index

        return max(self.witnessed, key=merit, default=None)

    def merit(self, policy: Policy) -> tuple[bool, bool, bool, bool, int]:
        """What makes one publication the one to show. More evidence for any of them can only raise the highest (I4)."""
        best = self.best(policy)
        cosigned = best is not None and best.satisfies(policy.cosigners, self.jurisdictions)
        counted = len(best.counted(policy.cosigners, self.jurisdictions)) if best else 0
        return self.accepted is not False, best is not None, cosigned, self.accepted is True, counted


def stand(
    publication: Publication,
    proofs: tuple[InclusionEvidence, ...],
    growths: Growths,
    bound: tuple[BoundNode, ...],
    policy: Policy,
) -> Evaluation:
    entry, publisher = publication.entry, publication.publisher
    seen, broken, unbound = prove_entry(entry, proofs, bound)
    own = (proof.data for proof in proofs if proof.line == entry.digest)
    kept = tenure(entry, publication.chain, policy.rotations.get(publisher.id), own, growths)
    seats = (body.member(publisher.id) for body in policy.pins)
    jurisdictions = frozenset({publisher.jurisdiction} | {seat.jurisdiction for seat in seats if seat})
    return Evaluation(publication, _named(publication, policy), kept, jurisdictions, seen, broken, unbound)


def prove_entry(
    entry: Entry, proofs: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...]
) -> tuple[tuple[WitnessedEntry, ...], tuple[Remark, ...], tuple[Remark, ...]]:
    """Try each proof that is said to prove `entry`. Returns what it shows, what was broken, what is bound to nobody."""
    seen: list[WitnessedEntry] = []
    broken: list[Remark] = []
    unbound: list[Remark] = []
    for proof in proofs:
        if proof.line != entry.digest:
            continue
        try:
            witnessed = witness(TlogProof.parse(proof.data), entry.line, bound)
            seen += [replace(each, proof=sha256(proof.data)) for each in witnessed]
        except ComityError as error:
            if error.code == "LOG-UNBOUND":
                unbound.append(Remark(str(error), sha256(proof.data)))
            else:
                broken.append(Remark(f"its proof does not hold: {error}", sha256(proof.data)))
    return tuple(seen), tuple(broken), tuple(unbound)


def _named(publication: Publication, policy: Policy) -> bool | None:
    if policy.publishers:
        return publication.publisher.id in policy.publishers
    bound = policy.bound_publisher(publication.published.name.namespace)
    return None if bound is None else publication.publisher.id == bound
