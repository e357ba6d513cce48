"""A lab's processes: none that it started is forgotten before it is gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from comity_cli.lab.lab import Lab, LabNode

# Like any process that ends, its command line goes first and the process itself a moment later.
LINGERS = 'trap "exec sleep 0.5" TERM; echo ready; while :; do sleep 0.02; done'


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    home = tmp_path / "node-ch"
    home.mkdir()
    process = subprocess.Popen(["sh", "-c", LINGERS, "sh", str(home)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    (home / "node.pid").write_text(f"{process.pid}\n")
    return Lab(tmp_path, (LabNode(home, "CH"),), [process])


def test_down_returns_once_its_processes_are_gone(lab: Lab) -> None:
    (process,) = lab.processes
    lab.down()
    assert (process.returncode, lab.processes) == (0, [])


def test_destroy_returns_once_the_process_is_gone(lab: Lab) -> None:
    (process,) = lab.processes
    lab.destroy(lab.nodes[0])
    assert (process.returncode, lab.processes) == (-9, [])
    assert not lab.nodes[0].home.exists()
