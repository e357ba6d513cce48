"""The drill of a lab: each party is taken away in turn and given back, also where something fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable
from comity_cli.lab import seclusion
from comity_cli.lab.outages import CONFIGURATION, PULL_SECONDS, Attempt, LabDrill, drill_lab
from comity_cli.output import Output

COPIES = {"artifacts": [{"name": "inst/tiny@v1", "artifact": sha256(b"1")}, {"name": "", "artifact": sha256(b"2")}]}
NAMES = ["inst/tiny@v1", f"sha256:{sha256(b'2')}"]


class Lab:
    """Two nodes; `killed` and `up` are what was done to them."""

    federation = Path("federation.json")
    nodes = tuple(SimpleNamespace(name=f"node-{code.lower()}", jurisdiction=code) for code in ("CH", "ES"))

    def __init__(self) -> None:
        self.done: list[str] = []

    def kill(self, node: Any) -> None:
        self.done.append(f"kill {node.name}")

    def up(self) -> None:
        self.done.append("up")


Answer = Callable[[list[str]], tuple[int, str, str]]


class Scene:
    """A drill whose commands a test answers; `ran` are their words."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab, self.ran, self.environments = Lab(), list[list[str]](), list[dict[str, str]]()
        self.answer: Answer = lambda words: (0, "", "")
        self.home = folder
        lab: Any = self.lab
        self.drill = LabDrill(Output(color=False), lab, folder)
        monkeypatch.setattr(subprocess, "run", self._run)
        monkeypatch.setattr(seclusion, "hiding", self._hiding)

    def _hiding(self, folders: Sequence[Path], words: Sequence[str]) -> Any:
        assert list(folders) == [CONFIGURATION]
        return SimpleNamespace(command=["x", "-m", "comity_cli.main", "hidden", *words])

    def _run(self, command: list[str], *, env: dict[str, str], timeout: float, **_: Any) -> Any:
        words = command[3:]
        assert timeout == PULL_SECONDS
        self.ran.append(words)
        self.environments.append(env)
        status, out, err = (0, json.dumps(COPIES), "") if words[0] == "copies" else self.answer(words)
        return subprocess.CompletedProcess(command, status, out.encode(), err.encode())


@pytest.fixture(name="scene")
def _scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_each_artifact_is_tried_without_each_party(scene: Scene) -> None:
    attempts = scene.drill.run()
    parties = ["node-ch (CH)", "node-es (ES)", "DNS and the CA store"]
    assert attempts == [Attempt(party, name, True, True) for party in parties for name in NAMES]
    assert scene.lab.done == ["kill node-ch", "up", "kill node-es", "up", "up"]
    assert scene.ran[0] == ["trust", "pin", "federation.json", "--yes"]
    pulls = [words for words in scene.ran if "pull" in words]
    assert [words[0] == "hidden" for words in pulls] == [False] * 4 + [True] * 2


def test_only_what_is_named_is_tried(scene: Scene) -> None:
    assert {attempt.artifact for attempt in scene.drill.run(["inst/other@v1"])} == {"inst/other@v1"}


def test_the_user_of_a_drill_is_a_new_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/mine")
    scene.drill.run()
    for environment in scene.environments:
        assert environment["COMITY_HOME"] == str(scene.home) and "HF_HUB_CACHE" not in environment
        assert environment["HF_HOME"].startswith(str(scene.home))


@pytest.mark.parametrize(
    ("failing", "attempt", "why"),
    [
        ("pull", (False, False), "exit 5: no node has it"),
        ("verify", (True, False), "exit 5: no node has it"),
    ],
)
def test_a_failure_has_its_reason(
    scene: Scene, capsys: pytest.CaptureFixture[str], failing: str, attempt: tuple[bool, bool], why: str
) -> None:
    scene.answer = lambda words: (5, "", "no node has it\nmore\n") if failing in words else (0, "", "")
    for found in scene.drill.run(["inst/tiny@v1"]):
        assert (found.pulled, found.verified, found.why) == (*attempt, why)
    assert f"without node-ch (CH): inst/tiny@v1: {why}" in capsys.readouterr().out
    assert scene.lab.done[-1] == "up"


@pytest.mark.parametrize(
    ("err", "out", "why"),
    [("", "", "exit 1: "), ("", "said\n", "exit 1: said"), ("x" * 300, "", "exit 1: " + "x" * 200)],
)
def test_a_reason_is_one_line_of_what_was_said(scene: Scene, err: str, out: str, why: str) -> None:
    scene.answer = lambda words: (1, out, err) if "pull" in words else (0, "", "")
    assert {found.why for found in scene.drill.run(["a"])} == {why}


def test_a_pull_without_an_end_is_a_failure(scene: Scene) -> None:
    def answer(words: list[str]) -> tuple[int, str, str]:
        if "pull" in words:
            raise subprocess.TimeoutExpired(words, PULL_SECONDS)
        return 0, "", ""

    scene.answer = answer
    assert {found.why for found in scene.drill.run(["a"])} == {f"no end within {PULL_SECONDS:.0f} s"}


def test_a_lab_that_does_not_answer_ends_the_drill(scene: Scene) -> None:
    scene.answer = lambda words: (5, "", "connection refused") if words[0] == "trust" else (0, "", "")
    with pytest.raises(Unavailable, match="comity trust failed in the lab: connection refused"):
        scene.drill.run()
    assert scene.lab.done == []


def test_nodes_run_again_after_an_interruption(scene: Scene) -> None:
    def answer(words: list[str]) -> tuple[int, str, str]:
        if "pull" in words:
            raise KeyboardInterrupt
        return 0, "", ""

    scene.answer = answer
    with pytest.raises(KeyboardInterrupt):
        scene.drill.run(["a"])
    assert scene.lab.done == ["kill node-ch", "up"]


def test_a_folder_without_a_lab_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        drill_lab(Output(), tmp_path, [])
