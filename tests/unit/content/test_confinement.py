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


RUN_PROGRAM = """
import json, os, pathlib, subprocess, sys
from comity.content.confinement import confine_files, drop_capabilities
read, write, outside = map(pathlib.Path, sys.argv[1:])
drop_capabilities()
held = confine_files([read, *map(pathlib.Path, ("/usr", "/lib", "/lib64", "/bin"))], [write, pathlib.Path("/dev/null")])
def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno in (1, 13)
    return False
(write / "b").write_text("b")
print(json.dumps({
    "held": held, "read": (read / "a").read_text(), "write": (write / "b").read_text(),
    "ran": subprocess.run(["/bin/sh", "-c", "exit 7"]).returncode,
    "refused": {
        "read outside": refused(outside.read_text),
        "list outside": refused(lambda: list(outside.parent.iterdir())),
        "write to what is read": refused(lambda: (read / "c").write_text("c")),
        "remove what is read": refused((read / "a").unlink),
        "change owner": refused(lambda: os.chown(write / "b", 1, 1)),
    },
}))
"""


def test_a_program_of_strangers_keeps_only_the_files_that_it_was_given(tmp_path: Path) -> None:
    if not confinement.landlock_version():
        pytest.skip("this kernel has no Landlock")
    folders = [tmp_path / name for name in ("read", "write", "outside")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "a").write_text("a")
    (folders[2] / "secret").write_text("secret")
    places = [folders[0], folders[1], folders[2] / "secret"]
    ran = subprocess.run(
        [sys.executable, "-c", RUN_PROGRAM, *map(str, places)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["held"] == f"Landlock {confinement.landlock_version()}"
    assert (found["read"], found["write"], found["ran"]) == ("a", "b", 7)
    assert all(found["refused"].values()), found
