"""Reads blobs so that every byte is verified before it is sent (docs/decisions, 9).

Stock clients check only the length. So before any part of a piece is returned, that piece was read and hashed in this
process, and the file has kept its identity since. A corrupt blob is quarantined and the reader gets an error. Pieces
come from the piece records verified when the blob was stored; without records the whole blob is hashed first, and the
resulting records are stored, so this is done only once.

An identity is (device, inode, size, mtime, ctime); a file that is written, replaced, renamed or linked gets another
one, and is verified again. A timestamp within the clock granularity proves nothing: pieces count as verified only if
the identity is at least `TIMESTAMP_GRANULARITY` seconds old.
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
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, Self, TypeAlias

from comity.content.blobs import BlobStore, FolderStore, blob_not_found, check_range
from comity.content.durable import disk_errors
from comity.rules.pieces import encode_records, fixed_pieces
from comity.trust.artifact import PIECE_SIZE, PieceRecord, parse_records
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.wire.throttle import FairShares

HASH: Final = 32


class PieceRecords(Protocol):
    """Persistent piece records of blobs, 36 bytes per piece. Implementations are thread-safe."""

    @abstractmethod
    def of(self, digest: Digest) -> bytes | None:
        """Return the records of a blob, or None."""

    @abstractmethod
    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        """Store the records of 4 MiB pieces of a blob. Failures are not raised."""


@frozen
class PieceBounds:
    """Pieces of a blob: their bounds, from 0 to the size of the blob, and their concatenated SHA-256 hashes."""

    bounds: array[int]
    hashes: bytes

    @classmethod
    def of(cls, records: Iterable[PieceRecord]) -> Self:
        records = tuple(records)
        bounds = itertools.accumulate((record.length for record in records), initial=0)
        return cls(array("Q", bounds), b"".join(record.sha256 for record in records))

    @classmethod
    def whole(cls, digest: Digest, size: int) -> Self:
        """Return the pieces of a blob of at most 4 MiB: one piece, whose hash is the digest."""
        return cls.of([PieceRecord(size, bytes.fromhex(digest))])

    @property
    def size(self) -> int:
        return self.bounds[-1]

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def at(self, offset: int) -> int:
        """Return the piece that contains the byte at `offset`."""
        return bisect_right(self.bounds, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """Return (start, end) of a piece."""
        return self.bounds[piece], self.bounds[piece + 1]

    def hash(self, piece: int) -> bytes:
        return self.hashes[HASH * piece : HASH * (piece + 1)]


class FixedPieceBounds:
    """Computes 4 MiB pieces of a blob while the whole blob is hashed."""

    def __init__(self, size: int) -> None:
        self._lengths = fixed_pieces(size)
        self._records: list[PieceRecord] = []
        self._whole, self._piece, self._filled = hashlib.sha256(), hashlib.sha256(), 0

    @property
    def remaining(self) -> int:
        """The maximum size of the next `add`."""
        return self._lengths[len(self._records)] - self._filled

    def add(self, data: memoryview) -> None:
        self._whole.update(data)
        self._piece.update(data)
        self._filled += len(data)
        if not self.remaining:
            self._records.append(PieceRecord(self._filled, self._piece.digest()))
            self._piece, self._filled = hashlib.sha256(), 0

    def done(self) -> tuple[Digest, list[PieceRecord]]:
        return Digest(self._whole.hexdigest()), self._records


TIMESTAMP_GRANULARITY: Final = 2.0
"""Seconds within which two changes may have the same timestamp, on the coarsest file systems in use."""
RECHECK: Final = 86_400.0
"""Seconds after which a verification expires, because memory and caches can fail too."""
MAX_PROOFS: Final = 4_096
MAX_PIECES: Final = 1_000_000
"""Maximum number of verified pieces in memory: 40 MB, for 4 TB of files that are not fully verified."""

Identity: TypeAlias = tuple[int, int, int, int, int]


def identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(slots=True, eq=False)
class VerifiedPieces:
    """The verified pieces of one file. `lock` is held during verification, so that concurrent readers do it once.

    Attributes:
        pieces: the pieces; None until they are loaded.
        proven: one byte per piece.
        whole: all are verified; `pieces` and `proven` are dropped then.
    """

    identity: Identity
    since: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    pieces: PieceBounds | None = None
    proven: bytearray = field(default_factory=bytearray)
    remaining: int = 0
    whole: bool = False

    def set_pieces(self, pieces: PieceBounds) -> None:
        self.pieces, self.proven, self.remaining = pieces, bytearray(pieces.count), pieces.count

    def add(self, piece: int) -> None:
        """Mark a piece as verified."""
        self.proven[piece], self.remaining = True, self.remaining - 1
        if not self.remaining:
            self.close()

    def close(self) -> None:
        self.pieces, self.proven, self.whole = None, bytearray(), True


class VerifiedPiecesCache:
    """Cache of verified pieces by blob, with eviction of the least recently used. Thread-safe.

    Args:
        now: monotonic seconds. wall: POSIX seconds of the file system.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now, self._wall = now, wall
        self._lock = threading.Lock()
        self._proofs: OrderedDict[Digest, VerifiedPieces] = OrderedDict()

    def of(self, digest: Digest, found: Identity) -> VerifiedPieces:
        """Return the entry of a file with this identity; a new entry if the file changed, or the entry expired."""
        with self._lock:
            proof = self._proofs.pop(digest, None)
            if proof is None or proof.identity != found or self._now() - proof.since > RECHECK:
                self._evict()
                proof = VerifiedPieces(found, self._now())
            self._proofs[digest] = proof
            return proof

    def settled(self, proof: VerifiedPieces) -> bool:
        """Return whether any later change would change the identity of the file."""
        changed = proof.identity[-1] / 1e9
        return self._wall() - changed >= TIMESTAMP_GRANULARITY or self._now() - proof.since >= TIMESTAMP_GRANULARITY

    def forget(self, digest: Digest) -> None:
        with self._lock:
            self._proofs.pop(digest, None)

    def _evict(self) -> None:
        pieces = sum(len(proof.proven) for proof in self._proofs.values())
        while pieces > MAX_PIECES or len(self._proofs) >= MAX_PROOFS:
            pieces -= len(self._proofs.popitem(last=False)[1].proven)


