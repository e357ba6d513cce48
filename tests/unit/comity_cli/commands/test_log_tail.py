"""`comity log tail` shows each entry once, in order, also new ones, and continues when no node answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from comity.trust.errors import Unavailable
from comity_cli.commands import log
from comity_cli.main import command
from comity_client.evidence.logs import LogEntry


class GrowingLog:
    """A log whose checkpoint has the next of `sizes` at each read; None is a read that no node answers."""

    def __init__(self, *sizes: int | None, most: int = 1000, lost: int = 0) -> None:
        """Args: lost: for how many reads of entries no node answers."""
        self._sizes = list(sizes)
        self._most = most
        self._lost = lost

    def log_checkpoint(self, origin: str) -> Any:
        size = self._sizes.pop(0)
        if size is None:
            raise Unavailable("no node answers")
        return SimpleNamespace(checkpoint=SimpleNamespace(size=size))

    def log_entries(self, origin: str, start: int, end: int) -> list[LogEntry]:
        if self._lost:
            self._lost -= 1
            raise Unavailable("no node serves entries")
        return [LogEntry(index, b"line", None) for index in range(start, min(end, start + self._most))]

    def sleep(self, seconds: float) -> None:
        if not self._sizes:
            raise KeyboardInterrupt


def tail(monkeypatch: pytest.MonkeyPatch, growing: GrowingLog, *flags: str) -> Result:
    monkeypatch.setattr(log, "client", lambda: growing)
    monkeypatch.setattr("comity_cli.commands.log.time.sleep", growing.sleep)
    return CliRunner().invoke(command, ["log", "tail", "node/log", *flags], standalone_mode=False)


def indexes(ran: Result) -> list[int]:
    return [int(line.split()[0]) for line in ran.stdout.splitlines() if line[:1].isdigit()]


def test_the_newest_entries_are_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert indexes(tail(monkeypatch, GrowingLog(12), "--last", "3")) == [9, 10, 11]
    assert indexes(tail(monkeypatch, GrowingLog(0))) == []


def test_new_entries_are_shown_and_a_node_that_is_down_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tail(monkeypatch, GrowingLog(2, 2, None, 5, most=2), "--follow", "1")
    assert indexes(ran) == [0, 1, 2, 3, 4]
    assert "no node answers" in ran.output


def test_entries_that_no_node_gives_now_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tail(monkeypatch, GrowingLog(2, 2, 3, lost=1), "--follow", "1")
    assert indexes(ran) == [0, 1, 2]
    assert "no node serves entries" in ran.output
    once = tail(monkeypatch, GrowingLog(2, lost=1))
    assert isinstance(once.exception, Unavailable)


def test_following_is_not_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tail(monkeypatch, GrowingLog(1), "--json")
    assert "comity log entries --json" in str(ran.exception)
