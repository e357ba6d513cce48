"""Checks of `comity doctor` on this machine: keys, membership, disk, storage, ledger, clock and versions; what every
check sees, and what it finds.

A finding never claims more than its check looked at: `unknown` says that something was not checked, and why.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shlex
import sqlite3
import ssl
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from comity.content.confinement import confinement
from comity.content.durable import FULL_DISK, fsync
from comity.ledger.moves import require_whole
from comity.ledger.page_check import SQLITE_ERRORS, ExaminedPages, examine_pages
from comity.ledger.page_sums import PageTables, shown_pages
from comity.ledger.revisions import NEWEST
from comity.node.config import NodeConfig
from comity.node.home_files import SOFTWARE, HomeFiles, check_blob_folder, read_public_files, signing_keys
from comity.node.ledger_mark import LEDGER_MARK, FileMark
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Refused
from comity.trust.exit_statuses import FAILED, OK, PARTIAL
from comity.trust.frozen import frozen
from comity.wire.node_status import NodeStatus

if TYPE_CHECKING:
    from comity.node.threads import Clock

DAY: Final = 86_400
LEAST_SHARE: Final = 0.05
"""Free share of a disk, or of its inodes, below which an operator is warned."""
MAX_CHECKED_BYTES: Final = 256 * 1024**2
"""A larger ledger is not read completely: that takes minutes, and the node does it at its start for its own log."""
MAX_WAL_BYTES: Final = 256 * 1024**2
CLOCK_TOLERANCE: Final = 60
LEAST_OPEN_FILES: Final = 4096
PROBE: Final = b"comity doctor wrote this to see whether it can\n"


Level: TypeAlias = Literal["ok", "warn", "fail", "unknown"]


@frozen
class Diagnosis:
    """One result of a check: its topic in a word, what was seen, and for `warn` and `fail` the next step."""

    topic: str
    level: Level
    text: str
    fix: str = ""

    @classmethod
    def of(cls, topic: str, error: ComityError, *, fix: str = "", level: Level = "fail") -> Diagnosis:
        return cls(topic, level, f"{error}  [{error.code}]", fix or error.hint or f"comity explain {error.code}")


EXIT_STATUS: Final[Mapping[Level, int]] = {"ok": OK, "unknown": OK, "warn": PARTIAL, "fail": FAILED}
"""Of the worst finding, from the best level to the worst."""


def worst(findings: Iterable[Diagnosis]) -> Level:
    """The worst level."""
    return max((finding.level for finding in findings), key=list(EXIT_STATUS).index, default="ok")


@frozen
class DiskSpace:
    """Free and total bytes of a file system, and inodes; a file system without a table of inodes has 0 of 0."""

    free: int
    size: int
    free_inodes: int
    inodes: int


def disk_space(folder: Path) -> DiskSpace:
    """The space for an ordinary user below `folder`. Raises OSError."""
    found = os.statvfs(folder)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)


_UNSYNCHRONISED: Final = 5
"""TIME_ERROR of adjtimex(2): no time service keeps this clock."""
_TIMEX_BYTES: Final = 256
"""More than the kernel's struct timex, whose first field, 0, asks for no change."""


