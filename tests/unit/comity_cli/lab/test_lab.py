"""The processes of a lab: it waits until each one listens, and until each one has ended."""

from __future__ import annotations

import random
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from comity.trust.errors import Unavailable
from comity_cli.lab.lab import Lab, LabNode
from support.ports import free_port

# Like any process that ends, it loses its command line first, and is gone a moment later.
LINGERS = 'trap "exec sleep 0.5" TERM; echo ready; while :; do sleep 0.02; done'
ENDS = (
    "import socket, sys, time; s = socket.create_server((str(), int(sys.argv[1]))); time.sleep(0.5); sys.exit(str(9))"
)
SLOW = "import socket, sys, time; time.sleep(0.5); s = socket.create_server((str(), int(sys.argv[1]))); time.sleep(60)"


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


def test_up_waits_for_a_node_whose_command_line_cannot_be_read_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, address = tmp_path / "node-ch", f"127.0.0.1:{free_port()}"
    home.mkdir()
    (home / "node.toml").write_text(f'[listen]\nopen = "{address}"\n')
    slow = tmp_path / "slow-python"
    slow.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{SLOW}' {address.rpartition(':')[2]}\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    lab = Lab(tmp_path, (LabNode(home, "CH"),))
    try:
        lab.up()
        (process,) = lab.processes
        assert process.poll() is None
    finally:
        for process in lab.processes:
            process.kill()
            process.wait()


def test_up_fails_for_a_node_that_ends_before_its_gateway_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, address = tmp_path / "node-ch", f"127.0.0.1:{free_port()}"
    home.mkdir()
    http = f'[gateway]\nhttp = "127.0.0.1:{free_port()}"\n'
    (home / "node.toml").write_text(f'[listen]\nopen = "{address}"\n{http}')
    ending = tmp_path / "ending-python"
    ending.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{ENDS}' {address.rpartition(':')[2]}\n")
    ending.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ending))
    lab = Lab(tmp_path, (LabNode(home, "CH"),))
    with pytest.raises(Unavailable) as caught:
        lab.up()
    assert (caught.value.code, caught.value.why) == ("NODE-START", "9")


def test_no_two_nodes_of_a_lab_have_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drawn port is drawn again for the next node."""

    def drawn() -> Iterator[int]:
        while True:
            ports = [free_port() for _ in range(5)]
            yield from (*ports, *ports)

    given = drawn()
    monkeypatch.setattr(random, "choice", lambda among: next(given))
    lab = Lab.create(tmp_path / "lab", {})
    addresses = [address for node in lab.nodes for address in _addresses(node)]
    assert len(addresses) == 20 == len(set(addresses))


def _addresses(node: LabNode) -> Sequence[str]:
    settings = tomllib.loads((node.home / "node.toml").read_text())
    gateway, listen = settings["gateway"], settings["listen"]
    return listen["mutual"], listen["open"], gateway["http"], gateway["files"], gateway["ranges"]
