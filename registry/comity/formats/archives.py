"""Reads the directories of zip and tar archives, and unpacks members of zip archives.

A zip directory is read from the end of the file, as Python's zipfile does: other bytes may precede the archive.
Archives that would exhaust an unpacker, write outside its folder, or be read in two ways are reported as findings.
Sources: PKWARE's APPNOTE, 4.3, 4.4; Python's tarfile, which is asked for the heads of members.
"""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from comity.formats.source import BoundedFile, RangeFile, Work
from comity.formats.streams import unpack
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_COMMENT: Final = 65_535
MAX_DIRECTORY: Final = 8 * 1024 * 1024
MAX_MEMBERS: Final = 65_536
MAX_RATIO: Final = 1_000
"""Largest ratio of unpacked size to file size; models do not compress as well, zip bombs do."""

_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
STORED: Final = 0
_DEFLATED: Final = 8
_ENCRYPTED: Final = 1


@frozen
class ArchiveMember:
    """One entry of the directory. `offset` is the position of its local header in the file."""

    name: str
    offset: int
    packed: int
    unpacked: int
    method: int
    flags: int


@frozen
class ArchiveDirectory:
    members: tuple[ArchiveMember, ...]
    findings: tuple[str, ...]


def has_zip_end_record(source: BoundedFile) -> bool:
    """Whether a reader that searches from the end would find a zip directory with members. Raises OSError if the file
    does."""
    at = max(0, source.size - _END.size - MAX_COMMENT)
    tail = source.read_at(at, source.size - at)
    found = len(tail)
    while (found := tail.rfind(b"PK\x05\x06", 0, found)) >= 0:
        if len(tail) - found < _END.size:
            continue
        _, _, _, _, _, length, start, _ = _END.unpack_from(tail, found)
        places = (at + found - length, start)
        if source.read_at(max(0, at + found - _LOCATOR.size), 4) == b"PK\x06\x07":
            return True
        if any(0 <= place < source.size and source.read_at(place, 4) == b"PK\x01\x02" for place in places):
            return True
    return False


def read_directory(source: BoundedFile) -> ArchiveDirectory:
    """Read the directory. Raises Malformed if it is broken or exceeds the limits, OSError if the file does."""
    end, count, length, start, prefix_length, ambiguous = _end(source)
    if length > MAX_DIRECTORY or count > MAX_MEMBERS:
        raise Malformed("zip directory too large", why=f"{count} members, {length} bytes")
    if prefix_length < 0:
        raise Malformed("zip directory is broken", why=f"it would begin at byte {start}")
    members = tuple(_members(source.read_exactly(start + prefix_length, length), prefix_length))
    if len(members) != count:
        raise Malformed("zip directory is broken", why=f"{len(members)} members instead of {count}")
    first = min((member.offset for member in members), default=0)
    before = (f"zip: {first} other bytes precede it",) if first else ()
    twice = ("zip: it can be read from two places",) if ambiguous else ()
    return ArchiveDirectory(members, (*before, *twice, *_findings(members, source.size, end)))


def stored_member(source: BoundedFile, member: ArchiveMember) -> BoundedFile | None:
    """A member that is not compressed, as a part of the file; None if it is. Raises Malformed if it cannot be read."""
    return source.part(data_offset(source, member), member.packed) if member.method == STORED else None


def member_head(source: BoundedFile, member: ArchiveMember, length: int) -> bytes:
    """The first `length` bytes of a compressed member, unpacked. Raises Malformed if it cannot be read."""
    packed = source.read_at(data_offset(source, member), min(length, member.packed))
    try:
        return zlib.decompressobj(-15).decompress(packed, length)
    except zlib.error as error:
        raise Malformed(f"{member.name[:80]} cannot be unpacked", why=str(error)) from error


def unpack_member(source: BoundedFile, member: ArchiveMember) -> bytearray:
    """All bytes of a compressed member. Raises Malformed, NotInspected."""
    found = unpack("deflate", source.part(data_offset(source, member), member.packed))
    if found.error or len(found.data) != member.unpacked:
        raise Malformed(f"{member.name[:80]} cannot be unpacked", why=found.error or "it has another length")
    return found.data


def data_offset(source: BoundedFile, member: ArchiveMember) -> int:
    """Where the packed bytes of a member begin. Raises Malformed if it cannot be read."""
    if member.flags & _ENCRYPTED or member.method not in (STORED, _DEFLATED):
        raise Malformed(f"{member.name[:80]} is encrypted, or its compression is not supported")
    local = _LOCAL.unpack(source.read_exactly(member.offset, _LOCAL.size))
    name = source.read_exactly(member.offset + _LOCAL.size, local[9])
    if local[0] != b"PK\x03\x04" or _decode_name(name, local[2]) != member.name:
        raise Malformed(f"{member.name[:80]} has another name in its local header")
    if local[3] != member.method:
        raise Malformed(f"{member.name[:80]} has another compression in its local header")
    if member.method == STORED and member.packed != member.unpacked:
        raise Malformed(f"{member.name[:80]} has two lengths")
    return member.offset + _LOCAL.size + int(local[9]) + int(local[10])


