"""A backup or a restore that is killed at any point, or finds the disk full at any byte, leaves nothing that looks
complete, and the same command works afterwards.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.maintenance.backup import create_backup, restore_backup
from comity.node.maintenance.backup_format import verify_backup
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from support.federation import NodeHome, make_home
from support.forked import ForkedProgram
from support.tools import missing

pytestmark = pytest.mark.slow

CREATE = """
import pathlib, sys
from comity.node.maintenance.backup import create_backup
file, out = map(pathlib.Path, sys.argv[1:])
create_backup(file, out, with_keys=True, with_blobs=True, clock=lambda: 1, environ={})
"""
RESTORE = """
import pathlib, sys
from comity.node.maintenance.backup import restore_backup
backup, home = map(pathlib.Path, sys.argv[1:])
restore_backup(backup, home, expected=None, environ={})
"""


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    home = make_home(tmp_path_factory.mktemp("home") / "home", 0)
    config = home.config()
    with closing(Ledger.open(config.storage.ledger.parent, lambda: 1)) as ledger:
        ledger.logs.create(home.origin, str(home.record.log), own=True)
    store = FolderStore(config.storage.blobs)
    for data in (b"weights" * 30_000, b"licence"):
        store.put(sha256(data), data)
    return home


@pytest.fixture(scope="module", name="backup")
def _backup(tmp_path_factory: pytest.TempPathFactory, home: NodeHome) -> Path:
    out = tmp_path_factory.mktemp("backup") / "backup"
    create(home, out)
    return out


def create(home: NodeHome, out: Path) -> None:
    file = home.directory / "node.toml"
    create_backup(file, out, with_keys=True, with_blobs=True, clock=lambda: 1, environ={})


def run(script: str, *arguments: Path, **environ: str) -> int:
    whole = {**os.environ, **environ}
    return ForkedProgram.python(script, *map(str, arguments), environ=whole, log=Path(os.devnull)).wait()


def points(tmp_path: Path, script: str, *arguments: Path) -> list[str]:
    """`name:count` of the hits to kill at: of each point the first and the last."""
    log = tmp_path / "hits"
    assert run(script, *arguments, COMITY_FAULT_LOG=str(log)) == 0
    hits = log.read_text().split()
    return [f"{name}:{count}" for name in dict.fromkeys(hits) for count in sorted({1, hits.count(name)})]


def test_a_backup_killed_at_any_point_is_not_valid_and_the_next_one_works(tmp_path: Path, home: NodeHome) -> None:
    file = home.directory / "node.toml"
    hits = points(tmp_path, CREATE, file, tmp_path / "first")
    assert {"backup.name:1", "backup.named:1", "backup.manifest.rename:1", "backup.ledger:1"} <= set(hits)
    for number, hit in enumerate(hits):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert run(CREATE, file, folder / "out", COMITY_FAULT=hit) == -signal.SIGKILL, hit
        if (folder / "out").exists():
            verify_backup(folder / "out")
            assert hit == "backup.named:1"
            continue
        create(home, folder / "out")
        verify_backup(folder / "out")
        assert [path.name for path in folder.iterdir()] == ["out"], hit


def test_a_restore_killed_at_any_point_is_no_home_and_continues_when_repeated(tmp_path: Path, backup: Path) -> None:
    hits = points(tmp_path, RESTORE, backup, tmp_path / "first")
    assert {"restore.mark.rename:1", "restore.done:1", "restore.marker.rename:1"} <= set(hits)
    whole = contents(tmp_path / "first")
    for number, hit in enumerate(hits):
        new = tmp_path / str(number)
        assert run(RESTORE, backup, new, COMITY_FAULT=hit) == -signal.SIGKILL, hit
        if not (new / "node.toml").exists():
            restore_backup(backup, new, expected=None, environ={})
        assert contents(new) == whole, hit


def contents(home: Path) -> dict[str, bytes]:
    """Every file of a home but the note of a begun restore, which means nothing beside node.toml."""
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "restore.incomplete"}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow during the block: the system refuses the next byte, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def test_a_file_that_cannot_grow_leaves_nothing_behind(tmp_path: Path, home: NodeHome, backup: Path) -> None:
    random.seed(7)
    sizes = [0, 1, 4096, *(random.randrange(300_000) for _ in range(20))]
    failed = 0
    for size in sizes:
        folder = tmp_path / str(size)
        folder.mkdir()
        try:
            with largest_file(size):
                create(home, folder / "out")
        except ComityError as error:
            failed += 1
            assert error.exit_status in (5, 7)
            assert list(folder.iterdir()) == []
        else:
            verify_backup(folder / "out")
        try:
            with largest_file(size):
                restore_backup(backup, folder / "new", expected=None, environ={})
        except ComityError as error:
            assert error.exit_status in (5, 7)
            assert not (folder / "new" / "node.toml").exists()
            restore_backup(backup, folder / "new", expected=None, environ={})
    assert failed > 3


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, home: NodeHome, backup: Path) -> None:
    needed = sum(path.stat().st_size for path in backup.rglob("*") if path.is_file())
    for share in (0.1, 0.4, 0.7, 0.95):
        with small_disk(tmp_path / "disk", int(needed * share)) as disk:
            with pytest.raises(ComityError) as refused:
                create(home, disk / "out")
            assert refused.value.exit_status in (5, 7)
            assert list(disk.iterdir()) == []
            with pytest.raises(ComityError) as refused:
                restore_backup(backup, disk / "new", expected=None, environ={})
            assert refused.value.exit_status in (5, 7)
            assert not (disk / "new" / "node.toml").exists()
    with small_disk(tmp_path / "disk", 40 * needed) as disk:
        create(home, disk / "out")
        verify_backup(disk / "out")


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes. Skips where this process may not mount one."""
    folder.mkdir(exist_ok=True)
    if _tool("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        missing("this process may not mount a file system; unlock: root, with CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        _tool("umount", str(folder))


def _tool(*command: str) -> int:
    if shutil.which(command[0]) is None:
        return 1
    return subprocess.run(command, capture_output=True, check=False).returncode
