"""A publisher states again what it published: the newest statement about the same bytes counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from comity.rules.signing import sign_content
from comity.trust.evidence import EvidenceReader, Verdict
from comity.trust.home_logs import HomePosition
from comity.trust.statements import Parent
from comity.trust.tlog.note import log_verifier_key
from comity.trust.verify import choose_publication, counted_publication, verify
from support.case import Case, case, filled, nodes, release
from support.world import Identity, Log, found, identity, node

CH, SG, ES, KR = nodes(4)
GOOD = case()
OWNER = identity("Swiss AI", "CH")
BASE = Parent("finetune", "swiss-ai/base@v1", None)


def stated(*statements: tuple[str, str, bool], home: bool = True, by: Identity = OWNER) -> Case:
    """GOOD where `by` stated these names and licences in this order, with enough cosigners or with one."""
    log = filled(CH if home else SG)
    entries = []
    for name, spdx, _ in statements:
        lineage = (BASE,) if spdx == "MIT" else ()
        entries.append(release(name=name, spdx=spdx, by=by, lineage=lineage)[1])
        log.append(entries[-1].line)
    witnesses = [node for node in (CH, SG, ES, KR) if node.origin != log.origin]
    proofs = [
        log.proof(entry.line, witnesses if cosigned else witnesses[:1])
        for entry, (_, _, cosigned) in zip(entries, statements, strict=True)
    ]
    kept = [line for line in GOOD.claims if line != GOOD.publication.line]
    return replace(GOOD, claims=(*kept, *(entry.line for entry in entries)), proofs=tuple(proofs))


def licence(verdict: Verdict) -> str:
    return verdict.row("licence").summary.split()[0].rstrip(",")


V1, V2 = "swiss-ai/tiny@v1", "swiss-ai/tiny@v2"


@pytest.mark.parametrize("order", [("Apache2", "Apache-2.0"), ("Apache-2.0", "Apache2"), ("MIT", "Apache-2.0", "ISC")])
def test_the_last_statement_in_the_home_log_counts(order: tuple[str, ...]) -> None:
    assert licence(stated(*((V1, spdx, True) for spdx in order)).verdict()) == order[-1]


def test_a_log_of_another_member_under_the_origin_of_the_home_log_orders_nothing() -> None:
    told = stated((V1, "MIT", True), (V1, "Apache-2.0", True))
    other = node(SG.seat, "second")
    record = replace(other.record, log=log_verifier_key(CH.origin, other.log.public))
    log = Log(CH.origin, other.log)
    log.append(told.claims[-1])
    told = told.saying(sign_content(record, SG.seat.signer, *other.bound).line)
    told = replace(told, proofs=(*told.proofs, log.proof(told.claims[-2], (ES, KR))))
    assert licence(told.verdict()) == "Apache-2.0"


def test_the_order_of_the_evidence_does_not_matter() -> None:
    told = stated((V1, "Apache2", True), (V1, "Apache-2.0", True))
    first = told.verdict()
    for claims in permutations(told.claims[-2:]):
        for proofs in permutations(told.proofs):
            again = replace(told, claims=(*told.claims[:-2], *claims), proofs=proofs)
            assert again.verdict() == first


def test_the_older_statement_stays_among_the_facts() -> None:
    facts = [fact.text for fact in stated((V1, "Apache2", True), (V1, "MIT", True)).verdict().row("signatures").facts]
    older = f"{V1}, licence Apache2, no parent, entry 5 of node-ch.example/log"
    assert facts[1:] == [f"an older statement of its publisher, replaced: {older}"]


def test_another_statement_is_shown_with_its_parents_and_without_an_entry_if_no_proof_is_here() -> None:
    told = stated((V1, "MIT", True), (V1, "Apache-2.0", True))
    (_, other) = told.verdict().row("signatures").facts
    shown = f"{V1}, licence MIT, finetune of swiss-ai/base@v1"
    assert other.text.endswith(f": {shown}, entry 5 of node-ch.example/log")
    (_, other) = replace(told, proofs=told.proofs[1:]).verdict().row("signatures").facts
    assert other.text.endswith(f": {shown}")


def test_a_lineage_that_was_added_later_counts() -> None:
    assert stated((V1, "Apache-2.0", True)).verdict().row("lineage").summary == "the publisher names no parent"
    added = stated((V1, "Apache-2.0", True), (V1, "MIT", True)).verdict().row("lineage")
    assert "swiss-ai/base@v1 is named without a digest" in added.summary


def test_a_correction_that_too_few_cosigned_waits() -> None:
    verdict = stated((V1, "Apache-2.0", True), (V1, "MIT", False)).verdict()
    assert (verdict.exit_status, licence(verdict)) == (0, "Apache-2.0")
    assert any("newer statement of its publisher passes fewer steps" in f.text for f in verdict.row("signatures").facts)


def test_without_the_home_log_the_names_of_the_versions_decide() -> None:
    for order in ((V1, "MIT", True), (V2, "Apache-2.0", True)), ((V2, "Apache-2.0", True), (V1, "MIT", True)):
        assert licence(stated(*order, home=False).verdict()) == "Apache-2.0"
    newest = stated((V2, "MIT", True), (V1, "Apache-2.0", True)).verdict()
    assert newest.name == V1, "in the home log the order of the log decides"


def test_another_publisher_corrects_nothing() -> None:
    rival = identity("Rival", "SG")
    _, other, _, _ = release(spdx="MIT", by=rival)
    log = filled(CH)
    log.append(GOOD.publication.line)
    log.append(other.line)
    told = GOOD.saying(rival.entry.line, other.line)
    told = replace(told, proofs=tuple(log.proof(line, [SG, ES, KR]) for line in (GOOD.publication.line, other.line)))
    assert licence(told.verdict()) == "Apache-2.0"
    free = told.demanding(f'accept = ["{OWNER.id}"]', "accept = []")
    assert verify(free.evidence, free.policy).name == "swiss-ai/tiny@v1"
    assert "older statement" not in str(told.verdict().row("signatures").facts)


def test_a_line_that_is_in_the_log_twice_is_as_old_as_its_first_entry() -> None:
    log = filled(CH)
    first, second = release(spdx="MIT")[1], release(spdx="Apache-2.0")[1]
    for line in (first.line, second.line, first.line):
        log.append(line)
    kept = [line for line in GOOD.claims if line != GOOD.publication.line]
    told = replace(GOOD, claims=(*kept, first.line, second.line))
    told = replace(told, proofs=tuple(log.proof(line, [SG, ES, KR]) for line in (first.line, second.line)))
    assert licence(told.verdict()) == "Apache-2.0"


def by_both(name: str, more: int) -> Case:
    """GOOD where two publishers published, the second one under `name`; one of them has one more cosigner."""
    other, log = identity("Rival", "SG"), filled(CH)
    entries = [release(spdx="MIT")[1], release(by=other, name=name, spdx="ISC")[1]]
    for entry in entries:
        log.append(entry.line)
    kept = [line for line in GOOD.claims if line != GOOD.publication.line]
    proofs = [log.proof(entry.line, [SG, ES, KR] if at == more else [ES, KR]) for at, entry in enumerate(entries)]
    claims = (*kept, other.entry.line, *(entry.line for entry in entries))
    return replace(GOOD.demanding(f'accept = ["{OWNER.id}"]', "accept = []"), claims=claims, proofs=tuple(proofs))


def test_of_two_unnamed_publishers_the_one_with_more_cosigners_counts() -> None:
    for more, spdx in enumerate(("MIT", "ISC")):
        assert licence(replace(by_both(V1, more), federation=found(nodes())).verdict()) == spdx


def test_of_two_unnamed_publishers_the_one_whose_name_was_resolved_counts() -> None:
    for more in range(2):
        told = replace(by_both("rival/tiny@v1", more), federation=found(nodes()))
        for publisher, name, spdx in ((OWNER, V1, "MIT"), (identity("Rival", "SG"), "rival/tiny@v1", "ISC")):
            verdict = verify(told.evidence, told.policy, publisher=publisher.id)
            assert (verdict.name, licence(verdict)) == (name, spdx)
            counted = counted_publication(told.evidence, told.policy, EvidenceReader(), publisher.id)
            assert counted is not None and counted.publisher.id == publisher.id


def test_a_resolved_name_does_not_make_up_for_a_step_that_its_publisher_does_not_pass() -> None:
    told = replace(by_both("rival/tiny@v1", 0), federation=found(nodes()))
    unlogged = replace(told, proofs=told.proofs[1:])
    assert verify(unlogged.evidence, unlogged.policy, publisher=OWNER.id).name == "rival/tiny@v1"


def test_a_publisher_that_the_charter_names_counts_before_an_unnamed_one() -> None:
    for more in range(2):
        assert licence(by_both("rival/tiny@v1", more).verdict()) == "MIT"


def test_a_statement_is_as_old_as_the_lowest_of_its_proven_entries_in_the_home_log() -> None:
    evaluation = choose_publication(GOOD.evidence, GOOD.policy, EvidenceReader())
    assert evaluation is not None
    (seen,) = evaluation.witnessed
    at = [replace(seen, index=index) for index in (7, 3, 9)] + [replace(seen, index=1, log=str(SG.record.log))]
    assert replace(evaluation, witnessed=tuple(at)).home_position == HomePosition(0, 3)
    assert replace(evaluation, witnessed=tuple(at[3:])).home_position is None
