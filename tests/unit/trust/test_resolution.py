"""The resolution table of protocol sections 5 and 6a, row by row."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, PolicyNotMet
from comity.trust.home_logs import HomePosition
from comity.trust.names import Reference
from comity.trust.resolution import Candidate, Preference, PublisherClaim, newest_first, select_candidate, version_order
from hypothesis import given
from hypothesis import strategies as st
from support.candidates import OURS, RIVAL, A, B, candidate
from support.world import Identity

V1, V2 = candidate("v1", A, 3), candidate("v2", B, 7)


def bound(publisher: Identity | None) -> list[Preference]:
    return [Preference(PublisherClaim(publisher.id), "bound")] if publisher else []


BARE, EXACT = "swiss-ai/tiny", "swiss-ai/tiny@v1"


@pytest.mark.parametrize(
    ("reference", "candidates", "publisher", "expected"),
    [
        pytest.param(EXACT, [V1, V2], OURS, A, id="an exact version"),
        pytest.param(BARE, [V1, V2], OURS, B, id="a bare name is the newest version"),
        pytest.param(BARE, [V2, V1], OURS, B, id="newest by index, not by order of answers"),
        pytest.param(BARE, [V1], None, A, id="an only claimant needs no binding"),
        pytest.param(BARE, [V1, candidate("v2", B, 7, withdrawn=True)], OURS, A, id="withdrawn is passed over"),
        pytest.param(EXACT, [candidate("v1", A, 3, withdrawn=True)], OURS, A, id="exact is had although withdrawn"),
        pytest.param(EXACT, [V1, candidate("v1", B, 1, by=RIVAL)], OURS, A, id="the binding decides between claimants"),
        pytest.param(EXACT, [V1, candidate("v1", B, 1, by=RIVAL)], RIVAL, B, id="for the rival as well"),
        pytest.param(
            BARE, [V1, candidate("v9", B, None)], OURS, A, id="versions outside of the home log are not newest"
        ),
        pytest.param(BARE, [candidate("v1", A, None)], OURS, A, id="one version needs no order"),
        pytest.param(
            BARE, [candidate("v9", A, None), candidate("v10", B, None)], OURS, B, id="without a home log by name"
        ),
        pytest.param(EXACT, [V1, candidate("v1", A, 9)], OURS, A, id="the same bytes published twice are one"),
    ],
)
def test_a_name_resolves(
    reference: str, candidates: list[Candidate], publisher: Identity | None, expected: Digest
) -> None:
    assert select_candidate(Reference.parse(reference), candidates, bound(publisher)).artifact == expected


@pytest.mark.parametrize(
    ("reference", "candidates", "publisher", "kind", "code"),
    [
        pytest.param(
            EXACT, [V1, candidate("v1", B, 1, by=RIVAL)], None, PolicyNotMet, "NAME-DISPUTED", id="several claimants"
        ),
        pytest.param(
            EXACT, [V1, candidate("v1", A, 1, by=RIVAL)], None, PolicyNotMet, "NAME-DISPUTED", id="even of one digest"
        ),
        pytest.param(EXACT, [V1, candidate("v1", B, 5)], OURS, PolicyNotMet, "VERSION-DISPUTED", id="two digests"),
        pytest.param(
            BARE, [V1, candidate("v1", B, 5)], OURS, PolicyNotMet, "VERSION-DISPUTED", id="two digests, bare name"
        ),
        pytest.param(EXACT, [V1], RIVAL, NotFound, "NOT-PUBLISHED", id="only others than the bound publisher"),
        pytest.param("swiss-ai/tiny@v3", [V1], OURS, NotFound, "NOT-PUBLISHED", id="no such version"),
        pytest.param(BARE, [], OURS, NotFound, "NOT-PUBLISHED", id="nothing at all"),
        pytest.param(
            BARE, [candidate("v1", A, 3, withdrawn=True)], OURS, NotFound, "ALL-WITHDRAWN", id="every version withdrawn"
        ),
    ],
)
def test_a_name_does_not_resolve(
    reference: str,
    candidates: list[Candidate],
    publisher: Identity | None,
    kind: type[ComityError],
    code: str,
) -> None:
    with pytest.raises(kind) as caught:
        select_candidate(Reference.parse(reference), candidates, bound(publisher))
    assert caught.value.code == code
    assert caught.value.hint


def test_a_dispute_lists_every_claimant() -> None:
    with pytest.raises(PolicyNotMet) as caught:
        select_candidate(Reference.parse(EXACT), [V1, candidate("v1", B, 1, by=RIVAL)], ())
    assert OURS.id in caught.value.why
    assert RIVAL.id in caught.value.why
    assert caught.value.hint == "comity trust bind swiss-ai IDENTITY"


def refused(reference: str, candidates: list[Candidate], preferences: list[Preference]) -> ComityError:
    with pytest.raises(ComityError) as caught:
        select_candidate(Reference.parse(reference), candidates, preferences)
    return caught.value


def test_a_version_published_only_by_others_is_refused_with_the_owner_of_the_name() -> None:
    others = [candidate("v1", B, 1, by=RIVAL)]
    found = refused(BARE, others, bound(OURS))
    assert found.why == (
        f"it is published only by Rival [{RIVAL.id}], and the name belongs to {short(OURS.id)}: "
        "your binding of its namespace"
    )
    assert found.hint == "comity search WORD"
    remembered = [Preference(PublisherClaim(OURS.id), "remembered")]
    assert refused(BARE, others, remembered).hint == "comity trust bind swiss-ai IDENTITY"
    for preferences in (bound(OURS), []):
        found = refused("swiss-ai/tiny@v3", [], preferences)
        assert (found.why, found.hint) == ("", "comity search WORD")


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    several = [candidate(f"v{n}", A, n, withdrawn=n == 3) for n in (1, 2, 3)]
    for preferences in (bound(OURS), []):
        found = refused("swiss-ai/tiny@v9", several, preferences)
        assert found.why == "its publisher has these versions, the newest first: v3 (withdrawn), v2, v1"
        assert (found.code, found.hint) == ("NOT-PUBLISHED", "comity pull swiss-ai/tiny@v2")
    many = refused("swiss-ai/tiny@v0", [candidate(f"v{n}", A, n) for n in range(1, 12)], bound(OURS))
    assert many.why.endswith("v11, v10, v9, v8, v7, v6, v5, v4 and 3 more")
    listed = refused("swiss-ai/tiny@v0", [candidate(f"v{n}", A, n) for n in range(1, 9)], bound(OURS))
    assert listed.why.endswith("v8, v7, v6, v5, v4, v3, v2, v1")
    gone = refused("swiss-ai/tiny@v9", [candidate(f"v{n}", A, n, withdrawn=True) for n in (1, 2)], bound(OURS))
    assert gone.hint == "comity pull swiss-ai/tiny@v2"


def test_one_publication_of_several_of_the_same_bytes_is_the_newest_that_is_ordered() -> None:
    for indexes in ((3, 9, None), (None, 9, 0), (9, None, 3), (0, None)):
        candidates = [candidate("v1", A, index) for index in indexes]
        newest = max(index for index in indexes if index is not None)
        for order in (candidates, candidates[::-1]):
            assert select_candidate(Reference.parse(BARE), order, bound(OURS)).position == HomePosition(0, newest)


def test_a_version_at_the_beginning_of_the_log_is_older_than_the_next() -> None:
    first, second = candidate("v1", A, 0), candidate("v2", B, 1)
    for order in ([first, second], [second, first]):
        assert select_candidate(Reference.parse(BARE), order, bound(OURS)).artifact == B


def test_withdrawn_versions_are_listed() -> None:
    withdrawn = [candidate(f"v{number}", A, number, withdrawn=True) for number in (3, 5, 2, 4, 1)]
    assert refused(BARE, withdrawn, bound(OURS)).why == "its publisher withdrew v1, v2, v3, v4, v5"
    disputed = refused(EXACT, [candidate("v1", B, 1), candidate("v1", A, 2)], bound(OURS))
    assert f"sha256:{A}, sha256:{B}" in disputed.why


@given(st.lists(st.text("v.-rc0129", min_size=1, max_size=8)))
def test_every_two_names_of_versions_have_an_order(names: list[str]) -> None:
    ordered = sorted(set(names), key=version_order)
    keys = [version_order(name) for name in ordered]
    assert all(first < second for first, second in pairwise(keys))
    assert sorted(dict.fromkeys(reversed(names)), key=version_order) == ordered


def test_statements_are_ordered_by_the_home_log_and_the_others_after_them_by_version() -> None:
    for _ in range(8):
        first, second = candidate("v1", A, 0), candidate("v1", B, 1)
        older, newer = candidate("v9", A, None), candidate("v10", B, None)
        for order in permutations((first, second, older, newer)):
            assert newest_first(order) == [second, first, newer, older]


def test_a_text_in_a_version_is_older_than_any_number() -> None:
    assert sorted(["1", "0.1", "rc", "0"], key=version_order) == ["rc", "0", "0.1", "1"]


def test_versions_are_ordered_as_people_count_them() -> None:
    names = ["final", "v1", "v1.2", "v1.10", "v2-rc1", "v2-rc2", "v2-rc10", "v2", "v10"]
    assert sorted(names, key=version_order) == names
