"""Where the files of the fast tests go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fenced import ROOT
from support.memory_folder import AVAILABLE, FAST, ROOM, memory_folder


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 1 kB\nMemAvailable:   {AVAILABLE >> 10} kB\n")
    return path


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A file system with just enough space."""
    found = SimpleNamespace(f_bavail=ROOM >> 12, f_frsize=1 << 12, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    return found


def test_a_folder_with_space_is_used(tmp_path: Path, memory: Path) -> None:
    assert memory_folder({}, tmp_path, memory) == tmp_path


def test_a_folder_that_the_user_chose_is_kept(tmp_path: Path, memory: Path) -> None:
    assert memory_folder({"TMPDIR": "/elsewhere"}, tmp_path, memory) is None


@pytest.mark.parametrize("lacks", [{"f_bavail": (ROOM >> 12) - 1}, {"f_flag": os.ST_NOEXEC}], ids=["room", "programs"])
def test_a_folder_without_space_or_execution_is_not_used(
    tmp_path: Path, memory: Path, disk: SimpleNamespace, lacks: dict[str, int]
) -> None:
    vars(disk).update(lacks)
    assert memory_folder({}, tmp_path, memory) is None


@pytest.mark.parametrize("text", [f"MemAvailable: {(AVAILABLE >> 10) - 1} kB\n", ""])
def test_too_little_memory_is_left_to_the_tests(tmp_path: Path, text: str) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text(text)
    assert memory_folder({}, tmp_path, memory) is None


def test_if_the_memory_is_unknown_the_disk_is_used(tmp_path: Path) -> None:
    assert memory_folder({}, tmp_path, tmp_path / "nothing") is None


def test_the_fast_tests_are_those_that_are_chosen_by_default() -> None:
    assert f"-m '{FAST}'\"" in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_folder_of_a_run_goes_with_it_and_whatever_is_in_it(tmp_path: Path) -> None:
    program = (
        "import os, tempfile; from multiprocessing.util import get_temp_dir; from pathlib import Path\n"
        "from support.memory_folder import folder_of_the_run\n"
        f"made = Path(folder_of_the_run(Path({str(tmp_path)!r}))); tempfile.tempdir = str(made)\n"
        "get_temp_dir(); (made / 'left').touch(); print(oct(made.stat().st_mode & 0o777))"
    )
    paths = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"0o755\n", b"")
    assert list(tmp_path.iterdir()) == []
