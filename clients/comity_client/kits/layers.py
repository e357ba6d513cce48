"""Layers of an OCI image: tar archives whose bytes depend on nothing but the files in them.

The files of a layer are in the order of the UTF-8 bytes of their paths, belong to root, have no time and the modes 0644
or 0755, and the archive is not compressed: what a compressor writes depends on its version. They come from packages of
Debian, from wheels, and from folders. Nothing of them is executed, so a package's scripts are not run.

Packages and wheels are strangers' archives: names are checked and sizes are bounded before they are used, and a file
that two of them have with different bytes is refused. Sources: deb(5); OCI image specification 1.1, layer.md; PyPA
specification "Binary distribution format".
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from comity.trust.artifact import check_path
from comity.trust.encoding import Digest, printable
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_ENTRIES: Final = 500_000
MAX_LAYER: Final = 64 * 1024**3
MAX_PACKAGE: Final = 4 * 1024**3
"""Bytes of one package, unpacked."""
MAX_LINK: Final = 4096
MAX_NAMES: Final = 64 * 1024
"""Bytes of what an archive says of one member before it."""
MERGED: Final = ("bin", "lib", "lib64", "sbin")
"""Folders that are links to those of the same name in `usr`, in which everything of them is put."""
_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEAD: Final = 60
_PIECE: Final = 1 << 20
_OPENERS: Final[Mapping[str, Callable[[IO[bytes]], Any]]] = {
    "data.tar": lambda file: file,
    "data.tar.gz": lambda file: gzip.GzipFile(fileobj=file),
    "data.tar.xz": lzma.open,
}
_DAMAGED: Final = (
    EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError, lzma.LZMAError, struct.error,
    tarfile.TarError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged archive raises."""


@frozen
class LayerFile:
    """A file of a layer: its bytes are read when the layer is written."""

    size: int
    mode: int
    open: Callable[[], IO[bytes]]


Entry = LayerFile | str | None
"""A file, the target of a symbolic link, or a folder."""


class Layer:
    """The files of one layer, by path. Archives that they are in stay open as long as `opened`."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self._entries: dict[str, Entry] = {}
        self._size = 0

    def add(self, path: str, entry: Entry) -> None:
        """Raises Malformed (KIT-IMAGE, BAD-PATH) for what cannot be in a layer, or not beside what is there."""
        parts = check_path(path).split("/")
        for count in range(1, len(parts)):
            if self._entries.setdefault("/".join(parts[:count]), None) is not None:
                raise bad_image(f"{printable(path)} is below a path that is no folder")
        if path in self._entries and not _same(self._entries[path], entry):
            raise bad_image(f"two parts of it have {printable(path)}, and not the same")
        self._entries[path] = entry
        self._size += entry.size if isinstance(entry, LayerFile) else 0
        if len(self._entries) > MAX_ENTRIES or self._size > MAX_LAYER:
            raise bad_image(f"a layer has at most {MAX_ENTRIES} files and {MAX_LAYER} bytes")

    def add_file(self, path: str, source: Path, mode: int = 0o644) -> None:
        """A file of this disk."""
        self.add(path, LayerFile(source.stat().st_size, mode, lambda: source.open("rb")))

    def add_package(self, deb: Path, omitted: tuple[str, ...]) -> None:
        """The files of a package of Debian, but those below the paths `omitted`. Raises Malformed (KIT-IMAGE)."""
        with _reading(deb):
            archive = self._opened.enter_context(_unpacked(deb))
            for member in archive:
                path = _merged(member.name.removeprefix("./").rstrip("/"))
                if path in ("", ".") or path.startswith(omitted):
                    continue
                self.add(path, _member(archive, member))

    def add_wheel(self, wheel: Path, site: str) -> None:
        """The modules of a wheel, to be imported from `site`; its scripts and headers are left out. Raises Malformed
        (KIT-IMAGE)."""
        with _reading(wheel):
            archive = self._opened.enter_context(zipfile.ZipFile(wheel))
            for info in archive.infolist():
                path = _installed(info.filename)
                if path and not info.is_dir():
                    mode = 0o755 if info.external_attr >> 16 & 0o100 else 0o644
                    self.add(f"{site}/{path}", LayerFile(info.file_size, mode, _opener(archive, info)))

    def write(self, target: IO[bytes] | None) -> tuple[Digest, int]:
        """Write the archive, or without a target only hash it; returns its digest and its size. Raises Malformed
        (KIT-IMAGE) if one that a file is read from is damaged."""
        sink = _Sink(target)
        with tarfile.open(fileobj=cast("IO[bytes]", sink), mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, entry in sorted(self._entries.items(), key=lambda each: each[0].encode()):
                info = tarfile.TarInfo(path)
                if isinstance(entry, LayerFile):
                    info.size, info.mode = entry.size, entry.mode
                    _write_file(archive, info, entry)
                else:
                    info.type = tarfile.DIRTYPE if entry is None else tarfile.SYMTYPE
                    info.mode, info.linkname = 0o755 if entry is None else 0o777, entry or ""
                    archive.addfile(info)
        return sink.digest, sink.size


def bad_image(why: str) -> Malformed:
    return Malformed("the image of the kit was not made", why=why, code="KIT-IMAGE")


class _Sink:
    """Hashes and counts what is written, and passes it on: all that an archive needs of the file that it is written
    to."""

    def __init__(self, target: IO[bytes] | None) -> None:
        self._target, self._hash, self.size = target, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._target.write(data) if self._target else len(data)

    def tell(self) -> int:
        return self.size

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise bad_image(f"{file.name} cannot be read: {str(error)[:200]}") from error


def _write_file(archive: tarfile.TarFile, info: tarfile.TarInfo, entry: LayerFile) -> None:
    try:
        source = entry.open()
    except _DAMAGED as error:
        raise bad_image(f"{printable(info.name)} cannot be read: {str(error)[:200]}") from error
    with source:
        archive.addfile(info, _Source(source, info.name))


class _Source:
    """A file that is read to the end of what was said of it, so that an archive finds that it is damaged."""

    def __init__(self, source: IO[bytes], name: str) -> None:
        self._source, self._name = source, name

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._source.read(size)
        except _DAMAGED as error:
            raise bad_image(f"{printable(self._name)} cannot be read: {str(error)[:200]}") from error
        if len(data) != size:
            raise bad_image(f"{printable(self._name)} is shorter than its archive says")
        return data


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries of one path are the same."""
    if not isinstance(one, LayerFile) or not isinstance(other, LayerFile):
        return one == other
    return (one.size, one.mode, _hash(one)) == (other.size, other.mode, _hash(other))


