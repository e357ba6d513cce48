"""Continuations: who corroborates one, what is followed, and what one member or a stranger cannot change."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from comity.rules.collected import CollectedEvidence
from comity.rules.collector import MAX_CONTINUED, Collector, Question
from comity.rules.continuation import (
    MAX_REPOSITORIES,
    ContinuedCommit,
    Continues,
    FollowRule,
    check_origin,
    continued_commits,
    continued_repositories,
    newest_statement,
    next_statement,
    stated_by,
    upstream_key,
)
from comity.rules.corrections import MAX_NUMBER
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import EvidenceReader
from comity.trust.key_validity import KeyCircumstances
from comity.trust.names import ORIGINS
from comity.trust.policy import Policy
from comity.trust.statement import Author, Entry, Subject
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from hypothesis import given as examples
from hypothesis import strategies as st
from support.case import nodes
from support.observations import COMMIT, NAME, observation
from support.rotations import of, seated
from support.world import Identity, draft, identity, seat

CH, SG, FR, IT = nodes(4)
ABROAD, STRANGER = identity("Second institute CH", "CH", kind="member"), identity("Stranger", "SG")
SEATS = [*(each.seat.member for each in (CH, SG, FR, IT)), ABROAD.member]
POLICY = Policy(pins=(draft(SEATS),))
ARTIFACT, OTHER = sha256(b"artifact"), sha256(b"other")
KEY = upstream_key("hf:org/tiny")
TWO, THREE = FollowRule(2), FollowRule(3)


def stated(by: Identity, artifact: Digest = ARTIFACT, number: int = 0, of: str = NAME, *, ended: bool = False) -> bytes:
    return sign_content(Continues(by.inception.author, artifact, of, number, ended), by.signer).line


def commits(*lines: bytes, policy: Policy = POLICY) -> dict[str, ContinuedCommit]:
    records = (each.entry.line for each in (CH, SG, FR, IT))
    inceptions = (STRANGER.entry.line, ABROAD.entry.line, *(each.seat.entry.line for each in (CH, SG, FR, IT)))
    claims = read_claims((*records, *inceptions, *lines), KEY)
    bound = claims.bound(policy.pins)
    return dict(continued_commits(KeyCircumstances(claims, (), bound, policy, {}, EvidenceReader())))


def members(*lines: bytes) -> dict[Digest, set[str]]:
    """By artifact, the jurisdictions of those that count for it."""
    found = commits(*lines)[NAME].members
    return {artifact: {each.jurisdiction for each in by} for artifact, by in found.items() if by}


def followed(*lines: bytes, rule: FollowRule = TWO) -> tuple[Digest, ...]:
    found = commits(*lines).get(NAME)
    return found.corroborated(rule) if found else ()


def test_two_members_of_two_jurisdictions_are_followed_and_one_is_not() -> None:
    assert followed(stated(CH.seat)) == ()
    assert followed(stated(CH.seat), stated(SG.seat)) == (ARTIFACT,)
    assert followed(stated(CH.seat), stated(SG.seat), rule=THREE) == ()
    assert followed(stated(CH.seat), stated(SG.seat), rule=FollowRule()) == (), "off by default"


def test_members_of_one_jurisdiction_do_not_decide() -> None:
    assert followed(stated(CH.seat), stated(ABROAD)) == ()
    assert followed(stated(CH.seat), stated(ABROAD), stated(FR.seat), rule=THREE) == (ARTIFACT,)


def test_a_member_counts_once_however_much_it_says() -> None:
    by_node = sign_content(Continues(CH.record.node, ARTIFACT, NAME, 0), CH.online).line
    said = stated(CH.seat), by_node, observation(CH, ARTIFACT).line
    assert members(*said) == {ARTIFACT: {"CH"}}
    assert followed(*said) == ()


def test_what_a_node_fetched_corroborates_and_what_it_was_given_does_not() -> None:
    assert followed(stated(CH.seat), observation(SG, ARTIFACT).line) == (ARTIFACT,)
    for how in ("cache", "carried"):
        assert followed(stated(CH.seat), observation(SG, ARTIFACT, how=how).line) == ()
    assert followed(stated(CH.seat), observation(SG, ARTIFACT, commit="2e" * 20).line) == ()


def test_observations_alone_are_no_continuation() -> None:
    assert commits(observation(CH, ARTIFACT).line, observation(SG, ARTIFACT).line) == {}


def test_strangers_and_observers_are_shown_and_count_nothing() -> None:
    strangers = [identity(f"Stranger {number}", "SG") for number in range(3)]
    lines = [line for each in strangers for line in (each.entry.line, stated(each, OTHER))]
    found = commits(*lines, stated(CH.seat))[NAME]
    assert found.corroborated(TWO) == () and len(found.said) == 4
    assert followed(*lines, stated(CH.seat), stated(SG.seat)) == (ARTIFACT,)
    watching = Policy(pins=(draft([CH.seat.member, replace(SG.seat.member, status="observer")]),))
    assert commits(stated(CH.seat), stated(SG.seat), policy=watching)[NAME].corroborated(TWO) == ()


def test_one_member_with_all_its_keys_neither_diverts_nor_blocks() -> None:
    own = [stated(FR.seat, OTHER), observation(FR, OTHER).line, stated(FR.seat, OTHER, 1)]
    own.append(sign_content(Continues(FR.record.node, OTHER, NAME, 0), FR.online).line)
    assert followed(*own) == ()
    assert followed(*own, stated(CH.seat), stated(SG.seat)) == (ARTIFACT,)


def test_a_member_that_names_two_artifacts_counts_for_neither() -> None:
    assert members(stated(CH.seat), observation(CH, OTHER).line, stated(SG.seat)) == {ARTIFACT: {"SG"}}


def test_two_corroborated_artifacts_are_both_named_so_that_none_is_followed() -> None:
    said = stated(CH.seat), stated(SG.seat), stated(FR.seat, OTHER), stated(IT.seat, OTHER)
    assert set(followed(*said)) == {ARTIFACT, OTHER}


def test_a_statement_that_its_author_did_not_sign_counts_nothing() -> None:
    forged = sign_content(Continues(SG.seat.inception.author, ARTIFACT, NAME, 0), STRANGER.signer).line
    assert followed(stated(CH.seat), forged) == ()


def test_the_newest_statement_of_an_author_counts_in_every_order() -> None:
    lines = stated(CH.seat, OTHER), stated(CH.seat, ARTIFACT, 1), stated(SG.seat)
    assert {followed(*order) for order in itertools.permutations(lines)} == {(ARTIFACT,)}
    ended = stated(SG.seat, number=1, ended=True)
    assert followed(*lines, ended) == ()
    assert followed(*lines, ended, stated(SG.seat, number=2)) == (ARTIFACT,)
    contradiction = stated(SG.seat, OTHER)
    assert followed(*lines, contradiction) == ()


def test_a_lost_key_counts_no_more() -> None:
    lost = Compromise(SG.seat.signer.public.id, SG.seat.inception.home, 0)
    said = Advisory(SG.seat.inception.author, SG.seat.id, KEY_COMPROMISE, "critical", "gone", lost)
    line = sign_content(said, SG.seat.signer).line
    assert followed(stated(CH.seat), stated(SG.seat), line) == ()


def test_retired_keys_count_only_with_a_proof_from_before() -> None:
    _, rotated = seated(SG.seat.member, of(SG.seat)).to("second keys")
    assert followed(stated(CH.seat), stated(SG.seat), rotated.line) == ()


def test_a_member_and_its_successor_count_as_one() -> None:
    heir = replace(SG.seat.member, successor_of=CH.seat.id)
    policy = Policy(pins=(draft([CH.seat.member, FR.seat.member]), draft([heir, FR.seat.member])))
    assert commits(stated(CH.seat), stated(SG.seat), policy=policy)[NAME].corroborated(TWO) == ()


def test_a_name_in_another_case_is_the_same_commit() -> None:
    found = commits(stated(CH.seat), stated(SG.seat, of=f"hf:Org/Tiny@{COMMIT}"))
    assert list(found) == [NAME] and found[NAME].corroborated(TWO) == (ARTIFACT,)
    assert found[NAME].origin == f"hf:Org/Tiny@{COMMIT}"
    assert upstream_key("hf:Org/Tiny") == KEY


@pytest.mark.parametrize(
    "text",
    ["org/tiny@v1", "hf:org/tiny", "hf:org/tiny@main", f"hf:tiny@{COMMIT}", f"comity://{NAME}", f"{NAME} ", f"{NAME}0"],
)
def test_what_names_no_commit_of_an_upstream_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        check_origin(text)
    assert refused.value.code == "BAD-ORIGIN"


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_commit_of_every_upstream_can_be_continued(origin: str) -> None:
    said = Continues(CH.seat.inception.author, ARTIFACT, f"{origin}org/tiny@{COMMIT}", 0)
    assert Continues.parse(said.statement()) == said


def test_other_subjects_than_its_own_are_refused() -> None:
    said = Continues(CH.seat.inception.author, ARTIFACT, NAME, 0).statement()
    for subjects in (
        said.subjects[:1],
        (said.subjects[0], Subject("upstream", upstream_key("hf:org/else"))),
        (Subject("hf:org/else", ARTIFACT), said.subjects[1]),
    ):
        with pytest.raises(Malformed):
            Continues.parse(replace(said, subjects=subjects))


AUTHOR = Author("identity", CH.seat.id)


@examples(st.lists(st.tuples(st.sampled_from((ARTIFACT, OTHER)), st.booleans()), max_size=MAX_NUMBER))
def test_what_is_said_next_is_what_counts_then(wanted: list[tuple[Digest, bool]]) -> None:
    said: list[Continues] = []
    for artifact, withdrawn in wanted:
        made = next_statement(said, Continues(AUTHOR, artifact, NAME, 0, withdrawn))
        said += [made] if made else []
        newest = newest_statement(said)
        assert (newest.artifact if newest else None) == (None if withdrawn else artifact)


def test_the_corrections_of_an_author_are_bounded() -> None:
    last = Continues(AUTHOR, ARTIFACT, NAME, MAX_NUMBER)
    assert next_statement([last], last) is None
    with pytest.raises(Malformed) as refused:
        next_statement([last], replace(last, artifact=OTHER))
    assert refused.value.code == "CONTINUES-CORRECTIONS"


def test_statements_of_an_author_about_a_commit_are_found_among_others() -> None:
    lines = stated(CH.seat), stated(SG.seat), stated(CH.seat, of=f"hf:org/else@{COMMIT}"), observation(CH, OTHER).line
    entries = read_claims(lines, KEY).entries
    assert [each.artifact for each in stated_by(entries, CH.seat.id, NAME.upper().replace("HF:", "hf:"))] == [ARTIFACT]


def entry(line: bytes) -> Entry:
    (found,) = read_claims((line,), KEY).entries
    return found


def test_the_keys_of_members_and_the_observations_of_their_commits_are_asked_for() -> None:
    collector = Collector(KEY, POLICY)
    collector.questions()
    said = [entry(stated(each, of=f"hf:org/tiny@{COMMIT}")) for each in (STRANGER, CH.seat)]
    said.append(entry(stated(STRANGER, of=f"hf:org/tiny@{'2e' * 20}")))
    collector.answered(Question("artifact", KEY), said)
    assert collector.questions() == (Question("identity", CH.seat.id), Question("commit", "hf:org/tiny", COMMIT))
    proven = CollectedEvidence.of(collector, EvidenceReader()).entries_to_prove()
    assert [each.statement.by for each in proven] == [CH.seat.inception.author]


def test_commits_that_are_asked_about_are_bounded_and_an_artifact_asks_about_none() -> None:
    collector = Collector(KEY, POLICY)
    collector.questions()
    many = (entry(stated(CH.seat, of=f"hf:org/tiny@{number:040x}")) for number in range(MAX_CONTINUED + 1))
    collector.answered(Question("artifact", KEY), many)
    assert sum(each.kind == "commit" for each in collector.questions()) == MAX_CONTINUED and collector.bounds
    about = Collector(ARTIFACT, POLICY)
    about.questions()
    about.answered(Question("artifact", ARTIFACT), [entry(stated(seat("CH")))])
    assert about.questions() == ()


def test_the_repositories_that_members_name_are_told_first_and_few() -> None:
    strangers = [stated(STRANGER, of=f"hf:org/a{number}@{COMMIT}") for number in range(MAX_REPOSITORIES)]
    lines = *strangers, stated(CH.seat), stated(CH.seat, OTHER, of=f"hf:org/else@{COMMIT}")
    found = continued_repositories(read_claims(lines, ARTIFACT).entries, ARTIFACT, POLICY)
    assert found[0] == "hf:org/tiny" and len(found) == MAX_REPOSITORIES and "hf:org/else" not in found
