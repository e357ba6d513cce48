"""Invariants I4 and I5, and the rules of who counts, where publishers and members rotate keys and thieves have the old
ones.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, consistency_proof
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import Evidence, InclusionEvidence
from comity.trust.keys import HybridSigner
from comity.trust.policy import CosignerRule, Policy
from comity.trust.rotation import LogCut, Rotation, parse_rotation, rotation_statement
from comity.trust.statement import Entry, sign_statement
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.proof import ConsistencyProof
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import case, filled, nodes, release
from support.examples import examples
from support.rotations import Owned, of
from support.world import Log, Node, draft, identity, node

KEPT = ("artifact", "bytes", "signatures", "transparency", "cosigners")
CH, SG, ES, KR = nodes(4)
SWISS_AI = identity("Swiss AI", "CH")
GOOD = case()
FIRST = GOOD.federation.body


def logged(writer: Node, *lines: bytes, after: int = 5) -> Log:
    log = filled(writer, after)
    for line in lines:
        log.append(line)
    return log


def root(log: Log, size: int) -> tuple[bytes, MemoryTree]:
    tree = MemoryTree()
    for line in log.lines[:size]:
        tree.append(leaf_hash(line))
    return tree.root(), tree


OWNER, MEMBER = of(SWISS_AI), of(SG.seat)
OLD_SAID = GOOD.publication
OLD_LOG = logged(CH, OLD_SAID.line, b"later")
CUT = LogCut(OLD_LOG.origin, 6, root(OLD_LOG, 6)[0])
SECOND, TO_SECOND = OWNER.to("publisher second", cut=[CUT])
THIRD, TO_THIRD = SECOND.to("publisher third", cut=[CUT])
STOLEN, TO_STOLEN = OWNER.to("a thief of recovery keys")
NEW, TO_NEW = MEMBER.to("member second")
NEWER, TO_NEWER = NEW.to("member third")
RIVAL, TO_RIVAL = MEMBER.to("a thief of the member's recovery keys")


def published_by(keys: Owned) -> Entry:
    return sign_content(release()[0], *keys.keys)


def recorded(keys: Owned, which: Node = SG) -> Entry:
    """A node record of the member's, under other keys than the charter lists."""
    return sign_content(which.record, *keys.keys, *which.bound)


SAID = {keys: published_by(keys) for keys in (SECOND, THIRD, STOLEN)}
RECORDS = {keys: recorded(keys) for keys in (NEW, NEWER, RIVAL)}
SECOND_NODE = recorded(NEW, node(SG.seat, "second.example"))
NOT_SG = [each.entry.line for each in (CH, ES, KR)]


def listing(**seats: Owned) -> Body:
    """The charter with the current keys of these members; it has no certificate."""

    def moved(member: Member) -> Member:
        owned = seats.get(member.jurisdiction)
        return replace(member, keys=owned.state.keys, recovery=owned.state.recovery) if owned else member

    return draft([moved(member) for member in FIRST.members], FIRST.namespaces)


def growth(log: Log, old: int, new: int) -> bytes:
    return ConsistencyProof(log.origin, old, new, consistency_proof(old, new, root(log, new)[1].node)).encode()


ROTATIONS = [TO_SECOND, TO_THIRD, TO_STOLEN, TO_NEW, TO_NEWER, TO_RIVAL]
CLAIMS = [
    *(entry.line for entry in (SWISS_AI.entry, OLD_SAID, *SAID.values(), *RECORDS.values(), SECOND_NODE, *ROTATIONS)),
    *(each.entry.line for each in (CH, SG, ES, KR)),
]


@functools.cache
def all_proofs() -> list[InclusionEvidence]:
    return [
        *(
            logged(CH, entry.line, after=after).proof(entry.line, cosigners)
            for entry in (OLD_SAID, *SAID.values())
            for after, cosigners in ((5, (SG, ES)), (4, (SG, KR)), (6, (ES, KR)))
        ),
        OLD_LOG.proof(OLD_SAID.line, (SG, ES)),
    ]


