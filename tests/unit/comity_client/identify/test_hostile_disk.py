"""Whatever is on a disk: each thing is a clear line, the rest is read, and nothing is changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity_client.file_state import FileState
from comity_client.identify import disk
from comity_client.identify.disk import HashCache
from comity_client.identify.identify import hash_paths
from comity_client.identify.match import match

NAMES = (
    b"new\nline",
    b"\x1b[2J\x1b]0;title\x07",
    "\u202etxt.exe".encode(),
    b"\xff\xfe",
    b"-rf",
    b" ",
    b"a\\b",
    b"a" * 255,
)


def problems(*paths: Path, cache: HashCache | None = None) -> dict[str, str]:
    files = hash_paths(paths, cache, 2, lambda count: None)
    return {each.path.name: each.problem for each in files if each.problem or each.sha256 is None}


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """What is at each path: bytes, links, owners, permissions, and all times."""
    found = dict[str, tuple[object, ...]]()
    for above, folders, names in os.walk(root):
        for name in (*folders, *names, "."):
            seen = (path := Path(above, name)).lstat()
            times = (seen.st_mtime_ns, seen.st_ctime_ns)
            atime = seen.st_atime_ns if name in names else 0  # folders are listed by this test too
            found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_nlink, seen.st_size, *times, atime)
    return found


def odd_tree(root: Path) -> Path:
    """A folder with most kinds of things that a disk can have."""
    (root / "deep" / "er").mkdir(parents=True)
    for name in NAMES:
        (root / os.fsdecode(name)).write_bytes(name)
    (root / "deep" / "er" / "file").write_bytes(b"x")
    (root / "empty").write_bytes(b"")
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "round").symlink_to(root / "deep")
    (root / "up").symlink_to(root.parent)
    (root / "device").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.truncate(5_000_000)
    (root / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    return root


PROBLEMS = {
    "dangling": "a link to nothing",
    "loop": "Too many levels of symbolic links",
    "up": "a link to a folder elsewhere: not followed",
    "device": "no file: a device, a socket or a pipe",
    "pipe": "no file: a device, a socket or a pipe",
    "broken.zip!": "zip directory is missing",
}


def test_each_thing_that_is_no_file_is_a_line_and_every_file_is_hashed(tmp_path: Path) -> None:
    root = odd_tree(tmp_path / "tree")
    assert problems(root) == PROBLEMS
    files = {each.path: each.sha256 for each in hash_paths([root], None, 2, lambda count: None)}
    for name in NAMES:
        assert files[root / os.fsdecode(name)] == sha256(name)
    assert files[root / "sparse"] == sha256(bytes(5_000_000))
    assert files[root / "deep/er/file"] == sha256(b"x")


def test_nothing_is_changed_not_even_a_time_of_access(tmp_path: Path) -> None:
    root = odd_tree(tmp_path / "tree")
    for path in (root / "sparse", root / "empty", root / "deep/er/file"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns))  # read long ago: the next read would be noted
    (tmp_path / "cache").mkdir()
    before = state(root)
    for _ in range(2):
        problems(root, cache=HashCache(tmp_path / "cache"))
    assert state(root) == before


def test_a_file_that_is_gone_or_has_become_a_pipe_when_it_is_opened_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "piped", "other", "kept"):
        (tmp_path / name).write_bytes(b"x")
    opener: Callable[[str, int], int] = disk._opener

    def replaced(path: str, flags: int) -> int:
        name = Path(path).name
        if name != "kept":
            Path(path).unlink()
        if name == "piped":
            os.mkfifo(path)
        if name == "other":
            Path(path).write_bytes(b"y")
        return opener(path, flags)

    monkeypatch.setattr(disk, "_opener", replaced)
    assert problems(tmp_path) == {
        "gone": "No such file or directory",
        "piped": "changed while it was read",
        "other": "changed while it was read",
    }


def test_a_read_error_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad").write_bytes(b"x")

    def fails(file: FileIO, size: int, on_hashed: Callable[[int], None]) -> Digest:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "_hash", fails)
    assert problems(tmp_path) == {"bad": "Input/output error"}


def test_a_folder_that_cannot_be_listed_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").write_bytes(b"x")
    listed = os.scandir

    def refused(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert problems(tmp_path) == {"closed": "Permission denied"}


def test_a_folder_of_many_files_is_one_artifact(tmp_path: Path) -> None:
    for number in range(3_000):
        (tmp_path / f"{number:05}").write_bytes(b"%d" % number)
    files = hash_paths([tmp_path], None, 2, lambda count: None)
    manifest = Manifest.of(FileEntry(each.path.name, each.size, each.sha256 or Digest("")) for each in files)
    (only,) = match(files, {manifest.digest: manifest}).folders
    assert (only.state, only.present) == ("complete", 3_000)


def test_inodes_and_times_beyond_what_the_cache_keeps_are_hashed_each_time(tmp_path: Path) -> None:
    cache = HashCache(tmp_path)
    odd: FileState = (1, 2**64 - 1, 1, -(2**70), 0)
    cache.keep(odd, sha256(b"x"), None)
    cache.close()
    assert HashCache(tmp_path).get(odd) is None and HashCache(tmp_path).held(odd) is None


_READ_ONLY = """
import sys
from pathlib import Path
from comity_client.identify.disk import HashCache
from comity_client.identify.identify import hash_paths
root = Path(sys.argv[1])
try:
    (root / "new").write_bytes(b"x")
except OSError as error:
    assert error.errno == 30, error
else:
    raise SystemExit("the mount can be written")
files = hash_paths([root], HashCache(Path(sys.argv[2])), 2, lambda count: None)
print(len(files), sum(bool(each.problem) for each in files))
"""


@pytest.mark.slow
def test_a_tree_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    """A real read-only mount, in a namespace of its own."""
    unshare, root = shutil.which("unshare"), odd_tree(tmp_path / "tree")
    if unshare is None:
        pytest.skip("unshare is not installed; unlock: apt-get install util-linux")
    (tmp_path / "cache").mkdir()
    before = state(root)
    mount = f"mount --bind '{root}' '{root}' && mount -o remount,bind,ro '{root}'"
    run = [unshare, "-m", "sh", "-c", f'{mount} || exit 77; exec "$@"', "sh"]
    ran = subprocess.run(
        [*run, sys.executable, "-c", _READ_ONLY, str(root), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 77 or "unshare failed" in ran.stderr:
        pytest.skip(f"no mount can be made here: {ran.stderr.strip()[:100]}; unlock: run as root with CAP_SYS_ADMIN")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(len(hash_paths([root], None, 2, lambda count: None))), str(len(PROBLEMS))]
    assert state(root) == before
