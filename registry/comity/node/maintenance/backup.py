"""Makes a backup of a home, with its node running or stopped, and restores one into an empty home.

A backup appears under its name when it is complete and on the disk; a process that dies before leaves a folder
`.NAME-….partial`, which the next backup removes. The ledger is copied by SQLite itself from one snapshot, before the
blobs are listed: so every side object of a copied entry is in the list.

A restored ledger may be older than what its node signed. Therefore both marks beside it say that it is a copy: the node
signs nothing before enough members have shown the newest checkpoint of its log, and nothing for outside logs before the
operator agrees (docs/decisions, 23). `node.toml` is restored last: a half restored home is no home, and restoring the
same backup again goes on.

A backup may have been altered where it was kept. So a restore writes inside of the home only, unless the operator
allows more, whatever paths the settings in the backup name; it takes no file to a place where a node keeps what it
signed; and it decides by itself which files others may read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from comity.content import durable, fault
from comity.content.blobs import BlobStore, FolderStore
from comity.content.durable import disk_errors
from comity.content.gateway_tokens import TOKENS_FILE
from comity.node.config import NodeConfig
from comity.node.home import open_store
from comity.node.home_files import IMPORT_QUEUE_FILE, SOFTWARE, read_own_node
from comity.node.ledger_mark import LEDGER_MARK, OUTSIDE_MARK
from comity.node.maintenance.backup_format import (
    BLOB_LIST,
    BLOBS,
    CHUNK,
    HOME,
    LEDGER,
    MANIFEST,
    BackupFile,
    BackupManifest,
    LedgerCopy,
    blob_path,
    database_errors,
    listed_blobs,
    measure,
    open_regular_file,
    read_ledger_copy,
    verify_backup,
)
from comity.node.threads import Clock
from comity.node.webhooks import read_hooks
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen

PARTIAL: Final = ".partial"
SETTINGS: Final = "node.toml"
PUBLIC_FILES: Final = ("inception.line", "node-record.line", "node-card.json", "rotations.lines")
OFFLINE: Final = "offline"
RESTORING: Final = "restore.incomplete"
"""A file of a home that is being restored; it has the digest of the backup's manifest."""
_PUBLIC, _SECRET = 0o644, 0o600


@frozen
class MadeBackup:
    """A complete backup. `left_out` names files that the settings name and that are outside of the home."""

    folder: Path
    manifest: BackupManifest
    left_out: tuple[Path, ...]
    blob_bytes: int
    blobs: int


