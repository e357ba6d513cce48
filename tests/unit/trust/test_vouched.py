"""Statements of others about an artifact: read strictly, with a proven author, counted by members, shown as their
claim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.claims import KnownAuthor, in_turn
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import RowFact
from comity.trust.keys import Signer
from comity.trust.statement import SideObject, Statement, parse_entry, sign_statement
from comity.trust.statements import VOUCH_KINDS, Vouched
from comity.trust.verify import verify
from support.case import CARD, Case, case, nodes
from support.world import draft, identity, seat, succeeded

CH, SG, ES, KR = nodes(4)
GOOD = case()
LAB = identity("Evaluation lab", "ES")
RESULTS = SideObject.of(b"scores")
SAID = Vouched(LAB.inception.author, GOOD.artifact, "evaluated", "on our benchmark", RESULTS)
BODY = {"statement": "rehashed", "text": "", "document": None}


def vouches(what: Case) -> list[RowFact]:
    return [f for f in what.verdict().row("documents").facts if f.text.startswith(VOUCH_KINDS)]


@pytest.mark.parametrize("document", [None, RESULTS], ids=["alone", "with a document"])
@pytest.mark.parametrize("statement", VOUCH_KINDS)
def test_a_vouched_statement_reads_back(statement: str, document: SideObject | None) -> None:
    said = replace(SAID, kind=statement, document=document)
    entry = parse_entry(sign_content(said, LAB.signer).line)
    assert Vouched.parse(entry.statement) == said
    assert entry.statement.objects == ((document,) if document else ())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"predicate": "advisory"}, "not a vouched", id="another predicate"),
        pytest.param({"by": None}, "not a vouched", id="no author"),
        pytest.param({"body": {**BODY, "statement": "liked"}}, "must be one of", id="another statement"),
        pytest.param({"body": {"statement": "rehashed", "text": ""}}, "is missing", id="nothing about a document"),
        pytest.param({"body": {**BODY, "x": 1}}, "unknown member", id="an unknown member"),
        pytest.param({"body": {**BODY, "text": "x" * 4001}}, "0 to 4000 characters", id="a long text"),
        pytest.param({"body": {**BODY, "text": "\x1b[2J"}}, "control character", id="a control character"),
        pytest.param({"objects": (RESULTS,)}, "exactly its document", id="an object that is not its document"),
        pytest.param({"body": {**BODY, "document": RESULTS.to_json()}}, "exactly its document", id="no object"),
    ],
)
def test_an_invalid_vouched_statement_is_refused(change: dict[str, Any], why: str) -> None:
    made = sign_content(replace(SAID, kind="rehashed", text="", document=None), LAB.signer).statement
    assert made.body == BODY
    with pytest.raises(Malformed, match=why):
        Vouched.parse(replace(made, **change))


def test_a_vouch_that_nobody_could_read_is_not_signed() -> None:
    with pytest.raises(Malformed, match="must be one of"):
        sign_content(replace(SAID, kind="liked"), LAB.signer)


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 4000])
def test_the_text_of_a_vouch_may_have_lines(text: str) -> None:
    assert Vouched.parse(sign_content(replace(SAID, text=text), LAB.signer).statement).text == text


def test_a_vouched_statement_is_shown_as_its_signers_claim() -> None:
    said = GOOD.saying(LAB.entry.line, sign_content(SAID, LAB.signer).line)
    (fact,) = vouches(said)
    assert (fact.basis, fact.by[:14]) == ("claimed", "Evaluation lab")
    assert fact.text.startswith("evaluated: on our benchmark; document") and fact.text.endswith("missing")
    with_results = replace(said, objects={**said.objects, RESULTS.digest: b"scores"})
    assert vouches(with_results)[0].text.endswith(" present")
    assert said.verdict().exit_status == 0


def test_members_are_counted_once_with_seat_and_node() -> None:
    lines = [
        sign_content(Vouched(ES.record.node, GOOD.artifact, "rehashed"), ES.online).line,
        sign_content(Vouched(ES.seat.inception.author, GOOD.artifact, "rehashed"), ES.seat.signer).line,
        sign_content(Vouched(KR.record.node, GOOD.artifact, "rehashed"), KR.online).line,
        LAB.entry.line,
        sign_content(Vouched(LAB.inception.author, GOOD.artifact, "rehashed"), LAB.signer).line,
    ]
    said = GOOD.saying(*lines)
    assert [fact.by for fact in vouches(said)].count("Institute ES (ES)") == 1
    assert len(vouches(said)) == 4
    assert said.verdict().row("documents").summary == "present: card; rehashed, by 2 members"


def test_members_are_first_and_parties_take_turns() -> None:
    heir = KnownAuthor(sha256(b"heir"), "heir", replace(ES.seat.member, id=sha256(b"heir"), successor_of=ES.seat.id))
    seats = {each: KnownAuthor(each.seat.id, "a seat", each.seat.member) for each in (ES, KR)}
    by_node = KnownAuthor(sha256(b"its node"), "a node", ES.seat.member)
    one, two = (KnownAuthor(sha256(name), "a stranger") for name in (b"one", b"two"))
    said = [(one, "a"), (one, "b"), (seats[ES], "c"), (two, "d"), (by_node, "e"), (heir, "f"), (seats[KR], "g")]
    assert in_turn(said) == ["c", "g", "e", "f", "a", "d", "b"]
    assert in_turn(()) == []


def test_no_number_of_statements_moves_those_of_a_member_from_the_start() -> None:
    many = [sign_content(replace(SAID, text=str(number)), LAB.signer).line for number in range(9)]
    own = sign_content(Vouched(ES.record.node, GOOD.artifact, "rehashed"), ES.online).line
    for lines in ((*many, own), (own, *many)):
        assert vouches(GOOD.saying(LAB.entry.line, *lines))[0].by.startswith(ES.record.name)


def test_a_member_and_its_successor_are_counted_once_and_an_observer_not_at_all() -> None:
    heir, watcher = seat("IN"), seat("CA")
    pinned = succeeded(GOOD.federation.body, ES=heir)
    watched = replace(watcher.member, status="observer")
    later = draft([*GOOD.federation.body.members, watched])
    lines = [
        line
        for who in (ES.seat, heir, watcher)
        for line in (
            who.entry.line,
            sign_content(Vouched(who.inception.author, GOOD.artifact, "rehashed"), who.signer).line,
        )
    ]
    policy = replace(GOOD.policy, pins=(*GOOD.policy.pins, pinned, later))
    verdict = verify(GOOD.saying(*lines).evidence, policy)
    assert verdict.row("documents").summary == "present: card; rehashed, by 1 member"


@pytest.mark.parametrize("forger", [KR.online, KR.seat.signer, LAB.signer], ids=["node", "member", "publisher"])
def test_a_forged_vouched_statement_is_a_note_and_does_not_count(forger: Signer) -> None:
    forged = sign_content(Vouched(ES.record.node, GOOD.artifact, "rehashed"), forger)
    verdict = GOOD.saying(forged.line).verdict()
    assert "vouched" in verdict.row("notes").summary
    assert vouches(GOOD.saying(forged.line)) == []


def test_an_unreadable_vouched_statement_or_one_about_another_artifact_counts_for_nothing() -> None:
    odd = Statement("vouched", sign_content(SAID, LAB.signer).statement.subjects, LAB.inception.author, {})
    verdict = GOOD.saying(LAB.entry.line, sign_statement(odd, LAB.signer).line).verdict()
    assert "could not be read" in verdict.row("notes").summary
    elsewhere = replace(SAID, artifact=sha256(b"another"))
    assert vouches(GOOD.saying(LAB.entry.line, sign_content(elsewhere, LAB.signer).line)) == []


def test_a_member_of_another_federation_is_no_member_here() -> None:
    other = seat("IN")
    said = GOOD.saying(
        other.entry.line, sign_content(Vouched(other.inception.author, GOOD.artifact, "rehashed"), other.signer).line
    )
    assert len(vouches(said)) == 1
    assert said.verdict().row("documents").summary == "present: card"


def test_documents_are_shown_as_named_missing_or_here() -> None:
    facts = {fact.text: fact.basis for fact in GOOD.verdict().row("documents").facts}
    assert [basis for text, basis in facts.items() if text.startswith("card")] == ["claimed", "verified here"]
    assert facts["no evaluation is named"] == "stale or absent"
    absent = replace(GOOD, objects={}).verdict().row("documents")
    assert (absent.state, absent.cause, absent.summary) == ("unknown", "missing", "named but missing: card")
    wanted = GOOD.demanding('require = ["card"]', 'require = ["card", "training-summary"]').verdict().row("documents")
    assert (wanted.state, wanted.cause) == ("fail", "short")
    silent = GOOD.demanding('require = ["card"]', "require = []").verdict().row("documents")
    assert (silent.state, silent.summary) == ("not-checked", "the policy requires none; named by the publisher: card")


def test_a_document_that_is_a_file_of_the_artifact_is_here() -> None:
    good = case(files={"README.md": CARD, "model.bin": b"x"})
    assert replace(good, objects={}).verdict().row("documents").state == "pass"