IDENTITY_CHECK_BYTES: Final = 8 * 1024 * 1024
"""Bytes returned between two checks of the identity of a file."""
BUFFER: Final = 256 * 1024
"""Bytes read, hashed or encrypted at a time."""
REMOTE_PIECES: Final = 16
"""Maximum number of pieces of a remote store in memory: for all that `open`, and for all that `read`."""
PATIENCE: Final = 10.0
"""Seconds that who opened a blob of a remote store waits for memory."""
RETRY_INTERVAL: Final = 1.0
"""Seconds after which it tries again: a holder may have stalled meanwhile."""

Read: TypeAlias = Callable[[int, int], memoryview]
"""(offset, most) -> at most that many bytes, none only at the end; valid until the next call."""
Damaged: TypeAlias = Callable[[Digest, str], None]
"""Called with a damaged blob, and the reason."""
Hashed: TypeAlias = Callable[[Literal["piece", "whole"], int], None]
"""Called with the number of bytes hashed: of a piece before it is sent, or of a blob without piece records."""


@frozen
class FilePart:
    """A range of an open file, for `sendfile`; to be sent before the next part is requested."""

    descriptor: int
    offset: int
    length: int


class VerifiedBlob(Protocol):
    """One open blob."""

    size: int

    @abstractmethod
    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        """Yield consecutive parts of a range; each is verified when it is yielded.

        Raises Unavailable (BLOB-DAMAGED, DISK, BLOB-CHANGED), NotFound. Earlier parts stay valid; the sender must abort
        the response, not pad it.
        """


