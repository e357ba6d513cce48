"""Reads the directory of a zip archive and the first bytes of its members, at most `ARCHIVE_HEAD` bytes per member.

The directory is read from the end of the file, as Python's zipfile does: other bytes may precede the archive. Archives
that would exhaust an unpacker or write outside its folder are reported as findings. Source: PKWARE's APPNOTE, 4.3, 4.4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from comity.formats.tensors import BoundedFile
from comity.trust.errors import Malformed

ARCHIVE_HEAD: Final = 16 * 1024
MAX_DIRECTORY: Final = 8 * 1024 * 1024
MAX_MEMBERS: Final = 65_536
MAX_RATIO: Final = 1_000
"""Largest ratio of unpacked size to file size; models do not compress as well, zip bombs do."""

_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_STORED: Final = 0
_DEFLATED: Final = 8
_ENCRYPTED: Final = 1


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One entry of the directory. `offset` is the position of its local header in the file."""

    name: str
    offset: int
    packed: int
    unpacked: int
    method: int
    flags: int


@dataclass(frozen=True, slots=True)
class ArchiveDirectory:
    members: tuple[ArchiveMember, ...]
    findings: tuple[str, ...]


def has_zip_end_record(source: BoundedFile) -> bool:
    """Whether a zip directory may be at the end of the file. Raises OSError if the file does."""
    tail = source.read_at(max(0, source.size - _END.size), _END.size)
    return tail[:4] == b"PK\x05\x06"


def read_directory(source: BoundedFile) -> ArchiveDirectory:
    """Read the directory. Raises Malformed if it is broken or exceeds the limits, OSError if the file does."""
    end, count, length, start, prefix_length = _end(source)
    if length > MAX_DIRECTORY or count > MAX_MEMBERS:
        raise Malformed("zip directory too large", why=f"{count} members, {length} bytes")
    if prefix_length < 0:
        raise Malformed("zip directory is broken", why=f"it would begin at byte {start}")
    members = tuple(_members(source.read_exactly(start + prefix_length, length), prefix_length))
    if len(members) != count:
        raise Malformed("zip directory is broken", why=f"{len(members)} members instead of {count}")
    return ArchiveDirectory(members, tuple(_findings(members, source.size, end)))


def member_head(source: BoundedFile, member: ArchiveMember, length: int = ARCHIVE_HEAD) -> bytes:
    """The first `length` bytes of a member, unpacked. Raises Malformed if the member cannot be read."""
    if member.flags & _ENCRYPTED or member.method not in (_STORED, _DEFLATED):
        raise Malformed(f"{member.name[:80]} is encrypted, or its compression is not supported")
    local = _LOCAL.unpack(source.read_exactly(member.offset, _LOCAL.size))
    name = source.read_exactly(member.offset + _LOCAL.size, local[9])
    if local[0] != b"PK\x03\x04" or _decode_name(name, local[2]) != member.name:
        raise Malformed(f"{member.name[:80]} has another name in its local header")
    data = source.read_at(member.offset + _LOCAL.size + local[9] + local[10], min(length, member.packed))
    if member.method == _STORED:
        return data
    try:
        return zlib.decompressobj(-15).decompress(data, length)
    except zlib.error as error:
        raise Malformed(f"{member.name[:80]} cannot be unpacked", why=str(error)) from error


def _end(source: BoundedFile) -> tuple[int, int, int, int, int]:
    """(offset of the end record, members, directory length, directory offset as stated, bytes before the archive)."""
    at = max(0, source.size - _END.size - 65_535)
    tail = source.read_at(at, source.size - at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise Malformed("zip directory is missing")
    end_offset = at + found
    _, _, _, _, count, length, start, _ = _END.unpack_from(tail, found)
    zip64 = _zip64_end(source, end_offset)
    if zip64 is not None:
        count, length, start = zip64
        return end_offset, count, length, start, end_offset - _LOCATOR.size - _END_64.size - length - start
    return end_offset, count, length, start, end_offset - length - start


def _zip64_end(source: BoundedFile, end_offset: int) -> tuple[int, int, int] | None:
    """(members, length, offset) of a 64-bit end record directly before the end record; None if there is none."""
    at = end_offset - _LOCATOR.size - _END_64.size
    if at < 0 or source.read_at(end_offset - _LOCATOR.size, 4) != b"PK\x06\x07":
        return None
    record = _END_64.unpack(source.read_exactly(at, _END_64.size))
    if record[0] != b"PK\x06\x06":
        raise Malformed("zip directory is broken", why="the 64-bit end record is missing")
    return record[7], record[8], record[9]


def _members(directory: bytes, prefix_length: int) -> Iterator[ArchiveMember]:
    position = 0
    while position + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, position)
        if fields[0] != b"PK\x01\x02":
            raise Malformed("zip directory is broken", why=f"no member at byte {position} of the directory")
        flags, method, packed, unpacked, offset = fields[3], fields[4], fields[8], fields[9], fields[16]
        named, extra, comment = fields[10:13]
        position += _ENTRY.size
        name = _decode_name(directory[position : position + named], flags)
        zip64 = _zip64_values(directory[position + named : position + named + extra])
        unpacked, packed, offset = (
            int.from_bytes(zip64.pop(0), "little") if value == 0xFFFFFFFF and zip64 else value
            for value in (unpacked, packed, offset)
        )
        yield ArchiveMember(name, offset + prefix_length, packed, unpacked, method, flags)
        position += named + extra + comment


def _zip64_values(extra: bytes) -> list[bytes]:
    """The 64-bit numbers of a member, in the order of the fields that they replace."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if kind == 1:
            return [body[at : at + 8] for at in range(0, len(body) - 7, 8)]
        position += 4 + length
    return []


def _decode_name(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & 0x800 else "cp437", "replace")


def _findings(members: Sequence[ArchiveMember], size: int, end: int) -> Iterator[str]:
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        yield "zip: duplicate member name"
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
            yield f"zip: a member would be written outside its folder: {name[:80]!r}"
            break
    unpacked = sum(member.unpacked for member in members)
    if unpacked > MAX_RATIO * max(size, 1):
        yield f"zip: {size} bytes unpack to {unpacked}"
    position = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < position or member.offset + member.packed > end:
            yield f"zip: {member.name[:80]!r} overlaps another member, or is outside the archive"
            break
        position = member.offset + _LOCAL.size + member.packed
