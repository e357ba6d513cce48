"""`comity audit-log`: how many lines are shown, and what a check prints of an empty, a whole and a changed log."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest
from comity.content.audit_log import LOG_FILE, AuditHead, check_chain
from comity.trust.encoding import sha256
from comity_cli.commands.audit_log import command
from comity_cli.node_home import recorded_act
from comity_cli.output import Output
from support.run_command import printed, refused, run, said


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    (tmp_path / "node.toml").write_text("")
    return tmp_path


def act(home: Path, count: int) -> None:
    with click.Context(click.Command("test"), obj=Output()):
        for number in range(count):
            with recorded_act(home, "token.new", f"token {number}"):
                pass


def test_a_home_in_which_nothing_was_done_has_no_log(home: Path) -> None:
    for verb in ("check", "tail"):
        assert "no audit log" in str(refused(command, verb, "--node", home))


def test_the_head_is_the_number_and_hash_of_the_last_line(home: Path) -> None:
    act(home, 3)
    *_, last = check_chain(home)
    document = printed(command, "check", "--node", home)
    assert document["head"] == str(AuditHead(3, sha256(last.line()))) and document["lines"] == 3
    text = said(command, "check", "--node", home)
    assert f"comity audit-log check --head {document['head']} --node {home}" in text
    kept = said(command, "check", "--node", home, "--head", document["head"])
    assert "it continues the head that you kept" in kept and "keep the head elsewhere" not in kept


@pytest.mark.parametrize("head", ["3", "3:", "x:" + "0" * 64, "3:" + "0" * 64, "9:" + "0" * 64, "-1:" + "0" * 64])
def test_a_head_that_the_log_does_not_continue_is_refused(home: Path, head: str) -> None:
    act(home, 3)
    refused(command, "check", "--node", home, "--head", head)


@pytest.mark.parametrize("damage", ["changed", "removed", "cut"])
def test_a_changed_log_is_neither_checked_nor_shown(home: Path, damage: str) -> None:
    act(home, 3)
    lines = (home / LOG_FILE).read_bytes().splitlines(keepends=True)
    changed = {
        "changed": [lines[0], lines[1].replace(b"token 1", b"token 9"), lines[2]],
        "removed": [lines[0], lines[2]],
        "cut": lines[:2],
    }[damage]
    (home / LOG_FILE).write_bytes(b"".join(changed))
    for verb in ("check", "tail"):
        refused(command, verb, "--node", home)


@pytest.mark.parametrize(("lines", "first"), [(1, 3), (2, 2), (3, 1), (20, 1)])
def test_the_newest_lines_are_shown(home: Path, lines: int, first: int) -> None:
    act(home, 3)
    shown = printed(command, "tail", "--node", home, "--lines", lines)["lines"]
    assert [each["number"] for each in shown] == list(range(first, 4))
    assert [each["subject"] for each in shown] == [f"token {number - 1}" for number in range(first, 4)]
    assert f"token {first - 1}" in said(command, "tail", "--node", home, "--lines", lines)


@pytest.mark.parametrize("lines", [0, 10_001, -1])
def test_the_number_of_lines_has_bounds(home: Path, lines: int) -> None:
    assert run(command, "tail", "--node", home, "--lines", lines).exit_code == 2


def test_times_are_shown_in_utc(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_000_000.0)
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    act(home, 1)
    text = said(command, "tail", "--node", home)
    monkeypatch.undo()
    time.tzset()
    assert "2026-11-18 11:06:40 token.new" in text


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    for verb in ("check", "tail"):
        refused(command, verb, "--node", tmp_path)
