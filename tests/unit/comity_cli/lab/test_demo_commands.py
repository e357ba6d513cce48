"""How the demo handles the exit statuses of the commands that it runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comity.trust.errors import ComityError
from comity_cli.lab.demo import Demo
from comity_cli.lab.demo_steps import SHOWN_STATUSES
from comity_cli.lab.lab import LabNode
from comity_cli.output import Output


def answering(monkeypatch: pytest.MonkeyPatch, status: int, document: object) -> None:
    ran = subprocess.CompletedProcess([], status, json.dumps(document).encode(), b"")
    monkeypatch.setattr("comity_cli.lab.demo_steps.subprocess.run", lambda *_, **__: ran)


@pytest.mark.parametrize("status", [0, 5, 8])
def test_nodes_that_lack_copies_or_do_not_answer_yet_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    nodes = [LabNode(tmp_path / name, "CH") for name in ("node-ch", "node-es")]
    state = {"name": "node-ch", "size": 4, "cosigners": ["node-es/cosigner"]}
    answering(monkeypatch, status, {"nodes": [state]})
    demo = Demo(Output(), tmp_path)
    assert demo._cosigned(nodes[0], nodes[1:], 4) and not demo._cosigned(nodes[0], nodes[1:], 5)


def test_any_other_command_that_fails_ends_the_demo_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"what": "nothing is held", "why": "a test", "try": "", "code": "NOT-FOUND"}
    answering(monkeypatch, 8, {"error": error})
    with pytest.raises(ComityError, match="nothing is held"):
        Demo(Output(), tmp_path)._copied("demo/model@v1", [])


def test_nodes_that_lack_copies_are_shown() -> None:
    assert {0, 5, 8} == set(SHOWN_STATUSES)
