"""Tar archives as programs write them, and as they should not be."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


def archive(files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT, folders: Iterable[str] = ()) -> bytes:
    """An archive of folders, then files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for folder in folders:
            made = tarfile.TarInfo(folder)
            made.type = tarfile.DIRTYPE
            tar.addfile(made)
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None, link: str = ""
) -> bytes:
    """A member without the end of the archive. `size` is what its header says, if not the truth."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    entry.size = len(data) if size is None else size
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """The header with records for the next member, or (`XGLTYPE`) for all."""
    data = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        data += str(length).encode() + rest
    return member("pax", data, kind)
