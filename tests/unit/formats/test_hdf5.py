"""HDF5: which objects and attributes are read, of old and new headers; which are refused, or not followed."""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Iterator, Sequence

import pytest
from comity.formats import hdf5
from comity.formats.hdf5 import MAX_ATTRIBUTE, MAX_STRINGS, NONE, Hdf5Findings, Hdf5Reader, superblock_offset
from comity.formats.source import BoundedFile, NotInspected, Work
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hdf5_files import hdf5_with_attributes

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FIRST = 48
"""Where the first object of a file of `new` is."""
Message = tuple[int, bytes]


def new(*objects: bytes, root: int = FIRST, version: int = 2) -> bytes:
    """A file with superblock 2 or 3, and these bytes after it."""
    head = SIGNATURE + bytes([version, 8, 8, 0]) + struct.pack("<4Q", 0, NONE, 0, root) + bytes(4)
    return head + b"".join(objects)


def old_header(*messages: Message, flags: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHB", kind, len(data), flags) + bytes(3) + data for kind, data in messages)
    return struct.pack("<BBHII", 1, 0, len(messages), 1, len(body)) + bytes(4) + body


def new_header(*messages: Message, flags: int = 0, message_flags: int = 0) -> bytes:
    order = bytes(2) if flags & 4 else b""
    body = b"".join(struct.pack("<BHB", kind, len(data), message_flags) + order + data for kind, data in messages)
    width = 1 << (flags & 3)
    more = bytes((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
    return b"OHDR" + bytes([2, flags]) + more + len(body).to_bytes(width, "little") + body + bytes(4)


def attribute(value: bytes, *, kind: int = 3, name: bytes = b"a", version: int = 3, space: bytes = b"") -> Message:
    label, datatype, space = name + b"\0", bytes([0x10 | kind]) + bytes(7), space or bytes([2, 0, 0, 0])
    parts = (label, datatype, space)
    head = struct.pack("<BBHHH", version, 0, *(len(part) for part in parts)) + (b"\0" if version == 3 else b"")
    return 0x0C, head + b"".join(part + bytes(-len(part) % 8 if version == 1 else 0) for part in parts) + value


def read(data: bytes, texts: list[tuple[bytes, str]] | None = None) -> Hdf5Findings:
    def read_text(text: bytes, name: str) -> Iterator[str]:
        if texts is not None:
            texts.append((text, name))
        yield f"text: {name}"

    return Hdf5Reader(BoundedFile.of(data, Work()), read_text).read()


def names(data: bytes) -> list[str]:
    """The attributes with texts that were found."""
    return [found.removeprefix("text: ") for found in read(data).active]


JSON = b'{"class_name": "Lambda"}'
PICKLE = pickle.dumps({"a": [1, 2]}, 2)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("header", [old_header, new_header])
def test_an_attribute_of_each_version_is_read(version: int, header: object) -> None:
    assert callable(header)
    texts: list[tuple[bytes, str]] = []
    message = attribute(JSON + bytes(3), version=version, name="größe".encode())
    assert list(read(new(header(message)), texts).active) == ["text: größe"]
    assert texts == [(JSON, "größe")]


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 0x10, 0x20, 0x37])
def test_a_header_is_read_whatever_it_stores_before_its_messages(flags: int) -> None:
    assert names(new(new_header(attribute(JSON, name=b"x"), attribute(JSON, name=b"y"), flags=flags))) == ["x", "y"]


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_of_new_superblocks_is_read(version: int) -> None:
    assert names(new(new_header(attribute(JSON)), version=version)) == ["a"]


def test_a_file_of_old_superblocks_is_read() -> None:
    assert names(hdf5_with_attributes({"model_config": JSON.decode().encode()})) == ["model_config"]
    data = bytearray(hdf5_with_attributes({"a": JSON}))
    data[8] = 1  # has 4 more bytes before the addresses
    shifted = bytes(data[:24]) + bytes(4) + bytes(data[24:92]) + bytes(data[96:])
    assert names(shifted) == ["a"]


@pytest.mark.parametrize("version", [4, 255])
def test_an_unknown_superblock_is_refused(version: int) -> None:
    with pytest.raises(Malformed, match="unknown version"):
        read(new(new_header(), version=version))


def test_addresses_of_other_widths_and_bases_are_not_followed() -> None:
    data = bytearray(new(new_header()))
    data[9] = 4
    with pytest.raises(NotInspected, match="not 8 bytes"):
        read(bytes(data))
    data = bytearray(new(new_header()))
    data[12] = 8
    with pytest.raises(NotInspected, match="count from elsewhere"):
        read(bytes(data))


@pytest.mark.parametrize(("before", "at"), [(0, 0), (512, 512), (1024, 1024), (4096, 4096), (511, None), (1536, None)])
def test_the_superblock_is_found_where_the_library_looks(before: int, at: int | None) -> None:
    assert superblock_offset(BoundedFile.of(bytes(before) + SIGNATURE, Work())) == at
    assert superblock_offset(BoundedFile.of(bytes(before) + SIGNATURE[:-1], Work())) is None


@pytest.mark.parametrize("kind", [3, 5, 6, 10])
def test_values_of_bytes_are_searched_for_pickles(kind: int) -> None:
    data = new(new_header(attribute(PICKLE, kind=kind, name=b"pickled")))
    assert list(read(data).active) == ["pickle: the attribute pickled"]


def test_numbers_are_not_searched() -> None:
    assert read(new(new_header(attribute(PICKLE, kind=0), attribute(JSON, kind=1)))) == Hdf5Findings()


def test_the_attribute_that_pytables_unpickles_is_named() -> None:
    assert list(read(new(new_header(attribute(b"object", name=b"PSEUDOATOM")))).active) == [
        "pickle: the attribute PSEUDOATOM"
    ]
    assert not read(new(new_header(attribute(b"object", name=b"OTHER")))).active
    assert not read(new(new_header(attribute(b"vlstring", name=b"PSEUDOATOM")))).active


def link(address: int, *, kind: int | None = None, flags: int = 0, name: bytes = b"group") -> Message:
    flags |= 8 if kind is not None else 0
    data = bytes([1, flags]) + (bytes([kind]) if kind is not None else b"")
    data += bytes((8 if flags & 4 else 0) + (1 if flags & 0x10 else 0))
    return 0x06, data + len(name).to_bytes(1 << (flags & 3), "little") + name + struct.pack("<Q", address)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 0x10, 0x17])
