"""The audit log of operator actions: every change of it is detected, and after a crash of the writer the log
continues.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from comity.content import durable
from comity.content.audit_log import (
    EMPTY,
    HEAD_FILE,
    LOG_FILE,
    MAX_RECORD,
    ActRecord,
    AuditHead,
    AuditLog,
    check_chain,
    parse_record,
)
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from hypothesis import given
from hypothesis import strategies as st
from support.write_path import AUDIT_LOG

SECOND = 1_800_000_000


def made(home: Path, lines: int) -> AuditLog:
    log = AuditLog(home, lambda: SECOND)
    for number in range(lines):
        log.append("token.new", "ana (uid 1000)", f"token-{number}")
    return log


def head(home: Path) -> AuditHead:
    return AuditHead.parse((home / HEAD_FILE).read_text().strip())


def whole(home: Path, kept: AuditHead | None = None) -> list[ActRecord]:
    return list(check_chain(home, kept))


def test_lines_are_chained_and_the_head_names_the_last_one(tmp_path: Path) -> None:
    made(tmp_path, 3)
    lines = (tmp_path / LOG_FILE).read_bytes().splitlines(keepends=True)
    records = whole(tmp_path)
    assert [record.number for record in records] == [1, 2, 3]
    assert [record.previous for record in records[1:]] == [sha256(line) for line in lines[:2]]
    assert head(tmp_path) == AuditHead(3, sha256(lines[2]))
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o777 == 0o600


def test_an_action_is_logged_before_it_begins_and_a_failed_one_twice(tmp_path: Path) -> None:
    log = made(tmp_path, 0)
    with log.recorded("copy.drop", "operator socket", "a" * 64):
        assert whole(tmp_path)[-1].act == "copy.drop"
    with pytest.raises(Conflict), log.recorded("copy.drop", "operator socket", "b" * 64):
        raise Conflict("leased", code="LEASED")
    acts = [(record.act, record.subject[:1], record.detail) for record in whole(tmp_path)]
    assert acts == [("copy.drop", "a", ""), ("copy.drop", "b", ""), ("copy.drop.failed", "b", "line 2: LEASED")]


def changed(line: int, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        lines = (home / LOG_FILE).read_bytes().splitlines(keepends=True)
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new)
        (home / LOG_FILE).write_bytes(b"".join(lines))

    return change


def kept_lines(choose: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        (home / LOG_FILE).write_bytes(b"".join(choose((home / LOG_FILE).read_bytes().splitlines(keepends=True))))

    return change


CHANGES = {
    "a changed first line": changed(0, b"ana", b"bob"),
    "a changed last line": changed(4, b"ana", b"bob"),
    "a changed number": changed(2, b'"number":3', b'"number":4'),
    "a removed line": kept_lines(lambda lines: lines[:2] + lines[3:]),
    "a removed end": kept_lines(lambda lines: lines[:3]),
    "one line less": kept_lines(lambda lines: lines[:4]),
    "everything removed": kept_lines(lambda lines: []),
    "two lines exchanged": kept_lines(lambda lines: [lines[1], lines[0], *lines[2:]]),
    "a line twice": kept_lines(lambda lines: [*lines, lines[-1]]),
    "lines added": kept_lines(lambda lines: lines + lines[:2]),
    "no file": lambda home: (home / LOG_FILE).unlink(),
    "no head": lambda home: (home / HEAD_FILE).unlink(),
    "another head": lambda home: (home / HEAD_FILE).write_text(f"5:{'e' * 64}\n"),
    "a head of garbage": lambda home: (home / HEAD_FILE).write_bytes(b"\xff" * 1000),
    "garbage at the end": kept_lines(lambda lines: [*lines, b"x" * (MAX_RECORD + 1)]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_found(tmp_path: Path, change: Callable[[Path], None]) -> None:
    made(tmp_path, 5)
    change(tmp_path)
    with pytest.raises(Untrusted) as refused:
        whole(tmp_path)
    assert refused.value.code == "AUDIT-LOG-ALTERED"


@pytest.mark.parametrize("name", ["a changed last line", "a removed end", "no file", "no head", "lines added"])
def test_nothing_is_appended_to_a_log_whose_end_was_changed(tmp_path: Path, name: str) -> None:
    log = made(tmp_path, 5)
    CHANGES[name](tmp_path)
    with pytest.raises(Untrusted):
        log.append("token.new", "ana")


def test_a_recomputed_chain_is_detected_by_a_kept_head(tmp_path: Path) -> None:
    made(tmp_path, 5)
    kept = head(tmp_path)
    (tmp_path / LOG_FILE).unlink()
    (tmp_path / HEAD_FILE).unlink()
    with pytest.raises(Untrusted):
        whole(tmp_path, kept)
    AuditLog(tmp_path, lambda: SECOND + 1).append("token.new", "ana")
    assert len(whole(tmp_path)) == 1
    with pytest.raises(Untrusted):
        whole(tmp_path, kept)


def test_a_home_without_actions_has_no_log(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        whole(tmp_path, EMPTY)
    assert missing.value.code == "NO-AUDIT-LOG"


def test_an_incomplete_last_line_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    log = made(tmp_path, 2)
    with (tmp_path / LOG_FILE).open("ab") as file:
        file.write(b'{"act":"token.n')
    assert len(whole(tmp_path)) == 2
    log.append("token.revoke", "ana")
    assert [record.act for record in whole(tmp_path)] == ["token.new", "token.new", "token.revoke"]


CHILD = """
import sys
from pathlib import Path
from comity.content.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), lambda: 1)
for _ in range(3):
    log.append("token.new", "ana")
"""


@pytest.mark.parametrize("point", AUDIT_LOG)
def test_a_log_continues_after_its_writer_was_killed(tmp_path: Path, point: str) -> None:
    hit = 1 if point == "audit.folder" else 2  # the folder is synced once, when the file is new
    environ = {**os.environ, "COMITY_FAULT": f"{point}:{hit}"}
    killed = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environ, check=False)
    assert killed.returncode == -9
    assert len(whole(tmp_path)) in (1, 2)
    AuditLog(tmp_path, lambda: 2).append("token.revoke", "ana")
    assert whole(tmp_path)[-1].act == "token.revoke"


def test_writers_at_the_same_time_make_one_chain(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: AuditLog(tmp_path, lambda: 1).append("a", "b", str(number)), range(40)))
    assert sorted(int(record.subject) for record in whole(tmp_path)) == list(range(40))


@given(st.text(max_size=600), st.text(max_size=600))
def test_any_text_makes_one_line_that_is_read_again(by: str, subject: str) -> None:
    record = AuditLog.record_after(EMPTY, SECOND, "token.new", by or "x", subject, "")
    assert parse_record(record.line()) == record
    assert len(record.line()) <= MAX_RECORD


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_record(data)


def test_actions_refused_by_a_full_disk_are_no_sign_of_a_changed_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is space for a line at the end of a block, and none for another file."""

    def full(*_: object, **__: object) -> None:
        raise OutOfSpace("audit.head was not written")

    log = made(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_file", full)
        for _ in range(3):
            with pytest.raises(OutOfSpace):
                log.append("token.new", "ana")
    log.append("token.new", "ana")
    assert [record.number for record in whole(tmp_path)] == [1, 2, 3]
