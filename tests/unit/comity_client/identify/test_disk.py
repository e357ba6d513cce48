"""Files are found and hashed once, whatever else is there, and nothing is changed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from comity.trust.encoding import Digest, sha256
from comity_client.file_state import file_state
from comity_client.identify import disk
from comity_client.identify.disk import CACHE_FILE, DiskFile, HashCache, read_files


def found(*paths: Path, cache: HashCache | None = None) -> dict[str, DiskFile]:
    return {each.path.name: each for each in read_files(paths, cache, workers=2)}


def old(path: Path) -> Path:
    """A file that was not changed just now."""
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were read. The clock is far ahead, so that every file has settled."""
    read, original = list[Path](), disk._hash

    def noted(file: FileIO, size: int, on_hashed: Callable[[int], None]) -> Digest:
        read.append(Path(str(file.name)))
        return original(file, size, on_hashed)

    monkeypatch.setattr(disk, "_hash", noted)
    monkeypatch.setattr(time, "time", lambda: 10.0**10)
    return read


def test_every_file_below_the_paths_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"1")
    (tmp_path / "a" / "b" / "two").write_bytes(b"22")
    (tmp_path / "a" / "b" / "none").write_bytes(b"")
    (tmp_path / "alone").write_bytes(b"3")
    counted = list[int]()
    files = read_files([tmp_path / "a", tmp_path / "alone"], None, workers=2, on_hashed=counted.append)
    assert [(each.path.name, each.size, each.sha256) for each in files] == [
        ("one", 1, sha256(b"1")),
        ("none", 0, sha256(b"")),
        ("two", 2, sha256(b"22")),
        ("alone", 1, sha256(b"3")),
    ]
    assert sum(counted) == 4


def test_a_file_with_several_paths_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "link").symlink_to("blob")
    os.link(tmp_path / "blob", tmp_path / "same")
    files = found(tmp_path)
    assert len(read) == 1
    assert {each.sha256 for each in files.values()} == {sha256(b"weights")}
    assert len({each.identity for each in files.values()}) == 1


def test_what_is_no_file_or_cannot_be_read_is_a_line_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        files = found(tmp_path, tmp_path / "never")
    assert {name: (each.sha256, bool(each.problem)) for name, each in files.items()} == dict.fromkeys(
        ("gone", "pipe", "socket", "never"), (None, True)
    )


def test_a_file_that_cannot_be_opened_is_a_line_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "secret").write_bytes(b"x")
    monkeypatch.setattr(disk, "_opener", refused)
    assert "ermission" in found(tmp_path)["secret"].problem


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = disk._hash

    def grows(file: FileIO, size: int, on_hashed: Callable[[int], None]) -> Digest:
        answer = original(file, size, on_hashed)
        with Path(str(file.name)).open("ab") as more:
            more.write(b"more")
        return answer

    (tmp_path / "growing").write_bytes(b"x")
    monkeypatch.setattr(disk, "_hash", grows)
    assert found(tmp_path)["growing"] == DiskFile(
        tmp_path / "growing", 1, problem="changed while it was read", identity=found(tmp_path)["growing"].identity
    )


def test_folders_that_are_linked_packs_or_of_a_caches_own_are_left_out(tmp_path: Path) -> None:
    kept = tmp_path / "models--a--b" / "snapshots" / "1f"
    left_out = ("models--a--b/refs", "models--a--b/.no_exist/1f", ".locks/a", "m/.cache/huggingface/download")
    for folder in (*left_out, "models--a--b/snapshots/1f/.comity", "refs", "models--a--b/snapshots/1f"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / folder.replace("/", "-")).write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert set(found(tmp_path)) == {"refs", kept.relative_to(tmp_path).as_posix().replace("/", "-")}


def test_a_hash_is_kept_until_the_file_changes(tmp_path: Path, read: list[Path]) -> None:
    (tmp_path / "cache").mkdir()
    file = old(tmp_path / "file") if (tmp_path / "file").write_bytes(b"one") else tmp_path
    for _ in range(2):
        cache = HashCache(tmp_path / "cache")
        assert found(file, cache=cache)["file"].sha256 == sha256(b"one")
        cache.close()
    assert read == [file]
    file.write_bytes(b"two")  # as long as before, with the same inode
    old(file)
    assert found(file, cache=HashCache(tmp_path / "cache"))["file"].sha256 == sha256(b"two")
    assert read == [file, file]


def test_a_file_that_was_changed_just_now_is_not_kept(tmp_path: Path) -> None:
    cache = HashCache(tmp_path)
    (tmp_path / "file").write_bytes(b"one")
    found(tmp_path / "file", cache=cache)
    cache.close()
    assert HashCache(tmp_path).get(file_state((tmp_path / "file").stat())) is None


def test_a_damaged_cache_is_passed_over(tmp_path: Path, read: list[Path]) -> None:
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / CACHE_FILE).write_bytes(b"no database" * 1000)
    cache = HashCache(tmp_path)
    assert found(tmp_path / "file", cache=cache)["file"].sha256 == sha256(b"one")
    cache.close()
    assert len(read) == 1
