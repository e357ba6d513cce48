"""The files in zip and tar archives, hashed where they lie: nothing is unpacked to a disk, and archives in archives are
not opened.

Bytes are unpacked in pieces, and at most `MOST_TIMES` as many as the archive has. What a program that unpacks the
archive would not write as a plain file below its folder, such as a link or a name with `..`, is named with the reason.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_SET
from typing import IO, Any, Final, cast

from comity.formats.archives import (
    MAX_PAX,
    MAX_TAR_MEMBERS,
    MAX_TAR_NAME,
    STORED,
    TAR_ERRORS,
    ArchiveMember,
    count_head,
    data_offset,
    is_outside,
    is_tar,
    read_directory,
)
from comity.formats.source import BoundedFile, Work
from comity.formats.streams import DECODERS, MAX_STREAMS, PACKED_MAGIC, begins_stream
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

ENDINGS: Final = (".zip", ".whl", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")
"""How the names of files end that are opened as archives. Others are zip files too, and are loaded as one file."""
MOST_TIMES: Final = 100
"""Bytes that are unpacked for each byte of an archive: models do not compress as well."""
SMALL: Final = 64 * 1024 * 1024
"""Bytes that are unpacked of any archive, however small it is."""
CHUNK: Final = 256 * 1024
HEAD: Final = 512


@frozen
class ArchivedFile:
    """A file in an archive. `sha256` is None where it was not read, and `problem` says why."""

    name: str
    size: int = 0
    sha256: Digest | None = None
    problem: str = ""


@frozen
class ArchivedFiles:
    """The files in an archive. `problem`: why it was not read to its end, or what else is in it."""

    files: tuple[ArchivedFile, ...] = ()
    problem: str = ""

    @classmethod
    def parse(cls, data: bytes) -> ArchivedFiles:
        """Inverse of `encode`. Raises ValueError, TypeError."""
        problem, *files = json.loads(data)
        return cls(tuple(ArchivedFile(*each) for each in files), problem)

    def encode(self) -> bytes:
        """For a cache on this machine."""
        files = [[each.name, each.size, each.sha256, each.problem] for each in self.files]
        return json.dumps([self.problem, *files]).encode()


def is_archive(name: str) -> bool:
    """Whether the name of a file says that it is an archive."""
    return name.lower().endswith(ENDINGS)


def archived_files(file: IO[bytes], size: int) -> ArchivedFiles:
    """Hash the files in an archive, which is open and not buffered. Raises OSError if the archive cannot be read."""
    found = list[ArchivedFile]()
    try:
        source, left = BoundedFile(cast("Any", file), size), _Left(max(SMALL, MOST_TIMES * size))
        head = source.read_at(0, HEAD)
        packing = next((kind for kind in ("gzip", "bzip2", "xz") if begins_stream(kind, head)), "")
        if head.startswith(PACKED_MAGIC):
            raise Malformed("not opened", why="its compression cannot be read here")
        if packing or is_tar(source):
            problem = _read_tar(_TarBytes(_unpacked(_ranges(file, 0, size), packing), left), found)
        else:
            problem = _read_zip(file, source, left, found)
    except ComityError as error:
        problem = error.why or str(error)
    return ArchivedFiles(tuple(found), problem)


@dataclass(slots=True)
class _Left:
    """The bytes that may still be unpacked."""

    count: int

    def take(self, count: int) -> None:
        """Raises Malformed."""
        self.count -= count
        if self.count < 0:
            raise Malformed("not read further", why=f"it unpacks to more than {MOST_TIMES} times its size")


def _ranges(file: IO[bytes], offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a part of a file, in pieces. Raises Malformed if it ends early, OSError."""
    while length:
        data = os.pread(file.fileno(), min(CHUNK, length), offset)
        if not data:
            raise Malformed("truncated", why="it ends early")
        yield data
        offset, length = offset + len(data), length - len(data)


