"""Invariants I4 and I5, and the rules of who counts: properties of `verify` over evidence that anyone may
have changed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
from comity.rules.signing import sign_content
from comity.trust.charter.document import Body
from comity.trust.evidence import Evidence, EvidenceReader, InclusionEvidence, Verdict
from comity.trust.identity import InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.policy import CosignerRule, Policy, UpstreamRule
from comity.trust.report import VerdictReport, summarise_report
from comity.trust.statement import parse_entry, sign_statement
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Licence, Parent, Vouched
from comity.trust.tlog.proof import TlogProof
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import advisory, case, filled, nodes, release
from support.derivations import derived_line
from support.examples import examples
from support.observations import observation
from support.world import NOW, Log, Node, found, identity, node, seat, succeeded

T = TypeVar("T")
KEPT = ("artifact", "bytes", "signatures", "transparency", "cosigners")
CH, SG, ES, KR = nodes(4)
SWISS_AI = identity("Swiss AI", "CH")
GOOD = case()
SAID = GOOD.publication
HEIR = node(seat("BR"))
FIRST = GOOD.federation.body
SECOND = succeeded(FIRST, SG=HEIR.seat)
STRANGERS = [node(seat("IN")), node(SG.seat, "second.example"), node(CH.seat, "third.example"), HEIR]


COPYCAT, RIVAL = identity("Copycat", "SG"), identity("Rival", "CH")
COPIED = release(by=COPYCAT, name="copycat/tiny@v1")[1]
ABOVE = release(
    {"other": b"bytes"},
    by=COPYCAT,
    name="copycat/base@v1",
    lineage=(Parent("finetune", "swiss-ai/tiny@v1", GOOD.artifact),),
)[1]
COPIED_PARENT = ABOVE.statement.subject
RECORDS = [each.entry.line for each in (CH, SG, ES, KR)]


def logged(writer: Node, *lines: bytes, after: int = 5) -> Log:
    """The log of `writer` with `lines` in it, after some others."""
    log = filled(writer, after)
    for line in lines:
        log.append(line)
    return log


@functools.cache
def of_others() -> tuple[bytes, ...]:
    """Statements that strangers, members and rivals could add: the same lines as claims and in proofs. A hybrid
    signature is different each time.
    """
    return tuple(said_by_others())


def said_by_others() -> Iterator[bytes]:
    yield from (COPYCAT.entry.line, COPIED.line, RIVAL.entry.line)
    yield release(by=RIVAL, name="Swiss-AI/tiny@v2")[1].line
    published = release()[0]
    yield sign_content(published, RIVAL.signer).line  # in the publisher's name, by another key
    yield sign_content(replace(published, licence=Licence("MIT")), SWISS_AI.signer).line  # not logged anywhere
    yield from advisory(GOOD)
    yield from advisory(GOOD, by=RIVAL, kind="yank")
    for checker in (RIVAL, COPYCAT, SG.seat):
        yield sign_content(
            summarise_report(VerdictReport.of(GOOD.verdict(), "1.0"), checker.id, NOW), checker.signer
        ).line
    for deriver in (RIVAL, COPYCAT, identity("Nobody")):
        yield derived_line(GOOD.artifact, COPIED_PARENT, by=deriver)
        yield derived_line(GOOD.artifact, by=deriver, exact=False)
    yield ABOVE.line  # a parent's publication, which names the artifact as its own parent
    for person in (RIVAL, SWISS_AI, SG.seat):
        author = person.inception.author
        yield sign_content(Vouched(author, GOOD.artifact, "rehashed"), person.signer).line
        lost = Compromise(SWISS_AI.signer.public.id, SWISS_AI.inception.home, 0)
        notice = Advisory(author, SWISS_AI.id, KEY_COMPROMISE, "critical", "the laptop is gone", lost)
        yield sign_content(notice, person.signer).line
    for mirror in (CH, SG, STRANGERS[0]):
        yield observation(mirror, GOOD.artifact).line
        yield observation(mirror, COPIED_PARENT).line
    yield from found(nodes(3)).certificates[0]
    for stranger in STRANGERS:
        yield stranger.entry.line
    yield sign_statement(CH.entry.statement, SG.seat.signer, *CH.bound).line
    yield sign_statement(replace(SG.entry.statement, body={}), SG.seat.signer).line
    yield sign_statement(parse_entry(GOOD.claims[-1]).statement, SG.online).line
    yield sign_statement(replace(SAID.statement, predicate="from-the-future", objects=()), SWISS_AI.signer).line


def other_proofs() -> Iterator[InclusionEvidence]:
    """Valid proofs that show less, more, or something else, and invalid proofs."""
    good, line = TlogProof.parse(GOOD.proofs[-1].data), GOOD.proofs[-1].line
    yield InclusionEvidence(line, b"junk")
    yield InclusionEvidence(line, replace(good, index=good.index + 1).encode())
    yield InclusionEvidence(line, replace(good, hashes=good.hashes[::-1]).encode())
    yield InclusionEvidence(line, GOOD.proofs[0].data)
    yield InclusionEvidence(GOOD.proofs[0].line, GOOD.proofs[-1].data)
    for after, writer in enumerate((CH, SG, *STRANGERS)):
        for cosigners in ((), (SG,), (SG, STRANGERS[1]), (HEIR, SG), (ES, KR), (CH, SG, ES, KR)):
            yield logged(writer, SAID.line, after=3 + after).proof(SAID.line, cosigners, NOW - 100)
    for forged in of_others():
        yield logged(CH, forged).proof(forged, (SG, ES, KR))


JUNK = [b"", b"junk", b"{}", b"\xff", SAID.line + b" ", SAID.line[:-1], b"[" * 70_000]


@functools.cache
def all_claims() -> list[bytes]:
    return [*GOOD.claims, *of_others(), *JUNK]


@functools.cache
def all_proofs() -> list[InclusionEvidence]:
    return [*GOOD.proofs, *other_proofs()]


BASES: list[tuple[list[bytes], list[InclusionEvidence]]] = [
    (list(GOOD.claims), list(GOOD.proofs)),
    ([SWISS_AI.entry.line, SAID.line, *RECORDS], [GOOD.proofs[-1]]),
    ([COPYCAT.entry.line, COPIED.line, *RECORDS], [logged(CH, COPIED.line).proof(COPIED.line, (SG, ES, KR))]),
    ([SWISS_AI.entry.line, SAID.line, *RECORDS], [logged(SG, SAID.line, after=0).proof(SAID.line, (ES, KR))]),
    ([SWISS_AI.entry.line, SAID.line, *RECORDS, HEIR.entry.line], [logged(CH, SAID.line).proof(SAID.line, (HEIR, ES))]),
    ([SWISS_AI.entry.line, SAID.line], []),
    ([], []),
]
BASE = GOOD.policy
POLICIES = [
    BASE,
    replace(BASE, publishers=frozenset()),
    replace(BASE, publishers=frozenset(), pins=(found(nodes()).body,)),
    replace(BASE, pins=(FIRST, SECOND)),
    replace(BASE, pins=(SECOND, FIRST), cosigners=CosignerRule(2, 2, ())),
    replace(BASE, cosigners=CosignerRule(3, 3)),
    replace(BASE, cosigners=CosignerRule(2, 2, ("publisher",), post_quantum=True)),
    replace(BASE, cosigners=CosignerRule(1, 1, ("SG",))),
    replace(BASE, pins=()),
    replace(BASE, publishers=frozenset(), upstream=UpstreamRule(2)),
    replace(BASE, publishers=frozenset(), bindings={"swiss-ai": SWISS_AI.id}, upstream=UpstreamRule(1)),
]


CORE = [SWISS_AI.entry.line, SAID.line, COPYCAT.entry.line, COPIED.line, *RECORDS]
CORE_PROOFS = [GOOD.proofs[-1], BASES[2][1][0]]


def some(core: list[T], pool: list[T]) -> st.SearchStrategy[list[T]]:
    """A few of the lines that decide, and few or many of all."""
    few = st.lists(st.sampled_from(pool), max_size=3)
    return st.tuples(st.lists(st.sampled_from(core), max_size=10), few | st.lists(st.sampled_from(pool))).map(
        lambda drawn: [*drawn[0], *drawn[1]]
    )


def passed(evidence: Evidence, policy: Policy) -> set[str]:
    verdict = verify(evidence, policy)
    return {name for name in KEPT if verdict.row(name).state == "pass"}


@functools.cache
def evidence_of(base: int) -> Evidence:
    claims, proofs = BASES[base]
    return replace(GOOD.evidence, claims=tuple(claims), proofs=tuple(proofs))


@functools.cache
def passed_alone(base: int) -> list[set[str]]:
    """The rows that a base passes under each policy; every example needs them."""
    return [passed(evidence_of(base), policy) for policy in POLICIES]


@given(base=st.sampled_from(range(len(BASES))), more=st.data())
@settings(max_examples=examples(80))
def test_more_evidence_never_worsens_a_verdict(base: int, more: st.DataObject) -> None:
    claims, proofs = BASES[base]
    enriched = replace(
        evidence_of(base),
        claims=tuple(more.draw(st.permutations(claims + more.draw(some(CORE, all_claims()))))),
        proofs=tuple(more.draw(st.permutations(proofs + more.draw(some(CORE_PROOFS, all_proofs()))))),
        partial=more.draw(st.booleans()),
    )
    for policy, alone in zip(POLICIES, passed_alone(base), strict=True):
        assert alone <= passed(enriched, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_two_bodies_of_evidence_together_pass_the_rows_that_either_passed(policy: Policy) -> None:
    everything = [replace(GOOD.evidence, claims=tuple(claims), proofs=tuple(proofs)) for claims, proofs in BASES]
    alone = [passed(evidence, policy) for evidence in everything]
    for (one, first), (two, second) in itertools.product(zip(everything, alone, strict=True), repeat=2):
        assert (
            passed(replace(one, claims=one.claims + two.claims, proofs=one.proofs + two.proofs), policy)
            >= first | second
        )


def test_the_whole_pool_together_is_accepted() -> None:
    enriched = replace(GOOD.evidence, claims=tuple(all_claims()[::-1]), proofs=tuple(all_proofs()[::-1]))
    assert passed(enriched, BASE) == set(KEPT)


OTHER_KEYS = [
    *(each.seat.signer for each in (CH, SG, ES, KR)),
    *(each.online for each in (CH, SG, ES, KR)),
    HybridSigner((CH.log,)),
    RIVAL.signer,
    HybridSigner(SWISS_AI.signer.keys[:1]),  # one half is broken or stolen
]


@given(st.lists(st.sampled_from(OTHER_KEYS), min_size=1, max_size=7, unique=True), st.booleans(), st.booleans())
@settings(max_examples=examples(60))
def test_all_others_together_cannot_publish_for_a_publisher(
    keys: list[HybridSigner], record_too: bool, real_record: bool
) -> None:
    published = release(name="swiss-ai/tiny@v9")[0]
    line = sign_content(published, *keys).line
    whole = [key for key in keys if len(key.keys) == 2]
    claims = [line, *(each.entry.line for each in (CH, SG, ES, KR))]
    if record_too and whole:
        claims.append(record_in_anothers_name(whole))
    if real_record:
        claims.append(SWISS_AI.entry.line)
    proof = logged(CH, line).proof(line, (SG, ES, KR))
    for policy in POLICIES:
        verdict = verify(replace(GOOD.evidence, claims=tuple(claims), proofs=(proof,)), policy)
        assert verdict.row("signatures").state != "pass"
        assert verdict.exit_status in (3, 5) or not policy.pins or policy.upstream.corroborated


def record_in_anothers_name(keys: list[HybridSigner]) -> bytes:
    """An inception like the publisher's, with other keys, that claims to be the publisher's."""
    forged = replace(SWISS_AI.inception, keys=KeySet((keys[0].public,), 1))
    statement = replace(sign_content(InceptionStatement(forged), keys[0]).statement, by=SWISS_AI.inception.author)
    return sign_statement(replace(statement, subjects=SWISS_AI.entry.statement.subjects), keys[0]).line


SEATS = {CH: "CH", SG: "SG", ES: "ES", KR: "KR", HEIR: "SG", STRANGERS[0]: "", STRANGERS[1]: "SG", STRANGERS[2]: "CH"}


@given(st.lists(st.sampled_from(list(SEATS)), unique=True, max_size=len(SEATS)), st.permutations([FIRST, SECOND]))
@settings(max_examples=examples(60))
def test_members_with_several_nodes_and_successors_count_once(cosigners: list[Node], pins: list[Body]) -> None:
    claims = (SWISS_AI.entry.line, SAID.line, CH.entry.line, *(each.entry.line for each in cosigners))
    proof = logged(CH, SAID.line).proof(SAID.line, cosigners)
    policy = replace(BASE, pins=tuple(pins), cosigners=CosignerRule(0, 0, ()))
    verdict = verify(replace(GOOD.evidence, claims=claims, proofs=(proof,)), policy)
    members = {SEATS[each] for each in cosigners} - {"", "CH"}
    assert len(verdict.row("cosigners").facts) == len(members)
    for at_least in range(5):
        asked = replace(policy, cosigners=CosignerRule(at_least, at_least, ()))
        state = verify(replace(GOOD.evidence, claims=claims, proofs=(proof,)), asked).row("cosigners").state
        assert (state == "pass") == (len(members) >= at_least)


@functools.cache
def straight_verdicts() -> list[Verdict]:
    straight = replace(GOOD.evidence, claims=tuple(all_claims()), proofs=tuple(all_proofs()))
    return [verify(straight, policy) for policy in POLICIES[:3]]


@given(
    claims=st.deferred(lambda: st.permutations(all_claims())),
    proofs=st.deferred(lambda: st.permutations(all_proofs())),
    again=st.integers(0, 5),
)
@settings(max_examples=examples(15))
def test_the_order_of_evidence_changes_nothing(
    claims: list[bytes], proofs: list[InclusionEvidence], again: int
) -> None:
    shuffled = replace(GOOD.evidence, claims=(*claims, *claims[:again]), proofs=(*proofs, *proofs[:again]))
    for policy, straight in zip(POLICIES[:3], straight_verdicts(), strict=True):
        assert verify(shuffled, policy) == straight


READERS = [EvidenceReader(), EvidenceReader(50_000)]
"""Readers that keep the documents of all examples, and readers that forget most of them."""


def changed(data: bytes, at: int, by: int) -> bytes:
    """`data` with one byte changed, for example in a signature, a key, a size or a digest."""
    place = at % len(data)
    return data[:place] + bytes([data[place] ^ by]) + data[place + 1 :]


FORGERIES = st.tuples(st.integers(0, 1000), st.integers(0, 100_000), st.sampled_from([1, 2, 4, 8]))


@given(
    claims=st.deferred(lambda: some(CORE, all_claims())),
    proofs=st.deferred(lambda: some(CORE_PROOFS, all_proofs())),
    lines=st.lists(FORGERIES, max_size=4),
    notes=st.lists(FORGERIES, max_size=4),
)
@settings(max_examples=examples(60))
def test_documents_that_a_session_read_before_change_no_verdict(
    claims: list[bytes],
    proofs: list[InclusionEvidence],
    lines: list[tuple[int, int, int]],
    notes: list[tuple[int, int, int]],
) -> None:
    claims = [*claims, *(changed(CORE[each % len(CORE)], at, by) for each, at, by in lines)]
    forged = (
        replace(CORE_PROOFS[each % 2], data=changed(CORE_PROOFS[each % 2].data, at, by)) for each, at, by in notes
    )
    evidence = replace(GOOD.evidence, claims=tuple(claims), proofs=(*proofs, *forged))
    for policy in POLICIES[:4]:
        expected = verify(evidence, policy)
        for reader in READERS:
            assert verify(evidence, policy, reader=reader) == expected
