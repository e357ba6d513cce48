"""`comity diff`: what is said and printed of two artifacts, of which one, both or none are folders here."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.addons.derivation.commands.diff import SHOWN, command
from support.case import FILES, case
from support.run_command import printed, refused, said
from support.weights import safetensors


@pytest.fixture(autouse=True, name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return tmp_path


def folder(root: Path, **changed: bytes | None) -> Path:
    """An artifact with these files in the place of others; None leaves one out."""
    files = {**FILES, **{name.replace("__", "."): data for name, data in changed.items()}}
    return case(files={name: data for name, data in files.items() if data is not None}).write(root)


def test_the_same_files_are_the_same(home: Path) -> None:
    first, second = folder(home / "a"), folder(home / "b")
    text = said(command, first, second)
    assert "the same files, byte for byte" in text and f"files {len(FILES)} same" in text
    document = printed(command, first, second)
    assert document["files"] == {"same": len(FILES), "added": [], "removed": [], "changed": [], "renamed": []}
    assert document["before"]["artifact"] == document["after"]["artifact"]
    assert document["before"]["basis"] == "bytes" and document["licence"] == ["Apache-2.0", "Apache-2.0"]


def test_files_are_added_removed_changed_and_renamed(home: Path) -> None:
    first = folder(home / "a", old__txt=b"a file with another name", gone__txt=b"gone")
    second = folder(home / "b", new__txt=b"a file with another name", more__txt=b"more", LICENSE=b"another licence")
    document = printed(command, first, second)
    assert document["files"] == {
        "same": len(FILES) - 1,
        "added": ["more.txt"],
        "removed": ["gone.txt"],
        "changed": ["LICENSE"],
        "renamed": [["old.txt", "new.txt"]],
    }
    text = said(command, first, second)
    assert f"files {len(FILES) - 1} same, 1 added, 1 removed, 1 changed, 1 renamed" in text
    assert "+ more.txt 4 B" in text and "- gone.txt 4 B" in text and "> old.txt → new.txt" in text
    assert "the same files" not in text


def test_settings_are_compared_by_key(home: Path) -> None:
    first = folder(home / "a", config__json=b'{"hidden_size":8,"gone":1}')
    second = folder(home / "b", config__json=b'{"hidden_size":16,"more":true}')
    assert printed(command, first, second)["settings"] == {
        "config.json": {"gone": ["1", None], "hidden_size": ["8", "16"], "more": [None, "true"]}
    }
    text = said(command, first, second)
    assert "settings config.json: 3 keys changed" in text and "~ gone: 1 → absent" in text
    broken = folder(home / "c", config__json=b"[1]")
    assert printed(command, first, broken)["settings"] == {"config.json": None}
    assert "config.json: not a JSON object on one side" in said(command, first, broken)


def test_tensors_of_folders_are_compared(home: Path) -> None:
    first = folder(home / "a", model__safetensors=safetensors({"a": bytes(64), "b": bytes(64), "c": bytes(8)}))
    second = folder(home / "b", model__safetensors=safetensors({"a": bytes(64), "b": b"1" * 64, "d": bytes(8)}))
    tensors = printed(command, first, second)["tensors"]
    assert (tensors["basis"], tensors["same"], tensors["added"], tensors["removed"]) == ("tensors", 1, ["d"], ["c"])
    assert list(tensors["changed"]) == ["b"]
    assert "tensors 1 of 3 tensors the same" in said(command, first, second)


@pytest.mark.parametrize("count", [SHOWN, SHOWN + 1, SHOWN + 30])
def test_only_so_many_lines_are_shown_and_all_are_printed(home: Path, count: int) -> None:
    first = folder(home / "a")
    second = folder(home / "b", **{f"f{number:03}__txt": b"%d" % number for number in range(count)})
    text = said(command, first, second)
    assert text.count("+ f") == SHOWN
    assert (f"and {count - SHOWN} more; --json lists all" in text) == (count > SHOWN)
    assert len(printed(command, first, second)["files"]["added"]) == count


def test_a_folder_without_evidence_or_a_missing_one_is_refused(home: Path) -> None:
    first = folder(home / "a")
    for other in (home / "missing", first / "LICENSE"):
        refused(command, first, other)
