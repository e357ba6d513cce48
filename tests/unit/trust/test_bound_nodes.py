"""Which node records bind a node to a member of a pinned charter, and how its cosignatures are counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.bound_nodes import BoundNode, ProvenCosigner, WitnessedEntry, bind_nodes, verify_witnessed
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import LAST_TIME, sha256
from comity.trust.errors import Untrusted
from comity.trust.evidence import Remark
from comity.trust.node_records import NodeRecord
from comity.trust.places import Place
from comity.trust.policy import CosignerRule
from comity.trust.rotation import RotationChains
from comity.trust.statement import Entry, Subject, parse_entry, sign_payload, sign_statement
from comity.trust.tlog.note import Checkpoint, NoteSignature, VerifierKey, log_verifier_key
from comity.trust.tlog.proof import TlogProof
from support.case import filled, nodes
from support.rotations import of
from support.world import Node, draft, node, seat, signer, succeeded

CH, SG, ES, KR = nodes(4)
BODY = draft([each.seat.member for each in (CH, SG, ES)])


def bind(bodies: Iterable[Body], *entries: Entry) -> tuple[tuple[BoundNode, ...], tuple[Remark, ...], tuple[str, ...]]:
    return bind_nodes(bodies, entries, RotationChains(entries))


def members_of(bodies: Iterable[Body], *entries: Entry) -> set[Member]:
    bound, notes, unlisted = bind(bodies, *entries)
    assert (len(bound), notes, unlisted) == (len(entries), (), ())
    return {each.member for each in bound}


def with_payload(entry: Entry, old: bytes, new: bytes) -> Entry:
    """The statement with another payload under the same signatures."""
    assert old in entry.envelope.payload
    return parse_entry(sign_payload(entry.envelope.payload.replace(old, new), KR.online).encode())


def test_without_a_pinned_charter_no_node_is_bound_or_missing() -> None:
    assert bind((), CH.entry, KR.entry) == ((), (), ())


def test_a_node_of_a_member_that_is_not_listed_is_named_and_hides_no_other() -> None:
    bound, notes, unlisted = bind((BODY,), KR.entry, CH.entry, KR.entry, SG.entry)
    assert [each.record for each in bound] == [CH.record, SG.record]
    assert (notes, unlisted) == ((), (KR.origin, KR.origin))
    two = replace(KR.entry.statement, subjects=(*KR.entry.statement.subjects, Subject("another", sha256(b"x"))))
    assert bind((BODY,), sign_statement(two, KR.online))[2] == (KR.origin,)


def test_two_rotations_of_a_seat_are_a_dispute_though_it_has_no_node_here() -> None:
    rotations = [of(CH.seat).to(name)[1] for name in ("one", "other")]
    chains = RotationChains(rotations)
    assert bind_nodes((BODY,), rotations, chains) == ((), (), ())
    assert [{each.digest for each in pair} for pair in chains.disputes({CH.seat.id})] == [
        {each.digest for each in rotations}
    ]


def test_a_record_without_an_author_is_a_note() -> None:
    nobody = with_payload(CH.entry, b'"urn:comity:node-record:v1"', b'"node-record"')
    assert nobody.statement.by is None and nobody.statement.predicate == "node-record"
    bound, notes, unlisted = bind((BODY,), nobody, CH.entry)
    assert [each.record for each in bound] == [CH.record]
    assert ([note.evidence for note in notes], unlisted) == ([nobody.digest], ())


OWNER = seat("CA", ("ed25519",))
LATER, ROTATION = replace(of(OWNER), keys=(signer("a hybrid key"),)).to("later")
HYBRID = replace(OWNER.member, keys=LATER.state.keys, recovery=LATER.state.recovery)
OLD, NEW = draft([OWNER.member, SG.seat.member]), draft([HYBRID, SG.seat.member])
"""An older charter lists classical keys of one member, and a newer one the hybrid keys that followed them."""
RECORD = replace(CH.record, member=OWNER.id)


def test_one_record_in_several_envelopes_binds_one_node_by_the_strongest_of_them() -> None:
    weak = sign_content(RECORD, OWNER.signer, *CH.bound)
    strong = sign_content(RECORD, *LATER.keys, *CH.bound)
    for order in itertools.permutations((weak, strong, SG.entry)):
        bound, notes, _ = bind((OLD, NEW), *order)
        strengths = {each.record.name: (each.post_quantum, each.entry) for each in bound}
        assert (strengths, notes) == ({RECORD.name: (True, strong), SG.record.name: (True, SG.entry)}, ())
    for signers, bodies in (([OWNER.signer], (OLD,)), (LATER.keys, (NEW,))):
        first, again = (sign_content(RECORD, *signers, *CH.bound) for _ in range(2))
        bound, _, _ = bind(bodies, first, again)
        assert (first != again, [each.entry for each in bound]) == (True, [first])
    assert [each.post_quantum for each in bind((OLD, NEW), weak)[0]] == [False]


def test_a_record_is_as_strong_as_under_any_charter_that_binds_its_node() -> None:
    without, watching = (draft([each, SG.seat.member]) for each in (ES.seat.member, replace(HYBRID, status="observer")))
    signed = sign_content(RECORD, *LATER.keys, *CH.bound)
    for bodies, strong in (
        ((OLD,), False),
        ((NEW,), True),
        ((OLD, NEW), True),
        ((NEW, OLD), True),
        ((OLD, without, NEW), True),
        ((OLD, without), False),
        ((OLD, watching), False),
    ):
        bound, notes, _ = bind(bodies, ROTATION, signed)
        assert ([each.post_quantum for each in bound], notes) == ([strong], ())


def test_an_observer_binds_no_node_and_another_charter_may() -> None:
    watching = draft([replace(CH.seat.member, status="observer"), SG.seat.member, ES.seat.member])
    bound, (note,), _ = bind((watching,), CH.entry)
    assert bound == () and "its member has no vote" in note.text
    for bodies in ((watching, BODY), (BODY, watching)):
        assert [each.record for each in bind(bodies, CH.entry)[0]] == [CH.record]


def test_the_last_charter_describes_a_member() -> None:
    moved = draft([replace(CH.seat.member, name="Moved", jurisdiction="IN"), SG.seat.member])
    assert {each.name for each in members_of((BODY, moved), CH.entry)} == {"Moved"}
    assert {each.name for each in members_of((moved, BODY), CH.entry)} == {"Institute CH"}


def test_a_member_and_its_successors_are_one_whichever_charter_names_the_succession() -> None:
    heir, grandchild = seat("BR"), seat("IN")
    second = succeeded(BODY, CH=heir)
    third = succeeded(second, BR=grandchild)
    apart = draft([heir.member, ES.seat.member])
    entries = CH.entry, node(heir).entry
    for bodies in itertools.permutations((BODY, second, apart)):
        assert len(members_of(bodies, *entries)) == 1
    for bodies in itertools.permutations((BODY, second, third)):
        assert len(members_of(bodies, *entries, node(grandchild).entry)) == 1
    assert len(members_of((BODY, apart), *entries)) == 2


def test_members_that_succeed_one_another_are_one() -> None:
    """Charters of two federations may say so."""
    one, two, three = CH.seat.member, SG.seat.member, ES.seat.member
    pairs = ((one, two), (two, three), (three, one))
    bodies = [draft([replace(heir, successor_of=before.id), KR.seat.member]) for before, heir in pairs]
    outside = seat("BR")
    bodies.append(draft([replace(outside.member, successor_of=one.id), KR.seat.member]))
    entries = CH.entry, SG.entry, ES.entry, node(outside).entry
    for order in itertools.permutations(bodies):
        assert len(members_of(order, *entries)) == 1
    assert len(members_of(bodies, *entries, KR.entry)) == 2


def cosigner(member: Member, *, post_quantum: bool = True, reach: tuple[str, ...] = ()) -> ProvenCosigner:
    return ProvenCosigner(member, f"{member.name}/cosigner", 5, post_quantum, reach=reach)


def counted(rule: CosignerRule, *cosigners: ProvenCosigner, publisher: str = "") -> list[str]:
    entry = WitnessedEntry("log", 0, 1, CH.seat.member, cosigners, ())
    given = frozenset({publisher} - {""})
    found = [each.member.jurisdiction for each in entry.counted(rule, given)]
    distinct = len(set(found))
    for least in range(len(found) + 2):
        for jurisdictions in range(distinct + 2):
            asked = replace(rule, at_least=least, jurisdictions=jurisdictions)
            assert entry.satisfies(asked, given) == (least <= len(found) and jurisdictions <= distinct)
    return found


def test_the_writer_of_a_log_is_never_its_cosigner() -> None:
    own, other = cosigner(CH.seat.member), cosigner(SG.seat.member)
    neighbour = cosigner(replace(ES.seat.member, jurisdiction="CH"))
    assert counted(CosignerRule(outside=()), own, other, neighbour) == ["SG", "CH"]
    assert counted(CosignerRule(), own, other, neighbour) == ["SG"]


def test_a_rule_excludes_by_seat_and_by_declared_reach() -> None:
    plain, reached = cosigner(SG.seat.member), cosigner(ES.seat.member, reach=("ES", "KR"))
    assert counted(CosignerRule(outside=()), plain, reached) == ["SG", "ES"]
    assert counted(CosignerRule(outside=("KR",)), plain, reached) == ["SG"]
    assert counted(CosignerRule(outside=("SG",)), plain, reached) == ["ES"]
    assert counted(CosignerRule(), plain, reached, publisher="SG") == ["ES"]
    assert counted(CosignerRule(), plain, reached, publisher="KR") == ["SG", "ES"]
    assert counted(CosignerRule(outside=(), declared=True), plain, reached) == ["ES"]
    classical = cosigner(SG.seat.member, post_quantum=False)
    assert counted(CosignerRule(outside=(), post_quantum=True), classical, reached) == ["ES"]


def test_two_members_of_one_jurisdiction_are_two_cosigners_and_one_jurisdiction() -> None:
    twin = replace(SG.seat.member, id=sha256(b"twin"))
    assert counted(CosignerRule(), cosigner(SG.seat.member), cosigner(twin)) == ["SG", "SG"]


def test_times_are_those_that_a_rule_counts_and_that_there_are() -> None:
    known = replace(cosigner(SG.seat.member), lines=((0, True), (3, False), (4, True)))
    assert (known.times(CosignerRule()), known.times(CosignerRule(post_quantum=True))) == ((3, 4), (4,))


def witnessed(proof: TlogProof, *bound: BoundNode) -> tuple[WitnessedEntry, ...]:
    return verify_witnessed(proof, LINE, bound)


def proof_of(owner: Node, *signatures: NoteSignature) -> TlogProof:
    log = filled(owner)
    log.append(LINE)
    note = TlogProof.parse(log.proof(LINE).data)
    return replace(note, checkpoint=note.checkpoint.with_signatures(*signatures))


def cosigned(by: Node, time: int) -> tuple[NoteSignature, NoteSignature]:
    """The classical and the post-quantum cosignature."""
    classical, strong = by.cosign(checkpoint(), time)
    return classical, strong


def checkpoint() -> Checkpoint:
    """That of the log of CH which `proof_of` proves."""
    log = filled(CH)
    log.append(LINE)
    return log.checkpoint()


def bound_by(owner: Node, member: Member | None = None, record: NodeRecord | None = None) -> BoundNode:
    return BoundNode(member or owner.seat.member, record or owner.record, owner.entry, True)


LINE = KR.entry.line
ALL = CosignerRule(outside=())


def test_only_the_member_whose_key_signed_a_log_is_its_writer() -> None:
    """Any member may bind a log of its own to the origin of another member's."""
    second = replace(SG.record, log=log_verifier_key(CH.origin, SG.log.public))
    other = bound_by(SG, record=second)
    for nodes_in_order in ((bound_by(CH), other), (other, bound_by(CH))):
        (entry,) = witnessed(proof_of(CH), *nodes_in_order)
        assert (entry.writer, entry.log) == (CH.seat.member, str(CH.record.log))
    both = witnessed(proof_of(CH), bound_by(CH), bound_by(CH, SG.seat.member))
    assert [each.writer for each in both] == [CH.seat.member, SG.seat.member]


