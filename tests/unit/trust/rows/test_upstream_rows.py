"""The origin of an artifact in its verdict: which observations corroborate or contradict, and what a policy
requires.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import collect_mirror_evidence
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import Row, Verdict
from comity.trust.policy import ROWS, Policy, UpstreamRule
from comity.trust.policy_file import parse_policy
from comity.trust.statement import Entry
from comity.trust.upstream import Changed, Gone, Observed, Upstream
from comity.trust.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import Case, case, nodes
from support.examples import examples
from support.observations import COMMIT, NAME
from support.observations import observation as observed_by
from support.world import Node, identity

GOOD = case()
CH, SG, ES, KR = nodes(4)
UNPUBLISHED = replace(GOOD, claims=tuple(line for line in GOOD.claims if line != GOOD.publication.line))
MONOTONE = ("artifact", "bytes", "signatures", "transparency", "cosigners")


def observation(by: Node, artifact: Digest = GOOD.artifact, **more: Any) -> Entry:
    return observed_by(by, artifact, **more)


def asking(policy: Policy, members: int) -> Policy:
    rows = tuple(row for row in policy.require if row not in ("signatures", "transparency", "cosigners"))
    return replace(policy, upstream=UpstreamRule(members), require=rows)


def judged(said: Case, members: int = 0) -> Verdict:
    return verify(said.evidence, asking(said.policy, members))


def texts(row: Row) -> list[str]:
    return [fact.text for fact in row.facts]


def test_an_observation_is_shown_as_its_nodes_claim_and_never_as_a_publication() -> None:
    verdict = UNPUBLISHED.saying(observation(CH).line).verdict()
    row = verdict.row("artifact")
    said = next(fact for fact in row.facts if fact.text.startswith("mirrored from"))
    assert (said.basis, said.by) == ("claimed", "Institute CH (CH)")
    assert f"mirrored from {NAME} at https://hub.example: 4/4 files equal what the upstream lists" in said.text
    assert "not checked: commit" in said.text
    assert verdict.row("signatures").state == "unknown"
    assert "published" not in " ".join(texts(row))


def test_an_observation_that_checked_all_files_lists_none_as_unchecked() -> None:
    known = replace(Observed.parse(observation(CH).statement), unchecked=())
    row = GOOD.saying(sign_content(known, CH.online).line).verdict().row("artifact")
    (said,) = (text for text in texts(row) if text.startswith("mirrored from"))
    assert said.endswith(known.match_text)


def test_members_that_fetched_the_same_bytes_corroborate_one_another_each_once() -> None:
    lines = [observation(node).line for node in (CH, SG, SG)] + [observation(CH, at="https://mirror.example").line]
    row = GOOD.saying(*lines).verdict().row("artifact")
    assert any(text.startswith(f"{NAME}: corroborated 2: ") for text in texts(row))


def test_an_observation_of_a_carried_folder_corroborates_nothing() -> None:
    row = GOOD.saying(observation(CH, how="carried").line, observation(SG, how="cache").line).verdict().row("artifact")
    assert not any("corroborated" in text for text in texts(row))
    assert any(text.startswith("imported from a folder as") for text in texts(row))
    assert any(text.startswith("taken from a cache of") for text in texts(row))
    (carried,) = (text for text in texts(row) if text.startswith("imported from a folder as"))
    assert "not compared with a list of the upstream" in carried
    assert "0/4" not in carried


def test_other_bytes_under_one_commit_are_a_dispute_and_change_no_other_row() -> None:
    mirrored = GOOD.saying(observation(CH).line)
    disputed = mirrored.saying(observation(SG, sha256(b"other manifest")).line)
    row = disputed.verdict().row("disputes and advisories")
    assert row.state == "fail"
    assert any(f"other bytes under {NAME}" in fact.text and fact.by == "Institute SG (SG)" for fact in row.facts)
    for name in ROWS:
        if name not in ("disputes and advisories", "policy"):
            assert disputed.verdict().row(name).state == mirrored.verdict().row(name).state, name


def test_another_commit_with_other_bytes_is_no_dispute() -> None:
    said = GOOD.saying(observation(CH).line, observation(SG, sha256(b"other"), commit="2e" * 20).line)
    assert said.verdict().row("disputes and advisories").state == "unknown"


def test_a_forged_observation_counts_for_nothing() -> None:
    true = observation(CH)
    forged = sign_content(Observed.parse(true.statement), SG.online)
    said = GOOD.saying(forged.line)
    assert any("mirrored" in text for text in texts(GOOD.saying(true.line).verdict().row("artifact")))
    assert not any("mirrored" in text for text in texts(said.verdict().row("artifact")))


def test_a_stranger_that_no_pinned_member_answers_for_counts_for_nothing() -> None:
    stranger = nodes(7)[6]
    assert not any(
        "mirrored" in text for text in texts(GOOD.saying(observation(stranger).line).verdict().row("artifact"))
    )


@pytest.mark.parametrize(("asked", "state"), [(0, "pass"), (1, "pass"), (2, "pass"), (3, "unknown")])
def test_a_policy_may_require_a_number_of_mirroring_members(asked: int, state: str) -> None:
    said = UNPUBLISHED.saying(observation(CH).line, observation(SG).line)
    verdict = judged(said, asked)
    assert verdict.row("artifact").state == state
    assert verdict.accepted == (state == "pass")
    assert verdict.exit_status == (0 if state == "pass" else 4)


def test_only_members_that_fetched_the_commit_asked_for_corroborate_it() -> None:
    """Two members mirrored the same bytes from a fork; one member alone says that the commit asked for has them."""
    fork = [observation(node, repository="fork/tiny").line for node in (SG, ES)]
    said = UNPUBLISHED.saying(observation(CH).line, *fork)
    policy = asking(said.policy, 2)
    assert verify(said.evidence, policy).exit_status == 0
    verdict = verify(said.evidence, policy, commit=NAME)
    assert verdict.exit_status == 4 and verdict.row("artifact").state == "unknown"
    assert verdict.row("artifact").summary == "1 member mirrored it from its upstream, 2 required"
    corroborated = said.saying(observation(KR).line)
    assert verify(corroborated.evidence, policy, commit=NAME).exit_status == 0
    assert verify(said.evidence, policy, commit=f"hf:fork/tiny@{COMMIT}").exit_status == 0


def test_a_named_publisher_does_not_say_which_commit_has_its_bytes() -> None:
    policy = asking(GOOD.policy, 1)
    assert verify(GOOD.evidence, policy, commit=NAME).exit_status == 4
    assert verify(GOOD.saying(observation(CH).line).evidence, policy, commit=NAME).exit_status == 0


def test_a_named_publishers_artifact_needs_no_mirroring_members() -> None:
    assert judged(GOOD, 4).row("artifact").state == "pass"


def test_a_strangers_publication_does_not_replace_the_required_members() -> None:
    by_a_stranger = case(publisher=identity("Nobody", "CH"))
    strange = replace(by_a_stranger, policy_text=GOOD.policy_text, federation=GOOD.federation)
    assert strange.verdict().row("key policy").state == "fail"
    assert judged(strange, 1).row("artifact").state == "unknown"
    assert judged(strange.saying(observation(CH, strange.artifact).line), 1).row("artifact").state == "pass"


def test_news_of_the_upstream_are_shown_and_change_no_state() -> None:
    node, upstream = CH.record.node.id, Upstream("https://hub.example", "org/tiny", COMMIT, "main")
    changed = sign_content(Changed(node, upstream, GOOD.artifact, "2e" * 20, 5), CH.online)
    gone = sign_content(Gone(node, upstream, GOOD.artifact, "repository", 6), CH.online)
    before, after = GOOD.saying(observation(CH).line), GOOD.saying(observation(CH).line, changed.line, gone.line)
    row = after.verdict().row("artifact")
    assert any(f"is now at {'2e' * 20}" in text for text in texts(row))
    assert any("the repository is gone upstream" in text for text in texts(row))
    assert {r.name: r.state for r in after.verdict().rows} == {r.name: r.state for r in before.verdict().rows}


LINES = [
    *(observation(node).line for node in (CH, SG, ES)),
    *(observation(node, sha256(b"other")).line for node in (SG, KR)),
    observation(CH, how="cache").line,
]


@settings(max_examples=examples(20))
@given(st.sets(st.sampled_from(LINES)), st.sets(st.sampled_from(LINES)), st.integers(0, 4), st.booleans())
def test_i4_more_observations_never_fail_a_passed_row(
    some: set[bytes], more: set[bytes], asked: int, signed: bool
) -> None:
    base = GOOD if signed else UNPUBLISHED
    before, after = judged(base.saying(*some), asked), judged(base.saying(*some, *more), asked)
    for name in MONOTONE:
        if before.row(name).state == "pass":
            assert after.row(name).state == "pass"


@settings(max_examples=examples(5))
@given(st.permutations(LINES))
def test_the_order_of_observations_does_not_matter(lines: list[bytes]) -> None:
    assert GOOD.saying(*lines).verdict() == GOOD.saying(*sorted(lines)).verdict()


def test_corroboration_is_counted_for_one_commit_at_a_time() -> None:
    bound = [BoundNode(node.seat.member, node.record, node.entry, True) for node in (CH, SG)]
    entries = [observation(CH), observation(SG, commit="2e" * 20)]
    assert collect_mirror_evidence(entries, GOOD.artifact, bound).corroborated == 1


@pytest.mark.parametrize("text", ["corroborated = true", "corroborated = -1", "corroborated = 1000", "coroborated = 1"])
def test_an_invalid_upstream_table_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_policy(f"[upstream]\n{text}\n".encode(), lambda _: b"")


def test_a_policy_that_asks_for_members_is_read() -> None:
    assert parse_policy(b"[upstream]\ncorroborated = 2\n", lambda _: b"").upstream == UpstreamRule(2)
