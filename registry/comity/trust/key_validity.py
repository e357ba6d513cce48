"""Judges the keys of a signature, key-compromise advisories, and one publication: steps (3) to (6) of `verify`.

A signature by any keys of an identity stays its signature, but retired keys may be stolen. A rotation therefore has a
*cut*: an entry that was in the log below the cut was signed before the keys were retired. If the owner pins a rotation,
keys that were retired up to that rotation count only below the cut. Otherwise the state is only reported.

A `key-compromise` advisory applies from an entry of the identity's home log on:

    {"kind":"key-compromise","severity":"critical","text":"the laptop is gone",
     "key":"5f01…","since":{"origin":"node-ch/log","index":812}}

The subject is the identity; `key` is the SHA-256 of one key's JSON. The advisory counts if the identity signed it with
any keys that it ever had, because a thief of these keys gains nothing from it; by another author it is a claim. It does
not affect statements below the entry. The author of a statement by that key that is not proven to be below is
uncertain. Which log the origin means is decided as for the home log itself (`logs_of_notice`). Source: protocol,
sections 3 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from comity.trust.bound_nodes import BoundNode, WitnessedEntry, verify_witnessed
from comity.trust.claims import ParsedClaims, Publication
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import Evidence, EvidenceReader, InclusionEvidence, Remark
from comity.trust.frozen import frozen
from comity.trust.home_logs import HomeLogs, HomePosition, NamedLog, home_logs, named_homes
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate, newest_first
from comity.trust.rotation import KeyState, LogCut, RotationChain, RotationStep, reachable
from comity.trust.statement import Author, Entry, Envelope
from comity.trust.statement_kinds import ADVISORY
from comity.trust.statements import Advisory
from comity.trust.tlog.proof import ConsistencyProof

ProvenConsistency: TypeAlias = Mapping[tuple[str, int, int], Sequence[ConsistencyProof]]

CURRENT: Final = "signed by its current keys, by the evidence here"
BEFORE: Final = "signed by keys that are now retired, before the cut"
UNKNOWN: Final = "signed by keys that are now retired: after the cut, or unknown"


@frozen
class KeyValidity:
    """The state of the keys behind one signature.

    `text` describes the state for people. `accepted` is the result under the pinned rotation: True if none is pinned,
    None if the pinned rotation is not among the claims.
    """

    text: str
    accepted: bool | None


def judge_keys(
    entry: Entry,
    chain: RotationChain,
    pinned: Digest | None,
    proofs: Iterable[bytes],
    consistency_proofs: ProvenConsistency,
    reader: EvidenceReader,
) -> KeyValidity:
    """Judge the keys that signed `entry`.

    Args:
        chain: the author's rotations, from the inception on.
        pinned: the rotation (`Rotation.digest`) that the policy pins for this author.
        proofs: tlog-proofs that claim to be about `entry`. The signatures on their checkpoints are not needed, because
            the author itself signed the cut.
        consistency_proofs: those that are available.

    More steps and proofs can only change None to True or False, and False to True (I4).
    """
    seen = {position for proof in proofs if (position := _position(entry, proof, reader)) is not None}
    signers = frozenset(chain.signers(entry.envelope))

    retiring = [step for state in signers for step in chain.steps_from.get(state, ())]
    in_time = [
        step for step in retiring if any(_is_below(step.rotation.cut_of(p.origin), p, consistency_proofs) for p in seen)
    ]
    text = BEFORE if in_time else UNKNOWN
    if any(state not in chain.steps_from for state in signers):
        text = CURRENT
    if pinned is None:
        return KeyValidity(text, True)
    pins = [step for step in chain.steps if step.rotation.digest == pinned]
    if not pins:
        return KeyValidity(f"{text}; the rotation that the policy pins is missing", None)
    if not _states_after(pins, chain).isdisjoint(signers):
        return KeyValidity(f"{text}; not retired before the rotation that the policy pins", True)
    if any(step in in_time for step in _steps_up_to(pins, chain)):
        return KeyValidity(BEFORE, True)
    return KeyValidity(f"{UNKNOWN}; the policy pins a later rotation", False)


@frozen
class _LogPosition:
    """Leaf `index` of a tree with `size` leaves and root hash `root`, which claims to be the log `origin`."""

    origin: str
    index: int
    size: int
    root: bytes


def _position(entry: Entry, data: bytes, reader: EvidenceReader) -> _LogPosition | None:
    try:
        proof = reader.proof(data)
        checkpoint = proof.including(entry.line)
    except ComityError:
        return None  # `prove_entry` reports the error
    return _LogPosition(checkpoint.origin, proof.index, checkpoint.size, checkpoint.root)


def _is_below(cut: LogCut | None, position: _LogPosition, consistency_proofs: ProvenConsistency) -> bool:
    """Whether the leaf is below `cut`: its tree is the tree of the cut, or one tree is a prefix of the other."""
    if cut is None or cut.origin != position.origin or position.index >= cut.size:
        return False
    if position.size == cut.size:
        return position.root == cut.root
    (old, old_root), (new, new_root) = sorted([(cut.size, cut.root), (position.size, position.root)])
    return any(_verifies(proof, old_root, new_root) for proof in consistency_proofs.get((cut.origin, old, new), ()))


def _verifies(proof: ConsistencyProof, old_root: bytes, new_root: bytes) -> bool:
    try:
        proof.verify(old_root, new_root)
    except ComityError:
        return False
    return True


def _states_after(pins: list[RotationStep], chain: RotationChain) -> frozenset[KeyState]:
    """The key states after the pinned rotation, and all later ones."""
    return reachable(
        (step.after for step in pins), lambda state: [step.after for step in chain.steps_from.get(state, ())]
    )


def _steps_up_to(pins: list[RotationStep], chain: RotationChain) -> list[RotationStep]:
    """The pinned rotation and all earlier rotations."""
    arriving: dict[KeyState, list[KeyState]] = {}
    for step in chain.steps:
        arriving.setdefault(step.after, []).append(step.before)
    earlier = reachable((step.before for step in pins), lambda state: arriving.get(state, ()))
    return [*pins, *(step for step in chain.steps if step.after in earlier)]


@frozen
class CompromiseNotice:
    """An identity's proven statement that its `key` was compromised from entry `index` of the log `origin` on."""

    entry: Entry
    key: Digest
    origin: str
    index: int
    severity: str
    text: str


