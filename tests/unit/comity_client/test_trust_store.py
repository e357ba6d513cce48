"""The pins of a user, in files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity_client.trust_store import TrustStore
from comity_client.user import default_policy
from support.case import nodes
from support.world import found, identity

PUBLISHER = identity("Swiss AI", "CH").id
ARTIFACT = Digest("ab" * 32)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path)


@pytest.fixture(scope="module")
def file() -> bytes:
    return found(nodes(), {"swiss-ai": PUBLISHER}).encode()


def test_a_new_store_has_no_pins(store: TrustStore) -> None:
    assert store.pins() == ()
    assert not store.bindings().publishers
    assert not store.bindings().artifacts


def test_a_pinned_federation_reads_back_proven(store: TrustStore, tmp_path: Path, file: bytes) -> None:
    pin = store.pin(file)
    assert TrustStore(tmp_path).pins() == (pin,)
    assert stat.S_IMODE((tmp_path / "trust.toml").stat().st_mode) == 0o600


def test_a_pinned_file_that_was_replaced_is_refused(store: TrustStore, file: bytes) -> None:
    pin = store.pin(file)
    pin.file.write_bytes(found(nodes(3), {"swiss-ai": PUBLISHER}).encode())
    with pytest.raises(Untrusted) as caught:
        store.pins()
    assert caught.value.code == "PIN"


def test_an_invalid_federation_file_is_not_pinned(store: TrustStore) -> None:
    with pytest.raises(Malformed):
        store.pin(b"{}")
    assert store.pins() == ()


def test_unpinning_forgets_the_federation_and_keeps_the_bindings(store: TrustStore, file: bytes) -> None:
    store.bind_publisher("swiss-ai", PUBLISHER)
    store.unpin(store.pin(file).id)
    assert store.pins() == ()
    assert store.bindings().publishers == {"swiss-ai": PUBLISHER}
    with pytest.raises(NotFound):
        store.unpin(Digest("00" * 32))


def test_bindings_of_namespaces_and_names_read_back(store: TrustStore, tmp_path: Path) -> None:
    store.bind_publisher("swiss-ai", PUBLISHER)
    store.bind_artifact("swiss-ai/tiny@v1", ARTIFACT)
    store.bind_artifact("comity://swiss-ai/tiny", ARTIFACT)
    again = TrustStore(tmp_path).bindings()
    assert again.publishers == {"swiss-ai": PUBLISHER}
    assert again.artifacts == {"swiss-ai/tiny@v1": ARTIFACT, "swiss-ai/tiny": ARTIFACT}
    store.unbind("swiss-ai/tiny@v1")
    assert store.bindings().artifacts == {"swiss-ai/tiny": ARTIFACT}


def test_a_pinned_rotation_is_in_the_policy_until_it_is_unpinned(store: TrustStore, tmp_path: Path) -> None:
    store.pin_rotation(PUBLISHER, ARTIFACT)
    assert default_policy((), TrustStore(tmp_path).bindings()).rotations == {PUBLISHER: ARTIFACT}
    store.unbind(PUBLISHER)
    assert store.bindings().rotations == {}
    with pytest.raises(NotFound):
        store.unbind(PUBLISHER)


@pytest.mark.parametrize("name", ["tiny", "sha256:" + "ab" * 32, "a/b/c", "a b/c"])
def test_an_invalid_name_is_not_bound(store: TrustStore, name: str) -> None:
    with pytest.raises(Malformed):
        store.bind_artifact(name, ARTIFACT)


@pytest.mark.parametrize(
    "text",
    [
        "schema = ",
        'schema = "comity/trust/v9"',
        'schema = "comity/trust/v1"\nfriends = []',
        'schema = "comity/trust/v1"\n[publishers]\nswiss-ai = "short"',
        'schema = "comity/trust/v1"\n[[pin]]\nfile = "../elsewhere.json"\nbody = "' + "00" * 32 + '"',
        'schema = "comity/trust/v1"\n[[pin]]\nfile = "x.json"',
        'schema = "comity/trust/v1"\n[[pin]]\nfile = "x.json"\nbody = 3',
        'schema = "comity/trust/v1"\npin = 3',
        'schema = "comity/trust/v1"\n[publishers]\n"a/b" = "' + "00" * 32 + '"',
    ],
)
def test_an_invalid_trust_file_is_refused(store: TrustStore, tmp_path: Path, text: str) -> None:
    (tmp_path / "trust.toml").write_text(text)
    with pytest.raises(Malformed) as caught:
        store.pins()
    assert (caught.value.what, caught.value.code) == ("trust.toml is malformed", "TRUST-SYNTAX")


def test_a_diff_names_additions_removals_and_changes(store: TrustStore, file: bytes) -> None:
    first = store.diff(file)
    assert first.old is None
    assert {change.what for change in first.changes} == {"member", "namespace", "policy", "node"}
    assert all(change.before == "" for change in first.changes)
    store.pin(file)
    assert store.diff(file).changes == ()


def test_the_default_policy_requires_the_cosigners_of_the_charter(file: bytes, store: TrustStore) -> None:
    store.bind_publisher("swiss-ai", PUBLISHER)
    pins = [store.pin(file).federation]
    policy = default_policy(pins, store.bindings())
    assert policy.cosigners.at_least == min(2, pins[0].body.policy.cosigner_quorum)
    assert policy.bound_publisher("swiss-ai") == PUBLISHER
    assert default_policy([], store.bindings()).cosigners.at_least == 2
