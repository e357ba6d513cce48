"""What a node's gateway serves, by its own policy, and what it warns of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comity.gateway.hub.judge import DAY, STALE_DAYS, PolicyJudge
from comity.node.members import Membership, Seat
from comity.trust.errors import ComityError, Malformed, PolicyNotMet, Unavailable, Untrusted
from comity.trust.keys import PublicKey
from support.case import Case, advisory, case, nodes
from support.world import NOW, identity

GOOD = case()
TITLE = "swiss-ai/tiny@v1"


def judge(what: Case = GOOD, *, policy: Path | None = None, now: int = NOW + DAY) -> PolicyJudge:
    (node,) = nodes(1)
    membership = Membership(Seat.parse(node.seat.entry.line, node.entry.line), what.federation)
    return PolicyJudge(policy, membership, lambda: float(now))


def without_proofs(what: Case) -> Case:
    return replace(what, proofs=())


def topics(judge: PolicyJudge, what: Case) -> list[str]:
    judgement = judge.judge(what.evidence, TITLE)
    assert judgement.refusal is None
    return [topic for topic, _ in judgement.notices]


def test_what_is_cosigned_and_fresh_is_served_without_a_word() -> None:
    assert topics(judge(), GOOD) == []


def test_what_is_short_of_cosigners_is_served_with_a_warning() -> None:
    assert topics(judge(), without_proofs(GOOD)) == ["cosigners"]


def test_what_was_judged_before_is_judged_again_without_a_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    by_node, checked = judge(), list[PublicKey]()
    real = PublicKey.verify

    def counted(key: PublicKey, signature: bytes, message: bytes) -> None:
        checked.append(key)
        real(key, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    first = by_node.judge(GOOD.evidence, TITLE)
    assert checked
    checked.clear()
    assert by_node.judge(GOOD.evidence, TITLE) == first
    assert not checked


def test_what_nobody_has_cosigned_for_a_month_is_served_with_a_warning() -> None:
    assert topics(judge(now=NOW + STALE_DAYS * DAY), GOOD) == []
    assert topics(judge(now=NOW + (STALE_DAYS + 1) * DAY), GOOD) == ["stale"]


def test_an_advisory_is_told_whoever_it_is_from() -> None:
    stranger = identity("Somebody", "NO")
    warned = GOOD.saying(*advisory(GOOD, by=stranger))
    ((topic, text),) = judge().judge(warned.evidence, TITLE).notices
    assert topic == "advisory"
    assert stranger.id[:6] in text


@pytest.mark.parametrize(
    ("broken", "kind"),
    (
        (lambda: replace(GOOD, manifest=b"{}"), Untrusted),
        (lambda: replace(GOOD, files={**GOOD.files, "LICENSE": b""}), Untrusted),
        (lambda: replace(GOOD, claims=()), Unavailable),
    ),
    ids=("manifest", "bytes", "claims"),
)
def test_what_does_not_verify_is_never_served(broken: Callable[[], Case], kind: type[ComityError]) -> None:
    refusal = judge().judge(broken().evidence, TITLE).refusal
    assert isinstance(refusal, kind)


def test_the_owners_policy_decides_under_the_charter_of_the_node(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[cosigners]\nat_least = 3\n")
    assert judge(policy=file).judge(GOOD.evidence, TITLE).refusal is None
    file.write_text("[cosigners]\nat_least = 9\n")
    assert isinstance(judge(policy=file).judge(GOOD.evidence, TITLE).refusal, PolicyNotMet)
    refusal = judge(policy=file).judge(without_proofs(GOOD).evidence, TITLE).refusal
    assert isinstance(refusal, Unavailable)


def test_a_policy_that_cannot_be_read_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[cosigner]\nat_least = 9\n")
    with pytest.raises(Malformed, match="cosigner"):
        judge(policy=file)