def test_a_proof_of_an_unbound_log_or_under_another_key_proves_nothing() -> None:
    with pytest.raises(Untrusted) as refused:
        witnessed(proof_of(CH), bound_by(SG))
    assert refused.value.code == "LOG-UNBOUND"
    with pytest.raises(Untrusted) as refused:
        witnessed(proof_of(CH), bound_by(SG, record=replace(SG.record, log=log_verifier_key(CH.origin, SG.log.public))))
    assert refused.value.code != "LOG-UNBOUND"


def test_of_the_cosignatures_of_one_member_the_strongest_and_then_the_newest_counts() -> None:
    twin = node(SG.seat, "twin.example", place=Place("them", "", ("IN",)))
    (old, old_strong), (new, new_strong) = cosigned(SG, 5), cosigned(SG, 9)
    (_, latest), (classical, _) = cosigned(twin, 12), cosigned(twin, 20)
    bound = bound_by(CH), bound_by(SG), bound_by(twin)
    for signatures, best, lines in (
        ((old, new), (9, False, ()), ((5, False), (9, False))),
        ((old_strong, new), (5, True, ()), ((5, True), (9, False))),
        ((old_strong, new_strong, old), (9, True, ()), ((5, False), (5, True), (9, True))),
        ((new_strong, latest, classical), (12, True, ("IN", "SG")), ((9, True), (12, True), (20, False))),
    ):
        for order in itertools.permutations(signatures):
            (entry,) = witnessed(proof_of(CH, *order), *bound)
            (found,) = entry.counted(ALL, frozenset())
            assert (found.timestamp, found.post_quantum, found.reach) == best
            assert (found.member, found.lines, entry.refused) == (SG.seat.member, lines, ())


