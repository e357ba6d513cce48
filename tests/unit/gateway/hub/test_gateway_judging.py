"""What a node's gateway serves by its own policy, and its warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comity.gateway.http import STATUS
from comity.gateway.hub.judge import DAY, MAX_NOTICES, STALE_DAYS, PolicyDecision, PolicyJudge
from comity.node.members import Membership, OwnNode
from comity.node.policy_file import PolicyFile
from comity.trust.errors import ComityError, Malformed, PolicyNotMet, Unavailable, Untrusted
from comity.trust.keys import PublicKey
from support.approvals import ANNA, AS_OF, BEN, asking, by, end_of, entry_of
from support.case import Case, advisory, case, nodes
from support.world import NOW, identity

GOOD = case()
TITLE = "swiss-ai/tiny@v1"


def judge(what: Case = GOOD, *, policy: Path | None = None, now: int = NOW + DAY) -> PolicyJudge:
    (node,) = nodes(1)
    membership = Membership(OwnNode.parse(node.seat.entry.line, node.entry.line), what.federation)
    return PolicyJudge(PolicyFile(policy), membership, lambda: float(now))


def without_proofs(what: Case) -> Case:
    return replace(what, proofs=())


def topics(judge: PolicyJudge, what: Case) -> list[str]:
    judgement = judge.judge(what.evidence, TITLE)
    assert judgement.refusal is None
    return [topic for topic, _ in judgement.notices]


def test_a_cosigned_and_recent_artifact_is_served_without_a_warning() -> None:
    assert topics(judge(), GOOD) == []


def test_an_artifact_with_too_few_cosigners_is_served_with_a_warning() -> None:
    assert topics(judge(), without_proofs(GOOD)) == ["cosigners"]


def test_a_limit_that_left_out_what_the_publisher_says_is_told_before_other_warnings() -> None:
    publisher = GOOD.publication.statement.by
    assert publisher is not None
    warned = GOOD.saying(*(line for number in range(9) for line in advisory(GOOD, by=identity(f"warner {number}"))))
    cut = replace(warned.evidence, cut=frozenset({publisher.id}))
    notices = judge().judge(cut, TITLE).notices
    assert notices[0] == ("advisory", "unknown: more statements about it than were read")
    assert len(notices) == MAX_NOTICES
    assert all(", says " in text for _, text in notices[1:])


def test_an_artifact_is_judged_again_without_a_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_artifact_without_a_cosignature_for_a_month_is_served_with_a_warning() -> None:
    assert topics(judge(now=NOW + STALE_DAYS * DAY), GOOD) == []
    assert topics(judge(now=NOW + (STALE_DAYS + 1) * DAY), GOOD) == ["stale"]


def test_an_advisory_of_any_author_is_shown() -> None:
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
def test_an_artifact_that_does_not_verify_is_never_served(broken: Callable[[], Case], kind: type[ComityError]) -> None:
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


def approving(tmp_path: Path, what: Case, now: int) -> PolicyDecision:
    what.write(tmp_path)
    return judge(what, policy=tmp_path / "policy.toml", now=now).judge(what.evidence, TITLE)


def test_an_artifact_without_approval_is_refused_with_the_code_and_the_next_step(tmp_path: Path) -> None:
    one = asking().saying(*by(ANNA))
    refused = approving(tmp_path, one, AS_OF).refusal
    assert isinstance(refused, PolicyNotMet) and (refused.code, STATUS[type(refused)]) == ("NOT-APPROVED", 403)
    assert "1 of 2 required for hospital-bern: Anna" in refused.why
    assert refused.hint.endswith("comity approve REF --scope SITE --until DATE")
    assert approving(tmp_path, one.saying(*by(BEN)), AS_OF).refusal is None


@pytest.mark.parametrize(("later", "served"), [(29, True), (31, False)], ids=["in time", "run out"])
def test_a_gateway_judges_approvals_at_its_own_time_where_the_policy_is_older(
    later: int, served: bool, tmp_path: Path
) -> None:
    both = asking().saying(*by(ANNA), *by(BEN))
    assert (approving(tmp_path, both, AS_OF + later * DAY).refusal is None) is served
    assert approving(tmp_path, both, AS_OF - 400 * DAY).refusal is None, "a clock that is behind changes nothing"


def test_an_approvals_end_counts_at_a_gateway_though_the_policy_is_older(tmp_path: Path) -> None:
    entry = entry_of(ANNA)
    ended = asking(at_least=1).saying(ANNA.entry.line, entry.line, end_of(ANNA, entry, AS_OF + DAY))
    assert approving(tmp_path, ended, AS_OF).refusal is None
    assert approving(tmp_path, ended, AS_OF + DAY).refusal is not None