def _unpacked(packed: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """What a stream unpacks to, in pieces; the stream itself where `packing` is empty. Raises Malformed."""
    if not packing:
        yield from packed
        return
    decoder, streams = DECODERS[packing](), 1
    for data in packed:
        while True:
            if decoder.eof:
                data = b"" if packing == "deflate" else data.lstrip(b"\0")  # what pads the end of an archive
                if not data:
                    break
                if (streams := streams + 1) > MAX_STREAMS:
                    raise Malformed("not read further", why=f"more than {MAX_STREAMS} streams")
                decoder = DECODERS[packing]()
            piece = _step(decoder, data)
            yield piece
            if decoder.eof:
                data = decoder.unused_data
            else:
                data = getattr(decoder, "unconsumed_tail", b"")
                if not data and len(piece) < CHUNK and getattr(decoder, "needs_input", True):
                    break
    if not decoder.eof:
        raise Malformed("truncated", why="it ends early")


def _step(decoder: Any, packed: bytes) -> bytes:
    try:
        return bytes(decoder.decompress(packed, CHUNK))
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise Malformed("damaged", why=f"it cannot be unpacked: {str(error)[:80]}") from error


def _hashed(name: str, pieces: Iterator[bytes], size: int, left: _Left) -> ArchivedFile:
    """Raises what `pieces` raises, and Malformed for another length than `size`."""
    digest, count = hashlib.sha256(), 0
    for piece in pieces:
        count += len(piece)
        left.take(len(piece))
        if count > size:
            break
        digest.update(piece)
    if count != size:
        raise Malformed("another length", why="it has another length than the archive says")
    return ArchivedFile(name, size, Digest(digest.hexdigest()))


def _read_zip(file: IO[bytes], source: BoundedFile, left: _Left, found: list[ArchivedFile]) -> str:
    """Add the files of a zip archive; returns what else is in it. Raises Malformed, also beyond the bounds."""
    directory = read_directory(source)
    for member in directory.members:
        if member.name.endswith("/") and not member.unpacked:
            continue
        try:
            found.append(_hashed(member.name[:MAX_TAR_NAME], _member(file, source, member), member.unpacked, left))
        except ComityError as error:
            if left.count < 0:
                raise
            found.append(ArchivedFile(member.name[:MAX_TAR_NAME], member.unpacked, problem=error.why or str(error)))
    return "; ".join(directory.findings)


def _member(file: IO[bytes], source: BoundedFile, member: ArchiveMember) -> Iterator[bytes]:
    packed = _ranges(file, data_offset(source, member), member.packed)
    return _unpacked(packed, "" if member.method == STORED else "deflate")


def _read_tar(data: _TarBytes, found: list[ArchivedFile]) -> str:
    """As `_read_zip`, of a tar archive."""
    try:
        with tarfile.open(fileobj=cast("Any", data), mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                if len(archive.pax_headers) > MAX_PAX or len(found) >= MAX_TAR_MEMBERS:
                    raise Malformed("not read further", why="it has too many members or records")
                if not info.isdir():
                    found.append(_tar_member(data, info))
    except TAR_ERRORS as error:
        raise Malformed("damaged", why=f"it cannot be read: {str(error)[:80]}") from error
    return "more follows after its end" if data.goes_on() else ""


def _tar_member(data: _TarBytes, info: tarfile.TarInfo) -> ArchivedFile:
    name = info.name[:MAX_TAR_NAME]
    if info.issym() or info.islnk():
        return ArchivedFile(name, problem=f"a link to {info.linkname[:MAX_TAR_NAME]}")
    if not info.isreg():
        return ArchivedFile(name, problem="no file: a device or a pipe")
    if info.sparse:
        return ArchivedFile(name, info.size, problem="a sparse file: not read")
    if is_outside(name):
        return ArchivedFile(name, info.size, problem="an unpacker could write it outside its folder")
    return _hashed(name, data.pieces(info.size), info.size, _Left(info.size))


class _TarBytes:
    """The bytes of a tar archive in order, as tarfile reads heads, and the data between them. What is passed over is
    unpacked and counted too."""

    def __init__(self, pieces: Iterator[bytes], left: _Left) -> None:
        self._pieces = pieces
        self._left = left
        self._waiting = b""
        self._position = 0
        self._work = Work()

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Raises Malformed if it is not forward."""
        if whence != SEEK_SET or offset < self._position:
            raise Malformed("damaged", why="a member begins before the end of another one")
        for _ in self.pieces(offset - self._position):
            pass
        return self._position

    def read(self, length: int) -> bytes:
        """A head. Raises Malformed beyond the bounds."""
        count_head(self._work, length)
        return b"".join(self.pieces(length))

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next bytes, fewer at the end."""
        while length and (piece := self._next()):
            self._waiting = piece[length:]
            piece = piece[:length]
            self._position += len(piece)
            length -= len(piece)
            yield piece

    def goes_on(self) -> bool:
        """Whether other bytes than zeros follow."""
        while piece := self._next():
            self._waiting = b""
            if piece.strip(b"\0"):
                return True
        return False

    def _next(self) -> bytes:
        """What was not asked for yet of the last piece, else the next one that is not empty."""
        while not self._waiting and (piece := next(self._pieces, None)) is not None:
            self._left.take(len(piece))
            self._waiting = piece
        return self._waiting
