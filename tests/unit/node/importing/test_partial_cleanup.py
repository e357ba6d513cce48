"""The removal of imports and partial files that were not continued."""

from __future__ import annotations

import os
from pathlib import Path

from comity.content.blobs import FolderStore
from comity.node.importing.importer import import_folder, remove_folder, remove_stale
from comity.trust.upstream import Upstream

COMMIT = Upstream("https://hub.example", "org/tiny", "1f" * 20, "main")
OTHER = Upstream("https://hub.example", "org/tiny", "2e" * 20, "main")


def aged(folder: Path, time: float) -> None:
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time, time))


def test_an_abandoned_import_is_deleted_and_others_are_not(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    remove_stale(store, 1000)  # there may be none
    old, fresh = import_folder(store, COMMIT), import_folder(store, OTHER)
    for folder in (old, fresh):
        (folder / "000000").write_bytes(b"the beginning of a file")
    aged(old, 999)
    remove_stale(store, 1000)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_file_that_is_still_written_to_keeps_its_import(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    work = import_folder(store, COMMIT)
    (work / "000000").write_bytes(b"")
    (work / "000001").write_bytes(b"")
    aged(work, 999)
    os.utime(work / "000001", (1001, 1001))
    remove_stale(store, 1000)
    assert work.exists()
    remove_folder(work)
    assert not work.exists()


def test_imports_are_no_blobs_and_survive_a_sweep(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    work = import_folder(store, COMMIT)
    (work / "000000").write_bytes(b"half a file")
    store.sweep()
    assert list(store.sizes()) == []
    assert (work / "000000").exists()
    assert import_folder(store, COMMIT) == work
