"""The committed code under registry/comity/v1 is what proto/generate.sh makes of the .proto files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.tools import missing

REPOSITORY = Path(__file__).resolve().parents[3]
COMMITTED = REPOSITORY / "registry" / "comity" / "v1"


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    python = Path(os.environ.get("PROTOC_PYTHON", REPOSITORY / "proto" / ".tools" / "bin" / "python"))
    if not python.exists():
        missing("no tool environment for protoc; unlock: proto/generate.sh")
    subprocess.run([REPOSITORY / "proto" / "generate.sh", tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in (tmp_path / "comity" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in COMMITTED.glob("*_pb2*.py*")}
    assert made.keys() == committed.keys()
    assert [name for name in made if made[name] != committed[name]] == []


def test_the_folder_has_no_other_files() -> None:
    others = {path.name for path in COMMITTED.iterdir() if "_pb2" not in path.name} - {"__pycache__"}
    assert others == {"__init__.py"}