@pytest.mark.parametrize("kind", [None, 0])
def test_objects_that_links_name_are_read(flags: int, kind: int | None) -> None:
    root = new_header(link(0, kind=kind, flags=flags))
    root = new_header(link(FIRST + len(root), kind=kind, flags=flags))
    assert names(new(root, new_header(attribute(JSON, name=b"inner")))) == ["inner"]


def test_links_within_the_file_are_not_followed_and_those_to_others_are_a_finding() -> None:
    assert read(new(new_header(link(10_000, kind=1)))) == Hdf5Findings()
    assert list(read(new(new_header(link(10_000, kind=64)))).malformed) == ["hdf5: a link to another file"]
    assert list(read(new(new_header((0x07, b"")))).malformed) == ["hdf5: data in other files"]


def test_an_object_that_links_name_twice_or_that_names_itself_is_read_once() -> None:
    texts: list[tuple[bytes, str]] = []
    read(new(new_header(link(FIRST), link(FIRST), link(NONE), attribute(JSON))), texts)
    assert len(texts) == 1


def test_a_header_continues_elsewhere() -> None:
    body = old_header(attribute(JSON, name=b"later"))[16:]
    root = old_header((0x10, struct.pack("<QQ", FIRST + 16 + 8 + 16, len(body))))
    assert names(new(root, body)) == ["later"]
    chunk = b"OCHK" + new_header(attribute(JSON, name=b"later"))[7:]
    first = new_header((0x10, bytes(16)))
    first = new_header((0x10, struct.pack("<QQ", FIRST + len(first), len(chunk))))
    assert names(new(first, chunk)) == ["later"]


