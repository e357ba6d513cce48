"""`comity lineage`: the graph of an artifact in each form, with what is missing and what conflicts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from comity.addons.derivation.commands.lineage import FORMATS, command
from comity.trust.encoding import sha256
from comity.trust.statements import Parent
from support.case import case
from support.run_command import printed, refused, run, said

BASE = sha256(b"the manifest of a base")


@pytest.fixture(autouse=True, name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return tmp_path


def test_an_artifact_without_parents_is_alone(home: Path) -> None:
    folder = case().write(home)
    document = printed(command, folder)
    assert document["root"] == case().artifact and document["edges"] == [] and document["missing"] == []
    (node,) = document["nodes"]
    assert (node["artifact"], node["licences"], node["missing"]) == (case().artifact, ["Apache-2.0"], False)
    assert "swiss-ai/tiny@v1" in said(command, folder)


def test_a_parent_that_is_only_named_is_missing(home: Path) -> None:
    made = case(lineage=(Parent("finetune", "inst/base@v1", BASE),))
    folder = made.write(home)
    document = printed(command, folder)
    (edge,) = document["edges"]
    assert (edge["parent"], edge["relations"], edge["here"]) == (f"sha256:{BASE}", ["finetune"], None)
    assert len(edge["claimed_by"]) == 1 and edge["derived_by"] == [] and not edge["closes_a_circle"]
    assert document["missing"] == [f"sha256:{BASE}"]
    assert [node["missing"] for node in document["nodes"]] == [False, True]
    assert "inst/base@v1" in said(command, folder)


@pytest.mark.parametrize("form", FORMATS)
def test_each_form_shows_the_parent(home: Path, form: str) -> None:
    folder = case(lineage=(Parent("finetune", "inst/base@v1", BASE),)).write(home)
    drawn = run(command, folder, "--format", form)
    assert drawn.exit_code == 0 and "inst/base@v1" in drawn.stdout
    if form == "svg":
        assert ElementTree.fromstring(drawn.stdout).tag.endswith("svg")
    assert drawn.stdout.startswith("digraph") == (form == "dot")


def test_what_cannot_be_derived_here_is_a_warning(home: Path) -> None:
    folder = case(lineage=(Parent("quantized", "inst/base@v1", BASE),)).write(home)
    document = printed(command, folder, "--check")
    assert document["edges"][0]["here"] is None and document["unchecked"]
    assert "not derived again here:" in said(command, folder, "--check")
    assert printed(command, folder)["unchecked"] == []


def test_a_form_or_folder_that_is_none_is_refused(home: Path) -> None:
    assert run(command, home, "--format", "png").exit_code == 2
    refused(command, home)
    refused(command, "no such name")