def compromise_notices(
    claims: ParsedClaims, identity: Digest, chain: RotationChain, envelope: Envelope
) -> tuple[CompromiseNotice, ...]:
    """The compromise notices of an identity for its keys that signed `envelope`, the lowest index first."""
    used = {key.id for key in chain.signing_keys(envelope)}
    found = (_notice(entry, identity, chain) for entry in claims.entries if entry.statement.predicate == ADVISORY)
    return tuple(sorted((each for each in found if each and each.key in used), key=lambda each: each.index))


def _notice(entry: Entry, identity: Digest, chain: RotationChain) -> CompromiseNotice | None:
    if entry.statement.by != Author("identity", identity):
        return None
    try:
        advisory = Advisory.parse(entry.statement)
    except ComityError:
        return None
    compromise = advisory.compromise
    if compromise is None or advisory.artifact != identity or not chain.signed(entry.envelope):
        return None
    return CompromiseNotice(
        entry, compromise.key, compromise.origin, compromise.index, advisory.severity, advisory.text
    )


def logs_of_notice(
    notice: CompromiseNotice, chain: RotationChain, bound: Iterable[BoundNode], policy: Policy
) -> HomeLogs:
    """Return the home logs in which the entry of a notice is looked for: those of the identity, or, if it names no home
    log with this origin, the log that the origin alone means."""
    named = named_homes(chain)
    if all(each.origin != notice.origin for each in named):
        named = (NamedLog(notice.origin),)
    return home_logs(named, (node.record for node in bound), policy.origins)


