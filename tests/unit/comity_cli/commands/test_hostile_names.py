"""Names that would break a terminal, an encoder or a shell: of files, through `comity verify`, and of models."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from comity.trust.encoding import sha256
from comity_cli.commands import search
from comity_cli.main import main
from comity_client.evidence.search import FoundArtifacts
from support.case import case

NAMES = ["\x1b[2J", "a\n  PASS  bytes", "\u202egpj.exe", os.fsdecode(b"\xff\xfe")]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    folder = case().write(tmp_path)
    for name in NAMES:
        (folder / name).touch()
    return ["verify", str(folder), "--policy", str(tmp_path / "policy.toml")]


def exits(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_hostile_names_are_shown_on_one_printable_line_each(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits([*arguments, "--facts"]) == 3
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert (
        out.count("not in the manifest") == len(NAMES) + 2
    )  # each is a fact, the first also the summary, which decides
    assert "\\x1b[2J: not in the manifest" in out


def test_hostile_names_are_in_the_report_and_in_the_json(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert exits([*arguments, "--json", "--report", str(report)]) == 3
    printed, written = json.loads(capsys.readouterr().out), json.loads(report.read_bytes())
    facts, filed = (
        [fact["text"] for row in document["rows"] if row["row"] == "bytes" for fact in row["facts"]]
        for document in (printed, written)
    )
    assert facts == [f"{name}: not in the manifest" for name in sorted(NAMES)]
    assert filed == [text.encode("utf-8", "backslashreplace").decode() for text in facts]


def test_an_unsigned_name_is_one_word_of_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = sha256(b"an artifact")
    hostile = FoundArtifacts("a/$(id);id @v1", digest, digest, "", "", proven=False)
    monkeypatch.setattr(search, "client", lambda: SimpleNamespace(search=lambda *asked: [hostile]))
    assert exits(["search"]) == 0
    (hint,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("Next: "))
    assert shlex.split(hint.removeprefix("Next: ")) == ["comity", "show", hostile.name]
