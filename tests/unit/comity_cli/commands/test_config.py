"""`comity config`: every problem of the settings with its source, and each setting with where its value is from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from comity_cli.commands.config import command
from support.federation import NodeHome, make_home
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    return make_home(tmp_path_factory.mktemp("made") / "node", 0)


@pytest.fixture(name="home")
def _home(made: NodeHome, tmp_path: Path) -> NodeHome:
    shutil.copytree(made.directory, tmp_path / "node")
    return NodeHome(tmp_path / "node", made.card)


def test_settings_that_are_usable_end_with_0(home: NodeHome) -> None:
    assert printed(command, "check", "--node", home.directory)["problems"] == []
    assert "are usable" in said(command, "check", "--node", home.directory)


def test_every_problem_is_named_and_ends_with_2(home: NodeHome) -> None:
    home.set("limits", uplod_bytes=5)
    home.set("replication", intervall_seconds=1)
    problems = printed(command, "check", "--node", home.directory, status=2)["problems"]
    assert len(problems) == 2 and {each["code"] for each in problems} == {"CONFIG-UNKNOWN-KEY"}
    result = run(command, "check", "--node", home.directory)
    text = " ".join(result.output.split())
    assert result.exit_code == 2 and "uplod_bytes" in text and "intervall_seconds" in text
    assert f"2 problems in the settings of {home.directory / 'node.toml'}" in text


def test_a_misspelt_section_is_one_problem(home: NodeHome) -> None:
    file = home.directory / "node.toml"
    file.write_text(file.read_text().replace("[gateway]", "[gatway]"))
    (problem,) = printed(command, "check", "--node", home.directory, status=2)["problems"]
    assert problem["what"] == "unknown section 'gatway'" and "'gateway'" in problem["try"]
    assert "node.toml:" in problem["why"]


def test_a_value_that_is_impossible_is_a_problem(home: NodeHome) -> None:
    home.set("replication", interval_seconds=0)
    (problem,) = printed(command, "check", "--node", home.directory, status=2)["problems"]
    assert problem["code"] == "CONFIG" and "interval_seconds" in problem["what"] + problem["why"]


def test_a_setting_is_shown_with_where_it_is_from(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_LIMITS_UPLOAD_BYTES", "12345678")
    settings = {each["name"]: each for each in printed(command, "show", "--node", home.directory)["settings"]}
    changed, written = settings["limits.upload_bytes"], settings["replication.interval_seconds"]
    assert changed["value"] == "12345678" and changed["origin"] != written["origin"]
    assert "COMITY_LIMITS_UPLOAD_BYTES" in changed["where"] and "node.toml" in written["where"]
    plain = said(command, "show", "--node", home.directory)
    assert "limits.upload_bytes 12345678" in plain and "COMITY_LIMITS" not in plain
    assert "COMITY_LIMITS_UPLOAD_BYTES" in said(command, "show", "--origin", "--node", home.directory)


def test_a_folder_that_is_no_home_or_no_toml_is_refused(home: NodeHome, tmp_path: Path) -> None:
    (home.directory / "node.toml").write_text("[node\n")
    for verb in ("check", "show"):
        refused(command, verb, "--node", tmp_path)
        refused(command, verb, "--node", home.directory)