def is_logged_before(notice: CompromiseNotice, witnessed: Iterable[WitnessedEntry], home: HomeLogs) -> bool | None:
    """Whether the statement is proven to be in the home log below the notice's entry; None without a proof of that log.

    Args:
        home: as `logs_of_notice` returns them.
    """
    return home.is_before([(seen.log, seen.index) for seen in witnessed], notice.origin, notice.index)


@frozen
class CosignedTime:
    """The time since when `cosigners` members have seen a statement, in POSIX seconds by their clocks, and a proof with
    the cosignature of that time."""

    time: int
    proof: Digest | None
    cosigners: int


@frozen
class JudgedNotice:
    """A compromise notice about a key that signed a statement. `before`: whether the statement is proven to be in the
    home log below the entry of the notice; None without a proof of its position there."""

    notice: CompromiseNotice
    before: bool | None


@frozen
class JudgedPublication:
    """One publication, judged: key policy, proofs in logs, cosigners.

    `named` is True if the owner or a pinned charter names the publisher, False if they name another one, None if they
    name none. `jurisdictions` are the publisher's: its own claim, and those of members with its id in pinned bodies.
    `home` are the publisher's home logs, `notices` what it says about lost keys that signed the statement.
    """

    publication: Publication
    named: bool | None
    key_validity: KeyValidity
    jurisdictions: frozenset[str]
    witnessed: tuple[WitnessedEntry, ...]
    broken: tuple[Remark, ...]
    unbound: tuple[Remark, ...]
    home: HomeLogs
    notices: tuple[JudgedNotice, ...] = ()

    @property
    def accepted(self) -> bool | None:
        """`named`, but False if the policy pins a rotation and the keys are not proven to count under it."""
        return self.named if self.key_validity.accepted else False

    @property
    def before_loss(self) -> bool | None:
        """Whether the statement is older than every loss of its keys that the publisher reports: True if it reports
        none, False if it is proven to be as new as one, None if no proof here says."""
        return older_than_all(each.before for each in self.notices)

    @property
    def home_position(self) -> HomePosition | None:
        """The position in the home logs of the publisher, proven here; None without such a proof."""
        return self.home.position((seen.log, seen.index) for seen in self.witnessed)

    def best(self, policy: Policy) -> WitnessedEntry | None:
        def rank(seen: WitnessedEntry) -> tuple[bool, int, int]:
            counted = seen.counted(policy.cosigners, self.jurisdictions)
            return seen.satisfies(policy.cosigners, self.jurisdictions), len(counted), -seen.index

        return max(self.witnessed, key=rank, default=None)

    def newest_cosigned(self, policy: Policy) -> CosignedTime | None:
        """The newest time since when as many counted cosigners as the policy requires have seen it, and at least two
        where two have: the clock of one member may say anything. None if too few have. Each member counts with its
        newest time in any proof, so an old proof beside a new one makes nothing older."""
        newest: dict[Digest, tuple[int, Digest | None]] = {}
        for seen in self.witnessed:
            for cosigner in seen.counted(policy.cosigners, self.jurisdictions):
                at = max(cosigner.times(policy.cosigners), default=0)
                known = newest.get(cosigner.member.lineage)
                if known is None or at > known[0]:
                    newest[cosigner.member.lineage] = at, seen.proof
        needed = _needed(policy, len(newest))
        times = sorted(newest.values(), key=lambda each: each[0], reverse=True)
        return CosignedTime(*times[needed - 1], needed) if len(times) >= needed else None

    def first_cosigned(self, policy: Policy) -> CosignedTime | None:
        """The earliest time by which as many had seen it as `newest_cosigned` asks for; None if too few have. Each
        member counts with its earliest time in any proof, so more proofs only make it earlier."""
        first: dict[Digest, tuple[int, Digest | None]] = {}
        for seen in self.witnessed:
            for cosigner in seen.counted(policy.cosigners, self.jurisdictions):
                for at in cosigner.times(policy.cosigners):
                    known = first.get(cosigner.member.lineage)
                    if known is None or at < known[0]:
                        first[cosigner.member.lineage] = at, seen.proof
        needed = _needed(policy, len(first))
        times = sorted(first.values(), key=lambda each: each[0])
        return CosignedTime(*times[needed - 1], needed) if len(times) >= needed else None

    def rank(self, policy: Policy) -> tuple[bool, bool, bool, bool, int]:
        """The sort key by which the best publication is chosen. More evidence can only raise the highest (I4)."""
        best = self.best(policy)
        cosigned = best is not None and best.satisfies(policy.cosigners, self.jurisdictions)
        counted = len(best.counted(policy.cosigners, self.jurisdictions)) if best else 0
        return self.accepted is not False, best is not None, cosigned, self.accepted is True, counted


