"""The collector of evidence: which subjects are asked about, in which order, and what is left at a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from comity.rules import collector as collecting
from comity.rules.collector import Collector, Question
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.policy import Policy
from comity.trust.statement import Entry, parse_entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Parent
from comity.trust.verify import verify
from support.approvals import ANNA, asking
from support.case import case, release
from support.derivations import derived_line
from support.observations import observation
from support.rotations import of
from support.world import identity, node, seat

GOOD = case()
OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")
NAME = Question("name", "swiss-ai/tiny", "v1")
Answer = Callable[[Question], Iterable[bytes]]


def entries(lines: Iterable[bytes]) -> list[Entry]:
    return [parse_entry(line) for line in lines]


def answered(collector: Collector, answer: Answer) -> list[Question]:
    """Answer until nothing is asked. Returns all questions in their order."""
    asked: list[Question] = []
    while questions := collector.questions():
        asked += questions
        for question in questions:
            collector.answered(question, entries(answer(question)))
    return asked


def about(artifact: Digest, *lines: bytes) -> Answer:
    return lambda question: lines if question == Question("artifact", artifact) else ()


def stolen() -> bytes:
    lost = Compromise(OWNER.signer.public.id, OWNER.inception.home, 0)
    said = Advisory(OWNER.inception.author, OWNER.id, KEY_COMPROMISE, "critical", "the laptop is gone", lost)
    return sign_content(said, OWNER.signer).line


def test_the_keys_of_the_publisher_and_the_rivals_of_its_names_are_asked_for() -> None:
    collector = Collector(GOOD.artifact, Policy())
    asked = answered(collector, about(GOOD.artifact, *GOOD.claims))
    assert asked == [Question("artifact", GOOD.artifact), Question("identity", OWNER.id), NAME]
    assert collector.questions() == () and collector.asked == tuple(asked)
    assert not collector.bounds


def test_what_an_identity_says_about_its_keys_is_kept_and_nothing_that_others_say_about_it() -> None:
    notice, rotated = stolen(), of(OWNER).to("new keys")[1].line
    strange = sign_content(Advisory(RIVAL.inception.author, OWNER.id, "malware", "high", ""), RIVAL.signer).line
    own = sign_content(Advisory(OWNER.inception.author, GOOD.artifact, "yank", "info", ""), OWNER.signer).line

    def answer(question: Question) -> Iterable[bytes]:
        if question.kind == "identity":
            return (OWNER.entry.line, rotated, notice, RIVAL.entry.line, strange, own)
        return GOOD.claims if question.kind == "artifact" else ()

    collector = Collector(GOOD.artifact, Policy())
    answered(collector, answer)
    assert set(collector.lines) == {*GOOD.claims, rotated, notice}


def test_the_keys_of_the_publisher_of_the_name_are_asked_for_and_not_those_of_others_who_published_the_bytes() -> None:
    """Anybody may publish the same bytes, and each question costs. Without a publisher, everybody's keys count."""
    copied = release(by=RIVAL, name="rival/copied@v1")[1].line
    collector = Collector(GOOD.artifact, Policy(), publisher=OWNER.id)
    asked = answered(collector, about(GOOD.artifact, RIVAL.entry.line, copied, *GOOD.claims))
    identities = [question.digest for question in asked if question.kind == "identity"]
    assert identities == [OWNER.id]
    anybody = answered(Collector(GOOD.artifact, Policy()), about(GOOD.artifact, RIVAL.entry.line, copied, *GOOD.claims))
    assert {question.digest for question in anybody if question.kind == "identity"} == {OWNER.id, RIVAL.id}
    assert [question for question in asked if question.kind == "name"] == [NAME]


def test_the_oldest_claim_of_each_rival_is_kept_with_its_keys() -> None:
    other = release({"other": b"bytes"}, by=RIVAL)[1].line
    later = release({"later": b"bytes"}, by=RIVAL, name="swiss-ai/tiny@v2")[1].line
    own = release({"own": b"bytes"}, by=OWNER)[1].line

    def answer(question: Question) -> Iterable[bytes]:
        if question == NAME:
            return (OWNER.entry.line, GOOD.publication.line, own, RIVAL.entry.line, other, later)
        return GOOD.claims if question.kind == "artifact" else ()

    collector = Collector(GOOD.artifact, Policy(), publisher=OWNER.id)
    answered(collector, answer)
    assert set(collector.lines) == {*GOOD.claims, own, RIVAL.entry.line, other}