OBJECTS = {sha256(data): data for data in (growth(OLD_LOG, 6, 7), growth(OLD_LOG, 5, 7), b"something else")}
PUBLISHED = [
    (OLD_SAID, []),
    (SAID[SECOND], [TO_SECOND]),
    (SAID[THIRD], [TO_SECOND, TO_THIRD]),
    (SAID[STOLEN], [TO_STOLEN]),
]
RECORDED = [
    (SG.entry, []),
    (RECORDS[NEW], [TO_NEW]),
    (RECORDS[NEWER], [TO_NEW, TO_NEWER]),
    (RECORDS[RIVAL], [TO_RIVAL]),
]


@functools.cache
def bases() -> list[tuple[list[bytes], list[InclusionEvidence]]]:
    return [
        (
            [entry.line for entry in (SWISS_AI.entry, said, record, *way, *path)] + NOT_SG,
            [logged(CH, said.line).proof(said.line, (SG, ES))],
        )
        for said, way in PUBLISHED
        for record, path in RECORDED
    ]


RULES = [CosignerRule(2, 2), CosignerRule(2, 2, post_quantum=True), CosignerRule(3, 3, ())]
PINS = [(FIRST,), (listing(SG=NEW),), (FIRST, listing(SG=NEWER)), (listing(SG=RIVAL), FIRST)]
HELD: list[dict[Digest, Digest]] = [
    {},
    *({SWISS_AI.id: parse_rotation(entry)[0].digest} for entry in (TO_SECOND, TO_THIRD, TO_STOLEN)),
]
POLICY = GOOD.policy
POLICIES = [
    replace(POLICY, cosigners=rule, pins=pins, rotations=held) for rule in RULES for pins in PINS for held in HELD
]
SOME_CLAIMS = st.lists(st.sampled_from(CLAIMS), max_size=len(CLAIMS))
SOME_PROOFS = st.deferred(lambda: st.lists(st.sampled_from(all_proofs()), max_size=5))
SOME_OBJECTS = st.sets(st.sampled_from(sorted(OBJECTS)))


def evidence(claims: list[bytes], proofs: list[InclusionEvidence], objects: set[Digest]) -> Evidence:
    chosen = {digest: OBJECTS[digest] for digest in objects}
    return replace(GOOD.evidence, claims=tuple(claims), proofs=tuple(proofs), objects=chosen)


def passed(found: Evidence, policy: Policy) -> set[str]:
    verdict = verify(found, policy)
    return {name for name in KEPT if verdict.row(name).state == "pass"}


@given(st.deferred(lambda: st.sampled_from(bases())), SOME_OBJECTS, st.sampled_from(POLICIES), st.data())
@settings(max_examples=examples(100))
def test_i4_no_later_rotation_worsens_a_verdict(
    base: tuple[list[bytes], list[InclusionEvidence]], objects: set[Digest], policy: Policy, more: st.DataObject
) -> None:
    claims, proofs = base
    enriched = evidence(
        more.draw(st.permutations(claims + more.draw(SOME_CLAIMS))),
        more.draw(st.permutations(proofs + more.draw(SOME_PROOFS))),
        objects | more.draw(SOME_OBJECTS),
    )
    assert passed(evidence(claims, proofs, objects), policy) <= passed(enriched, policy)


@pytest.mark.parametrize("held", HELD)
def test_i4_all_evidence_together_passes_the_rows_that_any_part_passed(held: dict[Digest, Digest]) -> None:
    policy = replace(POLICY, pins=(FIRST, listing(SG=NEWER)), rotations=held)
    everything = passed(evidence(CLAIMS, all_proofs() + [proofs[0] for _, proofs in bases()], set(OBJECTS)), policy)
    alone = [passed(evidence(claims, proofs, set(OBJECTS)), policy) for claims, proofs in bases()]
    assert set(KEPT) in alone
    assert all(part <= everything for part in alone)


THIEVES = [
    *(each.seat.signer for each in (CH, SG, ES, KR)),
    *(keys.keys[0] for keys in (NEW, RIVAL)),
    *(keys.recovery[0] for keys in (MEMBER, NEW)),
    HybridSigner(SWISS_AI.signer.keys[:1]),
    SWISS_AI.signer,
    SECOND.keys[0],
]
"""Every key of all members, and keys of the publisher without its recovery keys; the last two are complete
identities.
"""


