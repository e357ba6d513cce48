"""The audit log of a home: what its operators did, one line for each act, each line chained to the one before.

A line is canonical JSON. `previous` is the SHA-256 of the line before, with its line feed; zeros for the first line:

    {"act":"token.new","by":"ana (uid 1000)","detail":"","number":7,"previous":"…","subject":"k3f9…","time":1800000000}

A line is on the disk before its act begins, so no act is without a line. An act that fails gets a second line, with
`.failed` after its name. Nothing secret is written. The file is `audit.log`, mode 0600. `audit.head` has the number and
the hash of the last line. A process that dies leaves the file one line ahead of the head, or an incomplete last line,
which the next writer removes; anything else is found, and then nothing is appended.

A process that may write to the home can make another chain. So compare the head with one that is kept elsewhere: in a
copy of the log (`node.audit_copies`), or on paper.
"""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, Fields, canonical, parse_canonical, parse_digest, printable, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen

LOG_FILE: Final = "audit.log"
HEAD_FILE: Final = "audit.head"
"""Both in the node's home."""
MAX_RECORD: Final = 4096
"""Bytes of one line."""
MAX_FIELD: Final = 256
BEGINNING: Final = Digest("0" * 64)
FAILED: Final = ".failed"
_HEAD_BYTES: Final = 256


@frozen
class ActRecord:
    """One line. `time` in POSIX seconds, by the clock of the machine. `by` says who, as far as the machine knows."""

    number: int
    time: int
    act: str
    by: str
    subject: str
    detail: str
    previous: Digest

    def line(self) -> bytes:
        fields = ("number", "time", "act", "by", "subject", "detail", "previous")
        return canonical({name: getattr(self, name) for name in fields}) + b"\n"


@frozen
class AuditHead:
    """The number of the last line, 0 if there is none, and its hash."""

    number: int
    digest: Digest

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> AuditHead:
        """Raises Malformed."""
        number, _, digest = text.partition(":")
        if not (number.isascii() and number.isdecimal() and len(number) <= 15):
            raise Malformed("not a head of an audit log", why="expected NUMBER:HASH", code="BAD-ID")
        return cls(int(number), parse_digest(digest))


EMPTY: Final = AuditHead(0, BEGINNING)


def parse_record(line: bytes) -> ActRecord:
    """Read one line with its line feed. Raises Malformed."""
    if not line.endswith(b"\n"):
        raise Malformed("incomplete line of an audit log", why="it has no line feed")
    fields = Fields(parse_canonical(line[:-1], limit=MAX_RECORD, what="line of an audit log"), "line of an audit log")
    record = ActRecord(
        fields.integer("number", least=1),
        fields.integer("time"),
        fields.text("act", most=64),
        fields.text("by", most=MAX_FIELD),
        fields.text("subject", most=MAX_FIELD, least=0),
        fields.text("detail", most=MAX_FIELD, least=0),
        fields.digest("previous"),
    )
    fields.done()
    return record


class AuditLog:
    """The audit log of one home. Safe for several threads and processes at once. `clock` counts POSIX seconds."""

    def __init__(self, home: Path, clock: Callable[[], float]) -> None:
        self._home = home
        self._clock = clock

    def append(self, act: str, by: str, subject: str = "", detail: str = "") -> ActRecord:
        """Write one line; it is on the disk when the call returns. Blocking.

        Raises Untrusted (AUDIT-LOG-ALTERED) if the log is not what was written, OutOfSpace, Unavailable (DISK).
        """
        path = self._home / LOG_FILE
        with disk_errors("the audit log was not written"):
            created = not path.exists()
            with durable.locked_for_append(path, owner_of=self._home) as file:
                kept = _read_head(self._home)
                head = _recover_end(file, kept)
                if head != kept:  # else a second writer that dies leaves the file two lines ahead
                    _write_head(self._home, head)
                record = self.record_after(head, int(self._clock()), act, by, subject, detail)
                line = record.line()
                file.write(line)
                file.flush()
                durable.fsync(file.fileno(), point="audit.fsync")
                if created:
                    durable.sync(self._home, point="audit.folder")
                _write_head(self._home, AuditHead(record.number, sha256(line)))
        return record

    @staticmethod
    def record_after(head: AuditHead, time: int, act: str, by: str, subject: str, detail: str) -> ActRecord:
        """The record that follows `head`. Long texts are cut, and control characters escaped."""
        return ActRecord(head.number + 1, time, act, _cut(by), _cut(subject), _cut(detail), head.digest)

    @contextmanager
    def recorded(self, act: str, by: str, subject: str = "", detail: str = "") -> Iterator[None]:
        """Write a line before the block runs, and another one if it raises a ComityError. Raises as `append` does."""
        record = self.append(act, by, subject, detail)
        try:
            yield
        except ComityError as error:
            self.append(act + FAILED, by, subject, f"line {record.number}: {error.code}")
            raise


def local_user() -> str:
    """The user that this process runs as, for `by`."""
    number = os.getuid()
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"


