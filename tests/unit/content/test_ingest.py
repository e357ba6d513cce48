"""Ingest: a folder read once, hashed by file and by piece."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.content import ingest as room
from comity.content.ingest import Ingested, ingest
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, records_root
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Malformed, Unavailable
from support import weights

MIB = 1024 * 1024


def take_in(folder: Path) -> Ingested:
    return ingest(folder, workers=2, on_progress=lambda _count: None)


@functools.cache
def large_files() -> dict[str, bytes]:
    rng = random.Random(1)
    return {
        "model.safetensors": weights.safetensors({"a": rng.randbytes(9 * MIB + 5), "b": rng.randbytes(700)}),
        "data.bin": rng.randbytes(30 * MIB + 1),
        "exact.bin": rng.randbytes(2 * PIECE_SIZE),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for name, data in large_files().items():
        (folder / name).write_bytes(data)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}\n")
    (folder / "empty").touch()
    return folder


def test_each_file_and_each_piece_has_the_right_hash(folder: Path) -> None:
    found = take_in(folder)
    assert [entry.path for entry in found.manifest.files] == [
        "1_Pooling/config.json",
        "config.json",
        "data.bin",
        "empty",
        "exact.bin",
        "model.safetensors",
    ]
    for entry in found.manifest.files:
        data = (folder / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), sha256(data))
        at = 0
        for record in found.records[entry.path]:
            assert record.sha256 == hashlib.sha256(data[at : at + record.length]).digest()
            at += record.length
        assert at == len(data)


def test_a_slower_file_hash_still_includes_every_piece(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __init__(self, data: bytes = b"") -> None:
            self._hasher = hashlib.sha256(data)
            self.digest, self.hexdigest = self._hasher.digest, self._hasher.hexdigest

        def update(self, data: bytes) -> None:
            threading.Event().wait(0.1)
            self._hasher.update(data)

    monkeypatch.setattr(room, "hashlib", SimpleNamespace(sha256=Slow))
    entry = take_in(folder).manifest.by_path["data.bin"]
    assert entry.sha256 == sha256((folder / "data.bin").read_bytes())


def test_the_index_names_layout_count_and_root_in_the_manifests_order(folder: Path) -> None:
    found = take_in(folder)
    assert [path for path, _ in found.index.files] == [entry.path for entry in found.manifest.files]
    layouts = dict(found.index.files)
    assert layouts["model.safetensors"].layout == TENSOR_LAYOUT
    assert layouts["data.bin"].layout == FIXED_LAYOUT
    assert layouts["data.bin"].count == 8
    assert layouts["empty"].count == 0
    for path, layout in found.index.files:
        assert layout.root == records_root(found.records[path])


def test_entries_lead_to_the_paths_of_their_files(folder: Path) -> None:
    found = take_in(folder)
    assert found.files["1_Pooling/config.json"] == folder / "1_Pooling" / "config.json"
    assert found.files.keys() == {entry.path for entry in found.manifest.files}


def test_progress_adds_up_to_every_byte(folder: Path) -> None:
    told: list[int] = []
    found = ingest(folder, workers=3, on_progress=told.append)
    assert sum(told) == found.manifest.size


def test_progress_is_reported_by_one_thread_at_a_time(folder: Path) -> None:
    inside = threading.Lock()

    def on_progress(_count: int) -> None:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.002)
        inside.release()

    ingest(folder, workers=4, on_progress=on_progress)


def test_files_that_are_never_published_are_listed_as_ignored(folder: Path) -> None:
    plain = take_in(folder)
    for path in (".git/objects/ab", ".cache/huggingface/download/x", ".comity/claims.jsonl"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("not published")
    found = take_in(folder)
    assert found.ignored == (".cache/huggingface", ".comity", ".git")
    assert found.manifest.digest == plain.manifest.digest


def test_only_the_reserved_folders_at_the_top_are_ignored(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "kept").write_text("kept")
    (folder / "1_Pooling" / ".git").write_text("kept")
    found = take_in(folder)
    assert {".cache/kept", "1_Pooling/.git"} <= found.manifest.by_path.keys()


@pytest.mark.parametrize("target", ["config.json", "1_Pooling", "nowhere", "/etc/passwd"])
def test_a_link_is_refused(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(Malformed) as caught:
        take_in(folder)
    assert caught.value.code == "NOT-A-FILE"


def test_a_special_file_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(Malformed):
        take_in(folder)


def test_a_file_that_turns_into_a_pipe_after_it_was_listed_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_all = room._hash_all

    def swapped(files: Mapping[str, Path], workers: int, on_progress: Callable[[int], None]) -> object:
        (folder / "config.json").unlink()
        os.mkfifo(folder / "config.json")
        return hash_all(files, workers, on_progress)

    monkeypatch.setattr(room, "_hash_all", swapped)
    with pytest.raises(Malformed):
        take_in(folder)


@pytest.mark.parametrize("name", ["bad\nname", "back\\slash", "\udcff\udcfe"])
def test_a_name_that_no_manifest_may_hold_is_refused(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(Malformed):
        take_in(folder)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, PIECE_SIZE + 5)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize("change", [grow, shrink, overwrite, replace])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(12 * MIB))
    changes = iter([change])

    def on_progress(_count: int) -> None:
        for act in changes:
            act(path)

    with pytest.raises(Conflict) as caught:
        ingest(tmp_path, workers=1, on_progress=on_progress)
    assert caught.value.code == "CHANGED"


def test_one_bad_file_stops_the_others(tmp_path: Path) -> None:
    for number in range(4):
        with (tmp_path / f"{number}.bin").open("wb") as file:
            file.truncate(64 * MIB)
    done: list[int] = []

    def on_progress(count: int) -> None:
        done.append(count)
        if len(done) == 3:
            for file in tmp_path.iterdir():  # one is being read: which, is the order of the file system
                os.utime(file, ns=(1, 1))

    with pytest.raises(Conflict):
        ingest(tmp_path, workers=1, on_progress=on_progress)
    assert sum(done) == 64 * MIB


def test_the_error_of_the_bad_file_is_raised_also_if_another_worker_ends_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        (tmp_path / name).write_bytes(b"")
    made: dict[str, Future[object]] = {}
    both, making = threading.Event(), threading.Lock()

    class Pool(ThreadPoolExecutor):
        def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            with making:
                made[arguments[0]] = super().submit(function, *arguments, **named)
                return made[arguments[0]]

    class Failed(threading.Event):
        """The bad file's worker tells the other one, and is delayed before its own end."""

        def set(self) -> None:
            first = not self.is_set()
            super().set()
            if first:
                with making:  # the other one may run before it is in `made`
                    good = made["good"]
                wait([good], 30)

    def hash_file(path: str, source: Path, progress: Callable[[int], None]) -> None:
        while path == "good":
            progress(1)
        assert both.wait(30)
        raise Conflict("bad", code="CHANGED")

    monkeypatch.setattr(room, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(room, "threading", SimpleNamespace(Event=Failed, Lock=threading.Lock))
    monkeypatch.setattr(room, "_hash_file", hash_file)
    with pytest.raises(Conflict):
        ingest(tmp_path, workers=2, on_progress=lambda count: both.set())


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        take_in(tmp_path / "nowhere")


def test_too_many_files_are_refused_while_they_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_FILES", 3)
    with pytest.raises(Malformed) as caught:
        take_in(folder)
    assert caught.value.code == "TOO-MANY-FILES"
