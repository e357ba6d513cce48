"""What a blob store promises. Two stores keep it: a folder (`folder.py`) and an S3 bucket (`s3.py`).

A blob is a whole file named by its SHA-256. It never changes; it is there or it is not. Stores are synchronous and
safe to use from many threads; a node calls them from its thread pools.

The one unchecked door is `admit`: hashing 100 GB a second time is expensive, so it takes the caller's word, and the
caller is the code that has just verified every byte. Every other way in checks the hash.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from comity.trust.digest import Digest, short
from comity.trust.errors import Malformed, NotFound, Untrusted

MAX_READ: Final = 8 * 1024 * 1024
CHUNK: Final = 1024 * 1024


class BlobStore(Protocol):
    """Every method raises Malformed for a name that is not a digest, OutOfSpace when disk or quota is exhausted and
    Unavailable when the disk or the service does not answer; what fails leaves the store as it was."""

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, whole, and was right when it came in."""

    def size(self, digest: Digest) -> int:
        """Its length in bytes. Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """At most `length` <= MAX_READ bytes from `offset`; fewer only where the blob ends. Raises NotFound.

        The bytes are what the disk gives back: whoever needs them to be right checks them against a piece record.
        """

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        """The same range without a bound on `length`, in parts of at most `chunk` bytes. Raises NotFound, at once."""

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep a small object. Durable when it returns. Raises Untrusted unless `data` hashes to `digest`."""

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        """Take in a complete local file of `size` bytes whose hash the caller *has verified*. Durable when it returns.

        The file is consumed (renamed where that is possible, else copied and removed). With `link` the source stays
        and is shared where the store can do that, else copied: a shared file turns read-only, and should its owner
        write to it all the same, `verify` tells. Raises Untrusted when the file no longer has `size` bytes, or
        where the bytes are copied and no longer hash to `digest`.
        """

    def scratch(self, digest: Digest) -> Path:
        """Where a partial copy of this blob may be written, on a disk from which `admit` is cheap. The same path each
        time, so that a pull can be resumed; its folder exists. Only the holder of the blob's lock writes there."""

    def quarantine(self, digest: Digest, reason: str) -> None:
        """Put a blob that turned out wrong aside, with the reason, for a person to look at; `has` is false from then
        on. Nothing happens when it is not here: somebody else was faster."""

    def remove(self, digest: Digest) -> None:
        """Delete a blob: a local decision of the store's owner, never a stranger's. Nothing happens when it is not
        here."""

    def quarantined(self) -> int:
        """How many were put aside."""

    def sizes(self) -> Iterator[tuple[Digest, int]]:
        """All blobs and their lengths in bytes, from a listing: nothing is asked for each. In no promised order; one
        that comes or goes meanwhile may be missed."""

    def verify(self, digest: Digest) -> bool:
        """Read every byte again: whether they still hash to `digest`. Raises NotFound."""

    def sweep(self) -> None:
        """Remove what crashed writers left behind. Does no harm to writers that are at work."""

    def free_bytes(self) -> int | None:
        """Room for more, in bytes; None where nobody can tell."""


def absent(digest: Digest) -> NotFound:
    return NotFound("blob is not here", why=short(digest))


def mismatch(digest: Digest, found: str) -> Untrusted:
    return Untrusted("bytes differ from their name", why=f"expected {short(digest)}, they hash to {found}", code="HASH")


def check_source(path: Path, size: int) -> None:
    """Raises Untrusted unless `path` is a regular file of `size` bytes, and OSError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        raise Untrusted("not the file that was verified", why=f"expected a file of {size} bytes", code="SIZE")


def check_range(offset: int, length: int, limit: int | None = None) -> None:
    """Raises Malformed for a negative range or one beyond `limit`."""
    if offset < 0 or length < 0:
        raise Malformed("not a range", why="offset and length are at least 0", code="RANGE")
    if limit is not None and length > limit:
        raise Malformed("range too long", why=f"{length} bytes, at most {limit} are read at once", code="RANGE")
