"""Unpacks layers of images that are tar archives, plain or compressed with gzip, into the files that they have.

    application/vnd.cncf.model.weight.v1.tar            ModelPack
    application/vnd.kitops.modelkit.model.v1.tar+gzip   KitOps

A layer is unpacked once all of it is here and has the SHA-256 of the manifest. What is in it is still its author's
word: before a file is written, its header is read within limits, its name is checked as the name of a file of an
artifact is, and its size must fit into what is left. Only files and folders are read. The image is refused if there is
a link, a device, a sparse file, a name that is there twice, or anything after the end of an archive. Folders are not
kept.

    headers          ustar, pax (`path` and `size` of the next member), GNU long names; at most `MAX_HEADER` bytes each
    bytes unpacked   at most `RATIO` for each byte of the layer, and `MARGIN`

The registry lists the digest of the layer, and no digest of a file in it, so its files count as not compared. Files are
named by their number beside the layer, so that no name of an archive reaches this disk. If unpacking is interrupted, it
starts again from the layer. Sources: POSIX.1-2017, pax; GNU tar, basic format; RFC 1952; ModelPack model format 0.0.6.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from comity.content.durable import disk_errors
from comity.trust.artifact import MAX_FILES, FileEntry, Manifest, check_path
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.frozen import frozen
from comity.upstream.listed_files import MAX_TOTAL, ListedFile, Observation

TAR: Final = "tar"
TAR_GZIP: Final = "tar+gzip"
RATIO: Final = 100
MARGIN: Final = 64 * 1024**2
MAX_HEADER: Final = 16 * 1024
"""Bytes of a long name, or of the pax records before a member."""
MAX_HEADERS: Final = 4 * MAX_FILES
"""Headers of one archive: of files, of folders, and of what is about the next one."""
CHUNK: Final = 1024**2
PACKED_CHUNK: Final = 64 * 1024
"""Bytes given to zlib at a time: what it does not use yet is copied at each reading."""
_TYPE: Final = re.compile(
    r"application/vnd\.(?:cncf\.model|cnai\.model|kitops\.modelkit)\.[a-z.]+\.v[0-9]+\.(tar(?:\+gzip)?)"
)
_PACKED: Final = re.compile(r"tar|zip|zstd")
_UNSUPPORTED: Final = ("GNU.sparse.", "hdrcharset", "SCHILY.realsize")
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


def packing_of(media_type: str) -> str:
    """How the files of a layer are packed: `TAR`, `TAR_GZIP`, or empty for a layer that is a file by itself. Raises
    Malformed (UPSTREAM-PACKED)."""
    if found := _TYPE.fullmatch(media_type):
        return found[1]
    if _PACKED.search(media_type):
        raise refused_layer(f"a layer of type {media_type[:80]!r} is packed in a way that is not read here")
    return ""


def refused_layer(why: str) -> Malformed:
    return Malformed(
        "the image has layers that cannot be imported",
        why=why,
        hint="unpack it with the program that made it, and publish the folder: comity publish --help",
        code="UPSTREAM-PACKED",
    )


class UnpackControl(Protocol):
    """Is told of each step, and ends the work by an exception."""

    def progress(self, path: str, count: int) -> None: ...


class ByteSource(Protocol):
    """Bytes that are read once."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class GzipStream:
    """The bytes that one gzip member has. Raises Malformed (UPSTREAM-PACKED) for anything else, and for more."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(wbits=31)
        self._packed = b""

    def read(self, size: int, /) -> bytes:
        while not self._inflate.eof:
            packed = self._packed or self._source.read(PACKED_CHUNK)
            if not packed:
                raise refused_layer("its gzip is not complete")
            try:
                data = self._inflate.decompress(packed, size)
            except zlib.error as error:
                raise refused_layer(f"it is not gzip ({str(error)[:60]})") from error
            self._packed = self._inflate.unconsumed_tail
            if data:
                return data
        if self._inflate.unused_data or self._source.read(1):
            raise refused_layer("something follows the end of its gzip")
        return b""


@frozen
class TarMember:
    """A file in an archive: its checked name, and its size."""

    path: str
    size: int


class TarStream:
    """Reads an archive from its start to its end, once.

    Args:
        source: the bytes of the archive.
        most: bytes that it may have.
        step: called before each reading.
    """

    def __init__(self, source: ByteSource, most: int, step: Callable[[], None]) -> None:
        self._source = source
        self._left = most
        self._step = step
        self._headers = 0

    def files(self) -> Iterator[tuple[TarMember, Iterator[bytes]]]:
        """Each file with its bytes, which the caller reads to their end. Raises Malformed (UPSTREAM-PACKED,
        BAD-PATH)."""
        name, records = "", dict[str, str]()
        while (header := self._header()) is not None:
            if header.type == tarfile.XHDTYPE and not records:
                records = parse_pax(self._extension(header))
            elif header.type == tarfile.XGLTYPE:
                if {"path", "size"} & parse_pax(self._extension(header)).keys():
                    raise refused_layer("the archive gives all its files one name or size")
            elif header.type == tarfile.GNUTYPE_LONGNAME and not name:
                name = self._extension(header).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type in _FILES:
                file = TarMember(_checked(header.name, name, records), _size(header, records))
                if file.size > self._left:
                    raise _too_much()
                yield file, self._content(file.size)
                name, records = "", {}
            elif header.type == tarfile.DIRTYPE and not _size(header, records):
                _checked_folder(header.name, name, records)
                name, records = "", {}
            else:
                raise refused_layer(f"the archive has {header.name[:120]!r} of type {header.type!r}, which is no file")
        if name or records:
            raise refused_layer("the archive ends where a file was announced")
        self._require_end()

    def _header(self) -> tarfile.TarInfo | None:
        """The next header; None at the end of the archive."""
        self._headers += 1
        if self._headers > MAX_HEADERS:
            raise refused_layer(f"the archive has more than {MAX_HEADERS} headers")
        block = self._read(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise refused_layer(f"the archive has an invalid header ({str(error)[:60]})") from error
        if not 0 <= header.size <= MAX_TOTAL:
            raise refused_layer(f"{header.name[:120]!r} in the archive has an invalid size")
        return header

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        if header.size > MAX_HEADER:
            raise refused_layer(f"a header in the archive has more than {MAX_HEADER} bytes")
        return b"".join(self._content(header.size))

    def _content(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            data = self._read(min(CHUNK, left))
            left -= len(data)
            yield data
        if rest := -size % tarfile.BLOCKSIZE:
            self._read(rest)

    def _require_end(self) -> None:
        """Raise unless only zeros follow."""
        while data := self._some(CHUNK):
            if data.strip(b"\0"):
                raise refused_layer("something follows the end of the archive")

    def _read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts, left = list[bytes](), size
        while left:
            data = self._some(left)
            if not data:
                raise refused_layer("the archive is not complete")
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        self._step()
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much()
        return data


def _too_much() -> Malformed:
    return refused_layer(f"a layer has more than {RATIO} times its size, and {MARGIN} bytes more, when it is unpacked")


def parse_pax(data: bytes) -> dict[str, str]:
    """The records of a pax header, with names and values as text. Raises Malformed (UPSTREAM-PACKED)."""
    found: dict[str, str] = {}
    position = 0
    while position < len(data):
        digits, space, _ = data[position : position + 8].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[position + len(digits) + 1 : position + length]
        key, equals, value = record[:-1].partition(b"=")
        name = key.decode("utf-8", "replace")
        if not equals or record[-1:] != b"\n" or len(digits) + 1 + len(record) != length or name in found:
            raise refused_layer("the archive has invalid pax records")
        if name.startswith(_UNSUPPORTED):
            raise refused_layer(f"the archive has pax records that are not read here ({name[:40]!r})")
        found[name] = value.decode("utf-8", "surrogateescape")
        position += length
    return found


def _size(header: tarfile.TarInfo, records: dict[str, str]) -> int:
    """The size of a member, which a pax record may say."""
    text = records.get("size", str(header.size))
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > MAX_TOTAL:
        raise refused_layer(f"{header.name[:120]!r} in the archive has an invalid size")
    return int(text)


def _checked(short: str, long: str, records: dict[str, str]) -> str:
    """The name of a file, which may begin with `./`. Raises Malformed (BAD-PATH, UPSTREAM-PACKED)."""
    if long and "path" in records:
        raise refused_layer("the archive gives a file two names")
    return check_path((long or records.get("path", short)).removeprefix("./"))


def _checked_folder(short: str, long: str, records: dict[str, str]) -> None:
    name = (long or records.get("path", short)).removesuffix("/")
    if name not in ("", "."):
        _checked(name, "", {})


class LayerUnpacker:
    """Unpacks the layers of one image, which share their limits and have no name twice.

    Args:
        space: bytes that all files may have.
    """

    def __init__(self, space: int, control: UnpackControl) -> None:
        self._space = space
        self._control = control
        self._paths: set[str] = set()

    def add(self, path: str) -> None:
        """Count a file. Raises Malformed (UPSTREAM-PACKED) if another one has its name."""
        if path in self._paths or len(self._paths) >= MAX_FILES:
            raise refused_layer(f"there are two files named {path[:120]!r}, or more than {MAX_FILES} files")
        self._paths.add(path)

    def unpack(self, listed: ListedFile, layer: Path) -> Iterator[tuple[FileEntry, Path]]:
        """Each file of a layer and where it is: beside the layer. Raises Malformed (UPSTREAM-PACKED, BAD-PATH),
        OutOfSpace."""
        with layer.open("rb") as file:
            source = GzipStream(file) if listed.packing == TAR_GZIP else file
            most = RATIO * listed.size + MARGIN
            stream = TarStream(source, most, lambda: self._control.progress(listed.path, 0))
            for number, (member, content) in enumerate(stream.files()):
                self.add(member.path)
                self._take(listed, member)
                into = layer.with_name(f"{layer.name}.{number:06d}")
                yield _written(member, content, into), into

    def _take(self, listed: ListedFile, member: TarMember) -> None:
        if member.size > self._space:
            why = f"{member.path[:120]!r} has {member.size} bytes, and {max(0, self._space)} may be used"
            hint = "free some space or lower reserve_bytes in [storage] of node.toml, and run the same command again"
            raise OutOfSpace(f"not enough disk space to unpack {listed.path}", why=why, hint=hint)
        self._space -= member.size


def _written(member: TarMember, content: Iterator[bytes], into: Path) -> FileEntry:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    digest = hashlib.sha256()
    with os.fdopen(os.open(into, flags, 0o600), "wb") as file:
        for data in content:
            digest.update(data)
            file.write(data)
    return FileEntry(member.path, member.size, Digest(digest.hexdigest()))


def unpack_layers(
    observations: Sequence[Observation], paths: Sequence[Path], space: int, control: UnpackControl
) -> tuple[tuple[Observation, ...], tuple[Path, ...]]:
    """Replace each packed layer by its files: the observation and the path of each file, in the order of a manifest.

    Args:
        observations: of layers that are here and have their listed digests.
        space: bytes that the unpacked files may have.

    Raises Malformed (UPSTREAM-PACKED, BAD-PATH), OutOfSpace, Unavailable (DISK), and what `control` raises.
    """
    unpacker = LayerUnpacker(space, control)
    found: dict[str, tuple[Observation, Path]] = {}
    with disk_errors("an image was not unpacked"):
        for seen, path in zip(observations, paths, strict=True):
            if not seen.listed.packing:
                unpacker.add(seen.entry.path)
                found[seen.entry.path] = seen, path
        for seen, path in zip(observations, paths, strict=True):
            if seen.listed.packing:
                for entry, member in unpacker.unpack(seen.listed, path):
                    found[entry.path] = Observation(entry, ListedFile(entry.path, entry.size), "none", False), member
    if not found:
        raise refused_layer("it has no files")
    order = [found[entry.path] for entry in Manifest.of(seen.entry for seen, _ in found.values()).files]
    return tuple(seen for seen, _ in order), tuple(path for _, path in order)


def remove_unpacked(folder: Path) -> None:
    """Remove what an interrupted import unpacked. Raises Unavailable (DISK)."""
    with disk_errors(f"{folder} was not emptied"):
        for path in folder.glob("[0-9]*.[0-9]*"):
            path.unlink()
