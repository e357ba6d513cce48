"""`comity serve` says what to do about a disk that is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.gateway import front_end
from comity.trust.errors import OutOfSpace
from comity_cli.commands.serve import command
from support.run_command import refused


def test_a_full_disk_ends_a_node_with_the_command_that_names_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.toml").write_text("")

    def full(_: Path) -> None:
        raise OutOfSpace("the ledger's disk is full", why="database or disk is full", hint="try again")

    monkeypatch.setattr(front_end, "run", full)
    error = refused(command, "--node", tmp_path)
    assert error.code == "OUT-OF-SPACE"
    assert error.hint.startswith(f"comity doctor --node {tmp_path} ")
