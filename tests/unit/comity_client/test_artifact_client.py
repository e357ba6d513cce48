"""Artifacts on this machine, without a node: an exact pulled copy answers, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity_client.artifact_client import ArtifactClient
from comity_client.events import Progress
from comity_client.home import Home
from comity_client.pull import pull as pulling
from comity_client.pull.destinations import workers
from comity_client.user import User
from support.case import FILES, Case, case

GOOD: Case = case()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return GOOD.write(tmp_path)


@pytest.fixture
def api(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactClient:
    """A client whose pinned federation has no node that answers."""

    async def silent(*_: object) -> None:
        raise Unavailable("no node answers", code="UNREACHABLE")

    monkeypatch.setattr(User, "resolve", silent)
    monkeypatch.setattr(pulling, "resolve", silent)
    made = ArtifactClient(Home(tmp_path / "home"))
    made.pin(GOOD.federation.encode())
    return made


def test_a_folder_is_verified_by_the_policy_that_is_given_or_the_default(api: ArtifactClient, folder: Path) -> None:
    counted: list[int] = []
    verdict = api.verify(folder, policy=api.policy(folder.parent / "policy.toml"), on_hashed=counted.append)
    assert verdict.accepted and sum(counted) == sum(map(len, FILES.values()))
    assert api.verify(folder).policy != verdict.policy
    with pytest.raises(ComityError):
        api.verify(folder.parent / "missing")


def test_the_name_of_a_folder_does_not_choose_the_policy(
    api: ArtifactClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("hf:org").symlink_to(folder.parent)
    assert api.verify(Path("hf:org", folder.name)).required == api.verify(folder).required


def test_an_exact_copy_is_the_answer_where_no_node_answers(api: ArtifactClient, folder: Path) -> None:
    policy, events = api.policy(folder.parent / "policy.toml"), list[object]()
    exact = f"swiss-ai/tiny@sha256:{GOOD.artifact}"
    pulled = api.pull(exact, to=folder, policy=policy, on_event=events.append)
    assert (pulled.artifact, pulled.folder, pulled.verdict.accepted) == (GOOD.artifact, folder, True)
    assert any(isinstance(event, Progress) for event in events)
    changed = next(path for path in folder.iterdir() if path.name == "LICENSE")
    changed.write_bytes(b"changed")
    with pytest.raises(ComityError):
        api.pull(exact, to=folder, policy=policy)


@pytest.mark.parametrize("reference", ["swiss-ai/tiny", "swiss-ai/tiny@v9", f"swiss-ai/tiny@sha256:{'0' * 64}"])
def test_a_copy_is_no_answer_to_another_question(api: ArtifactClient, folder: Path, reference: str) -> None:
    with pytest.raises(ComityError):
        api.pull(reference, to=folder, policy=api.policy(folder.parent / "policy.toml"))


def test_without_a_copy_the_error_is_that_of_the_nodes(api: ArtifactClient, tmp_path: Path) -> None:
    exact = f"swiss-ai/tiny@sha256:{GOOD.artifact}"
    for to in (None, tmp_path / "empty"):
        with pytest.raises(Unavailable):
            api.pull(exact, to=to, hub_cache=tmp_path / "cache")
    assert not (tmp_path / "empty").exists()


def test_a_scan_loads_and_hashes_nothing(api: ArtifactClient, folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"\x80\x04N.")
    scan = api.scan(folder)
    active = {each.file.path for each in scan.files if each.file.inspection and each.file.inspection.active}
    assert active == {"model.bin"}
    with pytest.raises(NotFound):
        api.scan("swiss-ai/tiny@v1", hub_cache=folder.parent / "cache")


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (3, 3), (64, 4)])
def test_a_machine_hashes_with_few_threads(monkeypatch: pytest.MonkeyPatch, cores: int | None, threads: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert workers() == threads
