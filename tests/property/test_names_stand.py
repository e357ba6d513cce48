"""I12, I4: later statements of others change no resolution, as long as the order in which members saw the claims stays
the same.
"""

from __future__ import annotations

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.resolution import MIRROR, Preference, PublisherClaim, first_seen, preferred_claimant
from hypothesis import given
from hypothesis import strategies as st

CLAIMANTS = (*(PublisherClaim(sha256(bytes([number]))) for number in range(6)), MIRROR)
MEMBERS = tuple(sha256(b"member %d" % number) for number in range(5))
orders = st.lists(st.permutations(CLAIMANTS).map(lambda order: order[:3]), min_size=5, max_size=5)
claims = st.lists(st.sampled_from(CLAIMANTS), max_size=12)


def newcomer(orders: list[list[PublisherClaim]]) -> Preference | None:
    """The resolution of a user without earlier pulls."""
    seen: dict[Digest, PublisherClaim | None] = {
        member: order[0] if order else None for member, order in zip(MEMBERS, orders, strict=True)
    }
    first = first_seen(seen)
    try:
        return preferred_claimant("a/b", [c for order in orders for c in order], [first] if first else [], {})
    except ComityError:
        return None


@given(orders, st.lists(claims, min_size=5, max_size=5))
def test_later_claims_change_no_resolution(
    before: list[list[PublisherClaim]], later: list[list[PublisherClaim]]
) -> None:
    after = [[*order, *more] for order, more in zip(before, later, strict=True)]
    assert newcomer(after) == newcomer(before)


@given(orders, claims, st.integers(0, 4))
def test_one_member_s_own_order_changes_no_resolution_that_others_agree_on(
    before: list[list[PublisherClaim]], lies: list[PublisherClaim], liar: int
) -> None:
    honest = CLAIMANTS[0]
    agreed = [[honest, *order] for order in before]
    told = [lies if member == liar else order for member, order in enumerate(agreed)]
    found = newcomer(told)
    assert found is not None and found.claimant == honest


@given(orders, claims)
def test_a_remembered_resolution_stays_under_later_claims(
    before: list[list[PublisherClaim]], later: list[PublisherClaim]
) -> None:
    known = newcomer(before)
    if known is None:
        return
    remembered = Preference(known.claimant, "remembered")
    first = first_seen(dict.fromkeys(MEMBERS, later[0] if later else None))
    assert preferred_claimant("a/b", later, [remembered, *([first] if first else [])], {}) == remembered
