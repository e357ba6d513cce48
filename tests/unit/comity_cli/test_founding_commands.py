"""`comity init` and `comity found` as the guide for operators shows them, in a shell that expands the patterns."""

from __future__ import annotations

import io
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from comity.federation_file import Federation
from comity_cli.main import main
from support.command_server import command_server
from support.ports import free_port

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = DOCS / "guide" / "operator.md"
STEPS = DOCS / "operations" / "install.md"
FOUNDERS = ("ch", "es", "kr")


Ran = subprocess.CompletedProcess[str]


def shell(folder: Path, line: str) -> Ran:
    environ = {
        **os.environ,
        "PATH": f"{command_server().folder}:{os.environ['PATH']}",
        "COMITY_HOME": str(folder / "pins"),
    }
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=False)


def here(folder: Path, line: str) -> Ran:
    """A `comity` command line without patterns, run in this process: another process takes half a second to start."""
    _, *arguments = shlex.split(line)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.chdir(folder)
        patch.setenv("COMITY_HOME", str(folder / "pins"))
        with redirect_stdout(out), redirect_stderr(err):
            main(arguments)
    assert isinstance(ended.value.code, int)
    return Ran(arguments, ended.value.code, out.getvalue(), err.getvalue())


def typed(folder: Path, line: str, how: Callable[[Path, str], Ran] = shell) -> str:
    """The standard error of a command that succeeds."""
    ran = how(folder, line)
    assert ran.returncode == 0, f"{line}\n{ran.stderr}"
    return ran.stderr


def of(code: str, line: str) -> str:
    """A line of the guide, as the founder of `code` types it."""
    return line.replace("CH", code.upper()).replace("-ch", f"-{code}")


@pytest.fixture(name="lines")
def _lines() -> list[str]:
    return commands(GUIDE, "\n## Found or join a federation")


def commands(page: Path, heading: str) -> list[str]:
    """The commands of one section of a page."""
    section = page.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, lines: list[str]) -> Path:
    """Three founders' homes, with their cards in one folder."""
    for code in FOUNDERS:
        typed(tmp_path, of(code, lines[0]), here)
        card = (tmp_path / f"node-{code}.example.org" / "node-card.json").read_bytes()
        (tmp_path / f"node-card-{code}.json").write_bytes(card)
    return tmp_path


def test_the_commands_of_the_guide_found_a_federation(folder: Path, lines: list[str]) -> None:
    begin, go_on = lines[1:3]
    assert "needs all 3 members" in typed(folder, f"{begin} --yes")
    for code in FOUNDERS[1:]:
        typed(folder, f"{go_on.replace('-es', f'-{code}')} --yes")
    file = folder / f"node-{FOUNDERS[-1]}.example.org" / "federation.json"
    assert len(Federation.parse(file.read_bytes()).nodes) == 3


def test_the_single_steps_found_the_same_federation(folder: Path) -> None:
    draft, consent, seal = commands(STEPS, "\n### One step at a time")[:3]
    typed(folder, draft)
    for code in FOUNDERS:
        home = f"node-{code}.example.org"
        line = of(code, consent).replace("/var/lib/comity", home).replace("/media/safe", f"{home}/offline")
        typed(folder, f"{line} --yes")
    typed(folder, seal)
    assert len(Federation.parse((folder / "federation.json").read_bytes()).nodes) == 3


def test_ports_that_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    ran = here(tmp_path, "comity init --jurisdiction SG --org X --name node-sg --open 127.0.0.1:7480")
    assert (ran.returncode, "PORT-TWICE" in ran.stderr) == (3, True), ran.stderr
    assert not (tmp_path / "node-sg").exists()


def test_an_address_that_others_cannot_reach_is_reported(tmp_path: Path) -> None:
    assert "127.0.0.1:7443" in typed(tmp_path, "comity init --jurisdiction SG --org X --name node-sg", here)
    assert "advertises" not in typed(
        tmp_path, "comity init --jurisdiction SG --org X --name n --mutual a.example:1 --open a.example:2", here
    )


def test_a_check_of_a_node_starts_nothing_and_names_the_obstacles(tmp_path: Path) -> None:
    ports = [f"127.0.0.1:{free_port()}" for _ in range(5)]
    names = ("--mutual", "--open", "--http", "--files", "--ranges")
    options = " ".join(f"{name} {port}" for name, port in zip(names, ports, strict=True))
    typed(tmp_path, f"comity init --jurisdiction SG --org X --name node-sg {options}", here)
    home = tmp_path / "node-sg"
    before = sorted(path.name for path in home.rglob("*"))
    checked = here(tmp_path, "comity serve --dir node-sg --check")
    assert checked.returncode == 0, checked.stderr
    assert all(f"{port} is free" in checked.stdout for port in ports) and "federation.json is missing" in checked.stderr
    with socket.create_server(("127.0.0.1", int(ports[2].rpartition(":")[2]))):
        refused = here(tmp_path, "comity serve --dir node-sg --check")
    assert refused.returncode != 0 and f"gateway.http = {ports[2]} cannot be listened on" in refused.stderr
    assert sorted(path.name for path in home.rglob("*")) == before