def read_records(home: Path, start: int = 0) -> Iterator[tuple[ActRecord, bytes, int]]:
    """The complete lines from a place in bytes on, each with its bytes and the place after it, unchecked but for their
    form. Raises Malformed, NotFound (NO-AUDIT-LOG), Unavailable (DISK)."""
    with _opened(home) as file:
        file.seek(start)
        while line := file.readline(MAX_RECORD + 1):
            if not line.endswith(b"\n") and len(line) <= MAX_RECORD:
                return  # its writer has not finished it, or died
            start += len(line)
            yield parse_record(line), line, start


def place_in_log(home: Path, place: int) -> int:
    """`place`, in bytes, if a line of the log ends there; else 0: it is a place in a log that was moved away. Raises
    NotFound (NO-AUDIT-LOG), Unavailable (DISK)."""
    with _opened(home) as file:
        file.seek(max(0, place - 1))
        return place if file.read(1) == b"\n" else 0


@contextmanager
def _opened(home: Path) -> Iterator[BinaryIO]:
    with disk_errors("the audit log was not read"):
        try:
            file = (home / LOG_FILE).open("rb")
        except FileNotFoundError as error:
            why = f"{home / LOG_FILE} is missing: no act was recorded yet, or the file was removed"
            raise NotFound("no audit log", why=why, code="NO-AUDIT-LOG") from error
        with file:
            yield file


def _moment(home: Path) -> tuple[AuditHead, int]:
    """The head, and the bytes of the log, while nobody writes."""
    try:
        with _opened(home) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return _read_head(home), os.fstat(file.fileno()).st_size
    except NotFound:
        return _read_head(home), 0


def check_chain(home: Path, kept: AuditHead | None = None) -> Iterator[ActRecord]:
    """Every line, checked against the one before; and after the last one, that the log ends where `audit.head` says.
    Blocking.

    Args:
        kept: a head that was written down earlier: the log must have this line.

    Raises Untrusted (AUDIT-LOG-ALTERED), NotFound (NO-AUDIT-LOG), Unavailable (DISK).
    """
    (head, size), last = _moment(home), EMPTY
    found = {0: BEGINNING}
    watched = {head.number, kept.number if kept else 0}
    try:
        for record, line, end in read_records(home):
            if end > size:
                break
            if record.number != last.number + 1 or record.previous != last.digest:
                raise altered(f"line {last.number + 1} does not continue line {last.number}")
            last = AuditHead(record.number, sha256(line))
            if last.number in watched:
                found[last.number] = last.digest
            yield record
    except Malformed as error:
        raise altered(f"line {last.number + 1} is no line of an audit log: {error.why}") from error
    except NotFound:
        if head != EMPTY or kept not in (None, EMPTY):
            raise altered(f"it had {max(head.number, kept.number if kept else 0)} lines, and is missing") from None
        raise
    if not head.number <= last.number <= head.number + 1 or found.get(head.number) != head.digest:
        raise altered(f"it ends with line {last.number}, and audit.head says {head}")
    if kept is not None and found.get(kept.number) != kept.digest:
        raise altered(f"line {kept.number} is missing or not the one that you kept")


def altered(why: str) -> Untrusted:
    return Untrusted(
        "the audit log is not what was written",
        why=why,
        hint="comity audit-log check; keep audit.log and audit.head as evidence, and move both out of the home",
        code="AUDIT-LOG-ALTERED",
    )


def _recover_end(file: BinaryIO, head: AuditHead) -> AuditHead:
    """The head by the file itself; an incomplete last line is removed. Raises Untrusted (AUDIT-LOG-ALTERED)."""
    size = file.seek(0, os.SEEK_END)
    begin = max(0, size - 2 * MAX_RECORD)
    file.seek(begin)
    tail = file.read(size - begin)
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail):
        if not whole and begin:
            raise altered("its end is not a line")
        file.truncate(begin + len(whole))
    file.seek(0, os.SEEK_END)
    line = whole[whole[:-1].rfind(b"\n") + 1 :]
    try:
        record = parse_record(line) if line else None
    except Malformed as error:
        raise altered(f"its last line is no line of an audit log: {error.why}") from error
    last = AuditHead(record.number, sha256(line)) if record else EMPTY
    continued = record is not None and (record.number, record.previous) == (head.number + 1, head.digest)
    if last != head and not continued:
        raise altered(f"it ends with line {last.number}, and audit.head says {head}")
    return last


def _read_head(home: Path) -> AuditHead:
    """Raises Untrusted (AUDIT-LOG-ALTERED)."""
    try:
        with (home / HEAD_FILE).open("rb") as file:
            data = file.read(_HEAD_BYTES + 1)
        return parse_head(data)
    except FileNotFoundError:
        return EMPTY
    except Malformed as error:
        raise altered("audit.head cannot be read") from error


def parse_head(data: bytes) -> AuditHead:
    """Read the file `audit.head`. Raises Malformed."""
    if len(data) > _HEAD_BYTES or not data.endswith(b"\n") or not data.isascii():
        raise Malformed("not a head of an audit log")
    return AuditHead.parse(data[:-1].decode("ascii"))


def _write_head(home: Path, head: AuditHead) -> None:
    durable.write_file(home / HEAD_FILE, f"{head}\n".encode(), mode=0o600, point="audit.head")
    durable.give_to_owner(home / HEAD_FILE, owner_of=home)


def _cut(text: str) -> str:
    return printable(text)[:MAX_FIELD]
