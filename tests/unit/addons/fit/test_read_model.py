"""Whose needs are read: a folder, a pulled copy by the name that was typed, or what nodes describe."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.addons.fit.model_memory import read_model
from comity.trust.errors import NotFound, Unavailable
from comity_client.artifact_client import ArtifactClient
from comity_client.home import Home
from comity_client.user import User
from support.case import Case, case
from support.weights import safetensors
from unit.comity_client.pull.test_pulled_cache import place

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
    made = ArtifactClient(Home(tmp_path / "home"))
    made.pin(GOOD.federation.encode())
    return made


def test_a_model_is_read_from_a_folder_or_the_cache(api: ArtifactClient, folder: Path) -> None:
    assert read_model(api, folder).title == read_model(api, str(folder)).title == folder.name
    with pytest.raises(Unavailable):
        read_model(api, "swiss-ai/tiny@v1", hub_cache=folder.parent / "cache")
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotFound):
        read_model(api, folder)


def test_a_model_in_the_cache_has_the_name_that_was_typed(api: ArtifactClient, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    place(cache, "inst/weights@v1", {"model.safetensors": safetensors({"w": bytes(8)})})
    assert read_model(api, "inst/weights@v1", hub_cache=cache).title == "inst/weights@v1"
