"""`comity takeover`: it asks before it ends a writer, and says what it ended. With a real one: test_standby.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.audit_log import LOG_FILE
from comity.node.maintenance import takeover
from comity.node.maintenance.takeover import WriterState
from comity_cli.commands.takeover import command
from support.run_command import printed, refused, run


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a node whose writer gave a sign of life 41 seconds ago, and has four connections."""
    (tmp_path / "node.toml").touch()
    monkeypatch.setattr(takeover, "writer_state", lambda file: WriterState(True, 41.2))
    monkeypatch.setattr(takeover, "end_writer", lambda file: 4)
    return tmp_path


def test_the_ended_connections_are_counted(home: Path) -> None:
    document = printed(command, "--node", home, "--yes")
    assert (document["silent"], document["ended"]) == (41.2, 4)
    assert '"takeover"' in (home / LOG_FILE).read_text("utf-8")


def test_a_person_is_asked_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Path] = []
    monkeypatch.setattr(takeover, "end_writer", ended.append)
    assert run(command, "--node", home).exit_code != 0
    assert ended == []


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    assert "node.toml" in refused(command, "--node", tmp_path, "--yes").why
