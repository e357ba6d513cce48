"""The files of the corpus execute when their loaders read them: each is loaded in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from attackers.executing_files import ExecutingFile, executing_files
from support.environments import python_with

SMALL = (
    "cloudpickle==3.1.3",
    "dill==0.4.1",
    "ipython==9.18.1",
    "jinja2==3.1.6",
    "joblib",
    "nbformat",
    "numpy",
    "pandas",
    "pyyaml",
)
LARGE = ("keras==3.15.1", "torch==2.13.0", "h5py==3.16.0")
PROGRAM = Path(__file__).parents[1] / "support" / "load_files.py"


def ran(files: Sequence[ExecutingFile], folder: Path, *requirements: str) -> dict[str, bool | None]:
    """By name, whether the file executed when it was loaded; None if its loader is not at hand."""
    lines = []
    for place, file in enumerate(files):
        path = folder / str(place) / file.path
        path.parent.mkdir()
        path.write_bytes(file.data)
        lines.append(json.dumps({"name": file.name, "file": str(path), "loader": file.loader, "needs": file.needs}))
    loaded = subprocess.run(
        [python_with(*requirements), "-I", str(PROGRAM), str(folder / "ran")],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return {answer["name"]: answer["ran"] for answer in map(json.loads, loaded.stdout.splitlines())}


def corpus(folder: Path, large: bool) -> list[ExecutingFile]:
    files = (file for file in executing_files(str(folder / "ran")) if file.loader)
    return [file for file in files if (file.needs in ("keras", "torch")) == large]


@pytest.mark.slow
def test_every_file_executes_when_its_loader_reads_it(tmp_path: Path) -> None:
    files = corpus(tmp_path, large=False)
    found = ran(files, tmp_path, *SMALL)
    assert [file.name for file in files if not found[file.name]] == []
    assert len(found) >= 140


@pytest.mark.long
def test_every_file_of_keras_and_torch_executes_when_it_is_loaded(tmp_path: Path) -> None:
    files = corpus(tmp_path, large=True)
    found = ran(files, tmp_path, *LARGE)
    assert [file.name for file in files if not found[file.name]] == []
