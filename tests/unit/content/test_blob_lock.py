"""Locks of blobs between processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Malformed

DIGEST = sha256(b"blob")

HOLD = """
import sys
from pathlib import Path
from comity.content.blobs import BlobLock
from comity.trust.encoding import Digest
lock = BlobLock(Path(sys.argv[1]), Digest(sys.argv[2]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first, second = BlobLock(tmp_path, DIGEST), BlobLock(tmp_path, DIGEST)
    with first:
        assert not second.try_acquire()
    assert second.try_acquire()
    second.release()


def test_another_blob_is_not_locked(tmp_path: Path) -> None:
    with BlobLock(tmp_path, DIGEST), BlobLock(tmp_path, sha256(b"other")):
        pass


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    with BlobLock(tmp_path, DIGEST):
        pass
    assert list(tmp_path.iterdir()) == []


def test_taking_one_lock_object_twice_is_refused(tmp_path: Path) -> None:
    with BlobLock(tmp_path, DIGEST) as lock, pytest.raises(Conflict):
        lock.try_acquire()


def test_a_name_that_is_no_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        BlobLock(tmp_path, "../../etc/passwd")  # type: ignore[arg-type]  # hostile


def test_a_lock_held_by_another_process_is_free_once_it_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path), DIGEST]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        lock = BlobLock(tmp_path, DIGEST)
        assert not lock.try_acquire()
        child.kill()
        child.wait()
        assert lock.try_acquire()
        lock.release()


def test_many_threads_never_hold_a_lock_together(tmp_path: Path) -> None:
    holders, most = 0, 0

    def work() -> None:
        nonlocal holders, most
        for _ in range(50):
            with BlobLock(tmp_path, DIGEST):
                holders += 1
                most = max(most, holders)
                time.sleep(0.0002)
                holders -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
