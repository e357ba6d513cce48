"""Files that survive a crash: the order of writes, syncs and renames."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from comity.content import durable, fault
from comity.content.durable import disk_errors, exclusive, flock, make_folders, write_file
from comity.trust.errors import OutOfSpace, Unavailable


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fault points and the syncs, in the order they happen; a folder's sync is shown with a slash."""
    seen: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        seen.append("fsync/" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync")
        fsync(descriptor)

    monkeypatch.setattr(fault, "point", seen.append)
    monkeypatch.setattr(os, "fsync", watched)
    return seen


def test_a_written_file_replaces_the_old_one_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    write_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_call_returns(
    tmp_path: Path, points: list[str]
) -> None:
    write_file(tmp_path / "file", b"data", point="p")
    assert points == ["p.fsync", "fsync", "p.rename", "p.folder", "fsync/", "p.done"]


def test_a_move_between_folders_syncs_both(tmp_path: Path, points: list[str]) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "file").write_bytes(b"data")
    durable.move(tmp_path / "file", tmp_path / "to" / "file", point="p")
    assert points == ["p.rename", "p.folder", "fsync/", "p.source", "fsync/", "p.done"]


def test_files_written_together_are_all_synced_before_the_first_has_its_name(tmp_path: Path, points: list[str]) -> None:
    folders = [tmp_path / name for name in ("one", "two", "new")]
    for folder in folders:
        folder.mkdir()
    files = {folders[number % 2] / str(number): str(number).encode() for number in range(20)}
    durable.write_together(files, mode=0o444, folder=folders[2], point="p")
    assert {path: path.read_bytes() for path in files} == files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o444}
    assert sorted(points[:40]) == 20 * ["fsync"] + 20 * ["p.fsync"]
    assert points[40:60] == 20 * ["p.rename"]
    assert sorted(points[60:64]) == ["fsync/", "fsync/", "p.folder", "p.folder"]
    assert points[64:] == ["p.source", "fsync/", "p.done"]


def test_if_a_sync_fails_no_file_of_the_batch_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        durable.write_together({tmp_path / "a": b"", tmp_path / "b": b""}, mode=0o444, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fsync_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Unavailable) as caught:
        write_file(path, b"new")
    assert caught.value.code == "DISK"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folder_that_is_missing_is_refused_with_the_command_that_makes_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        write_file(tmp_path / "a folder" / "file", b"new")
    assert caught.value.code == "DISK"
    assert caught.value.why == f"there is no folder {tmp_path / 'a folder'}"
    assert caught.value.hint == f"mkdir -p '{tmp_path / 'a folder'}'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_spent_quota_are_out_of_space(number: int) -> None:
    with pytest.raises(OutOfSpace) as caught, disk_errors("it was not written"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_status == 7
    assert caught.value.hint


def test_missing_parents_are_made_and_their_names_synced(tmp_path: Path, points: list[str]) -> None:
    make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert points == ["folders.fsync", "fsync/"] * 2


def test_a_lock_has_one_holder_until_its_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs no library: importing one takes longer than all else that a short command does with its lock."""
    monkeypatch.delattr(durable, "file_lock")

    def free() -> bool:
        with flock(tmp_path / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB, "it was not locked") as acquired:
            return acquired

    with pytest.raises(ValueError, match="in the block"), exclusive(tmp_path / ".lock", "it was not locked"):
        assert not free()
        raise ValueError("in the block")
    assert free()
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o600


def test_a_lock_that_is_a_link_or_in_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "other")
    for path in (tmp_path / ".lock", tmp_path / "missing" / ".lock"):
        with pytest.raises(Unavailable, match="it was not locked"), exclusive(path, "it was not locked"):
            pytest.fail("it was locked")
    assert not (tmp_path / "other").exists()
