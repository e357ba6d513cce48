"""A backup of a home: a folder with the files, a copy of the ledger, a list of the blobs, and a manifest of it all.

    manifest.json       comity/backup/v1: what is in the folder, each file with its size and SHA-256
    home/…              the public files of the home, and its keys if the operator asked for them (mode 0600)
    ledger.sqlite       the ledger of one moment
    blobs.txt           the digest and size of every blob, one a line, in the order of their digests
    blobs/ab/abcd…      the blobs, if the operator asked for them

A backup is data from a disk: everything is bounded, no link is followed, and nothing is in it that the manifest does
not list. A person who can write to a backup can also write a new manifest: compare the manifest's digest, which
`comity backup create` prints, with one that was kept elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self

from comity.bounded_file import read_bounded
from comity.content.durable import disk_errors
from comity.ledger.moves import require_whole
from comity.ledger.revisions import NEWEST
from comity.trust.encoding import Digest, Fields, Json, canonical, parse_canonical, sha256
from comity.trust.errors import NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen

SCHEMA: Final = "comity/backup/v1"
MANIFEST: Final = "manifest.json"
LEDGER: Final = "ledger.sqlite"
BLOB_LIST: Final = "blobs.txt"
BLOBS: Final = "blobs"
HOME: Final = "home"
MAX_MANIFEST: Final = 1024 * 1024
MAX_FILES: Final = 256
MAX_PATH: Final = 512
CHUNK: Final = 4 * 1024 * 1024
_PART: Final = re.compile(r"(?!\.\.?\Z)[^/\x00-\x1f\x7f]{1,255}\Z")
_BLOB_LINE: Final = re.compile(rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,18})\n\Z")
BLOB_KINDS: Final = ("none", "listed", "copied")


@frozen
class BackupFile:
    """A file of a backup by its path in the folder. `secret`: only its owner may read it."""

    path: str
    size: int
    digest: Digest
    secret: bool = False


@frozen
class LedgerCopy:
    """The copied ledger: the revision of its tables, and this node's log with its size."""

    revision: str
    log: str
    entries: int


@frozen
class BackupManifest:
    """What a backup contains. `ledger` is None for a node that never ran, or whose ledger is in PostgreSQL; `blobs` is
    `none`, `listed` or `copied`; `created` is in POSIX seconds."""

    created: int
    software: str
    node: str
    origin: str
    keys: bool
    blobs: str
    ledger: LedgerCopy | None
    files: tuple[BackupFile, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_MANIFEST, what="backup manifest"), "backup manifest")
        fields.constant("schema", SCHEMA)
        made = cls(
            created=fields.integer("created"),
            software=fields.text("software", most=255),
            node=fields.text("node", most=255),
            origin=fields.text("origin", most=255),
            keys=fields.boolean("keys"),
            blobs=fields.choice("blobs", BLOB_KINDS),
            ledger=_parse_ledger(fields.object("ledger")) if fields.has("ledger") else None,
            files=tuple(_parse_file(item) for item in fields.items("files", most=MAX_FILES)),
        )
        fields.done()
        paths = [file.path for file in made.files]
        if paths != sorted(set(paths)):
            raise fields.error("its files are not in order, or one is listed twice")
        if (made.ledger is not None) != (LEDGER in paths) or (made.blobs != "none") != (BLOB_LIST in paths):
            raise fields.error("it lists other files than it says")
        return made

    def encode(self) -> bytes:
        files: list[Json] = [
            {"path": file.path, "size": file.size, "sha256": file.digest, "secret": file.secret} for file in self.files
        ]
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "created": self.created,
            "software": self.software,
            "node": self.node,
            "origin": self.origin,
            "keys": self.keys,
            "blobs": self.blobs,
            "files": files,
        }
        if self.ledger is not None:
            ledger = self.ledger
            document["ledger"] = {"revision": ledger.revision, "log": ledger.log, "entries": ledger.entries}
        return canonical(document)

    @property
    def digest(self) -> Digest:
        return sha256(self.encode())


def _parse_ledger(fields: Fields) -> LedgerCopy:
    ledger = LedgerCopy(fields.text("revision", most=32), fields.text("log", most=4096), fields.integer("entries"))
    fields.done()
    return ledger


def _parse_file(item: Json) -> BackupFile:
    fields = Fields(item, "backup file")
    path = fields.text("path", most=MAX_PATH)
    under_home = path.startswith(f"{HOME}/")
    if not (under_home or path in (LEDGER, BLOB_LIST)) or not all(map(_PART.match, path.split("/"))):
        raise fields.error("a path leads out of the backup")
    file = BackupFile(path, fields.integer("size"), fields.digest("sha256"), fields.boolean("secret"))
    fields.done()
    return file