def _hash(file: LayerFile) -> str:
    found = hashlib.sha256()
    with file.open() as source:
        while data := source.read(_PIECE):
            found.update(data)
    return found.hexdigest()


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/")[0] in MERGED else path


@contextmanager
def _unpacked(deb: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package. Raises ValueError, and what decompression raises."""
    with tempfile.TemporaryFile() as unpacked:
        _unpack(deb, unpacked)
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            yield archive


def _unpack(deb: Path, target: IO[bytes]) -> None:
    """Write the archive of the files of a package. Raises ValueError, and what decompression raises."""
    with deb.open("rb") as file, tempfile.TemporaryFile() as packed:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise ValueError("it is no package of Debian")
        while len(head := file.read(_AR_HEAD)) == _AR_HEAD:
            name, size = head[:16].decode("ascii").strip().rstrip("/"), int(head[48:58])
            if head[58:] != b"`\n" or size < 0:
                raise ValueError("its archive is damaged")
            if name in _OPENERS:
                _copy(file, packed, size)
                packed.seek(0)
                unpacked = _OPENERS[name](packed)
                _copy(unpacked, target, MAX_PACKAGE)
                if unpacked.read(1):
                    raise ValueError(f"it unpacks to more than {MAX_PACKAGE} bytes")
                _check_heads(target)
                return
            file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError(f"it has none of {', '.join(_OPENERS)}")


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copy a file to its end, or at most so many bytes."""
    left = most
    while left and (data := source.read(min(left, _PIECE))):
        target.write(data)
        left -= len(data)


def _check_heads(file: IO[bytes]) -> None:
    """Refuse long names of members before Python's tarfile reads them into memory. Raises ValueError."""
    file.seek(0)
    while len(head := file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE and head != bytes(tarfile.BLOCKSIZE):
        size = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").size
        if (head[156:157] in b"xgLK" and size > MAX_NAMES) or size < 0:
            raise ValueError("its archive has a name that is too long")
        file.seek(size + -size % tarfile.BLOCKSIZE, os.SEEK_CUR)
    file.seek(0)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    """Raises ValueError for what is neither a file nor a folder nor a link."""
    if member.isdir():
        return None
    if member.issym() and len(member.linkname) <= MAX_LINK:
        return member.linkname
    if not member.isreg() or member.issparse():
        raise ValueError(f"{member.name} is neither a file nor a folder nor a link")
    return LayerFile(member.size, 0o755 if member.mode & 0o100 else 0o644, lambda: _extracted(archive, member))


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member)
    assert found is not None
    return found


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _installed(name: str) -> str:
    """Where a file of a wheel is below the folder that it is imported from; empty if it is not."""
    folder, _, rest = name.partition("/")
    if not folder.endswith(".data"):
        return name
    kind, _, path = rest.partition("/")
    return path if kind in ("purelib", "platlib") else ""