@dataclass(frozen=True, slots=True, eq=False)
class BlobReader:
    """Who reads blobs, one part at a time: its address block, and what ends its connection."""

    block: str = ""
    abort: Callable[[], None] = lambda: None


class PieceSlots:
    """Slots for pieces in memory while they are sent. If all are used, the address block with most loses one to a
    reader of another block: its connection is ended. Thread-safe.

    Args:
        slots: pieces in memory, one of a reader. An ended reader's piece stays until its thread notices.
    """

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares: FairShares[BlobReader] = FairShares(slots, clock)
        self._clock = clock
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, reader: BlobReader) -> Iterator[None]:
        """Hold a slot. Raises Unavailable (BUSY) after `PATIENCE` seconds without one."""
        with self._freed:
            ends = self._clock() + PATIENCE
            while (evicted := self._shares.acquire(reader, reader.block)) is reader:
                if (left := ends - self._clock()) <= 0:
                    raise Unavailable("too many readers at once", why="the memory for pieces is used", code="BUSY")
                self._freed.wait(min(RETRY_INTERVAL, left))
        if evicted is not None:
            evicted.abort()
        try:
            yield
        finally:
            with self._freed:
                self._shares.release(reader)
                self._freed.notify_all()

    def progress(self, reader: BlobReader) -> None:
        """The reader took bytes: one that stalls loses its slot first."""
        with self._freed:
            self._shares.progress(reader)


