"""`comity identify --require`: the answer that programs get before they load, in words and as a document."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from comity.trust.evidence import PACK
from comity_cli.commands.identify import command
from support.case import advisory, case
from support.run_command import printed, run, said

GOOD = case()


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    GOOD.write(tmp_path)
    return tmp_path


def test_an_accepted_folder_is_said_with_the_age_of_its_evidence(root: Path) -> None:
    text = said(command, "--require", "policy.toml", "model")
    assert "model: swiss-ai/tiny@v1" in text and "accepted by policy.toml; evidence cosigned on " in text
    document = printed(command, "--require", "policy.toml", "model")
    (answer,) = document["paths"]
    assert (answer["path"], answer["accepted"], document["exit_status"]) == ("model", True, 0)


def test_the_worst_of_several_paths_decides(root: Path) -> None:
    shutil.copytree("model", "bare", ignore=shutil.ignore_patterns(PACK))
    shutil.copytree("model", "changed")
    Path("changed/config.json").write_bytes(b"{}")
    ran = run(command, "--require", "policy.toml", "model", "bare", "changed")
    assert ran.exit_code == 3
    assert "comity adopt bare" in ran.output and f"comity verify {root}/changed --policy policy.toml" in ran.output
    assert "config.json: " in ran.output and "no manifest" in ran.output
    document = printed(command, "--require", "policy.toml", "model", "bare", status=5)
    assert [each["exit_status"] for each in document["paths"]] == [0, 5]


def test_warnings_are_said_whatever_the_policy_says(root: Path) -> None:
    GOOD.saying(*advisory(GOOD, kind="malware")).write(root)
    ran = run(command, "--require", "policy.toml", "model")
    assert ran.exit_code == 0 and "malware (critical): do not load it" in ran.output


def test_the_policy_is_named_once(root: Path) -> None:
    assert run(command, "--require", "policy.toml", "--policy", "policy.toml", "model").exit_code == 2
    assert run(command, "--require", "policy.toml", "--all", "model").exit_code == 2
