"""The demo of the README on a small generated model (the continuous build runs it on real weights)."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_server import command_server
from support.short_form import cases
from support.waiting import PATIENCE, eventually

COMITY = [sys.executable, "-m", "comity_cli.main"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of a model: safetensors with a valid header and random tensors, a card, a configuration."""
    folder = tmp_path_factory.mktemp("model")
    tensors, at = {}, 0
    for number, length in enumerate((6_000_000, 300_000, 1_000)):
        tensors[f"layer.{number}"] = {"dtype": "U8", "shape": [length], "data_offsets": [at, at + length]}
        at += length
    header = json.dumps(tensors).encode()
    data = struct.pack("<Q", len(header)) + header + random.Random(7).randbytes(at)
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text('{"model_type": "bert"}\n')
    (folder / "README.md").write_text("# A made model\n")
    return folder


def nodes_running(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"serve" in command and str(directory).encode() in command:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_the_demo_runs_step_by_step(model: Path, tmp_path: Path) -> None:
    keep = tmp_path / "lab"
    command = [str(command_server().comity), "demo", "--json", "--model", str(model), "--keep", str(keep)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = json.loads(ran.stdout)
    said = {step["title"]: " ".join(step["said"]) for step in document["steps"]}
    assert "exit 0" in said["Verify offline"]
    assert "exit 3" in said["One flipped byte is refused"]
    assert not (keep / "node-ch").exists()
    served = said["Who served it"]
    assert (
        sum(name in served for name in ("node-es", "node-kr", "node-sg")) >= 2
    )  # which of them are fast enough may differ
    assert "node-ch" not in served
    assert document["left"] == {"copies": 3, "jurisdictions": 3, "reaches": 3}
    assert nodes_running(keep) == []
    try:
        drilled = _comity(tmp_path, "drill", "--lab", str(keep), "--json")
        assert [attempt["verified"] for attempt in drilled["attempts"]] == [True] * 4, drilled  # 3 nodes; DNS and CAs
        assert len(nodes_running(keep)) == 3
        _comity(tmp_path, "trust", "pin", str(keep / "federation.json"), "--yes", "--json")
        reasoned = eventually(
            lambda: _comity(tmp_path, "drill", "--json"), lambda found: found["silent"] == ["node-ch"]
        )
        lost = {(item["party"]["kind"], item["name"]) for item in reasoned["outcomes"] if not item["survived"]}
        assert lost == set(), reasoned
    finally:
        _comity(tmp_path, "lab", "down", str(keep), "--json")


def _comity(home: Path, *arguments: str, expected: int = 0) -> Any:
    environment = {**os.environ, "COMITY_HOME": str(home / "home")}
    ran = subprocess.run(
        [str(command_server().comity), *arguments], env=environment, capture_output=True, check=False, timeout=300
    )
    assert ran.returncode == expected, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(params=cases(["installed", "forked"], ["installed"]))
def comity(request: pytest.FixtureRequest) -> list[str]:
    """The installed program, and that of the tests: signals must have the same effect on both."""
    return COMITY if request.param == "installed" else [str(command_server().comity)]


@pytest.mark.slow
def test_interrupting_the_demo_leaves_no_process(comity: list[str], model: Path, tmp_path: Path) -> None:
    keep = tmp_path / "lab"
    # A shell's background job, such as these tests in CI, ignores SIGINT, and its children inherit that.
    command = ["env", "--default-signal=INT", *comity, "demo", "--model", str(model), "--keep", str(keep)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(nodes_running(keep)) < 4:
            assert process.poll() is None, process.stdout and process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 130
    finally:
        process.kill()
        process.communicate()
    assert nodes_running(keep) == []


@pytest.mark.slow
def test_the_nodes_of_a_killed_demo_end_with_it(comity: list[str], model: Path, tmp_path: Path) -> None:
    keep = tmp_path / "lab"
    command = [*comity, "demo", "--model", str(model), "--keep", str(keep)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while len(nodes_running(keep)) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while nodes_running(keep):
        assert time.monotonic() < deadline, "nodes outlived the demo"
        time.sleep(0.1)


def reachable(status: dict[str, Any]) -> list[str]:
    return [node["name"] for node in status["nodes"] if node["reachable"]]


@pytest.mark.slow
def test_a_lab_starts_shows_its_nodes_and_stops(tmp_path: Path) -> None:
    lab = tmp_path / "a lab"
    environment = {**os.environ, "COMITY_HOME": str(tmp_path / "home")}

    def comity(*arguments: str) -> dict[str, Any]:
        command = [str(command_server().comity), *arguments, "--json"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return dict(json.loads(ran.stdout))

    try:
        nodes = comity("lab", "up", str(lab))["nodes"]
        assert isinstance(nodes, list) and all(node["pid"] for node in nodes)
        comity("trust", "pin", str(lab / "federation.json"), "--yes")
        answering = eventually(lambda: reachable(comity("status")), lambda names: len(names) == 4)
        assert len(set(answering)) == 4
    finally:
        nodes = comity("lab", "down", str(lab))["nodes"]
    assert isinstance(nodes, list) and not any(node["pid"] for node in nodes)
    assert nodes_running(lab) == []
