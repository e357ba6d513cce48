"""Under which name an artifact is stored here that was asked for by its digest, by a commit, or by the owner's own
binding: nobody can put other bytes under a name that is not theirs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Untrusted
from comity.trust.policy import UpstreamRule
from comity_client.client import Client
from comity_client.home import Home
from comity_client.user import User
from support.fakes import FakeFederation, Release, release
from support.observations import COMMIT, NAME, observation
from support.weights import as_tensor
from support.world import Identity, identity

OWNER, STRANGER = identity("Swiss AI", "CH"), identity("Stranger", "SG")
FILES = {"README.md": b"# Tiny\n", "model.safetensors": as_tensor(os.urandom(100_000))}
OTHER = {"README.md": b"# Other\n", "model.safetensors": as_tensor(os.urandom(100_000))}


class Place:
    """A user with an empty Hub cache, and what publishers say at the nodes."""

    def __init__(self, folder: Path, federation: FakeFederation) -> None:
        self._folder, self._federation = folder, federation
        self.cache = folder / "cache"
        self.client = Client(Home(folder / "home"))

    def publish(self, by: Identity, name: str, files: dict[str, bytes]) -> Digest:
        made = release(self._folder / name.replace("/", "-"), files, by=by, name=name)
        self.log(by.entry.line, made.entry.line)
        return self.held(made)

    def held(self, made: Release) -> Digest:
        for fake in self._federation.nodes:
            fake.take(made)
        return made.published.artifact

    def log(self, *lines: bytes) -> None:
        for line in lines:
            self._federation.nodes[0].log.append(line)

    def refs(self, repository: str) -> dict[str, str]:
        folder = self.cache / f"models--{repository.replace('/', '--')}" / "refs"
        return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def place(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    made = Place(tmp_path, federation)
    made.client.pin(federation.file({}))
    made.publish(OWNER, "swiss-ai/tiny@v0", {"README.md": b"# Before\n"})
    assert made.client.resolve("swiss-ai/tiny@v0").publisher == OWNER.id, "remembered as the owner of the name"
    return made


def test_a_strangers_name_for_the_same_bytes_is_not_set(place: Place) -> None:
    """Else one who publishes the bytes of v1 as v9 takes back a user of v9 to v1."""
    artifact = place.publish(STRANGER, "swiss-ai/tiny@v9", FILES)
    place.publish(OWNER, "swiss-ai/tiny@v1", FILES)
    for reference in (f"sha256:{artifact}", f"swiss-ai/tiny@sha256:{artifact}"):
        found = place.client.pull(reference)
        assert found.title == "swiss-ai/tiny@v1"
        assert sorted(place.refs("swiss-ai/tiny")) == ["main", "v1"]


def test_bytes_of_a_stranger_alone_have_no_name_of_others(place: Place, tmp_path: Path) -> None:
    place.publish(OWNER, "swiss-ai/tiny@v1", FILES)
    artifact = place.publish(STRANGER, "swiss-ai/tiny@v2", OTHER)
    with pytest.raises(NotFound) as raised:
        place.client.pull(f"sha256:{artifact}")
    assert raised.value.code == "NO-NAME" and f"sha256:{artifact} --out" in raised.value.hint
    assert place.client.pull(f"sha256:{artifact}", to=tmp_path / "out").title == f"sha256:{artifact}"
    assert place.refs("swiss-ai/tiny") == {}


def test_a_name_that_belongs_to_nobody_here_is_set(place: Place) -> None:
    artifact = place.publish(STRANGER, "elsewhere/tiny@v2", OTHER)
    assert place.client.pull(f"sha256:{artifact}").title == "elsewhere/tiny@v2"
    assert sorted(place.refs("elsewhere/tiny")) == ["main", "v2"]


def test_an_artifact_that_the_owner_bound_has_the_name_that_was_bound(place: Place) -> None:
    place.publish(OWNER, "swiss-ai/tiny@v1", FILES)
    artifact = place.publish(STRANGER, "elsewhere/tiny@v2", OTHER)
    place.client.bind("swiss-ai/tiny@v1", artifact)
    found = place.client.pull("swiss-ai/tiny@v1")
    assert (found.artifact, found.title) == (artifact, "swiss-ai/tiny@v1")
    assert place.refs("swiss-ai/tiny")["v1"] and place.refs("elsewhere/tiny") == {}


def test_a_commit_is_stored_as_what_was_asked_for_though_the_same_bytes_are_elsewhere_too(
    place: Place, federation: FakeFederation
) -> None:
    artifact = place.publish(STRANGER, "elsewhere/tiny@v2", OTHER)
    first, second = (fake.node for fake in federation.nodes[:2])
    place.log(observation(first, artifact, repository="fork/tiny").line, observation(second, artifact).line)
    place.client.pull(f"hf:fork/tiny@{COMMIT}")
    found = place.client.pull(NAME)
    assert found.title == NAME and found.verdict.exit_status == 0
    assert found.folder == place.cache / "models--org--tiny" / "snapshots" / COMMIT
    assert place.refs("org/tiny") == {COMMIT: COMMIT, "main": COMMIT}
    assert place.refs("elsewhere/tiny") == {}


def test_what_a_node_asked_of_its_upstream_moves_no_branch_of_the_cache(
    place: Place, federation: FakeFederation
) -> None:
    """A member can claim that it asked for *main* and got an old commit."""
    new, old = (place.publish(OWNER, f"swiss-ai/{name}@v1", f) for name, f in (("new", FILES), ("old", OTHER)))
    later = "2e" * 20
    node = federation.nodes[0].node
    place.log(observation(node, new, commit=later).line, observation(node, old).line)
    place.client.pull(f"hf:org/tiny@{later}")
    assert place.refs("org/tiny")["main"] == later
    place.client.pull(NAME)
    assert place.refs("org/tiny") == {"main": later, later: later, COMMIT: COMMIT}


def test_verify_counts_those_that_fetched_the_commit(place: Place, federation: FakeFederation, tmp_path: Path) -> None:
    artifact = place.publish(STRANGER, "elsewhere/tiny@v2", OTHER)
    nodes = [fake.node for fake in federation.nodes[:3]]
    place.log(*(observation(node, artifact, repository="fork/tiny").line for node in nodes[:2]))
    place.log(observation(nodes[2], artifact).line)
    place.client.pull(NAME)
    user = User(Home(tmp_path / "home"))
    policy = user.policy(user.pins(), NAME)
    assert place.client.verify(NAME).exit_status == 0
    assert place.client.verify(NAME, policy=replace(policy, upstream=UpstreamRule(2))).exit_status == 4


def test_verify_refuses_a_copy_under_a_name_that_it_was_not_given(place: Place) -> None:
    place.publish(OWNER, "swiss-ai/tiny@v1", FILES)
    place.publish(OWNER, "swiss-ai/tiny@v2", OTHER)
    place.client.pull("swiss-ai/tiny@v1")
    kept = place.cache / "models--swiss-ai--tiny" / "refs"
    for reference in ("swiss-ai/tiny@v1", "swiss-ai/tiny"):
        assert place.client.verify(reference).exit_status == 0
    (kept / "v2").write_bytes((kept / "v1").read_bytes())
    with pytest.raises(Untrusted) as raised:
        place.client.verify("swiss-ai/tiny@v2")
    assert raised.value.code == "NOT-UNDER-NAME" and "as swiss-ai/tiny@v1" in raised.value.why
    artifact = place.publish(STRANGER, "elsewhere/tiny@v2", {"README.md": b"# Elsewhere\n"})
    place.client.pull(f"sha256:{artifact}")
    place.client.bind("elsewhere", OWNER.id)
    with pytest.raises(Untrusted, match="is not elsewhere/tiny@v2"):
        place.client.verify("elsewhere/tiny@v2")
