"""Which bytes a commit names where members' nodes observed different ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from comity.trust.charter.document import Member
from comity.trust.claims import MirrorEvidence
from comity.trust.encoding import Digest, sha256
from comity.trust.resolution import most_corroborated, preferred_artifact
from support.world import seat

COMMIT = f"hf:org/name@{'6' * 40}"
TRUE, FALSE = sha256(b"true"), sha256(b"false")
HONEST = [seat(code).member for code in ("CH", "SG", "ES")]
LIAR = seat("KR").member


@dataclass(frozen=True)
class FetchResult:
    members: tuple[Member, ...] = field(default=())
    names: tuple[str, ...] = (COMMIT,)

    def corroborating(self, name: str) -> tuple[Member, ...]:
        return self.members


def observed(true: list[Member], false: list[Member]) -> dict[Digest, MirrorEvidence]:
    return {
        TRUE: cast(MirrorEvidence, FetchResult(tuple(true))),
        FALSE: cast(MirrorEvidence, FetchResult(tuple(false))),
    }


def test_one_member_that_observes_other_bytes_changes_nothing() -> None:
    assert preferred_artifact(observed(HONEST, [LIAR]), COMMIT, {}) == TRUE
    assert preferred_artifact(observed(HONEST, [LIAR, LIAR]), COMMIT, {LIAR.id: FALSE}) == TRUE


def test_a_member_that_observed_both_counts_for_neither() -> None:
    assert most_corroborated(observed([HONEST[0]], [LIAR, HONEST[0]]), COMMIT) == (FALSE,)
    assert preferred_artifact(observed([HONEST[0], LIAR], [LIAR]), COMMIT, {}) == TRUE


def test_if_equally_many_members_fetched_them_the_bytes_that_most_saw_first_count() -> None:
    split = observed([HONEST[0]], [LIAR])
    assert preferred_artifact(split, COMMIT, {HONEST[0].id: TRUE, HONEST[1].id: TRUE, LIAR.id: FALSE}) == TRUE
    assert preferred_artifact(split, COMMIT, {HONEST[0].id: TRUE, LIAR.id: FALSE}) is None


def test_several_artifacts_that_equally_many_members_fetched_are_all_named() -> None:
    third = sha256(b"third")
    found = {**observed(HONEST[:2], [LIAR]), third: cast(MirrorEvidence, FetchResult((HONEST[2], seat("FR").member)))}
    assert most_corroborated(found, COMMIT) == (TRUE, third)
    nobody = observed([], [])
    assert most_corroborated(nobody, COMMIT) == (TRUE, FALSE)
    assert most_corroborated({}, COMMIT) == ()


def test_observations_of_another_commit_do_not_count() -> None:
    other = cast(MirrorEvidence, FetchResult(tuple(HONEST), names=(COMMIT.replace("6", "7"),)))
    assert most_corroborated({TRUE: other, FALSE: observed([], [LIAR])[FALSE]}, COMMIT) == (FALSE,)


def test_first_sightings_of_what_few_members_fetched_do_not_count() -> None:
    third = sha256(b"third")
    split = {**observed(HONEST[:2], [LIAR, seat("FR").member]), third: cast(MirrorEvidence, FetchResult((HONEST[2],)))}
    sightings = {HONEST[0].id: third, HONEST[1].id: third, HONEST[2].id: TRUE}
    assert preferred_artifact(split, COMMIT, sightings) == TRUE
