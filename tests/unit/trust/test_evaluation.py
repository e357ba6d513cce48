"""Several publications of the same bytes: which one is judged and shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.case import case, filled, nodes, release
from support.world import Identity, identity

CH, SG, ES, KR = nodes(4)
GOOD = case()
SWISS_AI = identity("Swiss AI", "CH")


def claimed_by(other: Identity, name: str) -> tuple[bytes, ...]:
    _, entry, _, _ = release(by=other, name=name)
    return other.entry.line, entry.line


def test_another_publishers_statement_about_the_same_bytes_hides_nothing() -> None:
    other = identity("Copycat", "SG")
    _, line = claimed_by(other, "copycat/tiny@v1")
    log = filled(CH)
    log.append(line)
    beside = replace(
        GOOD.saying(*claimed_by(other, "copycat/tiny@v1")), proofs=(log.proof(line, (SG, ES, KR)), *GOOD.proofs)
    )
    assert beside.verdict() == GOOD.verdict()


def test_a_publisher_that_the_charter_names_has_priority_over_an_unnamed_one() -> None:
    good = GOOD.demanding(f'accept = ["{SWISS_AI.id}"]', "accept = []")
    other = identity("Copycat", "BR")
    lines = claimed_by(other, "copycat/tiny@v1")
    log = filled(CH)
    log.append(lines[1])
    louder = replace(good, claims=(*lines, *good.claims), proofs=(*good.proofs, log.proof(lines[1], (SG, ES, KR))))
    assert louder.verdict().name == "swiss-ai/tiny@v1"
    assert louder.verdict().row("key policy").state == "pass"


def test_a_name_that_is_bound_to_another_publisher_is_not_shown() -> None:
    impostor = identity("Swiss AI", "CH", algs=("ed25519",))
    verdict = (
        replace(GOOD, claims=(*claimed_by(impostor, "Swiss-AI/tiny@v1"), *GOOD.claims[1:5]))
        .demanding(f'accept = ["{SWISS_AI.id}"]', "accept = []")
        .verdict()
    )
    assert verdict.row("signatures").state == "fail"
    assert (verdict.name, verdict.exit_status) == ("", 4)


def test_of_several_logs_the_one_with_the_best_cosigners_counts() -> None:
    log = filled(SG, 2)
    log.append(GOOD.publication.line)
    for cosigners in ((), (ES,)):
        proof = log.proof(GOOD.publication.line, cosigners)
        for proofs in ((proof, *GOOD.proofs), (*GOOD.proofs, proof)):
            verdict = replace(GOOD, proofs=proofs).verdict()
            for name in ("transparency", "cosigners", "time"):
                assert verdict.row(name) == GOOD.verdict().row(name)


@pytest.mark.parametrize("name", ["swiss-ai/tiny@v0", "swiss-ai/tiny@v2", "swiss-ai/a@v1", "swiss-ai/z@v1"])
@pytest.mark.parametrize("count", [None, 0, 1, 2])
def test_of_several_publications_one_with_enough_cosigners_counts_and_of_those_the_newest(
    name: str, count: int | None
) -> None:
    line = claimed_by(SWISS_AI, name)[1]
    log = filled(CH, 1)  # older than the good one
    log.append(line)
    proofs = () if count is None else (log.proof(line, (SG, ES)[:count]),)
    assert replace(GOOD.saying(line), proofs=(*proofs, *GOOD.proofs)).verdict().name == "swiss-ai/tiny@v1"