@given(
    st.lists(st.sampled_from(THIEVES[:-2]), min_size=1, max_size=6, unique=True),
    st.sampled_from([OWNER, SECOND]),
    st.sampled_from(POLICIES),
)
@settings(max_examples=examples(40))
def test_i5_all_members_together_rotate_no_publisher(thieves: list[HybridSigner], state: Owned, policy: Policy) -> None:
    whole = [thief for thief in thieves if len(thief.keys) == 2]
    line = sign_content(release()[0], *thieves).line
    claims = [SWISS_AI.entry.line, TO_SECOND.line, line, *(each.entry.line for each in (CH, SG, ES, KR))]
    claims += [forged_rotation(state, whole[0], thieves).line] if whole else []
    proof = logged(CH, line).proof(line, (SG, ES, KR))
    verdict = verify(replace(GOOD.evidence, claims=tuple(claims), proofs=(proof,)), policy)
    assert verdict.row("signatures").state != "pass"


@given(st.lists(st.sampled_from(THIEVES), min_size=1, max_size=6, unique=True), st.sampled_from([OWNER, SECOND]))
@settings(max_examples=examples(30))
def test_stolen_keys_without_recovery_keys_never_lead_to_new_ones(thieves: list[HybridSigner], state: Owned) -> None:
    thief = SG.online  # a key of the publisher only if a rotation lists it
    rotation = forged_rotation(state, thief, [*thieves, thief])
    line = sign_content(release()[0], thief).line
    claims = (SWISS_AI.entry.line, TO_SECOND.line, rotation.line, line, *NOT_SG)
    proof = logged(CH, line).proof(line, (ES, KR))
    assert verify(replace(GOOD.evidence, claims=claims, proofs=(proof,)), POLICY).row("signatures").state == "fail"


def forged_rotation(state: Owned, to: HybridSigner, signers: list[HybridSigner]) -> Entry:
    """A rotation of `state` to the thief's key, signed with the keys that the thief has; it names recovery keys that
    the thief does not have.
    """
    keys = replace(SECOND.state.keys, keys=(to.public,))
    seq = (state.state.seq or 0) + 1
    rotation = Rotation(SWISS_AI.id, seq, state.state.digest, keys, (to.public.id,))
    halves = {key.public.id: key for signer in signers for key in signer.keys}
    used = [key.public for key in state.recovery]
    return sign_statement(rotation_statement(rotation, used), HybridSigner(tuple(halves.values())))


@given(st.sets(st.sampled_from(sorted(RECORDS, key=lambda keys: keys.state.digest))), st.booleans(), st.booleans())
@settings(max_examples=examples(20))
def test_a_member_with_many_keys_counts_once(records: set[Owned], plain: bool, again: bool) -> None:
    lines = [RECORDS[keys].line for keys in records] + [SG.entry.line] * plain + [SECOND_NODE.line] * again
    cosigners = [SG, node(SG.seat, "second.example")]
    proof = logged(CH, OLD_SAID.line).proof(OLD_SAID.line, cosigners)
    claims = (SWISS_AI.entry.line, OLD_SAID.line, CH.entry.line, *lines, *(entry.line for entry in ROTATIONS))
    found = replace(GOOD.evidence, claims=claims, proofs=(proof,))
    for pins in PINS[:1] + PINS[2:]:
        policy = replace(POLICY, pins=pins, cosigners=CosignerRule(0, 0, ()))
        assert len(verify(found, policy).row("cosigners").facts) == bool(lines)


def test_keys_from_before_the_pinned_body_do_not_count() -> None:
    claims = (SWISS_AI.entry.line, OLD_SAID.line, *NOT_SG, *(entry.line for entry in ROTATIONS))
    proof = logged(CH, OLD_SAID.line).proof(OLD_SAID.line, (SG,))
    policy = replace(POLICY, pins=(listing(SG=NEW),), cosigners=CosignerRule(1, 1))
    states = {}
    for keys, record in RECORDS.items():
        found = replace(GOOD.evidence, claims=(*claims, record.line), proofs=(proof,))
        states[keys] = verify(found, policy).row("cosigners").state
    assert states == {NEW: "pass", NEWER: "pass", RIVAL: "fail"}
    old = replace(GOOD.evidence, claims=(*claims, SG.entry.line), proofs=(proof,))
    assert verify(old, policy).row("cosigners").state == "fail"
