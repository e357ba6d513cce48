"""Properties of blobs in a folder only: modes, crash points, in-place damage, full disks, other file systems."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from comity.content import durable, fault
from comity.content.blobs import FolderStore
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace, Unavailable, Untrusted

DATA = b"weights" * 1000
DIGEST = sha256(DATA)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB: another device than `tmp_path`, and quickly full."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put_or_admit(root: Path, how: str) -> None:
    store = FolderStore(root)
    if how == "put":
        store.put(DIGEST, DATA)
    elif how == "put together":
        store.put_all({DIGEST: DATA})
    else:
        source = store.partial_path(DIGEST) if how == "rename" else root / "source"
        source.write_bytes(DATA)
        store.admit(source, DIGEST, len(DATA), link=how == "link")


def killed_by(environ: Mapping[str, str], work: Callable[[], None]) -> int:
    """The signal that killed a child of this process at the fault point in `environ`; 0 if it was not killed."""
    child = os.fork()
    if child == 0:
        try:
            fault.point = fault.arm(environ)
            work()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def remaining_files(store: FolderStore) -> list[str]:
    return sorted(path.name for path in (store.root / "partial").glob(f"*{durable.TEMPORARY}"))


def test_blobs_are_read_only_and_fanned_out_by_their_first_byte(store: FolderStore) -> None:
    store.put(DIGEST, DATA)
    blob = store.root / "blobs" / DIGEST[:2] / DIGEST
    assert blob.read_bytes() == DATA
    assert mode(blob) == 0o444
    assert store.path(DIGEST) == blob


def test_an_admitted_scratch_file_keeps_its_inode(store: FolderStore) -> None:
    store.partial_path(DIGEST).write_bytes(DATA)
    inode = store.partial_path(DIGEST).stat().st_ino
    store.admit(store.partial_path(DIGEST), DIGEST, len(DATA))
    assert store.path(DIGEST).stat().st_ino == inode
    assert mode(store.path(DIGEST)) == 0o444


def test_a_linked_file_is_shared_and_turns_read_only(store: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(DATA)
    store.admit(source, DIGEST, len(DATA), link=True)
    assert source.samefile(store.path(DIGEST))
    assert mode(source) == 0o444
    assert remaining_files(store) == []


def test_damage_in_place_is_detected_and_moved_aside_with_its_reason(store: FolderStore) -> None:
    store.put(DIGEST, DATA)
    blob = store.path(DIGEST)
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"W")
    assert not store.verify(DIGEST)
    store.quarantine(DIGEST, "scrub: the hash differs")
    assert not store.has(DIGEST)
    assert (store.root / "quarantine" / f"{DIGEST}.1").read_bytes() == b"W" + DATA[1:]
    assert (store.root / "quarantine" / f"{DIGEST}.1.reason").read_text() == "scrub: the hash differs\n"


def test_a_second_quarantine_keeps_the_first(store: FolderStore) -> None:
    for _ in range(2):
        store.put(DIGEST, DATA)
        store.quarantine(DIGEST, "why")
    assert {path.name for path in (store.root / "quarantine").iterdir()} == {
        f"{DIGEST}.{n}{suffix}" for n in (1, 2) for suffix in ("", ".reason")
    }


def test_a_planted_symbolic_link_is_not_a_blob(store: FolderStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(DATA)
    store.path(DIGEST).parent.mkdir()
    store.path(DIGEST).symlink_to(elsewhere)
    assert not store.has(DIGEST)
    with pytest.raises(Unavailable):
        store.read(DIGEST, 0, 1)
    store.put(DIGEST, DATA)
    assert not store.path(DIGEST).is_symlink()


def test_files_that_are_no_blobs_are_not_listed(store: FolderStore) -> None:
    store.put(DIGEST, DATA)
    (store.root / "blobs" / DIGEST[:2] / "README").write_text("hello")
    assert list(store.sizes()) == [(DIGEST, len(DATA))]


def test_the_folder_of_a_first_blob_is_synced_before_the_blob_is_named(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if another process has just created it: it may not have synced it."""
    other = FolderStore(store.root)
    other.put(DIGEST, DATA)
    steps: list[str] = []
    monkeypatch.setattr(fault, "point", steps.append)
    data = next(data for data in map(b"%d".__mod__, itertools.count()) if sha256(data)[:2] == DIGEST[:2])
    store.put(sha256(data), data)
    assert steps.index("store.fsync") < steps.index("blob.rename")
    steps.clear()
    store.put(DIGEST, DATA)
    store.remove(sha256(b"never put"))
    assert "store.fsync" not in steps