def clock_synchronised() -> bool | None:
    """Whether the kernel says that a time service keeps the clock of this machine; None if the kernel does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _UNSYNCHRONISED


@frozen
class Machine:
    """The facts about this machine that checks use."""

    clock: Clock = time.time
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    space: Callable[[Path], DiskSpace] = disk_space
    synchronised: Callable[[], bool | None] = clock_synchronised
    open_files: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@frozen
class ExaminedNode:
    """A home whose settings are usable. `files` is None if its keys or public files are not; `status` is None while
    its node does not run."""

    home: Path
    config: NodeConfig
    files: HomeFiles | None
    status: NodeStatus | None
    machine: Machine


Check: TypeAlias = Callable[[ExaminedNode], Iterable[Diagnosis]]


def check_keys(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The online keys fit the node record, nobody else can read them, and the offline keys are elsewhere. A front end
    has no key that signs."""
    try:
        if node.config.is_front_end:
            read_public_files(node.config)
        else:
            HomeFiles.read(node.config)
    except ComityError as error:
        yield Diagnosis.of("keys", error, fix=error.hint or _key_fix(error, node.config))
    else:
        ages = [node.machine.clock() - file.stat().st_mtime for file in node.config.keys.glob("*.pem")]
        oldest = int(max(ages, default=0) // DAY)
        yield Diagnosis("keys", "ok", f"they fit the node record; the oldest file is {oldest} days old")
    if node.config.is_front_end and (found := signing_keys(node.config)):
        fix = f"rm {' '.join(str(node.config.keys / name) for name in found)}"
        yield Diagnosis("keys", "warn", "keys that sign are in the home of a front end, which signs nothing", fix)
    if stat.S_IMODE(node.config.keys.stat().st_mode) & 0o077 if node.config.keys.is_dir() else False:
        fix = f"chmod 700 {node.config.keys}"
        yield Diagnosis("keys", "warn", f"other users may list {node.config.keys}", fix)
    offline = node.config.path("offline")
    if any(offline.glob("*.pem")):
        fix = f"move {offline} to a medium that is not connected"
        yield Diagnosis("offline keys", "warn", "the keys of your seat are on the machine that serves", fix)


def _key_fix(error: ComityError, config: NodeConfig) -> str:
    if error.code == "KEY-MISMATCH":
        return f"put back the key files that belong to {config.path('node-record.line')}, from your backup"
    if error.code == "KEY-PERMISSIONS":
        return f"chown the files in {config.keys} to the user of the node"
    return f"put the file back from your backup of {config.keys}, with mode 0600"


def check_federation(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The node belongs to the federation that it pins."""
    if node.files is None:
        return
    federation, member = node.files.federation, node.files.own_node.inception.id
    followed = _followed_body(node, federation.id) if federation is not None else None
    if federation is None:
        fix = f"comity join federation.json --node {node.home}"
        yield Diagnosis("federation", "warn", f"{node.config.federation.file} is missing: the node serves alone", fix)
    elif followed is not None and followed.epoch > federation.body.epoch and followed.member(member) is not None:
        text = (
            f"a member, one of {len(followed.members)} in the charter of epoch {followed.epoch}, which the node follows"
        )
        yield Diagnosis("federation", "ok", text)
    elif federation.body.member(member) is None:
        fix = f"comity join --node {node.home}   shows what your admission waits for"
        yield Diagnosis("federation", "warn", "no charter that this node knows lists its member yet", fix)
    else:
        yield Diagnosis("federation", "ok", f"a member, one of {len(federation.body.members)} in the pinned charter")


def _followed_body(node: ExaminedNode, federation: Digest) -> Body | None:
    """The newest body in the ledger that the running node says it follows, or any, of a node that is stopped. None if
    the ledger cannot be read here: other checks tell why."""
    if node.config.storage.database or not node.config.storage.ledger.is_file():
        return None
    governance = node.status.governance if node.status is not None else None
    wanted = "AND digest = :body " if governance is not None else ""
    query = f"SELECT body FROM charter_epochs WHERE federation = :federation {wanted}ORDER BY epoch DESC LIMIT 1"
    named = {"federation": bytes.fromhex(federation), "body": bytes.fromhex(governance.body if governance else "")}
    file = node.config.storage.ledger.absolute().as_uri()
    try:
        with closing(sqlite3.connect(f"{file}?mode=ro", uri=True, timeout=5)) as database:
            row = database.execute(query, named).fetchone()
            return Body.parse(row[0]) if row else None
    except (*SQLITE_ERRORS, ComityError):
        return None


def check_disks(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The disks of blobs and ledger have space and inodes."""
    storage = node.config.storage
    folders = {_existing(storage.blobs): "[storage] blobs", _existing(storage.ledger.parent): "[storage] ledger"}
    for folder, setting in folders.items():
        space = node.machine.space(folder)
        move = _more_space(folder, setting)
        if space.free < storage.reserve_bytes:
            text = f"{space.free} bytes are free below {folder}, less than storage.reserve_bytes"
            yield Diagnosis("disk", "fail", f"{text}: uploads and copies are refused", move)
        elif space.free < LEAST_SHARE * space.size:
            yield Diagnosis("disk", "warn", f"{100 * space.free // space.size} % are free below {folder}", move)
        else:
            yield Diagnosis("disk", "ok", f"{100 * space.free // max(1, space.size)} % are free below {folder}")
        if space.inodes and space.free_inodes < LEAST_SHARE * space.inodes:
            text = f"{space.free_inodes} of {space.inodes} inodes are free below {folder}"
            fix = f"find what has so many small files on that disk: du --inodes -d 2 {folder}"
            yield Diagnosis("inodes", "fail" if space.free_inodes < 1000 else "warn", text, fix)


def _more_space(folder: Path, setting: str) -> str:
    return f"free some space below {folder} (du -xhd 2 {shlex.quote(str(folder))}), or move {setting} to a larger disk"


def check_storage(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The blob folder keeps what is written to it; no blob is in quarantine."""
    folder = node.config.storage.blobs
    if node.config.is_front_end:
        if node.config.storage.s3 is not None:
            return  # it uses the bucket and no folder
        try:
            check_blob_folder(node.config)
        except ComityError as error:
            yield Diagnosis.of("storage", error, fix=error.hint)
        else:
            yield Diagnosis("storage", "ok", f"a front end only reads {folder}")
        return
    if not folder.exists():
        yield Diagnosis("storage", "unknown", f"{folder} is made at the first start")
        return
    try:
        yield _probe(folder)
    except OSError as error:
        fix = f"give the user of the node write access to the folder {folder}, on a disk that is mounted read-write"
        if error.errno in FULL_DISK:
            fix = _more_space(folder, "[storage] blobs")
        yield Diagnosis("storage", "fail", f"{folder} cannot be written: {error.strerror or error}", fix)
        return
    damaged = len([path for path in (folder / "quarantine").glob("*") if path.suffix != ".reason"])
    if damaged:
        fix = f"read {folder / 'quarantine'}/*.reason, and test the disk: smartctl -H DEVICE"
        yield Diagnosis("storage", "warn", f"{damaged} damaged blobs are in quarantine", fix)


def _probe(folder: Path) -> Diagnosis:
    """Write a small file, have it on the disk, and read it again. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="doctor-") as file:
        file.write(PROBE)
        file.flush()
        fsync(file.fileno(), point="doctor.fsync")
        if Path(file.name).read_bytes() != PROBE:
            return Diagnosis("storage", "fail", f"{folder} returns other bytes than were written", "replace the disk")
    return Diagnosis("storage", "ok", "a small file was written, synced and read back")


def check_ledger(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The ledger is a database of this version, undamaged, and the one that this node wrote last."""
    if node.config.storage.database:
        yield Diagnosis("ledger", "unknown", "it is in PostgreSQL: the node checks it at its start")
        return
    file = node.config.storage.ledger
    if not file.exists():
        yield Diagnosis("ledger", "unknown", f"{file} is made at the first start")
        return
    whole = file.stat().st_size <= MAX_CHECKED_BYTES
    pages = _examined(node, file, whole=whole)
    yield from _damaged_pages(node, file, pages)
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                yield _without_tables(node, file)
                return
            (version,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
            (begun,) = database.execute("SELECT coalesce(max(size), 0) FROM logs WHERE own").fetchone()
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone() if whole else ("",)
    except (*SQLITE_ERRORS, TypeError) as error:
        if not pages.mended:
            yield Diagnosis("ledger", "fail", f"{file} is not a readable ledger: {error}", _way_out(node, file))
        return
    yield from _version(version)
    if whole and said != "ok":
        if not pages.mended:
            yield Diagnosis("ledger", "fail", f"{file} is damaged: {said}", _way_out(node, file))
    elif not whole:
        yield Diagnosis("ledger", "unknown", f"{file} is large and was not read completely; the scrub does")
    elif pages.unchecked:
        text = f"SQLite finds its tables in order; its pages were not compared with their sums: {pages.unchecked}"
        yield Diagnosis("ledger", "unknown", text)
    elif not (pages.mended or pages.damaged):
        text = "each page is as it was written, and SQLite finds its tables in order"
        yield Diagnosis("ledger", "ok", f"{text}; this node's log has {begun} entries")
    yield from _copied(node, file, begun)
    log = file.with_name(file.name + "-wal")
    if log.exists() and log.stat().st_size > MAX_WAL_BYTES:
        text = f"its write-ahead log has {log.stat().st_size} bytes"
        yield Diagnosis(
            "ledger", "warn", text, "restart the node; if it grows again, find the program that reads the file"
        )


def _without_tables(node: ExaminedNode, file: Path) -> Diagnosis:
    """Of a file whose tables were in a write-ahead log that is cut or gone, before the first entry was signed."""
    fix = f"start the node, which makes them: comity serve --node {shlex.quote(str(node.home))}"
    return Diagnosis("ledger", "warn", f"{file} has no tables yet: the first start was interrupted", fix)


def _examined(node: ExaminedNode, file: Path, *, whole: bool) -> ExaminedPages:
    if node.status is not None:
        return ExaminedPages(unchecked="the node runs, and its scrub compares them")
    if not whole:
        return ExaminedPages(unchecked="it is large")
    return examine_pages(file, mend=False)


def _damaged_pages(node: ExaminedNode, file: Path, pages: ExaminedPages) -> Iterator[Diagnosis]:
    names = PageTables(file).of_pages(pages.mended + pages.damaged)
    if pages.mended:
        shown = shown_pages(names, pages.mended)
        text = f"LEDGER-CORRUPT: one byte changed in each of {len(pages.mended)} pages of {file}: {shown}"
        yield Diagnosis(
            "ledger", "fail", text, f"start the node, which writes them again: comity serve --node {node.home}"
        )
    if pages.damaged:
        shown = shown_pages(names, pages.damaged)
        text = f"LEDGER-CORRUPT: {len(pages.damaged)} pages of {file} are not as they were written: {shown}"
        # Imported only for a damaged ledger: the other checks need no tables.
        from comity.ledger.rebuilt_file import damaged_tables
        from comity.ledger.table_sources import TableSource, source_of

        tables = damaged_tables(file, pages.damaged)
        if tables is None or TableSource.HERE in map(source_of, tables):
            yield Diagnosis("ledger", "fail", text, _way_out(node, file))
        else:
            fix = f"start the node, which makes their tables again: comity serve --node {shlex.quote(str(node.home))}"
            yield Diagnosis("ledger", "fail", text, fix)


def _way_out(node: ExaminedNode, file: Path) -> str:
    """The commands for a ledger that no start repairs."""
    aside, ledger = (shlex.quote(str(path)) for path in (file.with_name("damaged-ledger"), file))
    return (
        "comity backup restore BACKUP --node HOME, into a new home. Without a backup, where other members mirror this "
        f"node: mkdir {aside} && mv {ledger}* {aside} && comity serve --node {shlex.quote(str(node.home))}"
    )


def _version(version: str) -> Iterator[Diagnosis]:
    try:
        require_whole(version)
    except Refused as refusal:
        yield Diagnosis("ledger", "fail", f"{refusal.code}: {refusal}", refusal.hint)
        return
    if version > NEWEST:
        text = f"tables of revision {version}, and this program knows {NEWEST}"
        yield Diagnosis("ledger", "fail", text, "install the version of Comity that wrote the ledger, or a later one")
    elif version < NEWEST:
        text = f"tables of revision {version}; a start of this version changes them to {NEWEST}"
        yield Diagnosis("ledger", "warn", text, "comity backup create BACKUP --node HOME, before the node starts")


def _copied(node: ExaminedNode, file: Path, begun: int) -> Iterator[Diagnosis]:
    mark = FileMark(file.with_name(LEDGER_MARK), str(file.stat().st_ino))
    if mark.mismatches(begun=begun > 0):
        text = "the ledger is a copy: the node signs nothing until enough members have shown what it signed"
        fix = "start the node while peers are reachable; if no member is left to ask: " + mark.reset_command()
        yield Diagnosis("ledger", "warn", text, fix)


def check_clock(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The clock is kept by a time service, and does not contradict what others signed."""
    now = node.machine.clock()
    signed = [log.checkpoint_time for log in node.status.logs] if node.status is not None else []
    ledger = node.config.storage.ledger
    newest = max(*signed, int(ledger.stat().st_mtime) if ledger.exists() else 0, 0)
    fix = "timedatectl set-ntp true, or start chronyd"
    if newest > now + CLOCK_TOLERANCE:
        text = f"it is at least {int(newest - now)} s behind what was signed or written before"
        yield Diagnosis("clock", "fail", text, fix)
        return
    synchronised = node.machine.synchronised()
    if synchronised is False:
        yield Diagnosis("clock", "warn", "the kernel says that no time service keeps it", fix)
    elif synchronised is None:
        yield Diagnosis("clock", "unknown", "the kernel does not say whether a time service keeps it")
    else:
        yield Diagnosis("clock", "ok", "a time service keeps it")


def check_versions(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The running node is the installed program; the process may open enough files."""
    if node.status is not None and node.status.software != SOFTWARE:
        text = f"{node.status.software} runs, and {SOFTWARE} is installed"
        yield Diagnosis("version", "warn", text, "restart the node: systemctl restart comity-node")
    parts = f"{SOFTWARE}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {ssl.OPENSSL_VERSION}"
    yield Diagnosis("version", "ok", parts)
    files = node.machine.open_files()
    if 0 <= files < LEAST_OPEN_FILES:
        text = f"a process may open {files} files: the node takes few connections"
        yield Diagnosis("open files", "warn", text, "set LimitNOFILE=65536 in the unit, or ulimit -Hn 65536")


def check_confinement(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The kernel can take rights from the processes that read files of strangers with other people's scanners."""
    found = confinement()
    if found:
        yield Diagnosis("confinement", "ok", f"a scanner of files keeps no right but reading: {' and '.join(found)}")
    else:
        text = "the kernel has neither Landlock nor seccomp: a scanner of files keeps the rights of its user"
        yield Diagnosis("confinement", "unknown", text)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path(os.sep))
