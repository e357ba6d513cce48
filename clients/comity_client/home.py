"""The state folder of a user's client, and its lock. Only `ensure` and `exclusive` touch the disk.

trust/         pinned federation files and name bindings: the decisions of the owner
attestations/  pinned keys of tools and people whose attestations are read
hardware/      pinned roots of hardware vendors, reference values, revocation data
memory/        last checkpoints seen, names resolved before, proofs of misbehaviour, hashes of files, last verdicts
drills/        the newest drill of each service and kit
indexes/       indexes of files that nodes gave
publishers/    one folder per identity: its key file and its inception line
blobs/         verified and partial blobs of pulls that are in progress or were refused
placed/        index of the pieces of placed files, for reuse by the next pull
kits/          the last check of each kit
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from comity.content import durable
from comity.trust.errors import Unavailable
from comity.trust.frozen import frozen


@frozen
class Home:
    """The state folder of one user."""

    root: Path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """`$COMITY_HOME`, else `$XDG_STATE_HOME/comity`, else `~/.local/state/comity`."""
        if chosen := environ.get("COMITY_HOME"):
            return cls(Path(chosen).expanduser().absolute())
        state = environ.get("XDG_STATE_HOME")
        base = Path(state) if state else Path("~/.local/state").expanduser()
        return cls(base.absolute() / "comity")

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def hardware(self) -> Path:
        return self.root / "hardware"

    @property
    def attestations(self) -> Path:
        return self.root / "attestations"

    @property
    def memory(self) -> Path:
        return self.root / "memory"

    @property
    def drills(self) -> Path:
        return self.root / "drills"

    @property
    def indexes(self) -> Path:
        return self.root / "indexes"

    @property
    def continuity(self) -> Path:
        return self.root / "continuity"

    @property
    def publishers(self) -> Path:
        return self.root / "publishers"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def placed(self) -> Path:
        return self.root / "placed"

    @property
    def kits(self) -> Path:
        return self.root / "kits"

    def ensure(self, folder: Path) -> Path:
        """Create `folder`, a folder of this home, with mode 0700 if it is missing. Raises OutOfSpace, Unavailable."""
        try:
            with durable.disk_errors(f"{folder} was not created"):
                durable.make_folders(folder, mode=0o700)
        except Unavailable as error:  # as in a container, whose user has no home
            error.hint = "set COMITY_HOME to a folder that you may write to"
            raise
        return folder


def exclusive(folder: Path) -> AbstractContextManager[None]:
    """Hold an exclusive lock of `folder`, which must exist, while the block runs; blocks until the lock is free. The
    kernel releases the lock if the process dies."""
    return durable.exclusive(folder / ".lock", f"{folder} was not locked")
