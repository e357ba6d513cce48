"""Moves the storage of a node to where another settings file says: the ledger, the blobs, or both.

While the node runs, what it has is copied beside it. When it is stopped, the same call takes the ledger's lock, copies
what is new, compares, and makes the new settings those of the node. A process that is killed at any moment is followed
by the same call, which goes on. The old storage keeps all that it had.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable, fault
from comity.content.blobs import BlobStore, FolderStore, blobs_folder
from comity.content.durable import disk_errors
from comity.content.store_copy import Advance, CopiedList, StoreDifference, compare_stores, copy_blobs, copy_withheld
from comity.ledger.ledger import LockedDatabase
from comity.node.config import MAX_FILE, NodeConfig
from comity.node.home import open_store
from comity.node.maintenance.ledger_move import (
    MovedRows,
    begin_target,
    copy_beside,
    count_ledger,
    hand_over,
    lock_source,
    target_refused,
    was_moved,
)
from comity.node.threads import Clock
from comity.trust.encoding import short
from comity.trust.errors import Conflict, Malformed, OutOfSpace, Unavailable, Untrusted
from comity.trust.frozen import frozen

COPIED: Final = "storage-move.list"
"""The list of the copied blobs, beside the ledger, until the move is complete."""
BEFORE: Final = ".before-move"
"""Follows the name of the settings file that was replaced."""
_ASIDE: Final = "moving"
"""A folder in `storage.blobs` of the new settings, for files on their way."""

Step = Callable[[str, int], AbstractContextManager[Advance]]
"""Begins a part of the work: what it is, and its bytes, 0 if they are not known."""


@frozen
class MovedBlobs:
    """`blobs` of the source with their bytes; `copied` of them now; files that the operator withholds."""

    blobs: int
    size: int
    copied: int
    copied_size: int
    withheld: int


@frozen
class MoveResult:
    """`moved`: the node has the new settings. Before that, the node ran while its storage was copied."""

    moved: bool
    ledger: MovedRows | None
    blobs: MovedBlobs | None


@frozen
class MoveEstimate:
    """What is to be done. `rows` of the ledger, None if it stays; `blobs`, None if they stay; `free` bytes at the new
    place, None if that is not known."""

    rows: int | None
    blobs: StoreDifference | None
    free: int | None


@frozen
class StorageMove:
    """The old and the new settings, and what of the storage has another place in them."""

    old: NodeConfig
    new: NodeConfig
    file: Path
    new_file: Path
    ledger: bool
    blobs: bool

    @classmethod
    def read(cls, file: Path, new_file: Path, environ: Mapping[str, str] = os.environ) -> StorageMove:
        """Compare two settings files in one home. Raises Malformed (CONFIG) if they differ in more than the place of
        ledger and blobs, and as `NodeConfig.load`."""
        old, new = NodeConfig.load(file, environ), NodeConfig.load(new_file, environ)
        if old.home != new.home:
            raise _unusable(f"{new_file} is not in {old.home}, and paths in it would mean others")
        if old.is_front_end:
            raise _unusable("this is the home of a front end: use that of the writer")
        fixed = {"ledger", "keys"}
        other = old.model_dump(exclude={"storage"}) != new.model_dump(exclude={"storage"})
        if other or old.storage.model_dump(include=fixed) != new.storage.model_dump(include=fixed):
            raise _unusable(f"{new_file} differs from {file} in more than database, password_file, blobs and s3")
        if new.is_standby and not new.storage.database:
            raise _unusable("a standby needs storage.database")
        ledger = old.storage.database != new.storage.database
        return cls(old, new, file, new_file, ledger, _place(old) != _place(new))

    @property
    def is_empty(self) -> bool:
        """Whether the node has the new settings already."""
        return not (self.ledger or self.blobs)

    def estimate(self) -> MoveEstimate:
        """Count what is to be done. Raises as the stores and `count_ledger` do."""
        rows = count_ledger(self.old) if self.ledger else None
        if not self.blobs:
            return MoveEstimate(rows, None, None)
        begun = self.new.storage.s3 is not None or blobs_folder(self.new.storage.blobs).is_dir()
        target = open_store(self.new) if begun else None
        found = compare_stores(open_store(self.old), target)
        return MoveEstimate(rows, found, _free(self.new.storage.blobs) if self.new.storage.s3 is None else None)

    def run(self, step: Step, clock: Clock) -> MoveResult:
        """Copy, and move if the node does not run. Blocking.

        Raises Conflict (STORAGE-TARGET), Untrusted (LEDGER-CORRUPT, HASH), OutOfSpace, Unavailable, and Refused
        (LEDGER-MOVED).
        """
        try:
            try:
                source = lock_source(self.old)
            except Conflict as error:
                if error.code != "LEDGER-LOCKED":
                    raise
                return self._copy_beside(step)
            with closing(source):
                return self._move(source, step, clock)
        except Untrusted as error:
            if error.code == "LEDGER-CORRUPT":
                error.hint = f"comity doctor --node {shlex.quote(str(self.old.home))}, with the node stopped"
            raise

    def _copy_beside(self, step: Step) -> MoveResult:
        if self.ledger:
            begin_target(self.old, self.new)
        blobs = self._copy_blobs(step, last=False) if self.blobs else None
        if not self.ledger:
            return MoveResult(False, None, blobs)
        with step("ledger", 0) as advance:
            return MoveResult(False, copy_beside(self.old, self.new, advance), blobs)

    def _move(self, source: LockedDatabase, step: Step, clock: Clock) -> MoveResult:
        begun = self.ledger and was_moved(source)  # then its blobs were moved before, and may have changed since
        if self.ledger and not begun:
            begin_target(self.old, self.new, source)
        blobs = self._copy_blobs(step, last=True) if self.blobs and not begun else None
        rows = None
        if self.ledger:
            with step("ledger", 0) as advance:
                rows = hand_over(self.old, self.new, source, advance, clock)
        fault.point("move.settings")
        _replace(self.file, self.new_file)
        self._clean_up()
        return MoveResult(True, rows, blobs)

    def _copy_blobs(self, step: Step, *, last: bool) -> MovedBlobs:
        source, target = open_store(self.old), open_store(self.new)
        aside = self.new.storage.blobs / _ASIDE
        with closing(CopiedList(self.old.storage.ledger.with_name(COPIED), _place(self.new))) as done:
            found = compare_stores(source, target)
            strange = [digest for digest in found.others if digest not in done]
            if strange:
                why = f"it has {len(strange)} blobs that this node has not, such as {short(strange[0])}"
                raise target_refused(why)
            for digest in found.others:  # copied earlier, and gone from the source since
                target.remove(digest)
            self._require_room(source, target, found.missing_size)
            with step("blobs", found.missing_size) as advance:
                copied = copy_blobs(source, target, aside, done, advance)
        if copied.damaged:
            raise self._damaged(len(copied.damaged), short(copied.damaged[0]))
        withheld = self._copy_withheld(source, target, aside) if last else 0
        return MovedBlobs(found.blobs, found.size, copied.copied, copied.size, withheld)

    def _copy_withheld(self, source: BlobStore, target: BlobStore, aside: Path) -> int:
        strange = set(target.withheld().artifacts()) - set(source.withheld().artifacts())
        if strange:
            raise target_refused(f"it withholds {short(min(strange))}, and this node does not")
        return copy_withheld(source, target, aside)

    def _require_room(self, source: BlobStore, target: BlobStore, needed: int) -> None:
        """Raises OutOfSpace. A folder on the same file system gets links, which need no room."""
        if not isinstance(target, FolderStore) or _links(source, target):
            return
        free, reserve = target.free_bytes(), self.new.storage.reserve_bytes
        if free is not None and free < needed + reserve:
            raise OutOfSpace(
                "the blobs do not fit at the new place",
                why=f"{needed} bytes are missing there, {free} are free, and storage.reserve_bytes keeps {reserve}",
                hint=f"free some space at {target.root}, and run the same command again",
            )

    def _damaged(self, count: int, first: str) -> Untrusted:
        return Untrusted(
            f"{count} blobs of the old store are damaged",
            why=f"their bytes have another hash, such as {first}; every other one was copied",
            hint=f"let the node run until its scrub has taken them aside: comity serve --node {self.old.home}; "
            "then run the same command again",
            code="HASH",
        )

    def _clean_up(self) -> None:
        with disk_errors("what the move no longer needs was not removed"):
            self.old.storage.ledger.with_name(COPIED).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.rmtree(self.new.storage.blobs / _ASIDE)


def _place(config: NodeConfig) -> str:
    """Where the blobs are, in one line."""
    s3 = config.storage.s3
    return str(config.storage.blobs) if s3 is None else f"{s3.endpoint} {s3.bucket} {s3.prefix}"


def _links(source: BlobStore, target: FolderStore) -> bool:
    """Whether a file of one store can have a second name in the other."""
    with disk_errors("the folders of the blobs were not compared"):
        return isinstance(source, FolderStore) and source.root.stat().st_dev == target.root.stat().st_dev


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    with disk_errors("free space is unknown"):
        return shutil.disk_usage(folder).free


def _replace(file: Path, new_file: Path) -> None:
    """Give the node the new settings. Raises Unavailable."""
    before = file.with_name(file.name + BEFORE)
    try:
        with disk_errors(f"{file.name} was not replaced"):
            mode = file.stat().st_mode & 0o777
            for target, source in ((before, file), (file, new_file)):
                durable.write_file(target, read_bounded(source, MAX_FILE), mode=mode, point="move.file")
                durable.give_to_owner(target, owner_of=file.parent)
    except (OutOfSpace, Unavailable) as error:
        hint = f"cp {shlex.quote(str(new_file))} {shlex.quote(str(file))}"
        what = f"the storage is moved, and {file} has the old settings"
        raise Unavailable(what, why=str(error), hint=hint, code="DISK") from error


def _unusable(why: str) -> Malformed:
    return Malformed("these settings cannot be moved to", why=why, hint="comity storage migrate --help", code="CONFIG")