def test_other_bytes_of_an_upstream_commit_are_asked_for() -> None:
    seen = observation(node(seat("CH")), GOOD.artifact)
    commit = seen.statement.subjects[0].name
    collector = Collector(GOOD.artifact, Policy())
    asked = answered(collector, about(GOOD.artifact, seen.line))
    repository, _, version = commit.partition("@")
    assert asked[1:] == [Question("commit", repository, version)]


def test_ancestors_and_the_keys_of_their_publishers_are_asked_for() -> None:
    base = release({"base": b"weights"}, by=RIVAL, name="rival/base@v1")[1]
    child = case(lineage=(Parent("finetune", "rival/base@v1", base.statement.subject),))
    notice = stolen()

    def answer(question: Question) -> Iterable[bytes]:
        if question == Question("ancestor", base.statement.subject):
            return (RIVAL.entry.line, base.line, notice)
        return child.claims if question.kind == "artifact" else ()

    collector = Collector(child.artifact, Policy())
    asked = answered(collector, answer)
    assert Question("identity", RIVAL.id) in asked
    assert base.line in collector.lines and notice not in collector.lines


def endless(question: Question) -> Iterable[bytes]:
    """Each artifact is derived from two others."""
    if question.kind not in ("artifact", "ancestor"):
        return ()
    parents = (sha256(f"{question.subject}{number}".encode()) for number in range(2))
    return [
        identity("Checking lab", "ES").entry.line,
        *(derived_line(question.digest, parent) for parent in parents),
    ]


def test_an_endless_lineage_is_followed_to_a_bound_nearest_first_and_the_bound_is_told() -> None:
    child = sha256(b"child")
    collector = Collector(child, Policy())
    asked = [question.digest for question in answered(collector, endless) if question.kind == "ancestor"]
    assert asked[:2] == [sha256(f"{child}{number}".encode()) for number in range(2)]
    assert len(asked) == len(set(asked)) == collecting.MAX_ANCESTORS
    assert list(collector.bounds) == [f"ancestors that were asked about: more than {collecting.MAX_ANCESTORS}"]


def test_no_further_ancestors_are_asked_about_once_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MAX_ANCESTOR_BYTES", 1)
    collector = Collector(sha256(b"child"), Policy())
    asked = [question for question in answered(collector, endless) if question.kind == "ancestor"]
    assert len(asked) <= 4
    assert any("bytes" in text for text in collector.bounds)


def test_lines_about_ancestors_come_last_and_those_about_keys_are_never_displaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notice = stolen()

    def answer(question: Question) -> Iterable[bytes]:
        return {"artifact": GOOD.claims, "identity": (notice,)}.get(question.kind, ())

    monkeypatch.setattr(collecting, "MAX_CLAIMS", 3)
    collector = Collector(GOOD.artifact, Policy())
    answered(collector, answer)
    assert collector.lines == (notice, *GOOD.claims[:2])
    assert list(collector.bounds) == [f"{len(GOOD.claims) - 2} proven statements exceed the limit of a verifier"]
    monkeypatch.setattr(collecting, "MAX_CLAIMS", 10_000)
    monkeypatch.setattr(collecting, "MAX_READ", len(notice) + 1)
    assert collector.lines == (notice,)


def test_more_than_an_answer_has_is_unknown_in_the_verdict() -> None:
    collector = Collector(GOOD.artifact, Policy())
    (question,) = collector.questions()
    collector.answered(question, entries(GOOD.claims), more=True)
    unread = tuple(collector.bounds)
    assert unread == (f"more was said about the artifact {GOOD.artifact[:12]} than was read",)
    row = verify(replace(GOOD.evidence, unread=unread), GOOD.policy).row("notes")
    assert (row.state, row.cause) == ("unknown", "missing")
    assert row.summary.startswith("not read: more was said")


def test_lines_that_came_another_way_are_followed_too() -> None:
    collector = Collector(GOOD.artifact, Policy())
    answered(collector, about(GOOD.artifact, OWNER.entry.line))
    collector.carried(entries(GOOD.claims))
    assert answered(collector, lambda question: ()) == [Question("identity", OWNER.id), NAME]
    assert set(collector.lines) == {*GOOD.claims}


def test_what_officers_say_is_asked_for_by_a_subject_of_their_own() -> None:
    policy = asking().policy
    asked = Collector(GOOD.artifact, policy).questions()
    assert {question.officer for question in asked if question.kind == "approvals"} == set(
        policy.approvals.officers.values()
    )
    assert Question("identity", ANNA.id) in asked