def _end(source: BoundedFile) -> tuple[int, int, int, int, int, bool]:
    """(offset of the end record, members, directory length, directory offset as stated, bytes before the archive,
    whether another reader may take another record)."""
    at = max(0, source.size - _END.size - MAX_COMMENT)
    tail = source.read_at(at, source.size - at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise Malformed("zip directory is missing")
    end_offset = at + found
    _, _, _, _, count, length, start, comment = _END.unpack_from(tail, found)
    exact = end_offset + _END.size + comment == source.size
    ambiguous = not exact or (comment > 0 and tail.count(b"PK\x05\x06") > 1)
    zip64 = _zip64_end(source, end_offset)
    if zip64 is not None:
        count, length, start = zip64
        return end_offset, count, length, start, end_offset - _LOCATOR.size - _END_64.size - length - start, ambiguous
    return end_offset, count, length, start, end_offset - length - start, ambiguous


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


def is_outside(name: str) -> bool:
    """Whether an unpacker that believes the name would write outside its folder."""
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name


def _findings(members: Sequence[ArchiveMember], size: int, end: int) -> Iterator[str]:
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        yield "zip: duplicate member name"
    for name in names:
        if is_outside(name):
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


TAR_BLOCK: Final = 512
MAX_TAR_MEMBERS: Final = 65_536


def is_tar(source: BoundedFile) -> bool:
    """Whether the file begins with the head of a tar member: its checksum says so, older ones have no magic bytes."""
    head = source.read_at(0, TAR_BLOCK)
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def read_tar(source: BoundedFile) -> ArchiveDirectory:
    """The members of a tar archive that is not compressed, with their data as parts of the file. Raises Malformed."""
    members, findings = list[ArchiveMember](), dict[str, None]()
    try:
        with tarfile.open(fileobj=RangeFile(_TarHeads(source).read, source.size), mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                if len(archive.pax_headers) > MAX_PAX:
                    raise Malformed("tar: too many records for all members", why=f"more than {MAX_PAX}")
                name = info.name[:MAX_TAR_NAME].encode("utf-8", "replace").decode()
                if len(members) >= MAX_TAR_MEMBERS:
                    raise Malformed("tar too large", why=f"more than {MAX_TAR_MEMBERS} members")
                if is_outside(name) or is_outside(info.linkname):
                    findings[f"tar: a member would be written outside its folder: {name[:80]!r}"] = None
                if info.isreg() and not info.sparse:
                    members.append(ArchiveMember(name, info.offset_data, info.size, info.size, STORED, 0))
                elif not info.isdir():
                    findings[f"tar: {name[:80]!r} is no regular file"] = None
            end = archive.offset
    except TAR_ERRORS as error:
        raise Malformed("tar cannot be read", why=str(error)[:80]) from error
    rest = source.read_at(min(end, source.size), TAR_BLOCK)
    if rest.strip(b"\0"):
        findings["tar: more follows after its end"] = None
    return ArchiveDirectory(tuple(members), tuple(findings))


TAR_ERRORS: Final = (tarfile.TarError, ValueError, OverflowError, EOFError, struct.error, RecursionError)
"""What tarfile raises for broken archives: of heads that are each about the next one, it reads one within another."""
MAX_TAR_NAME: Final = 4096
MAX_TAR_HEAD: Final = 16 * 1024
"""Bytes of a long name, or of the records before a member."""
STEPS_OF_HEAD: Final = 32
MAX_PAX: Final = 64
"""Records that hold for all members: tarfile applies each one to each member."""


@frozen
class _TarHeads:
    """What tarfile reads of an archive. It searches a head in the square of its length, so steps grow as that."""

    source: BoundedFile

    def read(self, offset: int, length: int) -> bytes:
        """Raises Malformed, NotInspected."""
        count_head(self.source.work, length)
        return self.source.read_at(offset, length)


def count_head(work: Work, length: int) -> None:
    """Count what reading a head of a tar archive costs. Raises Malformed, NotInspected."""
    if length > MAX_TAR_HEAD:
        raise Malformed("tar: a head is too long", why=f"{length} bytes")
    work.step(STEPS_OF_HEAD if length <= TAR_BLOCK else length * length // 1_024)
