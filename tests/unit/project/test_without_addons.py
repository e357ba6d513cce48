"""The core alone: a copy of the product without the folder of the add-ons, in processes of their own."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from comity import addons
from comity.installed_addons import from_addons

ROOT = Path(__file__).resolve().parents[3]
IMPORT_ALL = """
import importlib, pkgutil, sys
import comity, comity_client, comity_cli
for package in (comity, comity_client, comity_cli):
    assert package.__path__[0].startswith(sys.argv[1]), package.__path__
    for found in pkgutil.walk_packages(list(package.__path__)[:1], package.__name__ + "."):
        if not found.name.startswith("comity.ledger.migrations"):  # which Alembic runs
            importlib.import_module(found.name)
print(*(name for name in sys.modules if name.startswith("comity.addons")))
"""
HUB = "test_gateway_hub.py::test_every_revision_that_names_it_leads_to_one_commit"
PULL = "test_client_with_nodes.py::test_an_artifact_is_published_copied_pulled_verified_and_outlives_its_node"


@pytest.fixture(scope="module", name="core")
def _core(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process that has the core and no add-on."""
    folder = tmp_path_factory.mktemp("core")
    for top in ("registry", "clients"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("addons", "__pycache__"))
    return {**os.environ, "PYTHONPATH": f"{folder / 'registry'}{os.pathsep}{folder / 'clients'}"}


def run(core: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=core, cwd=ROOT, capture_output=True, text=True, check=False)


def listed(helped: subprocess.CompletedProcess[str]) -> set[str]:
    """The commands in the help."""
    return set(re.findall(r"^  (\S+)  ", helped.stdout, re.MULTILINE))


def test_every_module_of_the_core_is_imported_without_an_add_on(core: Mapping[str, str]) -> None:
    ran = run(core, "-c", IMPORT_ALL, core["PYTHONPATH"].partition("registry")[0])
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\n", "")


def test_the_commands_of_add_ons_are_unknown_without_them_and_the_others_are_all_there(core: Mapping[str, str]) -> None:
    everything, alone = (listed(run(environ, "-m", "comity_cli.start", "--help")) for environ in (os.environ, core))
    added = {name for commands in from_addons("COMMANDS") for name in commands}
    assert {"attestation", "derive", "diff", "bom", "lineage"} <= added
    assert everything - alone == added
    assert alone < everything
    for name in added:
        assert run(core, "-m", "comity_cli.start", name, "--help").returncode == 2


def test_each_add_on_declares_something() -> None:
    names = [found.name for found in pkgutil.iter_modules(addons.__path__)]
    assert names == sorted(names)
    asked = ("COMMANDS", "appraiser", "handoff_renderers", "offer_commands", "gateway_routes")
    assert sum(len(from_addons(attribute)) for attribute in asked) >= len(names)


@pytest.mark.slow
def test_nodes_start_and_an_artifact_is_published_copied_pulled_and_verified(core: Mapping[str, str]) -> None:
    tests = [f"tests/integration/{test}" for test in (HUB, PULL)]
    ran = run(core, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", *tests)
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert "2 passed" in ran.stdout
