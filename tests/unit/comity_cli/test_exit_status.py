"""Exit statuses for scripts: an error of the user is never mistaken for a failed verification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comity_cli import verdicts
from comity_cli.main import main
from support.case import case, nodes


def _exits(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))


def test_a_policy_with_an_unknown_key_is_a_usage_error(tmp_path: Path) -> None:
    folder = case().write(tmp_path)
    policy = tmp_path / "policy.toml"
    assert _exits(["verify", str(folder), "--policy", str(policy)]) == 0
    policy.write_text(policy.read_text() + "[cosigner]\nat_least = 1\n")
    assert _exits(["verify", str(folder), "--policy", str(policy)]) == 2


def test_an_invalid_reference_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exits(["pull", "apertus", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["error"]["code"], document["exit_status"]) == ("BAD-NAME", 2)


@pytest.mark.parametrize(
    ("arguments", "said", "command"),
    [
        (["pull", "--json"], "Missing argument", "comity pull"),
        (["--json", "pull", "a/b@v1", "--nothing"], "No such option", "comity pull"),
        (["pull", "--nothing", "--json"], "No such option", "comity pull"),
        (["policy", "nothing", "--json"], "No such command", "comity policy"),
        (["nothing", "--json"], "No such command", "comity"),
        (["export", "--out", "there", "--json"], "say what to export", "comity export"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_a_document_too(
    arguments: list[str], said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exits(arguments) == 2
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    error = document["error"]
    assert (error["code"], error["try"], document["exit_status"]) == ("USAGE", f"{command} --help", 2)
    assert said in error["what"]
    assert printed.err == ""


def test_a_word_after_two_hyphens_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exits(["show", "--", "--json", "more"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Usage: comity show" in printed.err


def test_a_file_that_differs_is_a_verification_that_failed(tmp_path: Path) -> None:
    folder = case().write(tmp_path)
    changed = next(path for path in folder.iterdir() if path.is_file())
    changed.write_bytes(changed.read_bytes() + b"!")
    assert _exits(["verify", str(folder), "--policy", str(tmp_path / "policy.toml")]) == 3


def test_a_single_file_is_no_artifact_and_the_error_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = case().write(tmp_path)
    assert _exits(["verify", str(folder / "LICENSE")]) == 5
    said = capsys.readouterr().err
    assert f"{folder / 'LICENSE'} is one file" in said
    assert f"try: name {folder} instead" in said


def test_the_advice_of_a_verdict_fits_a_terminal_of_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = case().write(tmp_path)
    monkeypatch.setattr(verdicts, "terminal_width", lambda: 80)
    assert _exits(["verify", str(folder), "--policy", str(tmp_path / "policy.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    advice = lines[next(n for n, line in enumerate(lines) if line.startswith("  Your policy allows")) :]
    assert max(map(len, advice)) <= 80


def test_cosigners_that_are_too_few_are_a_policy_that_is_not_met(tmp_path: Path) -> None:
    folder = case(cosigners=nodes()[1:3]).demanding("at_least = 2", "at_least = 3").write(tmp_path)
    assert _exits(["verify", str(folder), "--policy", str(tmp_path / "policy.toml")]) == 4


def test_a_pack_without_proofs_is_evidence_that_is_missing(tmp_path: Path) -> None:
    folder = case().write(tmp_path)
    for proof in (folder / ".comity" / "proofs").iterdir():
        proof.unlink()
    assert _exits(["verify", str(folder), "--policy", str(tmp_path / "policy.toml")]) == 5


def test_a_verdict_without_pins_says_how_to_pin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = case().write(tmp_path)
    assert _exits(["verify", str(folder)]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "no federation is pinned here" in said
    assert "then: comity trust pin FILE Next: comity verify" in said
    assert "policy explain" not in said, "there is no policy file to explain"