class VerifiedBlobs:
    """Opens blobs of `store`. Thread-safe.

    Args:
        quarantines: whether a damaged blob is moved to quarantine. If not, another process owns the store.
        now: monotonic seconds. wall: POSIX seconds.
    """

    def __init__(
        self,
        store: BlobStore,
        records: PieceRecords,
        damaged: Damaged = lambda digest, why: None,
        hashed: Hashed = lambda what, count: None,
        *,
        quarantines: bool = True,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._damaged = damaged
        self._quarantines = quarantines
        self._records = records
        self.hashed = hashed
        self.memory = PieceSlots(REMOTE_PIECES)
        self.proofs = VerifiedPiecesCache(now, wall)

    @property
    def remote(self) -> bool:
        """Whether each piece is read into memory."""
        return not isinstance(self._store, FolderStore)

    def blob(self, digest: Digest, reader: BlobReader) -> AbstractContextManager[VerifiedBlob]:
        """An open blob, which ends with the block. Raises NotFound, Unavailable."""
        return self._blob(digest, reader)

    @contextlib.contextmanager
    def _blob(self, digest: Digest, reader: BlobReader | None) -> Iterator[VerifiedBlob]:
        if not isinstance(self._store, FolderStore):
            yield _RemoteBlob(self, self._store, reader, digest)
            return
        with disk_errors(f"blob {short(digest)} was not read"):
            path = self._store.path(digest)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError as error:
                raise blob_not_found(digest) from error
        try:
            yield _LocalBlob(self, digest, path, descriptor)
        finally:
            os.close(descriptor)

    def read(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield a range in parts of at most 256 KiB, without `sendfile`. Raises as `blob` and
        `VerifiedBlob.parts` do.

        Nothing waits for memory here, in a thread that others need: the caller lets at most `REMOTE_PIECES` read at
        once from a `remote` store.
        """
        with self._blob(digest, None) as blob:
            for part in blob.parts(offset, length):
                yield from chunks(part)

    def pieces(self, digest: Digest, size: int, read: Read) -> tuple[PieceBounds, bool]:
        """Return the pieces of a blob, and whether all of it was hashed to compute them. Raises Unavailable."""
        if size <= PIECE_SIZE:
            return PieceBounds.whole(digest, size), False
        if (records := self._records.of(digest)) is None:
            return self._whole(digest, size, read), True
        try:
            return PieceBounds.of(parse_records(records, size=size)), False
        except Malformed as error:
            raise self.quarantine_blob(digest, f"its {size} bytes do not match its piece records") from error

    def quarantine_blob(self, digest: Digest, why: str) -> Unavailable:
        """Quarantine a blob, if this process may; returns the error to raise."""
        self.proofs.forget(digest)
        done = "it was quarantined" if self._quarantines else "the process that owns the store has to quarantine it"
        if self._quarantines:
            self._store.quarantine(digest, why)
        self._damaged(digest, why)
        return Unavailable(f"blob {short(digest)} is damaged", why=f"{why}; {done}", code="BLOB-DAMAGED")

    def _whole(self, digest: Digest, size: int, read: Read) -> PieceBounds:
        cutting, offset = FixedPieceBounds(size), 0
        while offset < size:
            data = read(offset, min(cutting.remaining, BUFFER))
            if not data:
                raise self.quarantine_blob(digest, "it is shorter than its size")
            cutting.add(data)
            self.hashed("whole", len(data))
            offset += len(data)
        found, records = cutting.done()
        if found != digest:
            raise self.quarantine_blob(digest, f"its bytes hash to {short(found)}")
        self._records.keep(digest, size, encode_records(records))
        return PieceBounds.of(records)


class _LocalBlob:
    """A blob in a file; the descriptor stays open even if the name is removed."""

    def __init__(self, verified: VerifiedBlobs, digest: Digest, path: Path, descriptor: int) -> None:
        self._verified = verified
        self._digest = digest
        self._path = path
        self._descriptor = descriptor
        self.size = self._identity()[2]

    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        _require_inside(self.size, offset, length)
        _require_named(self._verified, self._digest, self.size)
        end = offset + length
        while offset < end:
            found = self._identity()
            stop = min(end, self._prove(offset, found))
            yield FilePart(self._descriptor, offset, stop - offset)
            if (now := self._identity()) != found:
                self._prove_again(offset, stop, found, now)
            offset = stop

    def _prove_again(self, offset: int, stop: int, before: Identity, now: Identity) -> None:
        """Verify a sent range whose file got another identity. Raises Unavailable, unless the file is still the blob
        and only its change time differs: another name of it was added or removed, as at the end of an import."""
        named = None
        with disk_errors(f"blob {short(self._digest)} was not found"), contextlib.suppress(FileNotFoundError):
            named = identity(self._path.lstat())
        if now[:-1] == before[:-1] and named == now:
            while offset < stop:
                offset = self._prove(offset, now)
            if self._identity() == now:
                return
        raise Unavailable(f"blob {short(self._digest)} changed", why="while it was sent", code="BLOB-CHANGED")

    def _prove(self, offset: int, found: Identity) -> int:
        """Verify the piece at `offset`; returns the end of the verified range."""
        proof = self._verified.proofs.of(self._digest, found)
        with proof.lock:
            if proof.whole:
                return offset + IDENTITY_CHECK_BYTES
            settled = self._verified.proofs.settled(proof)
            pieces = proof.pieces or self._load_pieces(proof, settled, found)
            if proof.whole:
                return offset + IDENTITY_CHECK_BYTES
            piece = pieces.at(offset)
            if not proof.proven[piece]:
                self._verify(pieces, piece)
                if settled and self._identity() == found:
                    proof.add(piece)
            return pieces.span(piece)[1]

    def _load_pieces(self, proof: VerifiedPieces, settled: bool, found: Identity) -> PieceBounds:
        pieces, hashed = self._verified.pieces(self._digest, self.size, self._reader())
        proof.set_pieces(pieces)
        if hashed and settled and self._identity() == found:
            proof.close()
        return pieces

    def _verify(self, pieces: PieceBounds, piece: int) -> None:
        offset, end = pieces.span(piece)
        hasher, read = hashlib.sha256(), self._reader()
        while offset < end and (data := read(offset, end - offset)):
            hasher.update(data)
            self._verified.hashed("piece", len(data))
            offset += len(data)
        if hasher.digest() != pieces.hash(piece):
            raise self._verified.quarantine_blob(self._digest, f"piece {piece} no longer has its hash")

    def _reader(self) -> Read:
        """Return a reader with its own buffer, so that no buffer is held while bytes are sent."""
        buffer = memoryview(bytearray(BUFFER))

        def read(offset: int, length: int) -> memoryview:
            view = buffer[:length]
            with disk_errors(f"blob {short(self._digest)} was not read"):
                return view[: os.preadv(self._descriptor, [view], offset)]

        return read

    def _identity(self) -> Identity:
        with disk_errors(f"blob {short(self._digest)} was not read"):
            return identity(os.fstat(self._descriptor))


class _RemoteBlob:
    """An object of a remote store, which has no file identity: each piece is read into memory and hashed each time."""

    def __init__(self, verified: VerifiedBlobs, store: BlobStore, reader: BlobReader | None, digest: Digest) -> None:
        self._verified = verified
        self._store = store
        self._reader = reader
        self._digest = digest
        self.size = store.size(digest)

    def parts(self, offset: int, length: int) -> Iterator[FilePart | memoryview]:
        _require_inside(self.size, offset, length)
        _require_named(self._verified, self._digest, self.size)
        pieces, end = self._get_pieces(), offset + length
        while offset < end:
            piece = pieces.at(offset)
            start, stop = pieces.span(piece)
            with self._memory_slot():
                data = self._verified_piece(pieces, piece)
                yield memoryview(data)[offset - start : min(end, stop) - start]
            offset = stop

    def _get_pieces(self) -> PieceBounds:
        proof = self._verified.proofs.of(self._digest, (0, 0, self.size, 0, 0))
        with proof.lock:
            if proof.pieces is None:
                proof.set_pieces(self._verified.pieces(self._digest, self.size, self._read)[0])
            assert proof.pieces is not None
            return proof.pieces

    def _verified_piece(self, pieces: PieceBounds, piece: int) -> bytes:
        """Return the bytes of a piece; read twice before the object counts as corrupt, because of network errors."""
        start, end = pieces.span(piece)
        for _ in range(2):
            data = self._store.read(self._digest, start, end - start)
            self._verified.hashed("piece", len(data))
            if hashlib.sha256(data).digest() == pieces.hash(piece):
                return data
        raise self._verified.quarantine_blob(self._digest, f"piece {piece} no longer has its hash")

    def _read(self, offset: int, length: int) -> memoryview:
        return memoryview(self._store.read(self._digest, offset, length))

    def _memory_slot(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._reader is None else self._verified.memory.slot(self._reader)


def chunks(part: FilePart | memoryview) -> Iterator[bytes]:
    """Yield the bytes of a part, at most 256 KiB at a time. Raises Unavailable (DISK)."""
    if isinstance(part, memoryview):
        yield from (bytes(part[at : at + BUFFER]) for at in range(0, len(part), BUFFER))
        return
    offset, end = part.offset, part.offset + part.length
    while offset < end:
        with disk_errors("a blob was not read"):
            data = os.pread(part.descriptor, min(BUFFER, end - offset), offset)
        if not data:
            raise Unavailable("a blob changed", why="the file is too short", code="BLOB-CHANGED")
        yield data
        offset += len(data)


def _require_inside(size: int, offset: int, length: int) -> None:
    check_range(offset, length)
    if offset + length > size:
        raise Malformed("range beyond the blob", why=f"it has {size} bytes", code="RANGE")


def _require_named(verified: VerifiedBlobs, digest: Digest, size: int) -> None:
    """Refuse an empty blob whose digest is not that of empty data; it has no piece to verify."""
    if not size and digest != sha256(b""):
        raise verified.quarantine_blob(digest, "it is empty")
