"""Which node records bind a node to a member of a pinned charter, and how its cosignatures are counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from comity.trust.charter.document import Body, Member
from comity.trust.claims import BoundNode, ProvenCosigner, WitnessedEntry, bind_nodes
from comity.trust.encoding import sha256
from comity.trust.evidence import Remark
from comity.trust.node_records import sign_node_record
from comity.trust.policy import CosignerRule
from comity.trust.rotation import RotationChains
from comity.trust.statement import Entry, parse_entry, sign_payload
from support.case import nodes
from support.rotations import of
from support.world import draft, node, seat, signer, succeeded

CH, SG, ES, KR = nodes(4)
BODY = draft([each.seat.member for each in (CH, SG, ES)])


def bind(bodies: Iterable[Body], *entries: Entry) -> tuple[tuple[BoundNode, ...], tuple[Remark, ...], tuple[str, ...]]:
    return bind_nodes(bodies, entries, RotationChains(entries))


def members_of(bodies: Iterable[Body], *entries: Entry) -> set[Member]:
    bound, notes, unlisted = bind(bodies, *entries)
    assert (len(bound), notes, unlisted) == (len(entries), (), ())
    return {each.member for each in bound}


def with_payload(entry: Entry, old: bytes, new: bytes) -> Entry:
    """The statement with other bytes in its payload, signed by somebody."""
    assert old in entry.envelope.payload
    return parse_entry(sign_payload(entry.envelope.payload.replace(old, new), KR.online).encode())


def test_without_a_pinned_charter_no_node_is_bound_and_none_is_missed() -> None:
    assert bind((), CH.entry, KR.entry) == ((), (), ())


def test_a_node_of_a_member_that_is_not_listed_is_named_and_hides_no_other() -> None:
    bound, notes, unlisted = bind((BODY,), KR.entry, CH.entry, KR.entry, SG.entry)
    assert [each.record for each in bound] == [CH.record, SG.record]
    assert (notes, unlisted) == ((), (KR.origin, KR.origin))


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
"""An older charter lists classical keys of one member, and a newer one the hybrid keys that came after them."""
RECORD = replace(CH.record, member=OWNER.id)


def test_one_record_in_several_envelopes_binds_one_node_by_the_strongest_of_them() -> None:
    weak = sign_node_record(RECORD, [OWNER.signer], CH.bound)
    strong = sign_node_record(RECORD, LATER.keys, CH.bound)
    for order in itertools.permutations((weak, strong, SG.entry)):
        bound, notes, _ = bind((OLD, NEW), *order)
        strengths = {each.record.name: (each.post_quantum, each.entry) for each in bound}
        assert (strengths, notes) == ({RECORD.name: (True, strong), SG.record.name: (True, SG.entry)}, ())
    for signers, bodies in (([OWNER.signer], (OLD,)), (LATER.keys, (NEW,))):
        first, again = (sign_node_record(RECORD, signers, CH.bound) for _ in range(2))
        bound, _, _ = bind(bodies, first, again)
        assert (first != again, [each.entry for each in bound]) == (True, [first])
    assert [each.post_quantum for each in bind((OLD, NEW), weak)[0]] == [False]


def test_a_record_is_as_strong_as_under_any_charter_that_binds_its_node() -> None:
    without, watching = (draft([each, SG.seat.member]) for each in (ES.seat.member, replace(HYBRID, status="observer")))
    signed = sign_node_record(RECORD, LATER.keys, CH.bound)
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


def test_the_writer_of_a_log_is_no_cosigner_of_it_wherever_it_is() -> None:
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