def test_of_cosignatures_of_one_member_that_are_alike_the_first_counts() -> None:
    twin = node(SG.seat, "twin.example")
    signatures = cosigned(SG, 5)[1], cosigned(twin, 5)[1]
    for order in (signatures, signatures[::-1]):
        (entry,) = witnessed(proof_of(CH, *order), bound_by(CH), bound_by(twin), bound_by(SG))
        assert [each.name for each in entry.cosigners] == [each.name for each in order]
        assert [each.name for each in entry.counted(ALL, frozenset())] == [order[0].name]


def test_a_member_counts_by_any_of_its_cosigners_that_a_rule_counts() -> None:
    own, cloud = Place("them", "", ("SG",)), Place("them", "Example Cloud", ("US",))
    named, silent, clouded = (
        node(SG.seat, f"{name}.example", place=place)
        for name, place in (("named", own), ("silent", None), ("clouded", cloud))
    )
    weak = node(SG.seat, "weak.example", ("ed25519",), own)
    by_time = ((weak, 4), (named, 5), (clouded, 7), (silent, 9))
    signatures = [signature for by, at in by_time for signature in by.cosign(checkpoint(), at)]
    bound = [bound_by(by) for by, _ in by_time]
    for rule, name, times in (
        (ALL, "silent", {4, 5, 7, 9}),
        (replace(ALL, declared=True), "clouded", {4, 5, 7}),
        (replace(ALL, outside=("US",)), "silent", {4, 5, 9}),
        (replace(ALL, outside=("US",), declared=True), "named", {4, 5}),
        (replace(ALL, outside=("US",), declared=True, post_quantum=True), "named", {5}),
    ):
        for order in (signatures, signatures[::-1]):
            (entry,) = witnessed(proof_of(CH, *order), bound_by(CH), *bound)
            (found,) = entry.counted(rule, frozenset())
            assert (found.name, set(found.times(rule))) == (f"{name}.example/cosigner", times)
    assert entry.counted(replace(ALL, outside=("SG",)), frozenset()) == ()