def create_backup(
    file: Path, out: Path, *, with_keys: bool, with_blobs: bool, clock: Clock, environ: Mapping[str, str] = os.environ
) -> MadeBackup:
    """Back up the home of a `node.toml` as the new folder `out`. Blocking.

    Raises Conflict (BACKUP-EXISTS), OutOfSpace, Unavailable, and the errors of `NodeConfig.load`. After an error there
    is no `out`.
    """
    config = NodeConfig.load(file, environ)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        hint = "name a folder that does not exist"
        raise Conflict(f"{out} exists", why="a backup is never overwritten", hint=hint, code="BACKUP-EXISTS")
    with disk_errors("the backup was not written"), _staging(out) as staging:
        made = _fill(config, staging, with_keys=with_keys, with_blobs=with_blobs, clock=clock)
        for folder, _, _ in os.walk(staging, topdown=False):
            durable.sync(Path(folder), point="backup.folders")
        fault.point("backup.name")
        staging.rename(out)
        durable.sync(out.absolute().parent, point="backup.named")
    return MadeBackup(out, *made)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, removed if the block raises; those of processes that died are removed first."""
    parent = out.absolute().parent
    durable.make_folders(parent)
    for old in parent.glob(f".{out.name}-*{PARTIAL}"):
        with _locked(old) as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=PARTIAL, dir=parent))
    with _locked(staging):
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the kernel's lock on a folder while the block runs; yields whether it was free."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _fill(
    config: NodeConfig, staging: Path, *, with_keys: bool, with_blobs: bool, clock: Clock
) -> tuple[BackupManifest, tuple[Path, ...], int, int]:
    """Write everything into `staging`, the manifest last."""
    own_node = read_own_node(config)
    sources, left_out = _sources(config, with_keys=with_keys)
    files = []
    for path, (source, secret) in sources.items():
        target = staging / HOME / path
        durable.make_folders(target.parent, mode=0o700)
        size, digest = _copy(source.resolve(), target, mode=_SECRET if secret else _PUBLIC)
        files.append(BackupFile(f"{HOME}/{path}", size, digest, secret))
    ledger = _copy_ledger(config, staging / LEDGER)
    if ledger is not None:
        files.append(BackupFile(LEDGER, *measure(staging / LEDGER)))
    kind, count, total = _copy_blobs(config, staging, with_blobs=with_blobs)
    if kind != "none":
        files.append(BackupFile(BLOB_LIST, *measure(staging / BLOB_LIST)))
    manifest = BackupManifest(
        created=int(clock()),
        software=SOFTWARE,
        node=own_node.record.name,
        origin=own_node.record.origin,
        keys=with_keys,
        blobs=kind,
        ledger=ledger,
        files=tuple(sorted(files, key=lambda file: file.path)),
    )
    durable.write_file(staging / MANIFEST, manifest.encode(), point="backup.manifest")
    return manifest, left_out, total, count


def _sources(config: NodeConfig, *, with_keys: bool) -> tuple[dict[str, tuple[Path, bool]], tuple[Path, ...]]:
    """The files of the home to copy, by their path in it, each with whether it is secret; and those outside of it."""
    s3 = config.storage.s3
    public = [config.path(name) for name in (SETTINGS, *PUBLIC_FILES)]
    public.append(config.storage.ledger.with_name(IMPORT_QUEUE_FILE))  # it has no token, so it goes without the keys
    gateway = config.gateway
    files = (config.federation.file, gateway.certificate, gateway.policy, gateway.laws_file, config.oidc.ca_file)
    public += [path for path in (*files, *_rule_files(config)) if path]
    secret = [*sorted(config.keys.glob("*.pem")), config.path(TOKENS_FILE), config.tlog.witness_key]
    secret += _webhook_secrets(config)
    named = (config.storage.password_file, gateway.key, gateway.prices_file, config.oidc.secret_file)
    secret += [path for path in named if path]
    secret += [s3.credentials_file] if s3 else []
    found, outside = dict[str, tuple[Path, bool]](), list[Path]()
    for path, is_secret in [(path, False) for path in public] + [(path, True) for path in secret if with_keys]:
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(config.home.resolve()) or not path.is_relative_to(config.home):
            outside.append(path)
        else:
            found[path.relative_to(config.home).as_posix()] = (path, is_secret)
    return found, tuple(dict.fromkeys(outside))


def _rule_files(config: NodeConfig) -> tuple[Path | None, ...]:
    return config.replication.rules, config.retention.rules, config.webhooks.file


def _webhook_secrets(config: NodeConfig) -> list[Path]:
    """The secrets of the webhooks; none if their file cannot be read, which is copied as it is."""
    if config.webhooks.file is None:
        return []
    try:
        return [config.path(hook.secret_file) for hook in read_hooks(config.webhooks.file)]
    except ComityError:
        return []


def _copy(source: Path, target: Path, *, mode: int) -> tuple[int, Digest]:
    """Copy a regular file; durable when the call returns, but for the folder. Returns its size and hash."""
    hasher, size = hashlib.sha256(), 0
    with open_regular_file(source) as reading, durable.staged(target, mode=mode, point="backup.file") as file:
        while chunk := reading.read(CHUNK):
            hasher.update(chunk)
            size += file.write(chunk)
    return size, Digest(hasher.hexdigest())


def _copy_ledger(config: NodeConfig, target: Path) -> LedgerCopy | None:
    source = config.storage.ledger
    if config.storage.database or not source.exists():
        return None
    with (
        database_errors("the ledger was not copied"),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)  # in one step, of one snapshot: a running node goes on writing
        writing.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
    target.chmod(_SECRET)
    durable.sync(target, point="backup.ledger")
    try:
        return read_ledger_copy(target)
    except (sqlite3.Error, TypeError, ValueError) as error:
        why = f"{source}: {error}"
        raise Unavailable(
            "the ledger was not copied", why=why, hint="comity serve --check", code="LEDGER-FAILED"
        ) from error


def _copy_blobs(config: NodeConfig, staging: Path, *, with_blobs: bool) -> tuple[str, int, int]:
    """List the blobs, and copy them if asked. Returns what was done, and the number and bytes of the blobs."""
    if config.storage.s3 is not None and with_blobs:
        why = "the blobs are in a bucket"
        raise Malformed("blobs are not copied from S3", why=why, hint="comity backup create BACKUP --node HOME")
    if config.storage.s3 is None and not config.storage.blobs.is_dir():
        return "none", 0, 0
    store, count, total = open_store(config), 0, 0
    with durable.staged(staging / BLOB_LIST, mode=_PUBLIC, point="backup.list") as listed:
        for digest, size in store.sizes():
            if with_blobs and not _copy_blob(store, digest, blob_path(staging, digest)):
                continue  # it was removed meanwhile
            listed.write(f"{digest} {size}\n".encode())
            count, total = count + 1, total + size
    if with_blobs:
        durable.make_folders(staging / BLOBS)
    return "copied" if with_blobs else "listed", count, total


def _copy_blob(store: BlobStore, digest: Digest, target: Path) -> bool:
    """Copy a blob and check its hash. Returns false if the store no longer has it. Raises Untrusted (HASH)."""
    durable.make_folders(target.parent)
    hasher = hashlib.sha256()
    try:
        size = store.size(digest)
        with durable.staged(target, mode=0o444, point="backup.blob") as file:
            for chunk in store.iterate(digest, 0, size):
                hasher.update(chunk)
                file.write(chunk)
            _require_hash(hasher.hexdigest(), digest)
    except NotFound:
        return False
    return True


def _require_hash(found: str, digest: Digest) -> None:
    if found != digest:
        hint = "let the node scrub its store, or back up without --blobs"
        raise Untrusted(f"blob {digest} is damaged", why="its bytes have another hash", hint=hint, code="HASH")


@frozen
class RestoredHome:
    """A home that was restored. `keys`: the backup had the keys; without them the node does not start."""

    home: Path
    manifest: BackupManifest
    digest: Digest
    blobs: int


def restore_backup(
    folder: Path,
    home: Path,
    *,
    expected: Digest | None,
    outside: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> RestoredHome:
    """Restore a backup, checked completely before, into `home`: a folder that is missing or empty, or in which the
    restoring of the same backup was interrupted. Blocking.

    Args:
        expected: the digest that the operator kept elsewhere; None if the operator accepts a backup that nothing
            proves unaltered.
        outside: write the ledger and the blobs also where the settings name a place outside of the home.

    Raises Conflict (HOME-NOT-EMPTY), Refused (BACKUP-OUTSIDE-HOME), OutOfSpace, Unavailable, and the errors of
    `verify_backup`. After an error `home` has no node.toml, and the call may be repeated.
    """
    manifest = verify_backup(folder, expected=expected or "")
    settings = next((file for file in manifest.files if file.path == f"{HOME}/{SETTINGS}"), None)
    if settings is None:
        raise Untrusted("the backup is damaged", why=f"it has no {SETTINGS}", code="BACKUP-DAMAGED")
    config = _read_settings(folder, home, environ)
    _check_places(manifest, config, home.absolute(), outside=outside)
    _claim(home, manifest.digest)
    with disk_errors("the home was not restored"):
        for file in _home_files(manifest):
            if file is not settings:
                _place(folder, file, home / file.path.removeprefix(f"{HOME}/"))
        if manifest.ledger is not None:
            _place_ledger(folder, manifest, config.storage.ledger)
        count = _place_blobs(folder, config) if manifest.blobs == "copied" else 0
        if config.keys.is_relative_to(home.absolute()):
            durable.make_folders(config.keys, mode=0o700)  # keys that the backup lacks are put there
        _place(folder, settings, home / SETTINGS)
        (home / RESTORING).unlink()
        durable.sync(home, point="restore.done")
    return RestoredHome(home, manifest, manifest.digest, count)


def _home_files(manifest: BackupManifest) -> Iterator[BackupFile]:
    return (file for file in manifest.files if file.path.startswith(f"{HOME}/"))


def _check_places(manifest: BackupManifest, config: NodeConfig, home: Path, *, outside: bool) -> None:
    """Raises Refused (BACKUP-OUTSIDE-HOME), and Untrusted (BACKUP-DAMAGED) for a file in a place that a restore writes
    itself, such as a ledger without the marks of a copy, or that no backup has, such as a record of votes."""
    ledger, blobs = config.storage.ledger, config.storage.blobs
    written = {"storage.ledger": ledger} if manifest.ledger is not None else {}
    written |= {"storage.blobs": blobs} if manifest.blobs == "copied" else {}
    beyond = [f"{name} = {path}" for name, path in written.items() if not path.is_relative_to(home)]
    if beyond and not outside:
        raise Refused(
            "the backup would write outside of the new home",
            why=f"its {SETTINGS} has {', '.join(beyond)[:800]}",
            hint="if you set this yourself, restore with --outside-home",
            code="BACKUP-OUTSIDE-HOME",
        )
    own = [ledger.with_name(ledger.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    own += [ledger.with_name(name) for name in (LEDGER_MARK, OUTSIDE_MARK)]
    own += [blobs, home / RESTORING, home / OFFLINE]
    for file in _home_files(manifest):
        target = home / file.path.removeprefix(f"{HOME}/")
        if any(target.is_relative_to(place) for place in own):
            raise Untrusted(
                "the backup is damaged",
                why=f"it has {file.path}, which no backup has",
                hint="use another backup",
                code="BACKUP-DAMAGED",
            )


def _claim(home: Path, digest: Digest) -> None:
    """Make `home`, and note in it which backup is restored. Raises Conflict (HOME-NOT-EMPTY)."""
    with disk_errors("the home was not restored"):
        durable.make_folders(home, mode=0o700)
        marker = home / RESTORING
        begun = marker.is_file() and marker.read_bytes()[:128] == f"{digest}\n".encode()
        others = [path for path in home.iterdir() if not path.name.endswith(durable.TEMPORARY)]
        if others and (not begun or (home / SETTINGS).exists()):
            raise Conflict(
                f"{home} is not empty",
                why="a restored ledger must never replace a newer one",
                hint="name a new folder; move the old home away first if it is the same machine",
                code="HOME-NOT-EMPTY",
            )
        for path in home.rglob(f"*{durable.TEMPORARY}"):  # of the process that was interrupted
            path.unlink()
        durable.write_file(marker, f"{digest}\n".encode(), point="restore.marker")


def _place(folder: Path, file: BackupFile, target: Path) -> None:
    """What is not known to be public is for its owner only, whatever the manifest says."""
    durable.make_folders(target.parent, mode=0o700)
    public = file.path in {f"{HOME}/{name}" for name in (SETTINGS, *PUBLIC_FILES)}
    found = _copy(folder / file.path, target, mode=_PUBLIC if public else _SECRET)
    if found != (file.size, file.digest):
        raise Untrusted("the backup is damaged", why=f"{file.path} changed while it was read", code="BACKUP-DAMAGED")


def _read_settings(folder: Path, home: Path, environ: Mapping[str, str]) -> NodeConfig:
    """The settings of the backup, as they will take effect in `home`; a path with `..` is written out."""
    config = NodeConfig.load(folder / HOME / SETTINGS, environ)
    source = Path(os.path.normpath(config.home))

    def moved(path: Path) -> Path:
        path = Path(os.path.normpath(path))
        return home.absolute() / path.relative_to(source) if path.is_relative_to(source) else path

    storage = config.storage
    paths = {"ledger": moved(storage.ledger), "blobs": moved(storage.blobs), "keys": moved(storage.keys)}
    return config.model_copy(update={"storage": storage.model_copy(update=paths)})


def _place_ledger(folder: Path, manifest: BackupManifest, ledger: Path) -> None:
    durable.make_folders(ledger.parent)
    text = f"restored from {manifest.digest}\n".encode()
    mark = ledger.with_name(LEDGER_MARK)
    if ledger.exists() and not (mark.is_file() and mark.read_bytes()[:128] == text):
        why = "it belongs to another home, or to a node that ran"
        raise Conflict(f"{ledger} exists", why=why, hint="move it away first", code="HOME-NOT-EMPTY")
    for name in (LEDGER_MARK, OUTSIDE_MARK):
        durable.write_file(ledger.with_name(name), text, point="restore.mark")
    for left in ("-wal", "-shm"):
        ledger.with_name(ledger.name + left).unlink(missing_ok=True)
    _place(folder, next(file for file in manifest.files if file.path == LEDGER), ledger)


def _place_blobs(folder: Path, config: NodeConfig) -> int:
    store, count = FolderStore(config.storage.blobs), 0
    for digest, size in listed_blobs(folder):
        count += 1
        if store.has(digest):
            continue
        partial = store.partial_path(digest)
        hasher = hashlib.sha256()
        with open_regular_file(blob_path(folder, digest)) as reading, partial.open("wb") as file:
            while chunk := reading.read(CHUNK):
                hasher.update(chunk)
                file.write(chunk)
        if hasher.hexdigest() != digest:
            raise Untrusted("the backup is damaged", why=f"blob {digest} changed", code="BACKUP-DAMAGED")
        store.admit(partial, digest, size)
    return count
