"""Copies all blobs of one store into another one, such as a folder into a bucket.

A blob appears in the target when it is whole and its bytes have its hash: the target's own `admit` says so. So a copy
that was interrupted goes on with the blobs that are missing, and a file on its way out of a bucket goes on where it
ended. A list beside the ledger (`CopiedList`) has what was copied: what else is in a target is not of this copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from comity.content import durable, fault
from comity.content.blobs import BlobStore, FolderStore, hash_mismatch
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen

Advance = Callable[[int], None]
"""Is called with the bytes that are done."""
_MOST: Final = 2**60
"""Bytes, more than a file has."""
_EMPTY: Final = sha256(b"")


class CopiedList:
    """The digests of the blobs that were copied to one place, in a file that a killed process leaves whole: 65 bytes
    for each. A list for another place begins again."""

    def __init__(self, file: Path, place: str) -> None:
        """`place`: names the target in one line. Raises OutOfSpace, Unavailable."""
        self._file = file
        first = f"{place}\n".encode()
        with disk_errors(f"{file.name} was not read"):
            data = file.read_bytes() if file.exists() else b""
            if not data.startswith(first):
                data = first
                durable.write_file(file, first, point="move.list")
            self._writing = file.open("ab", buffering=0)
        self._known = {bytes.fromhex(line.decode()) for line in data[len(first) :].split(b"\n") if len(line) == 64}

    def __contains__(self, digest: Digest) -> bool:
        return bytes.fromhex(digest) in self._known

    def add(self, digest: Digest) -> None:
        """Raises OutOfSpace, Unavailable."""
        with disk_errors(f"{self._file.name} was not written"):
            self._writing.write(f"{digest}\n".encode())
        self._known.add(bytes.fromhex(digest))

    def close(self) -> None:
        self._writing.close()


@frozen
class StoreDifference:
    """What a target lacks, and what it has that the source has not. Sizes in bytes."""

    blobs: int
    size: int
    missing: int
    missing_size: int
    others: tuple[Digest, ...]


@frozen
class CopiedBlobs:
    """What one copy did, and the damaged blobs of the source, which were not copied. `size` in bytes."""

    copied: int
    size: int
    damaged: tuple[Digest, ...]


def compare_stores(source: BlobStore, target: BlobStore | None) -> StoreDifference:
    """Compare two stores by their lists. `target` None is an empty one. Raises as the stores do."""
    blobs = size = missing = missing_size = 0
    others = list[Digest]()
    for digest, here, there in _both(source.sizes(), target.sizes() if target is not None else ()):
        if here is None:
            others.append(digest)
            continue
        blobs, size = blobs + 1, size + here
        if here != there:
            missing, missing_size = missing + 1, missing_size + here
    return StoreDifference(blobs, size, missing, missing_size, tuple(others))


def copy_blobs(source: BlobStore, target: BlobStore, aside: Path, done: CopiedList, advance: Advance) -> CopiedBlobs:
    """Copy what the target lacks. What it has and is not in `done` is read again first.

    Args:
        aside: a folder for files on their way, on the file system of the target's `partial_path`; made if missing.
        done: gets each blob before it appears in the target.

    Raises as the stores do.
    """
    copied = size = 0
    damaged = list[Digest]()
    for digest, here, there in _both(source.sizes(), target.sizes()):
        if here is None or (here == there and digest in done):
            continue
        if there is not None:
            if here == there and target.verify(digest):
                done.add(digest)
                continue
            target.remove(digest)
        done.add(digest)
        try:
            whole = _copy_blob(source, target, digest, here, aside)
        except NotFound:
            continue  # the node removed it meanwhile
        fault.point("move.blob")
        advance(here)
        copied, size = copied + whole, size + here * whole
        if not whole:
            damaged.append(digest)
    return CopiedBlobs(copied, size, tuple(damaged))


def copy_withheld(source: BlobStore, target: BlobStore, aside: Path) -> int:
    """Copy what the operator took out of the source (`withheld`). Returns the number of files. Raises as the stores
    do, and Untrusted (HASH) for a damaged file."""
    count, here, there = 0, source.withheld(), target.withheld()
    for artifact in here.artifacts():
        for digest in sorted(set(here.files(artifact)) - set(there.files(artifact))):
            chunks = () if digest == _EMPTY else here.read(artifact, digest, 0, _MOST)
            path = aside / f"{digest}.withheld"
            _write(chunks, path, begin=0)
            if _sha256(path) != digest:
                raise hash_mismatch(digest, "others, and it is withheld")
            target.admit(path, digest, path.stat().st_size)
            there.take(artifact, digest)
            count += 1
    return count


def _copy_blob(source: BlobStore, target: BlobStore, digest: Digest, size: int, aside: Path) -> bool:
    """Returns false if the bytes in the source have another hash."""
    if isinstance(source, FolderStore):
        if not source.verify(digest):
            return False
        target.admit(source.path(digest), digest, size, link=True)
        return True
    path = aside / digest
    had = path.stat().st_size if path.exists() else 0
    for begin in dict.fromkeys((had if had <= size else 0, 0)):  # from the start if what was there does not fit
        _write(source.iterate(digest, begin, size - begin), path, begin=begin)
        if _sha256(path) == digest:
            target.admit(path, digest, size)
            return True
    path.unlink()
    return False


def _write(chunks: Iterable[bytes], path: Path, *, begin: int) -> None:
    with disk_errors(f"{path.name} was not written"):
        durable.make_folders(path.parent)
        with path.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            for chunk in chunks:
                file.write(chunk)


def _sha256(path: Path) -> str:
    with disk_errors(f"{path.name} was not read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _both(
    first: Iterable[tuple[Digest, int]], second: Iterable[tuple[Digest, int]]
) -> Iterator[tuple[Digest, int | None, int | None]]:
    """Each digest of two lists in their order, with the size in each, None where it is not."""
    left, right = iter(first), iter(second)
    here, there = next(left, None), next(right, None)
    while here is not None or there is not None:
        digest = min(each[0] for each in (here, there) if each is not None)
        sizes = [each[1] if each is not None and each[0] == digest else None for each in (here, there)]
        yield digest, sizes[0], sizes[1]
        here = here if sizes[0] is None else next(left, None)
        there = there if sizes[1] is None else next(right, None)
