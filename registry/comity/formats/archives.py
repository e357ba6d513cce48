"""The directory of a zip archive, and the first bytes of its members. Nothing is unpacked beyond `HEAD` bytes a member.

Read as Python's zipfile reads it, from the end: other bytes may come before. What would make an unpacker work for
nothing, or write where it should not, is stated. Source: PKWARE's APPNOTE, 4.3 and 4.4.
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
"""Times its own size that an archive may unpack to: models do not compress like that, bombs do."""

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
    """One entry of the directory. `offset` is where its local header is in the file."""

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


def ends_like_a_zip(source: BoundedFile) -> bool:
    """Whether a directory may be at the end of the file. Raises OSError where the file does."""
    tail = source.at(max(0, source.size - _END.size), _END.size)
    return tail[:4] == b"PK\x05\x06"


def read_directory(source: BoundedFile) -> ArchiveDirectory:
    """Raises Malformed for one that is broken or beyond the bounds, OSError where the file does."""
    end, count, length, start, before = _end(source)
    if length > MAX_DIRECTORY or count > MAX_MEMBERS:
        raise Malformed("zip directory too large", why=f"{count} members, {length} bytes")
    if before < 0:
        raise Malformed("zip directory is broken", why=f"it would begin at byte {start}")
    members = tuple(_members(source.exactly(start + before, length), before))
    if len(members) != count:
        raise Malformed("zip directory is broken", why=f"{len(members)} members instead of {count}")
    return ArchiveDirectory(members, tuple(_findings(members, source.size, end)))


def member_head(source: BoundedFile, member: ArchiveMember, length: int = ARCHIVE_HEAD) -> bytes:
    """The first `length` bytes of a member, unpacked. Raises Malformed for one that cannot be read here."""
    if member.flags & _ENCRYPTED or member.method not in (_STORED, _DEFLATED):
        raise Malformed(f"{member.name[:80]} is encrypted, or packed in a way that is not known here")
    local = _LOCAL.unpack(source.exactly(member.offset, _LOCAL.size))
    name = source.exactly(member.offset + _LOCAL.size, local[9])
    if local[0] != b"PK\x03\x04" or _decoded(name, local[2]) != member.name:
        raise Malformed(f"{member.name[:80]} is called otherwise where its bytes are")
    data = source.at(member.offset + _LOCAL.size + local[9] + local[10], min(length, member.packed))
    if member.method == _STORED:
        return data
    try:
        return zlib.decompressobj(-15).decompress(data, length)
    except zlib.error as error:
        raise Malformed(f"{member.name[:80]} does not unpack", why=str(error)) from error


def _end(source: BoundedFile) -> tuple[int, int, int, int, int]:
    """(where the end record is, members, directory's length, its offset as stated, bytes before the archive)."""
    at = max(0, source.size - _END.size - 65_535)
    tail = source.at(at, source.size - at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise Malformed("zip directory is missing")
    where = at + found
    _, _, _, _, count, length, start, _ = _END.unpack_from(tail, found)
    wide = _wide_end(source, where)
    if wide is not None:
        count, length, start = wide
        return where, count, length, start, where - _LOCATOR.size - _END_64.size - length - start
    return where, count, length, start, where - length - start


def _wide_end(source: BoundedFile, where: int) -> tuple[int, int, int] | None:
    """(members, length, offset) of a 64-bit end record directly before the end; None where there is none."""
    at = where - _LOCATOR.size - _END_64.size
    if at < 0 or source.at(where - _LOCATOR.size, 4) != b"PK\x06\x07":
        return None
    record = _END_64.unpack(source.exactly(at, _END_64.size))
    if record[0] != b"PK\x06\x06":
        raise Malformed("zip directory is broken", why="no 64-bit end record where it should be")
    return record[7], record[8], record[9]


def _members(directory: bytes, before: int) -> Iterator[ArchiveMember]:
    position = 0
    while position + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, position)
        if fields[0] != b"PK\x01\x02":
            raise Malformed("zip directory is broken", why=f"no member at byte {position} of it")
        flags, method, packed, unpacked, offset = fields[3], fields[4], fields[8], fields[9], fields[16]
        named, extra, comment = fields[10:13]
        position += _ENTRY.size
        name = _decoded(directory[position : position + named], flags)
        wide = _wide(directory[position + named : position + named + extra])
        unpacked, packed, offset = (
            int.from_bytes(wide.pop(0), "little") if value == 0xFFFFFFFF and wide else value
            for value in (unpacked, packed, offset)
        )
        yield ArchiveMember(name, offset + before, packed, unpacked, method, flags)
        position += named + extra + comment


def _wide(extra: bytes) -> list[bytes]:
    """The 64-bit numbers of a member, in the order of those that it replaces."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if kind == 1:
            return [body[at : at + 8] for at in range(0, len(body) - 7, 8)]
        position += 4 + length
    return []


def _decoded(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & 0x800 else "cp437", "replace")


def _findings(members: Sequence[ArchiveMember], size: int, end: int) -> Iterator[str]:
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        yield "zip: a name is given twice"
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
            yield f"zip: a member would be written outside: {name[:80]!r}"
            break
    unpacked = sum(member.unpacked for member in members)
    if unpacked > MAX_RATIO * max(size, 1):
        yield f"zip: {size} bytes unpack to {unpacked}"
    position = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < position or member.offset + member.packed > end:
            yield f"zip: {member.name[:80]!r} shares bytes with another member, or has none"
            break
        position = member.offset + _LOCAL.size + member.packed
