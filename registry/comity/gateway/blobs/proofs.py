"""What this process has verified of which file: pieces, for as long as the file's identity on the disk stays the same.

An identity is (device, inode, size, mtime, ctime). A file that was written to, replaced, renamed or linked has another
one, and everything about it is verified anew. A stamp taken while the file may still be changing under the same clock
tick proves nothing: pieces count as proven only where the identity is at least `GRAIN` seconds old.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.gateway.blobs.cut import Cut
from comity.trust.digest import Digest

GRAIN: Final = 2.0
"""Seconds within which two changes may bear the same time, on the coarsest file systems in use."""
RECHECK: Final = 86_400.0
"""Seconds after which a proof is forgotten: memory and caches fail as well."""
MAX_PROOFS: Final = 4_096
MAX_PIECES: Final = 1_000_000
"""Pieces remembered, all files together: 40 MB, or 4 TB of files that are not wholly proven."""

Identity: TypeAlias = tuple[int, int, int, int, int]


def identity(descriptor: int) -> Identity:
    """Of an open file. Raises OSError."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(slots=True, eq=False)
class Proof:
    """What is proven of one file. `lock` is held while a piece is verified, so that many readers do it once.

    Attributes:
        cut: how to verify it; None while nobody has looked.
        proven: a byte for each piece.
        whole: all of them; `cut` and `proven` are dropped then.
    """

    identity: Identity
    since: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    cut: Cut | None = None
    proven: bytearray = field(default_factory=bytearray)
    left: int = 0
    whole: bool = False

    def learn(self, cut: Cut) -> None:
        self.cut, self.proven, self.left = cut, bytearray(cut.count), cut.count

    def add(self, piece: int) -> None:
        """A piece that was not proven is now."""
        self.proven[piece], self.left = True, self.left - 1
        if not self.left:
            self.close()

    def close(self) -> None:
        self.cut, self.proven, self.whole = None, bytearray(), True


class Proofs:
    """Remembers proofs by blob, those used least recently giving way. Thread-safe.

    Args:
        now: monotonic seconds. wall: POSIX seconds, as the file system keeps them.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now, self._wall = now, wall
        self._lock = threading.Lock()
        self._proofs: OrderedDict[Digest, Proof] = OrderedDict()

    def of(self, digest: Digest, found: Identity) -> Proof:
        """The proof of a file with this identity: a fresh one where it has changed, or is old."""
        with self._lock:
            proof = self._proofs.pop(digest, None)
            if proof is None or proof.identity != found or self._now() - proof.since > RECHECK:
                self._make_room()
                proof = Proof(found, self._now())
            self._proofs[digest] = proof
            return proof

    def settled(self, proof: Proof) -> bool:
        """Whether a change from now on would show in the file's identity."""
        changed = proof.identity[-1] / 1e9
        return self._wall() - changed >= GRAIN or self._now() - proof.since >= GRAIN

    def forget(self, digest: Digest) -> None:
        with self._lock:
            self._proofs.pop(digest, None)

    def _make_room(self) -> None:
        pieces = sum(len(proof.proven) for proof in self._proofs.values())
        while pieces > MAX_PIECES or len(self._proofs) >= MAX_PROOFS:
            pieces -= len(self._proofs.popitem(last=False)[1].proven)