class SameId(VerifierKey):
    """A key that was searched to have the same short id of 32 bits as another one."""

    @property
    def key_id(self) -> bytes:
        return SG.record.cosigners[0].key_id


def test_a_key_with_the_name_and_the_short_id_of_another_hides_no_cosignature() -> None:
    name, kind = SG.record.cosigners[0].name, SG.record.cosigners[0].type
    record = replace(KR.record, cosigners=(SameId(name, kind, KR.record.cosigners[0].public),))
    for bound in itertools.permutations((bound_by(SG), bound_by(KR, record=record))):
        (entry,) = witnessed(proof_of(CH, cosigned(SG, 5)[0]), bound_by(CH), *bound)
        assert [each.member for each in entry.cosigners] == [SG.seat.member]
        assert len(entry.refused) == 1


def test_a_cosigner_may_have_one_key() -> None:
    one = node(SG.seat, "one.example", ("ed25519",), Place("them", "", ("IN",)))
    (entry,) = witnessed(proof_of(CH, *one.cosign(checkpoint(), 5)), bound_by(CH), bound_by(one))
    assert [(each.reach, each.post_quantum) for each in entry.cosigners] == [(("IN", "SG"), False)]


def test_all_records_of_a_cosigner_declare_its_reach() -> None:
    places = (Place("them", "", ("BR", "CA", "IN")), None, Place("them", "", ("ES", "FR", "KR", "US")))
    bound = [bound_by(SG, record=replace(SG.record, place=place)) for place in places]
    (entry,) = witnessed(proof_of(CH, *cosigned(SG, 5)), bound_by(CH), *bound)
    assert [each.reach for each in entry.cosigners] == [("BR", "CA", "ES", "FR", "IN", "KR", "SG", "US")]
    (plain,) = witnessed(proof_of(CH, *cosigned(SG, 5)), bound_by(CH), bound[1])
    assert [each.reach for each in plain.cosigners] == [()]


