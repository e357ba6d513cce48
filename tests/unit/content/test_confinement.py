"""A process that confined itself reads the folders that it named, and does nothing else."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from comity.content import confinement

PROGRAM = """
import json, os, pathlib, socket, subprocess, sys, threading
from comity.content.confinement import confine
folder, outside = map(pathlib.Path, sys.argv[1:])
held = confine([folder])
def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno in (1, 13)
    return False
worker = threading.Thread(target=int)
worker.start()
worker.join()
print(json.dumps({
    "held": held,
    "read": (folder / "a").read_text(),
    "refused": {
        "read outside": refused(outside.read_text),
        "write": refused(lambda: (folder / "b").write_text("b")),
        "remove": refused((folder / "a").unlink),
        "socket": refused(socket.socket),
        "program": refused(lambda: os.execv("/bin/true", ["true"])),
        "signal": refused(lambda: os.kill(os.getppid(), 0)),
    },
}))
"""


def test_a_confined_process_reads_its_folders_and_nothing_else(tmp_path: Path) -> None:
    if len(confinement.confinement()) < 2:
        pytest.skip("this kernel has not both Landlock and seccomp")
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    (folder / "a").write_text("a")
    outside.write_text("secret")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(outside)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert tuple(found["held"]) == confinement.confinement()
    assert found["read"] == "a"
    assert all(found["refused"].values()), found


def test_a_kernel_without_either_confines_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert confinement.confinement() == ()