def test_an_existing_blob_is_synced_before_it_is_acknowledged(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(DIGEST, DATA)
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync", lambda path, point: synced.append(path))
    store.put(DIGEST, DATA)
    assert synced == [store.path(DIGEST).parent]


def test_a_full_disk_leaves_nothing_behind(other_file_system: Path) -> None:
    store = FolderStore(other_file_system)
    store.put(DIGEST, DATA)
    big = os.urandom(2 * 1024 * 1024)
    with pytest.raises(OutOfSpace):
        store.put(sha256(big), big)
    assert not store.has(sha256(big))
    assert remaining_files(store) == []
    assert store.verify(DIGEST)


def test_a_file_from_another_disk_is_copied_and_checked(store: FolderStore, other_file_system: Path) -> None:
    source = other_file_system / "source"
    source.write_bytes(DATA)
    store.admit(source, DIGEST, len(DATA), link=True)
    assert source.read_bytes() == DATA
    assert mode(source) != 0o444
    assert not source.samefile(store.path(DIGEST))
    store.admit(source, DIGEST, len(DATA))
    assert not source.exists()


def test_a_copy_that_does_not_hash_to_its_name_is_refused(store: FolderStore, other_file_system: Path) -> None:
    source = other_file_system / "source"
    source.write_bytes(DATA[::-1])
    with pytest.raises(Untrusted):
        store.admit(source, DIGEST, len(DATA))
    assert not store.has(DIGEST)
    assert source.exists()
    assert remaining_files(store) == []


def test_a_full_disk_during_a_copy_keeps_the_source(other_file_system: Path, tmp_path: Path) -> None:
    store, source = FolderStore(other_file_system), tmp_path / "source"
    source.write_bytes(big := os.urandom(2 * 1024 * 1024))
    with pytest.raises(OutOfSpace):
        store.admit(source, sha256(big), len(big))
    assert source.read_bytes() == big
    assert remaining_files(store) == []


def test_a_file_that_may_not_be_linked_is_copied(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_self: Path, _target: Path) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    source = store.root / "source"
    source.write_bytes(DATA)
    monkeypatch.setattr(Path, "hardlink_to", refused)
    store.admit(source, DIGEST, len(DATA), link=True)
    assert store.verify(DIGEST)
    assert not source.samefile(store.path(DIGEST))


def test_a_sweep_removes_remains_of_a_crashed_writer(store: FolderStore) -> None:
    (store.root / "partial" / f"x{durable.TEMPORARY}").write_bytes(b"half")
    store.sweep()
    assert remaining_files(store) == []


def test_a_sweep_leaves_a_running_copy_alone(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    swept_at: list[list[str]] = []

    def sweeping(name: str) -> None:
        if name == "blob.fsync":
            FolderStore(store.root).sweep()
            swept_at.append(remaining_files(store))

    monkeypatch.setattr(fault, "point", sweeping)
    store.put(DIGEST, DATA)
    assert len(swept_at[0]) == 1
    assert store.verify(DIGEST)


@pytest.mark.parametrize("how", ["put", "put together", "rename", "link"])
@pytest.mark.parametrize("point", ["blob.fsync", "blob.rename", "blob.folder", "blob.source", "blob.done"])
def test_a_crash_at_any_point_leaves_the_whole_blob_or_none(tmp_path: Path, how: str, point: str) -> None:
    assert killed_by({"COMITY_FAULT": point}, lambda: put_or_admit(tmp_path, how)) == signal.SIGKILL
    store = FolderStore(tmp_path)
    assert store.has(DIGEST) == (point in ("blob.folder", "blob.source", "blob.done"))
    assert not store.has(DIGEST) or store.verify(DIGEST)
    if how == "rename":
        assert store.has(DIGEST) or mode(store.partial_path(DIGEST)) & stat.S_IWUSR
    store.sweep()
    assert remaining_files(store) == []
    put_or_admit(tmp_path, how)
    assert store.verify(DIGEST)
    assert mode(store.path(DIGEST)) == 0o444


def test_a_folder_that_was_removed_is_not_mistaken_for_an_empty_one(store: FolderStore) -> None:
    shutil.rmtree(store.root / "blobs")
    with pytest.raises(Unavailable):
        list(store.sizes())
