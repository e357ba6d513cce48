"""What the rows about a publication, its logs and its keys name first, and which statement or proof shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from comity.trust.encoding import sha256, short
from comity.trust.evidence import InclusionEvidence, Row
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof
from support.case import Case, case, filled
from support.rotations import of
from support.verdict_rows import proven
from support.world import identity, node, seat

GOOD = case()
OWNER = identity("Swiss AI", "CH")
RULE = '[cosigners]\nat_least = 2\njurisdictions = 2\noutside = ["publisher"]\n'


def changed(change: Callable[[TlogProof], TlogProof]) -> InclusionEvidence:
    (proof,) = GOOD.proofs_of(GOOD.publication.line)
    return replace(proof, data=change(TlogProof.parse(proof.data)).encode())


def forged_but_for(count: int) -> Callable[[TlogProof], TlogProof]:
    """Damages the signatures behind so many lines: the first is that of the log, and each cosigner has two."""

    def change(proof: TlogProof) -> TlogProof:
        lines = proof.checkpoint.signatures
        forged = [replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1])) for line in lines]
        return replace(proof, checkpoint=SignedNote(proof.checkpoint.text, (*lines[:count], *forged[count:])))

    return change


def elsewhere(code: str) -> InclusionEvidence:
    log = filled(node(seat(code)))
    log.append(GOOD.publication.line)
    return log.proof(GOOD.publication.line)


def row(what: Case, name: str) -> Row:
    return what.verdict().row(name)


def test_cosigners_are_forged_only_where_none_is_left_and_else_too_few() -> None:
    none, one = (
        row(proven(changed(forged_but_for(1))), "cosigners"),
        row(proven(changed(forged_but_for(3))), "cosigners"),
    )
    assert (none.state, none.cause, len(none.facts)) == ("fail", "false", 3)
    assert none.summary == none.facts[0].text
    assert (one.state, one.cause, one.summary[:9]) == ("fail", "short", "1 counted")


def test_the_first_of_several_proofs_that_do_not_verify_is_named() -> None:
    line = sha256(GOOD.publication.line)
    broken = proven(InclusionEvidence(line, b"junk"), changed(lambda proof: replace(proof, index=1)))
    found = row(broken, "transparency")
    assert (found.state, found.cause, len({fact.text for fact in found.facts})) == ("fail", "false", 2)
    assert found.summary == found.facts[0].text


def test_the_first_of_several_logs_that_are_bound_to_no_member_is_named() -> None:
    found = row(proven(elsewhere("BR"), elsewhere("IN")), "transparency")
    assert (found.state, found.cause, len({fact.text for fact in found.facts})) == ("fail", "short", 2)
    assert found.summary == found.facts[0].text


def test_a_dispute_is_shown_by_the_first_of_its_two_rotations() -> None:
    lines = [of(OWNER).to(name)[1].line for name in ("Swiss AI second", "thief")]
    (said,) = (
        fact
        for fact in row(GOOD.saying(*lines), "disputes and advisories").facts
        if "two rotations of one state" in fact.text
    )
    assert said.evidence is not None and said.evidence in map(sha256, lines)
    assert f"one state, {short(said.evidence)} and " in said.text