def verify_backup(folder: Path, *, expected: str = "") -> BackupManifest:
    """Check a backup completely: every byte is read. Blocking.

    Args:
        expected: the digest of the manifest that the caller kept elsewhere.

    Raises NotFound, Malformed, Untrusted (BACKUP-DAMAGED), Refused (LEDGER-NEWER) and Unavailable.
    """
    manifest = read_manifest(folder)
    if expected and manifest.digest != expected:
        raise _damaged(f"its manifest has the digest {manifest.digest}, not the one that you gave")
    _check_names(folder, manifest)
    for file in manifest.files:
        if measure(folder / file.path) != (file.size, file.digest):
            raise _damaged(f"{file.path} is not the file that was backed up")
    if manifest.ledger is not None:
        _check_ledger(folder / LEDGER, manifest.ledger)
    if manifest.blobs == "copied":
        _check_blobs(folder)
    elif manifest.blobs == "listed":
        for _ in listed_blobs(folder):
            pass
    return manifest


def read_manifest(folder: Path) -> BackupManifest:
    """Raises NotFound if `folder` is no complete backup, Malformed."""
    if not (folder / MANIFEST).is_file():
        why = f"{folder / MANIFEST} is missing; an interrupted backup has none"
        raise NotFound(f"{folder} is no backup", why=why, hint="comity backup create BACKUP --node HOME")
    return BackupManifest.parse(read_bounded(folder / MANIFEST, MAX_MANIFEST))


def listed_blobs(folder: Path) -> Iterator[tuple[Digest, int]]:
    """The digest and size of each blob in the list of a backup. Raises Untrusted (BACKUP-DAMAGED), Unavailable."""
    last = ""
    with disk_errors(f"{BLOB_LIST} was not read"), open_regular_file(folder / BLOB_LIST) as file:
        while line := file.readline(128):
            found = _BLOB_LINE.match(line)
            if found is None or (digest := found[1].decode()) <= last:
                raise _damaged(f"{BLOB_LIST} has a line that is malformed or not in order")
            last = digest
            yield Digest(digest), int(found[2])


def blob_path(folder: Path, digest: Digest) -> Path:
    """Where a backup has a copied blob."""
    return folder / BLOBS / digest[:2] / digest


@contextmanager
def open_regular_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; a link is not followed. Raises Untrusted (BACKUP-DAMAGED), OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _damaged(f"{path.name} is a link") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _damaged(f"{path.name} is no regular file")
        yield file


def measure(path: Path) -> tuple[int, Digest]:
    """The size and hash of a regular file. Raises Untrusted (BACKUP-DAMAGED), Unavailable."""
    hasher, size = hashlib.sha256(), 0
    try:
        with open_regular_file(path) as file:
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
    except FileNotFoundError as error:
        raise _damaged(f"{path.name} is missing") from error
    except OSError as error:
        raise Unavailable(f"{path} was not read", why=str(error), code="DISK") from error
    return size, Digest(hasher.hexdigest())


@contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Translate an error of SQLite inside the block: OutOfSpace for a full disk, else Unavailable (LEDGER-FAILED)."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise OutOfSpace(what, why=str(error), hint="free some space and run the same command again") from error
        raise Unavailable(what, why=str(error), code="LEDGER-FAILED") from error


def read_ledger_copy(file: Path) -> LedgerCopy:
    """What a copy of a ledger that nobody writes says about itself. Raises sqlite3.Error, and TypeError or ValueError
    for a database that is no ledger."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as database:
        database.execute("PRAGMA trusted_schema=OFF")
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        own = database.execute("SELECT vkey, size FROM logs WHERE own LIMIT 1").fetchone() or ("", 0)
        return LedgerCopy(str(revision), str(own[0]) or "none", int(own[1]))


def _check_names(folder: Path, manifest: BackupManifest) -> None:
    """Nothing is in the folder that the manifest does not list."""
    known = {MANIFEST, *(file.path for file in manifest.files)}
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        if any((here / name).is_symlink() for name in folders):
            raise _damaged("a link to another folder is in it")
        if manifest.blobs == "copied" and here == folder and BLOBS in folders:
            folders.remove(BLOBS)
        for name in names:
            if (here / name).relative_to(folder).as_posix() not in known:
                raise _damaged(f"{name[:200]!r} is not listed in its manifest")


def _check_ledger(file: Path, expected: LedgerCopy) -> None:
    try:
        found = read_ledger_copy(file)
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema=OFF")
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise _damaged(f"{LEDGER} is not a readable ledger: {error}") from error
    if said != "ok" or found != expected:
        raise _damaged(f"{LEDGER} is damaged: {said}" if said != "ok" else f"{LEDGER} is not the ledger that it names")
    require_whole(found.revision)
    if found.revision > NEWEST:
        raise Refused(
            "the ledger was written by a newer version",
            why=f"this version does not know revision {found.revision} of the tables",
            hint="install the version of Comity that made the backup, or a later one",
            code="LEDGER-NEWER",
        )


def _check_blobs(folder: Path) -> None:
    count = 0
    for digest, size in listed_blobs(folder):
        if measure(blob_path(folder, digest)) != (size, digest):
            raise _damaged(f"blob {digest} is not the one that was backed up")
        count += 1
    if sum(len(names) for _, _, names in os.walk(folder / BLOBS)) != count:  # what is listed twice was refused above
        raise _damaged(f"{BLOBS}/ has files that are not listed")


def _damaged(why: str) -> Untrusted:
    return Untrusted("the backup is damaged", why=why, hint="use another backup", code="BACKUP-DAMAGED")
