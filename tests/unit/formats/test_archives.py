"""Directories of zip and tar archives: what is read, which archives are reported, which are refused."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

import pytest
from comity.formats.archives import (
    MAX_COMMENT,
    MAX_DIRECTORY,
    MAX_MEMBERS,
    MAX_PAX,
    MAX_RATIO,
    MAX_TAR_HEAD,
    ArchiveDirectory,
    has_zip_end_record,
    is_tar,
    member_head,
    read_directory,
    read_tar,
    stored_member,
    unpack_member,
)
from comity.formats.source import BoundedFile, Work
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass
class Entry:
    """A member as an attacker writes it: each field of the directory and of the local header may lie."""

    name: bytes
    data: bytes = b"data"
    method: int = 0
    flags: int = 0
    unpacked: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    offset: int | None = None
    extra: bytes = b""

    def local(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        method = self.method if self.local_method is None else self.local_method
        sizes = (0, len(self.data), len(self.data), len(name), 0)
        return struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, self.flags, method, 0, 0, *sizes) + name + self.data

    def central(self, at: int) -> bytes:
        unpacked = len(self.data) if self.unpacked is None else self.unpacked
        head = (b"PK\x01\x02", 20, 20, self.flags, self.method, 0, 0, 0, len(self.data), unpacked)
        offset = at if self.offset is None else self.offset
        rest = (len(self.name), len(self.extra), 0, 0, 0, 0, offset)
        return struct.pack("<4s6H3L5H2L", *head, *rest) + self.name + self.extra


def zip_of(
    *entries: Entry,
    before: bytes = b"",
    comment: bytes = b"",
    count: int | None = None,
    length: int | None = None,
    start: int | None = None,
    large: bool = False,
) -> bytes:
    """A zip archive; `large` states the count, length and offset in a 64-bit end record."""
    body, places = b"", list[int]()
    for entry in entries:
        places.append(len(body))
        body += entry.local()
    directory = b"".join(entry.central(at) for entry, at in zip(entries, places, strict=True))
    count = len(entries) if count is None else count
    length = len(directory) if length is None else length
    start = len(body) if start is None else start
    made = before + body + directory
    if large:
        made += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
        made += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(made) - 56, 1)
        count, length, start = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    return made + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, start, len(comment)) + comment


def source(data: bytes) -> BoundedFile:
    return BoundedFile.of(data, Work())


def read(data: bytes) -> ArchiveDirectory:
    return read_directory(source(data))


def findings(*entries: Entry) -> tuple[str, ...]:
    return read(zip_of(*entries)).findings


def packed(data: bytes) -> bytes:
    writer = zlib.compressobj(wbits=-15)
    return writer.compress(data) + writer.flush()


def test_members_are_as_zipfile_wrote_them() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/stored", b"s" * 10)
        archive.writestr("größe", b"d" * 1000, zipfile.ZIP_DEFLATED)
    directory = read(file.getvalue())
    infos = zipfile.ZipFile(file).infolist()
    assert [(m.name, m.offset, m.packed, m.unpacked, m.method) for m in directory.members] == [
        (i.filename, i.header_offset, i.compress_size, i.file_size, i.compress_type) for i in infos
    ]
    assert directory.findings == ()
    stored, deflated = directory.members
    part = stored_member(source(file.getvalue()), stored)
    assert part is not None and part.read_at(0, 100) == b"s" * 10
    assert stored_member(source(file.getvalue()), deflated) is None
    assert member_head(source(file.getvalue()), deflated, 7) == b"d" * 7
    assert unpack_member(source(file.getvalue()), deflated) == b"d" * 1000


def test_an_archive_without_members_has_no_findings() -> None:
    assert read(zip_of()) == ArchiveDirectory((), ())


def test_bytes_before_an_archive_move_its_members_and_are_a_finding() -> None:
    data = zip_of(Entry(b"a", b"1234"), before=b"#!/bin/sh\n")
    directory = read(data)
    assert directory.findings == ("zip: 10 other bytes precede it",)
    part = stored_member(source(data), directory.members[0])
    assert part is not None and part.read_at(0, 9) == b"1234"


def test_an_archive_that_ends_early_is_refused_at_each_length() -> None:
    data = zip_of(Entry(b"a"), Entry(b"b"))
    for length in range(len(data)):
        with pytest.raises(Malformed):
            read(data[:length])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_members_than_stated_is_refused(count: int) -> None:
    with pytest.raises(Malformed, match="directory is broken"):
        read(zip_of(Entry(b"a"), Entry(b"b"), count=count))


def test_a_directory_before_the_file_is_refused() -> None:
    with pytest.raises(Malformed, match="would begin"):
        read(zip_of(Entry(b"a"), start=10_000))


def test_bytes_that_are_no_member_are_refused() -> None:
    data = zip_of(Entry(b"a"), Entry(b"b"))
    with pytest.raises(Malformed, match="no member at byte 0"):
        read(data.replace(b"PK\x01\x02", b"PK\x01\x00", 1))


@pytest.mark.parametrize(("length", "count"), [(MAX_DIRECTORY + 1, 1), (10, MAX_MEMBERS + 1), (2**63, 1), (1, 2**63)])
def test_a_directory_beyond_the_limits_is_refused_before_it_is_read(length: int, count: int) -> None:
    with pytest.raises(Malformed, match="zip directory too large"):
        read(zip_of(Entry(b"a"), length=length, count=count, large=True))


def test_a_64_bit_end_record_is_read() -> None:
    assert [m.name for m in read(zip_of(Entry(b"a"), Entry(b"b"), large=True)).members] == ["a", "b"]
    broken = zip_of(Entry(b"a"), large=True).replace(b"PK\x06\x06", b"PK\0\0")
    with pytest.raises(Malformed, match="64-bit"):
        read(broken)


def test_64_bit_numbers_of_a_member_replace_the_fields_that_are_full() -> None:
    other = struct.pack("<2H", 0x5455, 5) + bytes(5)
    extra = other + struct.pack("<2HQ", 1, 8, 2**40)
    member = read(zip_of(Entry(b"a", unpacked=0xFFFFFFFF, extra=extra))).members[0]
    assert (member.unpacked, member.packed, member.offset) == (2**40, 4, 0)
    unstated = read(zip_of(Entry(b"a", unpacked=0xFFFFFFFF, extra=other))).members[0]
    assert unstated.unpacked == 0xFFFFFFFF


def test_the_flag_of_a_name_says_its_encoding() -> None:
    entries = (Entry(b"\x81.bin"), Entry("ü.txt".encode(), flags=0x800))
    assert [m.name for m in read(zip_of(*entries)).members] == ["ü.bin", "ü.txt"]


@pytest.mark.parametrize("name", [b"../a", b"/a", b"\\a", b"a/../../b", b"a\\..\\b", b"..", b"a\0.txt"])
def test_a_member_outside_the_folder_is_a_finding(name: bytes) -> None:
    assert findings(Entry(b"b"), Entry(name))[0].startswith("zip: a member would be written outside its folder")


@pytest.mark.parametrize("name", [b"a..b", b"...", b"a/b/c", b"./a"])
def test_a_member_inside_the_folder_is_none(name: bytes) -> None:
    assert findings(Entry(name)) == ()


def test_two_members_of_one_name_are_a_finding() -> None:
    assert findings(Entry(b"a"), Entry(b"a")) == ("zip: duplicate member name",)


def test_members_that_overlap_or_lie_outside_are_a_finding() -> None:
    overlapping = ("zip: 'b' overlaps another member, or is outside the archive",)
    assert findings(Entry(b"a"), Entry(b"b", offset=0)) == overlapping
    assert findings(Entry(b"a"), Entry(b"b", offset=20)) == overlapping
    assert findings(Entry(b"a"), Entry(b"b", offset=100_000)) == overlapping


def test_the_ratio_of_unpacked_to_packed_has_a_limit() -> None:
    size = len(zip_of(Entry(b"a", method=8)))
    assert findings(Entry(b"a", method=8, unpacked=size * MAX_RATIO)) == ()
    bomb = size * MAX_RATIO + 1
    assert findings(Entry(b"a", method=8, unpacked=bomb)) == (f"zip: {size} bytes unpack to {bomb}",)


def test_an_archive_that_two_readers_take_differently_is_a_finding() -> None:
    twice = "zip: it can be read from two places"
    inner = zip_of(Entry(b"x"), comment=b"note")
    assert read(zip_of(Entry(b"a"), comment=b"a note")).findings == ()
    assert twice in read(zip_of(Entry(b"a")) + b"more").findings
    assert twice in read(zip_of(Entry(b"a"), comment=inner)).findings


def test_a_zip_is_found_at_the_end_of_any_file() -> None:
    data = zip_of(Entry(b"a"))
    end = data[-22:]
    assert has_zip_end_record(source(data))
    assert has_zip_end_record(source(b"\x89PNG" + data))
    assert has_zip_end_record(source(data + end[:10]))  # the record at the end is cut: the one before it is taken
    assert has_zip_end_record(source(zip_of(Entry(b"a"), large=True)))
    assert not has_zip_end_record(source(end))  # no member
    assert not has_zip_end_record(source(data[:-1]))
    assert has_zip_end_record(source(data + bytes(MAX_COMMENT)))
    assert not has_zip_end_record(source(data + bytes(MAX_COMMENT + 1)))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry(b"a", flags=1), "encrypted"),
        (Entry(b"a", local_name=b"b"), "another name"),
        (Entry(b"a", local_method=8), "another compression"),
        (Entry(b"a", unpacked=5), "two lengths"),
    ],
)
def test_a_member_whose_headers_disagree_is_not_read(entry: Entry, why: str) -> None:
    data = zip_of(entry)
    with pytest.raises(Malformed, match=why):
        stored_member(source(data), read(data).members[0])


@pytest.mark.parametrize("stated", [99, 101])
def test_a_member_that_unpacks_to_another_length_is_refused(stated: int) -> None:
    data = zip_of(Entry(b"a", packed(b"x" * 100), method=8, unpacked=stated))
    with pytest.raises(Malformed, match="cannot be unpacked"):
        unpack_member(source(data), read(data).members[0])


@pytest.mark.parametrize(("method", "why"), [(8, "cannot be unpacked"), (12, "compression is not supported")])
def test_a_member_that_is_not_deflate_is_refused(method: int, why: str) -> None:
    data = zip_of(Entry(b"a", b"\xff" * 20, method=method))
    with pytest.raises(Malformed, match=why):
        member_head(source(data), read(data).members[0], 10)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_bytes_change_the_directory_is_read_or_refused(data: st.DataObject) -> None:
    made = bytearray(zip_of(Entry(b"a"), Entry(b"b", packed(b"x" * 50), method=8, unpacked=50), comment=b"note"))
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        for found in read(bytes(made)).members:
            if stored_member(source(bytes(made)), found) is None:
                unpack_member(source(bytes(made)), found)
    except Malformed:
        pass


def tar_of(*infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers=pax or {}) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return file.getvalue()


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def test_members_of_a_tar_are_parts_of_the_file() -> None:
    data = tar_of(member("a/b", 600), member("a", kind=tarfile.DIRTYPE), member("c", 3))
    directory = read_tar(source(data))
    assert [(m.name, m.packed) for m in directory.members] == [("a/b", 600), ("c", 3)]
    assert directory.findings == ()
    assert [data[m.offset : m.offset + m.packed] for m in directory.members] == [b"x" * 600, b"xxx"]


def test_a_tar_is_known_by_the_checksum_of_its_first_head() -> None:
    data = tar_of(member("a", 3))
    assert is_tar(source(data))
    assert not is_tar(source(b"b" + data[1:]))
    assert not is_tar(source(data[:511]))
    assert not is_tar(source(bytes(1024)))


@pytest.mark.parametrize(
    ("info", "finding"),
    [
        (member("../a"), "tar: a member would be written outside its folder: '../a'"),
        (member("/etc/passwd"), "tar: a member would be written outside its folder: '/etc/passwd'"),
        (member("a", kind=tarfile.SYMTYPE, target="b"), "tar: 'a' is no regular file"),
        (member("a", kind=tarfile.LNKTYPE, target="b"), "tar: 'a' is no regular file"),
        (member("a", kind=tarfile.CHRTYPE), "tar: 'a' is no regular file"),
        (member("a", kind=tarfile.SYMTYPE, target="../b"), "tar: a member would be written outside its folder: 'a'"),
    ],
)
def test_a_tar_member_that_is_no_file_in_the_folder_is_a_finding(info: tarfile.TarInfo, finding: str) -> None:
    assert finding in read_tar(source(tar_of(info))).findings


def test_a_chain_of_heads_that_are_about_the_next_one_is_refused() -> None:
    name = member("././@LongLink", 2, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(Malformed, match="tar cannot be read"):
        read_tar(source((name + b"a\0".ljust(512, b"\0")) * 3_000 + tar_of(member("a", 3))))


def test_a_tar_is_read_to_its_end() -> None:
    data = tar_of(member("a", 3), member("b", 3))
    more = ("tar: more follows after its end",)
    assert read_tar(source(data)).findings == read_tar(source(data[:2048])).findings == ()
    assert read_tar(source(data[:1024] + b"no head of a member")).findings == more
    assert read_tar(source(data[:1100])).findings == more  # within the head of b
    for within in (600, 1023, 1600):  # within a member
        with pytest.raises(Malformed):
            read_tar(source(data[:within]))


def test_a_tar_whose_heads_take_too_long_is_refused() -> None:
    with pytest.raises(Malformed, match="head is too long"):
        read_tar(source(tar_of(member("n" * (MAX_TAR_HEAD + 1)), form=tarfile.GNU_FORMAT)))
    records = {f"key{place}": "v" for place in range(MAX_PAX + 1)}
    with pytest.raises(Malformed, match="too many records for all members"):
        read_tar(source(tar_of(member("a"), pax=records)))
    records.popitem()
    assert len(read_tar(source(tar_of(member("a"), pax=records))).members) == 1


def test_steps_of_a_tar_grow_as_the_square_of_a_long_head() -> None:
    def steps(length: int) -> int:
        bounded = source(tar_of(member("n" * length), form=tarfile.GNU_FORMAT))
        before = bounded.work.steps
        read_tar(bounded)
        return before - bounded.work.steps

    assert steps(8_000) > 3.5 * steps(4_000) > 10 * steps(1_000)