def test_a_header_that_continues_in_itself_is_refused() -> None:
    with pytest.raises(Malformed, match="contains itself"):
        read(new(old_header((0x10, struct.pack("<QQ", FIRST + 16, 24)))))


HEAP = FIRST
TREE = HEAP + 32
LEAF = TREE + 64


def old_group(*addresses: int, links: Sequence[int] = ()) -> bytes:
    """The heap, tree and leaf of an old group; `links` are the places of symbolic links."""
    heap = b"HEAP" + bytes(4) + struct.pack("<3Q", 8, NONE, 0)
    tree = (b"TREE" + struct.pack("<BBH2Q3Q", 0, 0, 1, NONE, NONE, 0, LEAF, 0)).ljust(64, b"\0")
    entries = b"".join(
        struct.pack("<QQIIQQ", 0, address, 2 if place in links else 0, 0, 0, 0)
        for place, address in enumerate(addresses)
    )
    return heap + tree + b"SNOD" + struct.pack("<BBH", 1, 0, len(addresses)) + entries


def test_objects_of_an_old_group_are_read_but_not_its_symbolic_links() -> None:
    end = FIRST + len(old_group(0, 0))
    inner = new_header(attribute(JSON, name=b"inner"))
    symbols = (0x11, struct.pack("<QQ", TREE, HEAP))
    data = new(old_group(end, 99_999, links=(1,)), inner, new_header(symbols), root=end + len(inner))
    assert names(data) == ["inner"]
    with pytest.raises(Malformed):
        read(new(old_group(end, 99_999), inner, new_header(symbols), root=end + len(inner)))


def test_a_group_that_contains_itself_or_has_no_tree_is_refused() -> None:
    group = bytearray(old_group(0))
    struct.pack_into("<Q", group, TREE - FIRST + 32, TREE)
    root = new_header((0x11, struct.pack("<QQ", TREE, HEAP)))
    with pytest.raises(Malformed, match="contains itself"):
        read(new(bytes(group), root, root=FIRST + len(group)))
    group[TREE - FIRST] = 0
    with pytest.raises(Malformed, match="has no tree"):
        read(new(bytes(group), root, root=FIRST + len(group)))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ((0x02, bytes([0, 0]) + struct.pack("<Q", 100)), "groups in a fractal heap"),
        ((0x02, bytes([0, 1]) + bytes(8) + struct.pack("<Q", 100)), "groups in a fractal heap"),
        ((0x15, bytes([0, 0]) + struct.pack("<Q", 100)), "attributes in a fractal heap"),
        ((0x15, bytes([0, 1]) + bytes(2) + struct.pack("<Q", 100)), "attributes in a fractal heap"),
    ],
)
def test_what_is_kept_in_fractal_heaps_is_not_inspected(message: Message, why: str) -> None:
    with pytest.raises(NotInspected, match=why):
        read(new(new_header(message)))
    kind, data = message
    assert read(new(new_header((kind, data[:-8] + struct.pack("<Q", NONE))))) == Hdf5Findings()


def test_shared_attributes_and_types_are_not_inspected() -> None:
    with pytest.raises(NotInspected, match="attributes that are shared"):
        read(new(new_header(attribute(JSON), message_flags=2)))
    kind, data = attribute(JSON)
    with pytest.raises(NotInspected, match="whose type is shared"):
        read(new(new_header((kind, data[:1] + b"\1" + data[2:]))))


@pytest.mark.parametrize("data", [b"", b"\3", b"\4" + bytes(9), b"\3" + bytes(20), b"\3\0\2\0\xff\xff\xff\xff"])
def test_a_broken_attribute_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(new(new_header((0x0C, data))))


def heap(*objects: tuple[int, bytes], size: int | None = None) -> bytes:
    body = b"".join(
        struct.pack("<HHIQ", index, 1, 0, len(data)) + data + bytes(-len(data) % 8) for index, data in objects
    )
    return b"GCOL" + bytes(4) + struct.pack("<Q", 16 + len(body) if size is None else size) + body


