"""`comity cache`: what is listed and removed of a Hub cache, and what is asked before."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import sha256, short
from comity_cli.commands.cache import command
from comity_client import hub_cache
from comity_client.pull import cache as pulled
from comity_client.pull.cache import CachedArtifact, InterruptedFile
from support.run_command import printed, run, said


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an artifact in three forms, and two files of interrupted pulls."""
    found = [
        CachedArtifact("inst/tiny", ("v1", "main"), sha256(b"1"), 3, 2_000_000, False, tmp_path / "one"),
        CachedArtifact("inst/other", (), sha256(b"2"), 1, 10, True, tmp_path / "two"),
    ]
    partial = [InterruptedFile("inst/tiny", tmp_path / f"{number}.incomplete", 500) for number in range(2)]
    for file in partial:
        file.path.write_bytes(bytes(file.bytes))
    monkeypatch.setattr(pulled, "cached_artifacts", lambda cache: found if cache == tmp_path else [])
    monkeypatch.setattr(pulled, "interrupted_files", lambda cache: [file for file in partial if file.path.exists()])
    monkeypatch.setattr(pulled, "remove_interrupted", remove)
    monkeypatch.setattr(pulled, "find_cached", lambda cache, reference: found["other" in str(reference)])
    monkeypatch.setattr(pulled, "remove_cached", lambda artifact: artifact.bytes)
    return tmp_path


def remove(files: list[InterruptedFile]) -> int:
    for file in files:
        file.path.unlink()
    return sum(file.bytes for file in files)


def test_artifacts_are_listed_with_their_state(folder: Path) -> None:
    text = said(command, "ls", "--hub-cache", folder)
    assert "inst/tiny v1, main" in text and "3 2.0 MB complete" in text
    assert f"inst/other - {short(sha256(b'2'))}" in text and "1 10 B partial" in text
    assert "Interrupted pulls left 2 files, 1.0 kB." in text and "comity cache prune" in text
    document = printed(command, "ls", "--hub-cache", folder)
    assert [each["name"] for each in document["artifacts"]] == ["inst/tiny", "inst/other"]
    assert (document["cache"], len(document["interrupted"])) == (str(folder), 2)


def test_an_empty_cache_is_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.incomplete"):
        file.unlink()
    other = tmp_path / "other"
    assert said(command, "ls", "--hub-cache", other) == f"Nothing in {other} was pulled by comity."
    assert printed(command, "ls", "--hub-cache", other)["artifacts"] == []


def test_the_cache_of_the_user_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_cache, "default_cache", lambda: folder)
    assert printed(command, "ls")["cache"] == str(folder)


def test_nothing_is_removed_without_consent(folder: Path) -> None:
    dry = printed(command, "rm", "inst/tiny@v1", "--dry-run", "--hub-cache", folder)
    assert (dry["dry_run"], dry["freed"], len(dry["removed"])) == (True, 0, 1)
    declined = run(command, "rm", "inst/tiny@v1", "--hub-cache", folder, answer="n\n")
    assert declined.exit_code != 0 and "removed," not in declined.output
    assert run(command, "prune", "--hub-cache", folder, "--json").exit_code == 2  # nobody is there to ask
    assert len(list(folder.glob("*.incomplete"))) == 2


def test_an_artifact_that_is_named_twice_is_removed_once(folder: Path) -> None:
    text = said(command, "rm", "inst/tiny@v1", "inst/tiny", "--yes", "--hub-cache", folder)
    assert "1 artifact removed, 2.0 MB freed" in text
    document = printed(command, "rm", "inst/tiny@v1", "inst/other", "--yes", "--hub-cache", folder)
    assert (document["freed"], document["dry_run"]) == (2_000_010, False)


def test_interrupted_files_are_removed(folder: Path) -> None:
    assert printed(command, "prune", "--dry-run", "--hub-cache", folder)["freed"] == 0
    document = printed(command, "prune", "--yes", "--hub-cache", folder)
    assert (document["freed"], len(document["files"])) == (1000, 2)
    assert "left 0 files, 0 B" in said(command, "prune", "--hub-cache", folder)  # nothing is asked
