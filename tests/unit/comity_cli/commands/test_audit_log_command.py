"""`comity audit-log`, the commands that write to the log, and the other places to which its lines are written."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from comity.content.audit_log import HEAD_FILE, LOG_FILE, AuditLog, check_chain
from comity.node.operator_acts import LINES_AT_ONCE, AuditCopies, FilePlace, OperatorActs, SyslogPlace
from comity.node.settings import AuditLogCopies
from comity.node.threads import Pools
from comity.trust.errors import Conflict, Unavailable, Untrusted
from comity.wire.access import CALLER, Caller
from comity_cli.main import command
from comity_cli.node_home import noted_act, recorded_act
from comity_cli.output import Output


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, words, obj=Output())


def printed(*words: str) -> dict[str, object]:
    found = json.loads(run(*words, "--json").stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    (tmp_path / "node.toml").write_text("")
    return tmp_path


def test_making_and_revoking_a_token_is_in_the_log_and_the_token_is_not(home: Path) -> None:
    secret = str(printed("token", "new", "ci", "--node", str(home))["token"])
    assert run("token", "revoke", "ci", "--node", str(home)).exit_code == 0
    assert run("token", "revoke", "ci", "--node", str(home)).exit_code != 0
    acts = [(record.act, record.subject) for record in check_chain(home)]
    assert acts == [("token.new", "ci"), ("token.revoke", "ci"), ("token.revoke", "ci"), ("token.revoke.failed", "ci")]
    assert secret not in (home / LOG_FILE).read_text()


def test_check_prints_a_head_that_a_later_check_compares(home: Path) -> None:
    run("token", "new", "ci", "--node", str(home))
    head = str(printed("audit-log", "check", "--node", str(home))["head"])
    run("token", "new", "second", "--node", str(home))
    later = printed("audit-log", "check", "--node", str(home), "--head", head)
    assert (later["lines"], later["compared"]) == (2, head)
    (home / LOG_FILE).unlink()
    (home / "audit.head").unlink()
    run("token", "new", "third", "--node", str(home))
    assert run("audit-log", "check", "--node", str(home)).exit_code == 0
    replaced = run("audit-log", "check", "--node", str(home), "--head", head)
    assert isinstance(replaced.exception, Untrusted)


def test_tail_shows_the_newest_lines_of_a_log_that_holds(home: Path) -> None:
    for name in ("one", "two", "three"):
        run("token", "new", name, "--node", str(home))
    lines = printed("audit-log", "tail", "--lines", "2", "--node", str(home))["lines"]
    assert isinstance(lines, list)
    assert [line["subject"] for line in lines] == ["two", "three"]
    path = home / LOG_FILE
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"uno"'))
    assert isinstance(run("audit-log", "tail", "--node", str(home)).exception, Untrusted)


def test_a_read_only_action_continues_with_a_warning_if_the_log_was_altered(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with click.Context(command, obj=Output()):
        with noted_act(home, "backup.create", "/backup"):
            pass
        with pytest.raises(Conflict), noted_act(home, "backup.create", "/backup"):
            raise Conflict("it exists", code="BACKUP-EXISTS")
        assert [record.act for record in check_chain(home)] == ["backup.create"] * 2 + ["backup.create.failed"]
        (home / "audit.head").unlink()
        with noted_act(home, "backup.create", "/backup"):
            pass
        with pytest.raises(Untrusted), recorded_act(home, "token.new"):
            pass
    assert "not in the audit log" in capsys.readouterr().err


async def test_an_action_at_the_node_names_its_caller_and_the_error(tmp_path: Path) -> None:
    pools = Pools()
    try:
        acts = OperatorActs(AuditLog(tmp_path, lambda: 1), pools)
        CALLER.set(Caller("operator", operator=True))
        async with acts.recorded("copy.drop", "a" * 64):
            pass
        CALLER.set(Caller("b" * 64, b"certificate", operator=True))
        with pytest.raises(Conflict):
            async with acts.recorded("copy.drop", "c" * 64):
                raise Conflict("leased", code="LEASED")
    finally:
        pools.close()
    found = [(record.act, record.by, record.detail) for record in check_chain(tmp_path)]
    by = f"operator certificate {'b' * 16}"
    assert found == [
        ("copy.drop", "operator socket", ""),
        ("copy.drop", by, ""),
        ("copy.drop.failed", by, "line 2: LEASED"),
    ]


def copies(home: Path, settings: AuditLogCopies) -> AuditCopies:
    return AuditCopies(home, settings, None)  # type: ignore[arg-type]  # only its loops use the pools


def test_a_second_file_gets_every_line_once_also_over_a_restart(tmp_path: Path) -> None:
    log, target = AuditLog(tmp_path, lambda: 1), tmp_path / "elsewhere.log"
    settings, place = AuditLogCopies(copy_file=target), FilePlace(target)
    assert not copies(tmp_path, settings).send_new(place)
    log.append("token.new", "ana", "1")
    log.append("token.new", "ana", "2")
    assert not copies(tmp_path, settings).send_new(place)
    log.append("token.new", "ana", "3")
    assert not copies(tmp_path, settings).send_new(place)
    assert target.read_bytes() == (tmp_path / LOG_FILE).read_bytes()
    assert len(target.read_bytes().splitlines()) == 3 < LINES_AT_ONCE


@pytest.mark.parametrize("later", [1, 9], ids=["shorter", "longer"])
@pytest.mark.parametrize("seen", [False, True], ids=["while it was stopped", "while it ran"])
def test_a_destination_gets_every_line_of_a_new_log_after_the_old_one_was_moved(
    tmp_path: Path, later: int, seen: bool
) -> None:
    log, target = AuditLog(tmp_path, lambda: 1), tmp_path / "elsewhere.log"
    settings, place = AuditLogCopies(copy_file=target), FilePlace(target)
    for number in range(5):
        log.append("token.new", "ana", str(number))
    copies(tmp_path, settings).send_new(place)
    for name in (LOG_FILE, HEAD_FILE):
        (tmp_path / name).rename(tmp_path / f"{name}.altered")
    if seen:
        assert not copies(tmp_path, settings).send_new(place)
    for number in range(later):
        log.append("token.new", "somebody else", f"another {number}")
    copies(tmp_path, settings).send_new(place)
    both = (tmp_path / f"{LOG_FILE}.altered").read_bytes() + (tmp_path / LOG_FILE).read_bytes()
    assert target.read_bytes() == both


def test_syslog_gets_each_line_and_refused_lines_again(tmp_path: Path) -> None:
    log, target = AuditLog(tmp_path, lambda: 1), str(tmp_path / "syslog.sock")
    settings, place = AuditLogCopies(syslog=target), SyslogPlace(target)
    log.append("token.new", "ana", "1")
    with pytest.raises(Unavailable) as refused:
        copies(tmp_path, settings).send_new(place)
    assert refused.value.code == "SYSLOG"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(target)
        copies(tmp_path, settings).send_new(place)
        place.close()
        line = (tmp_path / LOG_FILE).read_bytes().rstrip()
        assert daemon.recv(8192) == b"<86>comity-audit: " + line