def strings(*places: tuple[int, int], count: int | None = None, version: int = 2) -> Message:
    value = b"".join(struct.pack("<IQI", 9, address, index) for address, index in places)
    count = len(places) if count is None else count
    space = bytes([version, 1, 0, 1]) + bytes(4 if version == 1 else 0) + struct.pack("<Q", count)
    return attribute(value, kind=9, name=b"texts", space=space)


def with_heap(stored: bytes, *places: tuple[int, int], version: int = 2) -> bytes:
    """A file whose root has strings in `stored`: places are (0 for the heap itself, or an address; index)."""
    return new(
        stored,
        new_header(strings(*((at or FIRST, index) for at, index in places), version=version)),
        root=FIRST + len(stored),
    )


@pytest.mark.parametrize("version", [1, 2])
def test_strings_in_a_heap_are_read(version: int) -> None:
    texts: list[tuple[bytes, str]] = []
    stored = heap((1, b"[1]"), (2, PICKLE), (3, JSON))
    found = read(with_heap(stored, (0, 3), (0, 2), (NONE, 1), version=version), texts)
    assert texts == [(JSON, "texts")]
    assert list(found.active) == ["text: texts", "pickle: the attribute texts"]


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (heap((1, JSON)), "missing from its heap"),
        (heap((2, JSON), size=16), "missing from its heap"),
        (b"XXXX" + heap((2, JSON))[4:], "not in a heap"),
        (heap((2, JSON))[:40], "OHDR|truncated|missing"),
    ],
)
def test_a_string_that_is_not_where_it_should_be_is_refused(stored: bytes, why: str) -> None:
    if len(stored) == 40:
        stored = bytes(stored[:24]) + struct.pack("<Q", 10_000) + stored[32:]
    with pytest.raises(Malformed, match=why):
        read(with_heap(stored, (0, 2)))


def test_a_string_beyond_the_limit_is_not_inspected() -> None:
    stored = heap((2, JSON))
    huge = stored[:24] + struct.pack("<Q", MAX_ATTRIBUTE + 1) + stored[32:]
    with pytest.raises(NotInspected, match=f"an HDF5 attribute of {MAX_ATTRIBUTE + 1} bytes"):
        read(with_heap(huge, (0, 2)))


def test_strings_and_elements_have_bounds() -> None:
    with pytest.raises(NotInspected, match=f"more than {MAX_STRINGS} strings"):
        read(new(new_header(strings((NONE, 0), count=MAX_STRINGS + 1))))
    with pytest.raises(Malformed, match="ends early"):
        read(new(new_header(strings((NONE, 0), count=2))))
    none = attribute(b"", kind=9, space=bytes([2, 1, 0, 2]) + struct.pack("<Q", MAX_STRINGS + 1))
    assert read(new(new_header(none))) == Hdf5Findings()


def test_objects_and_messages_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = new_header()
    root = new_header(*(link(FIRST + 200 + place * len(empty)) for place in range(3)))
    data = new(root.ljust(200, b"\0"), *(empty,) * 3)
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 4)
    assert read(data) == Hdf5Findings()
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 3)
    with pytest.raises(NotInspected, match="more than 3 objects"):
        read(data)
    monkeypatch.setattr(hdf5, "MAX_MESSAGES", 2)
    with pytest.raises(NotInspected, match="more than 2 messages"):
        read(data)


def test_a_message_longer_than_its_header_is_refused() -> None:
    data = bytearray(new(new_header((0x0A, b"1234"))))
    data[FIRST + 8] = 5
    with pytest.raises(Malformed, match="exceeds its header"):
        read(bytes(data))


@pytest.mark.parametrize("root", [FIRST + 1, 10**6, 2**63])
def test_an_object_without_a_header_is_refused(root: int) -> None:
    with pytest.raises(Malformed):
        read(new(new_header(), root=root))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_bytes_change_a_file_is_read_or_refused(data: st.DataObject) -> None:
    stored = heap((1, JSON))
    made = bytearray(with_heap(stored, (0, 1)) + hdf5_with_attributes({"a": JSON})[96:])
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(8, 200))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        read(bytes(made))
