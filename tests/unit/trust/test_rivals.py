"""Several claimants of one name: a note where the owner decided whose it is, a dispute otherwise."""

from __future__ import annotations

from dataclasses import replace

from comity.rules.signing import sign_content
from comity.trust.evidence import Row
from support.case import FILES, Case, case, nodes, release
from support.world import Identity, found, identity

GOOD = case()
OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")
OTHER_FILES = {**FILES, "LICENSE": b"other"}


def claimed(by: Identity, name: str = "swiss-ai/tiny@v1", *, same_bytes: bool = False) -> bytes:
    return release(FILES if same_bytes else OTHER_FILES, by=by, name=name)[1].line


def unbound(what: Case) -> Case:
    free = what.demanding(f'accept = ["{OWNER.id}"]', "accept = []")
    return replace(free, federation=found(nodes()))


def disputes(what: Case) -> Row:
    return what.verdict().row("disputes and advisories")


def test_another_claimant_of_a_decided_name_is_shown_and_changes_no_row() -> None:
    row = disputes(GOOD.saying(RIVAL.entry.line, claimed(RIVAL)))
    assert row.state == disputes(GOOD).state == "unknown"
    (fact,) = row.facts
    assert fact.basis == "verified here"
    assert fact.text.startswith("Rival [") and "also claims swiss-ai/tiny@v1, for sha256:" in fact.text


def test_several_claimants_of_an_undecided_name_are_a_dispute() -> None:
    row = disputes(unbound(GOOD.saying(RIVAL.entry.line, claimed(RIVAL))))
    assert (row.state, row.cause) == ("fail", "short")


def test_a_name_in_other_letters_is_the_same_name() -> None:
    assert disputes(unbound(GOOD.saying(RIVAL.entry.line, claimed(RIVAL, "Swiss-AI/Tiny@v1")))).state == "fail"
    assert disputes(unbound(GOOD.saying(RIVAL.entry.line, claimed(RIVAL, "swiss-ai/tiny@v2")))).facts == ()


def test_a_publisher_that_gives_one_version_to_two_artifacts_is_in_dispute_with_itself() -> None:
    row = disputes(GOOD.saying(claimed(OWNER)))
    assert row.state == "fail"
    assert row.facts[0].text.startswith("its publisher also gave swiss-ai/tiny@v1 to other bytes")


def test_an_unsigned_claim_is_no_rival() -> None:
    assert disputes(GOOD.saying(claimed(RIVAL))).facts == ()
    forged = sign_content(release(OTHER_FILES, by=RIVAL)[0], OWNER.signer).line
    assert disputes(GOOD.saying(RIVAL.entry.line, forged)).facts == ()


def test_other_publishers_of_the_same_bytes_under_the_name_are_shown() -> None:
    assert len(disputes(GOOD.saying(RIVAL.entry.line, claimed(RIVAL, same_bytes=True))).facts) == 1


def test_one_claimant_is_shown_once() -> None:
    twice = GOOD.saying(RIVAL.entry.line, claimed(RIVAL), claimed(RIVAL))
    assert len(disputes(twice).facts) == 1
