"""How a blob is cut into pieces that can be verified one by one: compactly, for blobs of any size.

What this process has verified of which file: pieces, for as long as the file's identity on the disk stays the same.

An identity is (device, inode, size, mtime, ctime). A file that was written to, replaced, renamed or linked has another
one, and everything about it is verified anew. A stamp taken while the file may still be changing under the same clock
tick proves nothing: pieces count as proven only where the identity is at least `GRAIN` seconds old.


Bytes of a store that are known to be right when they leave (docs/decisions/0009-verified-before-it-leaves.md).

A stock client checks nothing but the length of what it gets. So a byte that changed on the disk is caught here: before
any part of a piece is handed out, that piece was read and hashed in this process, and the file has kept its identity
since (`proofs`). What hashes to something else is put aside, and whoever asked gets an error instead.

How a blob is cut comes from its piece records, which were verified when the blob came in. Where there are none, the
whole blob is hashed before its first byte leaves, and the records that this gives are kept: no restart asks it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, Self, TypeAlias

from comity.content.blobs import BlobStore, FolderStore, absent, check_range
from comity.content.durable import disk_errors
from comity.trust.artifact import PIECE, PieceRecord, encode_records, fixed_pieces, parse_records
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, Unavailable

HASH: Final = 32


class PieceRecords(Protocol):
    """The piece records of blobs, 36 bytes a piece, over restarts. Called from many threads."""

    @abstractmethod
    def of(self, digest: Digest) -> bytes | None:
        """None where there are none."""

    @abstractmethod
    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        """Remember how a blob is cut every 4 MiB, for the next time. What cannot be kept is left: nothing is raised."""


@dataclass(frozen=True, slots=True)
class PieceBounds:
    """Pieces: their bounds, which begin with 0 and end with the blob's size, and their SHA-256, one after the other."""

    bounds: array[int]
    hashes: bytes

    @classmethod
    def of(cls, records: Iterable[PieceRecord]) -> Self:
        records = tuple(records)
        bounds = itertools.accumulate((record.length for record in records), initial=0)
        return cls(array("Q", bounds), b"".join(record.sha256 for record in records))

    @classmethod
    def whole(cls, digest: Digest, size: int) -> Self:
        """A blob of at most 4 MiB is its own piece: its name is its hash."""
        return cls.of([PieceRecord(size, bytes.fromhex(digest))])

    @property
    def size(self) -> int:
        return self.bounds[-1]

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def at(self, offset: int) -> int:
        """The piece in which the byte at `offset` stands."""
        return bisect_right(self.bounds, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """(start, end) of a piece."""
        return self.bounds[piece], self.bounds[piece + 1]

    def hash(self, piece: int) -> bytes:
        return self.hashes[HASH * piece : HASH * (piece + 1)]


class FixedPieceBounds:
    """Cuts a blob every 4 MiB while it is hashed as a whole: the pieces are as good as the whole hash."""

    def __init__(self, size: int) -> None:
        self._lengths = fixed_pieces(size)
        self._records: list[PieceRecord] = []
        self._whole, self._piece, self._filled = hashlib.sha256(), hashlib.sha256(), 0

    @property
    def room(self) -> int:
        """The most that `add` takes next."""
        return self._lengths[len(self._records)] - self._filled

    def add(self, data: memoryview) -> None:
        self._whole.update(data)
        self._piece.update(data)
        self._filled += len(data)
        if not self.room:
            self._records.append(PieceRecord(self._filled, self._piece.digest()))
            self._piece, self._filled = hashlib.sha256(), 0

    def done(self) -> tuple[Digest, list[PieceRecord]]:
        return Digest(self._whole.hexdigest()), self._records


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
class VerifiedPieces:
    """What is proven of one file. `lock` is held while a piece is verified, so that many readers do it once.

    Attributes:
        cut: how to verify it; None while nobody has looked.
        proven: a byte for each piece.
        whole: all of them; `cut` and `proven` are dropped then.
    """

    identity: Identity
    since: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    cut: PieceBounds | None = None
    proven: bytearray = field(default_factory=bytearray)
    left: int = 0
    whole: bool = False

    def learn(self, cut: PieceBounds) -> None:
        self.cut, self.proven, self.left = cut, bytearray(cut.count), cut.count

    def add(self, piece: int) -> None:
        """A piece that was not proven is now."""
        self.proven[piece], self.left = True, self.left - 1
        if not self.left:
            self.close()

    def close(self) -> None:
        self.cut, self.proven, self.whole = None, bytearray(), True


class VerifiedPiecesCache:
    """Remembers proofs by blob, those used least recently giving way. Thread-safe.

    Args:
        now: monotonic seconds. wall: POSIX seconds, as the file system keeps them.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now, self._wall = now, wall
        self._lock = threading.Lock()
        self._proofs: OrderedDict[Digest, VerifiedPieces] = OrderedDict()

    def of(self, digest: Digest, found: Identity) -> VerifiedPieces:
        """The proof of a file with this identity: a fresh one where it has changed, or is old."""
        with self._lock:
            proof = self._proofs.pop(digest, None)
            if proof is None or proof.identity != found or self._now() - proof.since > RECHECK:
                self._make_room()
                proof = VerifiedPieces(found, self._now())
            self._proofs[digest] = proof
            return proof

    def settled(self, proof: VerifiedPieces) -> bool:
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


STRETCH: Final = 8 * 1024 * 1024
"""Bytes handed out before a file's identity is looked at again."""
BUFFER: Final = 256 * 1024
REMOTE_PIECES: Final = 16
"""Pieces of a remote store in memory at once, all readers together."""
PATIENCE: Final = 10.0
"""Seconds that a reader of a remote store waits for one."""

Read: TypeAlias = Callable[[int, int], memoryview]
"""At most that many bytes from an offset, none only at the end; good until the next call."""
Damaged: TypeAlias = Callable[[Digest, str], None]
"""Told of a blob that was put aside, and why."""
Hashed: TypeAlias = Callable[[Literal["piece", "whole"], int], None]
"""Told how many bytes were hashed: of a piece that is about to leave, or of a blob that has no piece records."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of an open file, for `sendfile`; to be sent before the next part is asked for."""

    descriptor: int
    offset: int
    length: int


class VerifiedBlob(Protocol):
    """One blob, open for reading."""

    size: int

    @abstractmethod
    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        """Consecutive parts of a range inside the blob; each is right when it is handed out.

        Raises Unavailable (BLOB-DAMAGED, DISK, BLOB-CHANGED), NotFound. What was handed out before is right all the
        same; whoever sends it must break off rather than fill up.
        """


class VerifiedBlobs:
    """Opens blobs of `store`. Thread-safe.

    Args:
        now: monotonic seconds. wall: POSIX seconds.
    """

    def __init__(
        self,
        store: BlobStore,
        records: PieceRecords,
        damaged: Damaged = lambda digest, why: None,
        hashed: Hashed = lambda what, count: None,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._damaged = damaged
        self._records = records
        self.hashed = hashed
        self._room = threading.BoundedSemaphore(REMOTE_PIECES)
        self.proofs = VerifiedPiecesCache(now, wall)

    @contextlib.contextmanager
    def open(self, digest: Digest) -> Iterator[VerifiedBlob]:
        """Raises NotFound, Unavailable."""
        if not isinstance(self._store, FolderStore):
            yield _RemoteBlob(self, self._store, self._room, digest)
            return
        with disk_errors(f"blob {short(digest)} was not read"):
            try:
                descriptor = os.open(self._store.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError as error:
                raise absent(digest) from error
        try:
            yield _LocalBlob(self, digest, descriptor)
        finally:
            os.close(descriptor)

    def read(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """A range in parts of at most 256 KiB, for who cannot use `sendfile`. Raises as `open` and `Blob.parts` do."""
        with self.open(digest) as blob:
            for part in blob.parts(offset, length):
                yield from chunks(part)

    def cut(self, digest: Digest, size: int, read: Read) -> tuple[PieceBounds, bool]:
        """How a blob of `size` bytes is cut, and whether all of it was hashed to find out. Raises Unavailable."""
        if size <= PIECE:
            return PieceBounds.whole(digest, size), False
        if (records := self._records.of(digest)) is None:
            return self._whole(digest, size, read), True
        try:
            return PieceBounds.of(parse_records(records, size=size)), False
        except Malformed as error:
            raise self.spoiled(digest, f"it has {size} bytes, which its pieces do not tile") from error

    def spoiled(self, digest: Digest, why: str) -> Unavailable:
        """Put a blob aside; gives what to raise."""
        self.proofs.forget(digest)
        self._store.quarantine(digest, why)
        self._damaged(digest, why)
        return Unavailable(f"blob {short(digest)} is damaged", why=f"{why}; it was put aside", code="BLOB-DAMAGED")

    def _whole(self, digest: Digest, size: int, read: Read) -> PieceBounds:
        cutting, offset = FixedPieceBounds(size), 0
        while offset < size:
            data = read(offset, min(cutting.room, BUFFER))
            if not data:
                raise self.spoiled(digest, "it is shorter than its length")
            cutting.add(data)
            self.hashed("whole", len(data))
            offset += len(data)
        found, records = cutting.done()
        if found != digest:
            raise self.spoiled(digest, f"its bytes hash to {short(found)}")
        self._records.keep(digest, size, encode_records(records))
        return PieceBounds.of(records)


class _LocalBlob:
    """A file, open as long as this is used: whatever becomes of its name."""

    def __init__(self, checked: VerifiedBlobs, digest: Digest, descriptor: int) -> None:
        self._checked = checked
        self._digest = digest
        self._descriptor = descriptor
        self.size = self._identity()[2]

    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        _require_inside(self.size, offset, length)
        _require_named(self._checked, self._digest, self.size)
        end = offset + length
        while offset < end:
            found = self._identity()
            stop = min(end, self._prove(offset, found))
            yield FilePart(self._descriptor, offset, stop - offset)
            offset = stop
            if self._identity() != found:
                raise Unavailable(f"blob {short(self._digest)} changed", why="while it was sent", code="BLOB-CHANGED")

    def _prove(self, offset: int, found: Identity) -> int:
        """Make sure of what stands at `offset`; gives the end of what may leave."""
        proof = self._checked.proofs.of(self._digest, found)
        with proof.lock:
            if proof.whole:
                return offset + STRETCH
            settled = self._checked.proofs.settled(proof)
            cut = proof.cut or self._learn(proof, settled, found)
            if proof.whole:
                return offset + STRETCH
            piece = cut.at(offset)
            if not proof.proven[piece]:
                self._verify(cut, piece)
                if settled and self._identity() == found:
                    proof.add(piece)
            return cut.span(piece)[1]

    def _learn(self, proof: VerifiedPieces, settled: bool, found: Identity) -> PieceBounds:
        cut, hashed = self._checked.cut(self._digest, self.size, self._reader())
        proof.learn(cut)
        if hashed and settled and self._identity() == found:
            proof.close()
        return cut

    def _verify(self, cut: PieceBounds, piece: int) -> None:
        offset, end = cut.span(piece)
        hasher, read = hashlib.sha256(), self._reader()
        while offset < end and (data := read(offset, end - offset)):
            hasher.update(data)
            self._checked.hashed("piece", len(data))
            offset += len(data)
        if hasher.digest() != cut.hash(piece):
            raise self._checked.spoiled(self._digest, f"piece {piece} no longer has its hash")

    def _reader(self) -> Read:
        """Its buffer goes with it: none is held while bytes are being sent."""
        buffer = memoryview(bytearray(BUFFER))

        def read(offset: int, length: int) -> memoryview:
            view = buffer[:length]
            with disk_errors(f"blob {short(self._digest)} was not read"):
                return view[: os.preadv(self._descriptor, [view], offset)]

        return read

    def _identity(self) -> Identity:
        with disk_errors(f"blob {short(self._digest)} was not read"):
            return identity(self._descriptor)


class _RemoteBlob:
    """An object of a service, which shows no identity: each piece is read into memory and hashed, every time."""

    def __init__(
        self, checked: VerifiedBlobs, store: BlobStore, room: threading.BoundedSemaphore, digest: Digest
    ) -> None:
        self._checked = checked
        self._store = store
        self._room = room
        self._digest = digest
        self.size = store.size(digest)

    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        _require_inside(self.size, offset, length)
        _require_named(self._checked, self._digest, self.size)
        cut, end = self._cut(), offset + length
        while offset < end:
            piece = cut.at(offset)
            start, stop = cut.span(piece)
            with self._memory():
                data = self._right(cut, piece)
                yield memoryview(data)[offset - start : min(end, stop) - start]
            offset = stop

    def _cut(self) -> PieceBounds:
        proof = self._checked.proofs.of(self._digest, (0, 0, self.size, 0, 0))
        with proof.lock:
            if proof.cut is None:
                proof.learn(self._checked.cut(self._digest, self.size, self._read)[0])
            assert proof.cut is not None
            return proof.cut

    def _right(self, cut: PieceBounds, piece: int) -> bytes:
        """Its bytes. Asked for twice before the object is blamed: they come over a network."""
        start, end = cut.span(piece)
        for _ in range(2):
            data = self._store.read(self._digest, start, end - start)
            self._checked.hashed("piece", len(data))
            if hashlib.sha256(data).digest() == cut.hash(piece):
                return data
        raise self._checked.spoiled(self._digest, f"piece {piece} no longer has its hash")

    def _read(self, offset: int, length: int) -> memoryview:
        return memoryview(self._store.read(self._digest, offset, length))

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        if not self._room.acquire(timeout=PATIENCE):
            raise Unavailable("too many readers at once", why="others read as much as memory allows", code="BUSY")
        try:
            yield
        finally:
            self._room.release()


def chunks(part: FilePart | memoryview) -> Iterator[bytes]:
    """The bytes of a part, at most 256 KiB at a time. Raises Unavailable (DISK)."""
    if isinstance(part, memoryview):
        yield from (bytes(part[at : at + BUFFER]) for at in range(0, len(part), BUFFER))
        return
    offset, end = part.offset, part.offset + part.length
    while offset < end:
        with disk_errors("a blob was not read"):
            data = os.pread(part.descriptor, min(BUFFER, end - offset), offset)
        if not data:
            raise Unavailable("a blob changed", why="it ends early", code="BLOB-CHANGED")
        yield data
        offset += len(data)


def _require_inside(size: int, offset: int, length: int) -> None:
    check_range(offset, length)
    if offset + length > size:
        raise Malformed("range beyond the blob", why=f"it has {size} bytes", code="RANGE")


def _require_named(checked: VerifiedBlobs, digest: Digest, size: int) -> None:
    """An empty blob has no piece that could be verified; one that became empty must not pass for it."""
    if not size and digest != sha256(b""):
        raise checked.spoiled(digest, "it is empty")
