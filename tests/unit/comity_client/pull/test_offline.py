"""An earlier copy as the answer where no node answers: only an exact reference, only what it means here."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from comity.trust.names import Reference
from comity_client.artifact_client import ArtifactClient
from comity_client.home import Home
from comity_client.pull import pull as pulling
from comity_client.pull.offline import is_exact
from support.case import case, nodes

GOOD = case()
DIGEST = f"sha256:{GOOD.artifact}"


@pytest.mark.parametrize(
    ("reference", "exact"),
    [
        ("swiss-ai/tiny@v1", True),
        (DIGEST, True),
        (f"swiss-ai/tiny@{DIGEST}", True),
        ("swiss-ai/tiny", False),
        (f"hf:org/tiny@{'1f' * 20}", False),
        ("hf:org/tiny", False),
    ],
)
def test_a_version_or_a_digest_means_the_same_bytes_at_any_time(reference: str, exact: bool) -> None:
    assert is_exact(Reference.parse(reference)) is exact


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return GOOD.write(tmp_path)


@pytest.fixture(name="api")
def _api(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactClient:
    async def silent(*_: object) -> None:
        raise Unavailable("no node answers", why="all are silent", code="UNREACHABLE")

    monkeypatch.setattr(pulling, "resolve", silent)
    made = ArtifactClient(Home(tmp_path / "home"))
    made.pin(GOOD.federation.encode())
    return made


@pytest.mark.parametrize("reference", ["swiss-ai/tiny@v1", "Swiss-AI/TINY@v1", DIGEST, f"swiss-ai/tiny@{DIGEST}"])
def test_a_copy_that_is_what_is_asked_for_is_the_answer(api: ArtifactClient, folder: Path, reference: str) -> None:
    pulled = api.pull(reference, to=folder, policy=api.policy(folder.parent / "policy.toml"))
    assert pulled.title == "swiss-ai/tiny@v1" and pulled.bytes == pulled.here > 0
    assert pulled.cache is not None and pulled.cache.why == "all are silent"


@pytest.mark.parametrize("reference", ["swiss-ai/tiny@v2", "swiss-ai/other@v1", f"sha256:{'0' * 64}", "swiss-ai/tiny"])
def test_a_copy_of_something_else_is_none(api: ArtifactClient, folder: Path, reference: str) -> None:
    with pytest.raises(Unavailable, match="no node answers"):
        api.pull(reference, to=folder, policy=api.policy(folder.parent / "policy.toml"))


def test_a_binding_of_the_owner_decides_what_a_name_means(api: ArtifactClient, folder: Path) -> None:
    policy = api.policy(folder.parent / "policy.toml")
    api.bind("swiss-ai/tiny@v1", sha256(b"other bytes"))
    with pytest.raises(Unavailable):
        api.pull("swiss-ai/tiny@v1", to=folder, policy=policy)
    api.bind("mine/renamed@v9", GOOD.artifact)
    assert api.pull("mine/renamed@v9", to=folder, policy=policy).title == "mine/renamed@v9"


def test_a_copy_that_does_not_pass_the_policy_is_none(api: ArtifactClient, folder: Path, tmp_path: Path) -> None:
    strict = case(cosigners=nodes()[1:3]).demanding("at_least = 2", "at_least = 3").write(tmp_path / "strict")
    with pytest.raises(Unavailable):
        api.pull("swiss-ai/tiny@v1", to=strict, policy=api.policy(strict.parent / "policy.toml"))
    (folder / "LICENSE").write_bytes(b"changed")
    with pytest.raises(Unavailable):
        api.pull(DIGEST, to=folder, policy=GOOD.policy)
    with pytest.raises(Unavailable):
        api.pull(DIGEST, to=tmp_path / "missing", policy=GOOD.policy)
