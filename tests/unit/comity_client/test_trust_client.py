"""What one user trusts: pins and bindings by full, spelled and abbreviated ids, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import format_id, sha256
from comity.trust.errors import ComityError, Malformed, NotFound
from comity_client.home import Home
from comity_client.trust_client import TrustClient
from support.case import case, nodes
from support.world import found, identity

GOOD = case()
OWNER = identity("Swiss AI", "CH").id
ARTIFACT, ROTATION = sha256(b"artifact"), sha256(b"rotation")


@pytest.fixture
def api(tmp_path: Path) -> TrustClient:
    return TrustClient(Home(tmp_path / "home"))


def test_pins_are_kept_and_removed_by_their_id(api: TrustClient, tmp_path: Path) -> None:
    assert api.pins() == []
    first, second = api.pin(GOOD.federation.encode()), api.pin(found(nodes(2), {}).encode())
    assert {pin.id for pin in api.pins()} == {first.id, second.id}
    assert TrustClient(Home(tmp_path / "home")).pins() == api.pins()
    for name in (first.id[:7], "ff" * 32, "zz", ""):
        with pytest.raises(ComityError):
            api.unpin(name)
    assert api.unpin(first.id[:10]) == first.id
    assert [pin.id for pin in api.pins()] == [second.id]


def test_the_default_policy_is_that_of_the_pins_and_a_file_is_one_of_its_own(api: TrustClient, tmp_path: Path) -> None:
    assert list(api.policy().pins) == []
    api.pin(GOOD.federation.encode())
    assert [body.digest for body in api.policy().pins] == [GOOD.federation.body.digest]
    GOOD.write(tmp_path)
    assert api.policy(tmp_path / "policy.toml").digest == GOOD.policy.digest
    with pytest.raises(ComityError):
        api.policy(tmp_path / "missing.toml")


def test_a_diff_pins_nothing(api: TrustClient) -> None:
    assert api.diff(GOOD.federation.encode()).relation == "new" and api.pins() == []
    api.pin(GOOD.federation.encode())
    assert api.diff(GOOD.federation.encode()).relation == "same"


def test_a_namespace_is_bound_to_an_identity_and_a_name_to_an_artifact(api: TrustClient) -> None:
    api.bind("swiss-ai", OWNER)
    api.bind("acme/tiny@v1", f"sha256:{ARTIFACT}")
    api.bind("acme/other", format_id(ARTIFACT))
    assert dict(api.bindings().publishers) == {"swiss-ai": OWNER}
    assert dict(api.bindings().artifacts) == {"acme/tiny@v1": ARTIFACT, "acme/other": ARTIFACT}
    api.unbind("acme/other")
    api.unbind("swiss-ai")
    assert dict(api.bindings().publishers) == {} and list(api.bindings().artifacts) == ["acme/tiny@v1"]
    for name in ("swiss-ai", "acme/other", "acme/never"):
        with pytest.raises(NotFound):
            api.unbind(name)


@pytest.mark.parametrize(
    ("name", "to"), [("no name", OWNER), ("a/b/c", ARTIFACT), ("swiss-ai", "51aa51aa"), ("swiss-ai", "x"), ("", OWNER)]
)
def test_what_is_no_name_or_no_id_is_not_bound(api: TrustClient, name: str, to: str) -> None:
    with pytest.raises(Malformed):
        api.bind(name, to)
    assert not api.bindings().publishers and not api.bindings().artifacts


@pytest.mark.parametrize("target", [OWNER, f"sha256:{OWNER}", format_id(OWNER)])
def test_a_full_id_needs_no_node(api: TrustClient, target: str) -> None:
    found_id = api.find_target("swiss-ai", target)
    assert (found_id.id, found_id.claimed) == (OWNER, False)


def test_an_abbreviated_id_of_a_known_identity_needs_no_node(api: TrustClient) -> None:
    api.pin(GOOD.federation.encode())
    seat = GOOD.federation.body.members[0]
    found_id = api.find_target("swiss-ai", seat.id[:10])
    assert (found_id.id, found_id.claimed) == (seat.id, False)


def test_a_publisher_is_held_by_an_id_that_is_known(api: TrustClient) -> None:
    with pytest.raises(NotFound) as raised:
        api.pin_rotation(OWNER[:10], ROTATION)
    assert raised.value.code == "UNKNOWN-ID"
    api.pin_rotation(OWNER, ROTATION)
    assert dict(api.bindings().rotations) == {OWNER: ROTATION}
    api.bind("swiss-ai", OWNER)
    api.pin_rotation(OWNER[:10], f"sha256:{ARTIFACT}")
    assert dict(api.bindings().rotations) == {OWNER: ARTIFACT}
    with pytest.raises(Malformed):
        api.pin_rotation(OWNER, "77b0")


def test_no_publisher_is_there_at_first(api: TrustClient) -> None:
    assert api.publishers() == []
    with pytest.raises(NotFound):
        api.publisher("Swiss AI")
