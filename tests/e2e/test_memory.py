"""Resident memory while a large file is published, mirrored and pulled: bounded by buffers, not by the file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.federation import NodeProcess, found, until
from support.weights import write_large_tensor

GIB = 1024**3
BOUND = 250 * 1024 * 1024
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
MEASURED = """
import pathlib, sys
from comity_cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(pathlib.Path("/proc/self/status").read_text())
"""


def comity(home: Path, *arguments: str) -> int:
    """Run a command; its peak resident bytes. (`ru_maxrss` would count the parent that forked it, too.)"""
    environment = {**os.environ, "COMITY_HOME": str(home)}
    command = [sys.executable, "-c", MEASURED, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return peak_in(ran.stderr)


def copies(home: Path) -> int:
    """How many nodes signed that they hold a full copy."""
    environment = {**os.environ, "COMITY_HOME": str(home)}
    command = [sys.executable, "-m", "comity_cli.main", "whereis", "big/model@v1", "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.count('"claimed": true')


def peak_of(process: NodeProcess) -> int:
    return peak_in(Path(f"/proc/{process.pid}/status").read_text())


def peak_in(status: str) -> int:
    found_peak = PEAK.search(status)
    assert found_peak is not None
    return int(found_peak.group(1)) * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [pytest.param(GIB // 2, id="512 MiB"), pytest.param(2 * GIB, id="2 GiB", marks=pytest.mark.long)]
)
async def test_a_file_is_published_mirrored_and_pulled_in_less_memory_than_it_has(tmp_path: Path, size: int) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    model.mkdir()
    write_large_tensor(model / "model.safetensors", size)
    federation = found(tmp_path / "nodes", 2)
    (federation.homes[0].directory.parent / "federation.json").write_bytes(federation.federation.encode())
    nodes = [NodeProcess(each, fresh=True) for each in federation]
    try:
        for node in nodes:
            await node.ready()
        comity(home, "trust", "pin", str(tmp_path / "nodes" / "federation.json"), "--yes")
        comity(home, "publisher", "new", "big", "--jurisdiction", "CH", "--home", federation.homes[0].origin)
        publishing = comity(home, "publish", str(model), "--as", "big/model@v1", "--licence", "other")

        await until(lambda: copies(home) == 2, patience=300, what="the copy")
        pulling = comity(home, "pull", "big/model@v1", "--to", str(tmp_path / "copy"))
        peaks = {"publish": publishing, "pull": pulling} | {node.home.name: peak_of(node) for node in nodes}
    finally:
        for node in nodes:
            node.kill()
    print({name: f"{peak / 1e6:.0f} MB" for name, peak in peaks.items()})
    assert {name: peak for name, peak in peaks.items() if peak > BOUND} == {}