def _needed(policy: Policy, cosigners: int) -> int:
    """Cosigners that a time needs: those that the policy asks for, and two where there are two."""
    return max(policy.cosigners.at_least, min(2, cosigners), 1)


def choose(
    judged: Sequence[JudgedPublication], policy: Policy, publisher: Digest | None = None
) -> JudgedPublication | None:
    """Return the publication that the rows follow: the best one, or a newer statement of the same publisher that passes
    the same steps, which corrects it, unless only the newer one may be signed by a lost key. None if there is none.

    Args:
        publisher: of those that pass the same steps, the statements of this identity are the best.
    """

    def order(each: JudgedPublication) -> tuple[tuple[bool, bool, bool, bool], bool, int, int]:
        rank = each.rank(policy)
        return rank[:-1], each.publication.publisher.id == publisher, _loss_rank(each), rank[-1]

    best = max(judged, key=order, default=None)
    if best is None:
        return None
    passed = best.rank(policy)[:-1]
    own = [each for each in own_statements(judged, best) if each.rank(policy)[:-1] == passed]
    kept = max(map(_loss_rank, own))
    return next(each for each in own if _loss_rank(each) == kept)


def _loss_rank(judged: JudgedPublication) -> int:
    return loss_rank(judged.before_loss)


def loss_rank(before_loss: bool | None) -> int:
    """The higher, the better: what a lost key may have signed corrects no statement that it did not sign.

    Args:
        before_loss: as `JudgedPublication.before_loss`.
    """
    return (False, None, True).index(before_loss)


def older_than_all(before: Iterable[bool | None]) -> bool | None:
    """Whether a statement is older than every loss, by the answers for each of them."""
    found = set(before)
    return False if False in found else None if None in found else True


def own_statements(judged: Iterable[JudgedPublication], chosen: JudgedPublication) -> list[JudgedPublication]:
    """Return the statements of the publisher of `chosen`, the newest first."""
    own = {
        each.publication.entry.digest: each
        for each in judged
        if each.publication.publisher.id == chosen.publication.publisher.id
    }
    ordered = newest_first(Candidate(each.publication, each.home_position) for each in own.values())
    return [own[candidate.publication.entry.digest] for candidate in ordered]


def judge_publication(
    publication: Publication,
    claims: ParsedClaims,
    proofs: tuple[InclusionEvidence, ...],
    consistency_proofs: ProvenConsistency,
    bound: tuple[BoundNode, ...],
    policy: Policy,
    reader: EvidenceReader,
) -> JudgedPublication:
    entry, publisher, digest = publication.entry, publication.publisher, publication.entry.digest
    seen, broken, unbound = prove_entry(entry, proofs, bound, reader)
    own = (proof.data for proof in proofs if proof.line == digest)
    validity = judge_keys(entry, publication.chain, policy.rotations.get(publisher.id), own, consistency_proofs, reader)
    members = (body.member(publisher.id) for body in policy.pins)
    jurisdictions = frozenset({publisher.jurisdiction} | {member.jurisdiction for member in members if member})
    named = _is_named_publisher(publication, policy)
    home = home_logs(named_homes(publication.chain), (node.record for node in bound), policy.origins)
    notices = compromise_notices(claims, publisher.id, publication.chain, entry.envelope)
    return JudgedPublication(
        publication, named, validity, jurisdictions, seen, broken, unbound, home,
        tuple(judge_notice(each, publication.chain, seen, bound, policy) for each in notices),
    )  # fmt: skip