def test_a_cosignature_of_another_checkpoint_does_not_count_and_hides_no_other() -> None:
    classical, strong = SG.cosign(filled(CH).checkpoint(), 5)
    genuine = cosigned(ES, 7)
    proof = proof_of(CH, classical, strong, *genuine)
    (entry,) = witnessed(proof, bound_by(CH), bound_by(SG), bound_by(ES))
    assert [each.member for each in entry.cosigners] == [ES.seat.member]
    assert len(entry.refused) == 1 and entry.refused[0].startswith("cosignature by node-sg.example/cosigner: ")
    (entry,) = witnessed(proof, bound_by(CH), bound_by(SG), bound_by(SG, KR.seat.member), bound_by(ES))
    assert [each.member for each in entry.cosigners] == [ES.seat.member]


def test_a_cosigner_that_two_members_bind_counts_for_both() -> None:
    (entry,) = witnessed(proof_of(CH, *cosigned(SG, 5)), bound_by(CH), bound_by(SG), bound_by(SG, ES.seat.member))
    assert {each.member for each in entry.cosigners} == {SG.seat.member, ES.seat.member}
    weak = replace(bound_by(SG), post_quantum=False)
    (entry,) = witnessed(proof_of(CH, *cosigned(SG, 5)), bound_by(CH), weak)
    assert [each.post_quantum for each in entry.cosigners] == [False]


def test_a_time_outside_of_the_calendar_is_the_last_one_of_it() -> None:
    (entry,) = witnessed(proof_of(CH, *cosigned(SG, LAST_TIME + 5)), bound_by(CH), bound_by(SG))
    assert [each.timestamp for each in entry.cosigners] == [LAST_TIME]