def judge_notice(
    notice: CompromiseNotice,
    chain: RotationChain,
    seen: Iterable[WitnessedEntry],
    bound: tuple[BoundNode, ...],
    policy: Policy,
) -> JudgedNotice:
    """Judge a notice of the identity with this chain, for a statement that is proven to be in these logs."""
    return JudgedNotice(notice, is_logged_before(notice, seen, logs_of_notice(notice, chain, bound, policy)))


@frozen
class KeyCircumstances:
    """By what the keys behind any signed statement are judged."""

    claims: ParsedClaims
    proofs: tuple[InclusionEvidence, ...]
    bound: tuple[BoundNode, ...]
    policy: Policy
    consistency: ProvenConsistency
    reader: EvidenceReader


def key_circumstances(
    evidence: Evidence, claims: ParsedClaims, policy: Policy, reader: EvidenceReader
) -> KeyCircumstances:
    """Those of evidence whose claims were read before, without the consistency proofs that only retired keys need."""
    return KeyCircumstances(claims, evidence.proofs, claims.bound(policy.pins), policy, {}, reader)


def refused_keys(
    entry: Entry, identity: Digest, chain: RotationChain, given: KeyCircumstances, author: str = "author"
) -> str:
    """Why the keys of the identity that signed `entry` do not count for it; empty if they do. Retired keys count below
    the cut of their rotation, lost ones below the entry that the identity names: both only with a proof.

    Args:
        chain: the identity's rotations with the keys that signed.
        author: what the identity is, in the answer.
    """
    seen, _, _ = prove_entry(entry, given.proofs, given.bound, given.reader)
    own = (proof.data for proof in given.proofs if proof.line == entry.digest)
    pinned = given.policy.rotations.get(identity)
    validity = judge_keys(entry, chain, pinned, own, given.consistency, given.reader)
    if not validity.accepted or validity.text.startswith(UNKNOWN):
        return validity.text
    for notice in compromise_notices(given.claims, identity, chain, entry.envelope):
        if not judge_notice(notice, chain, seen, given.bound, given.policy).before:
            return f"its {author} reports that the key was compromised from entry {notice.index} of {notice.origin} on"
    return ""


def signed_before_loss(entry: Entry, identity: Digest, chain: RotationChain, given: KeyCircumstances) -> bool | None:
    """As `JudgedPublication.before_loss`, of any statement that the identity signed."""
    notices = compromise_notices(given.claims, identity, chain, entry.envelope)
    seen = prove_entry(entry, given.proofs, given.bound, given.reader)[0] if notices else ()
    return older_than_all(judge_notice(each, chain, seen, given.bound, given.policy).before for each in notices)


def prove_entry(
    entry: Entry, proofs: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...], reader: EvidenceReader
) -> tuple[tuple[WitnessedEntry, ...], tuple[Remark, ...], tuple[Remark, ...]]:
    """Check each proof that claims to prove `entry`. Returns what is proven, and remarks on proofs that do not verify
    and on proofs of logs that are bound to no member."""
    seen: list[WitnessedEntry] = []
    broken: list[Remark] = []
    unbound: list[Remark] = []
    digest = entry.digest
    for proof in proofs:
        if proof.line != digest:
            continue
        try:
            witnessed = verify_witnessed(reader.proof(proof.data), entry.line, bound)
            seen += [replace(each, proof=sha256(proof.data)) for each in witnessed]
        except ComityError as error:
            if error.code == "LOG-UNBOUND":
                unbound.append(Remark(str(error), sha256(proof.data)))
            else:
                broken.append(Remark(f"the proof does not verify: {error}", sha256(proof.data)))
    return tuple(seen), tuple(broken), tuple(unbound)


def _is_named_publisher(publication: Publication, policy: Policy) -> bool | None:
    if policy.publishers:
        return publication.publisher.id in policy.publishers
    bound = policy.bound_publisher(publication.published.name.namespace)
    return None if bound is None else publication.publisher.id == bound
