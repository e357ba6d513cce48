"""Files that are costly to inspect: each one asks for as much computing, or memory, as its format lets it.

They are made here from bytes, in some seconds at most. What each one costs: `tests/fuzz/costs.py`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from support import made_tables as tables
from support import weights

MIB: Final = 1024 * 1024
Files = Mapping[str, tuple[str, Callable[[], bytes]]]
"""By what makes it costly, the name of the file and its maker."""


def costly_files() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """What makes a file costly, its name, and its maker."""
    for family in (_zips, _tars, _streams, _documents, _yaml, _templates, _messages, _tensors, _others):
        for what, (path, make) in family().items():
            yield f"{family.__name__[1:]}: {what}", path, make


def zip_of(member: bytes, count: int, name: Callable[[int], str] = str) -> bytes:
    """An archive of `count` members that are packed once, and all share these bytes."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(member) + packer.flush()
    sizes = struct.pack("<3L", zlib.crc32(member), len(packed), len(member))
    body, entries = bytearray(), bytearray()
    for number in range(count):
        named = name(number).encode()
        entries += b"PK\x01\x02" + struct.pack("<6H", 20, 20, 0, 8, 0, 0) + sizes
        entries += struct.pack("<5H2L", len(named), 0, 0, 0, 0, 0, len(body)) + named
        body += b"PK\x03\x04" + struct.pack("<5H", 20, 0, 8, 0, 0) + sizes + struct.pack("<2H", len(named), 0)
        body += named + packed
    few = min(count, 0xFFFF)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, few, few, len(entries), len(body), 0)
    return bytes(body + entries + end)


def shared_zip(member: bytes, count: int) -> bytes:
    """An archive whose directory names the same stored member many times."""
    local = struct.pack("<5H3L2H", 20, 0, 0, 0, 0, 0, len(member), len(member), 1, 0) + b"a"
    entry = struct.pack("<6H3L5H2L", 20, 20, 0, 0, 0, 0, 0, len(member), len(member), 1, 0, 0, 0, 0, 0, 0) + b"a"
    body = b"PK\x03\x04" + local + member
    directory = (b"PK\x01\x02" + entry) * count
    return body + directory + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(body), 0)


def _zips() -> Files:
    opcodes = b"N0" * 9_900 + b"\xff"
    ends = b"PK\x05\x06" * 4_000
    deep = zip_of(opcodes, 16)
    return {
        "opcodes in many members": ("a.zip", lambda: zip_of(opcodes, 3_300)),
        "one member of opcodes, many times": ("a.zip", lambda: shared_zip(opcodes, 60_000)),
        "archives in archives": ("a.zip", lambda: zip_of(zip_of(zip_of(deep, 16), 16), 16)),
        "an archive many times": ("a.zip", lambda: shared_zip(zip_of(b"", 4_000), 60_000)),
        "ends of archives": ("a.zip", lambda: zip_of(ends, 4_000)),
        "65,535 members": ("a.zip", lambda: zip_of(b"", 65_535)),
        "100,000 members": ("a.zip", lambda: zip_of(b"", 100_000)),
        "names of many folders": ("a.zip", lambda: zip_of(b"", 120, lambda n: "a/" * 32_700)),
        "directories in members": ("a.zip", lambda: zip_of(zip_of(b"", 60_000), 9)),
        "64 MiB of zeros": ("a.zip", lambda: zip_of(bytes(64 * MIB), 1)),
    }


def _tar(heads: int) -> bytes:
    info = tarfile.TarInfo("a")
    return info.tobuf(tarfile.USTAR_FORMAT) * heads + bytes(1024)


def _pax(kind: bytes, records: bytes, members: int) -> bytes:
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, len(records)
    head = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0")
    return head * (members if kind == b"x" else 1) + _tar(members)


def _record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _tars() -> Files:
    many = b"".join(_record(f"k{n}", "v") for n in range(1_400))
    return {
        "65,000 heads": ("a.tar", lambda: _tar(65_000)),
        "heads in a member": ("a.tar", lambda: _nested_tar(240_000)),
        "records for all members": ("a.tar", lambda: _pax(b"g", many, 60_000)),
        "digits before a member": ("a.tar", lambda: _pax(b"x", b"1" * 15_000, 300)),
        "a long head": ("a.tar", lambda: _pax(b"x", b"1" * 100 * MIB, 1)),
        "records before each member": ("a.tar", lambda: _pax(b"x", many[:15_000], 1_000)),
        "digits of 8 kB before each member": ("a.tar", lambda: _pax(b"x", b"1" * 8_000, 9_000)),
    }


def _nested_tar(heads: int) -> bytes:
    inside = _tar(heads)
    info = tarfile.TarInfo("a.tar")
    info.size = len(inside)
    return info.tobuf(tarfile.USTAR_FORMAT) + inside + bytes(1024)


def _empty_dynamic_block() -> str:
    """The bits of a deflate block without bytes, whose table is as large as it can be: 226 codes of 8 bits, 60 of 9."""
    order = (16, 17, 18, 0, 8, 7, 9)
    codes = {0: "00", 8: "01", 9: "10", 16: "11"}
    bits = "0" + "01" + _bits(286 - 257, 5) + _bits(0, 5) + _bits(len(order) - 4, 4)
    bits += "".join(_bits(2 if symbol in codes else 0, 3) for symbol in order)
    for length, repeats in ((8, [6] * 37 + [3]), (9, [6] * 9 + [5])):
        bits += codes[length] + "".join(codes[16] + _bits(times - 3, 2) for times in repeats)
    return bits + codes[0] + f"{226 * 2 + 256 - 226:09b}"


def _bits(value: int, width: int) -> str:
    return f"{value:0{width}b}"[::-1]


def _streams() -> Files:
    return {
        "64 MiB of zeros": ("a.gz", lambda: gzip.compress(bytes(64 * MIB))),
        "gzip in gzip": ("a.gz", lambda: gzip.compress(gzip.compress(gzip.compress(bytes(60 * MIB))))),
        "empty members": ("a.gz", lambda: gzip.compress(b"") * 3_000_000),
        "empty members in an archive": ("a.zip", lambda: zip_of(gzip.compress(b"") * 800, 4_000)),
        "empty bzip2 streams in an archive": ("a.zip", lambda: zip_of(bz2.compress(b"") * 1_100, 4_000)),
        "empty xz streams in an archive": ("a.zip", lambda: zip_of(lzma.compress(b"") * 500, 4_000)),
        "bzip2 of 64 MiB": ("a.bz2", lambda: bz2.compress(b"ab" * 32 * MIB)),
        "bzip2 of noise": ("a.bz2", lambda: bz2.compress(_noise(40 * MIB))),
        "a dictionary of 90 MiB": ("a.xz", lambda: _xz(85 * MIB)),
        "a dictionary of 1 GiB": ("a.xz", lambda: _large_dictionary()),
        "legacy lzma of 64 MiB": ("a.lzma", lambda: lzma.compress(bytes(64 * MIB), format=lzma.FORMAT_ALONE)),
        "legacy lzma with a dictionary of 4 GiB": ("a.lzma", lambda: _huge_lzma()),
        "empty blocks": ("a.z", lambda: b"\x78\x9c" + b"\0\0\0\xff\xff" * 13_000_000),
        "empty blocks with tables": ("a.gz", lambda: _blocks_with_tables(100 * MIB)),
        "stored blocks of one byte": ("a.z", lambda: b"\x78\x9c" + b"\0\x01\0\xfe\xffN" * 10_000_000),
    }


def _noise(length: int) -> bytes:
    import random

    return random.Random(1).randbytes(length)


def _xz(dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}]
    return lzma.compress(_noise(MIB) * 60, format=lzma.FORMAT_XZ, filters=filters)


def _large_dictionary() -> bytes:
    packed = bytearray(lzma.compress(bytes(1000), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]))
    at = packed.index(b"\x21\x01", 12) + 2
    packed[at] = 36  # 1 GiB
    length = 4 * (packed[12] + 1)
    packed[12 + length - 4 : 12 + length] = struct.pack("<L", zlib.crc32(packed[12 : 12 + length - 4]))
    return bytes(packed)


def _huge_lzma() -> bytes:
    packed = lzma.compress(bytes(60 * MIB), format=lzma.FORMAT_ALONE)
    return packed[:1] + b"\xff\xff\xff\xff" + packed[5:]


def _blocks_with_tables(length: int) -> bytes:
    bits = _empty_dynamic_block() * 8
    block = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    return b"\x1f\x8b\x08" + bytes(7) + block * (length // len(block))


def _documents() -> Files:
    return {
        "a string without an end": ("a.json", lambda: b'{"a": "' + b'\\"' * 30 * MIB),
        "quotes": ("a.json", lambda: b'{"a": ' + b'"' * 60 * MIB),
        "keys and blanks": ("a.json", lambda: b'{"a": ' + b'"" ' * 20 * MIB),
        "levels": ("config.json", lambda: b'{"a":' * 800_000),
        "lists": ("config.json", lambda: b'{"a": ' + b"[" * 4_000_000),
        "200,000 keys": ("config.json", lambda: json.dumps({str(n): n for n in range(190_000)}).encode()),
        "objects in many members": ("a.zip", lambda: zip_of(b'{"a":[' + b"{}," * 5_000 + b"{}]}", 4_000)),
        "a long number": ("config.json", lambda: b'{"a": 0.' + b"1" * 4_000_000 + b"}"),
        "a long integer": ("config.json", lambda: b'{"a": ' + b"1" * 4_000_000 + b"}"),
        "text of 32 MiB": ("a.txt", lambda: "é".encode() * 16 * MIB),
        "UTF-16 of 32 MiB": ("a.txt", lambda: b"\xff\xfe" + "é".encode("utf-16-le") * 15 * MIB),
        "escaped keys": ("a.json", lambda: b'{"a": 1, ' + b'"\\u0061":1,' * 5 * MIB + b'"b":1}'),
        "a mark far behind": ("tokenizer.json", lambda: b'{"a": "!",' + '"é😀":1,'.encode() * 5 * MIB + b'"b":1}'),
    }


def _yaml() -> Files:
    parts = {
        "anchors": b"&" * 15 * MIB,
        "anchors of words": b"&a" * 7 * MIB,
        "anchors in a list": b",&" * 7 * MIB,
        "a tag without an end": b"!" + b"a" * 15 * MIB,
        "tags": b"!!str " * 2 * MIB,
        "tags of one letter": b"!a-" * 5 * MIB,
        "dashes": b"- " * 7 * MIB,
        "blanks": b"a:" + b" " * 15 * MIB,
        "a long tag": b"!<" * 7 * MIB,
        "escapes": b'"\\x5f' * 3 * MIB,
        "keys": b"_target_: torch.nn.a\n" * 700_000,
        "signs of a language": "- é😀 !".encode() * MIB,
    }
    return {what: ("a.yaml", lambda data=data: b"a: 1\n" + data) for what, data in parts.items()}  # type: ignore[misc]


TEMPLATES: Final = {
    "beginnings": "{{" * 130_000,
    "quotes": "{{" + "\\'" * 130_000,
    "a string without an end": "{{ '" + "\\'" * 120_000,
    "a loop and blanks": "{% for" + " " * 250_000,
    "loops": "{% " + "for a " * 40_000,
    "filters": "{{" + "|map(" * 50_000,
    "underscores": '{{ "' + "_" * 250_000,
    "words": '{{ "' + "a_" * 120_000,
    "quotes and blanks": "{{" + '" ' * 120_000,
    "attributes": "{{" + "a.b" * 80_000,
    "brackets": "{{" + "[ '" * 80_000,
    "names": "{{" + "self " * 50_000,
    "escapes": "{{" + "\\x5f" * 60_000,
    "line breaks": "{{ a" + "\n \t" * 80_000,
}


def _templates() -> Files:
    made: dict[str, tuple[str, Callable[[], bytes]]] = {
        what: ("chat_template.jinja", lambda text=text: text.encode())  # type: ignore[misc]
        for what, text in TEMPLATES.items()
    }
    few = {f"tokenizer.chat_template.{n}": "{{" + "a.b" * 40_000 for n in range(250)}
    many = {f"tokenizer.chat_template.{n}": "{{ a.b }}" for n in range(60_000)}
    return made | {
        "large ones in a model": ("a.gguf", lambda: weights.gguf({}, texts=few)),
        "many in a model": ("a.gguf", lambda: weights.gguf({}, texts=many)),
        "many in a document": ("a.json", lambda: b"{" + b'"chat_template":"{{a.b}}",' * 2_000_000 + b'"a":1}'),
        "many in many members": (
            "a.zip",
            lambda: zip_of(b"[" + b'{"chat_template":"{{a.b}}"},' * 500 + b"1]", 4_000, lambda n: f"{n}.json"),
        ),
    }


def _messages() -> Files:
    onnx = b"\x08\x01" * 200_000 + b"\x3a\x00"
    node = b"\x0a\x04\x22\x02ab"
    graph = node * 900_000
    deep = b""
    for field in (6, 5, 1) * 2_000:  # a graph in an attribute of a node of a graph
        deep = _varint(field << 3 | 2) + _varint(len(deep)) + deep
    return {
        "fields of a model": ("a.onnx", lambda: b"\x08\x01" * 30 * MIB + b"\x3a\x00"),
        "fields in many members": ("a.zip", lambda: zip_of(onnx, 160, lambda n: f"{n}.onnx")),
        "nodes": ("a.onnx", lambda: b"\x08\x01\x3a" + _varint(len(graph)) + graph),
        "levels": ("a.onnx", lambda: b"\x08\x01\x3a" + _varint(len(deep)) + deep),
        "a graph": ("a.pb", lambda: b"\x0a\x00" * 30 * MIB),
        "pieces": ("a.model", lambda: b"\x0a\x03\x0a\x01a" * 6 * MIB),
        "fields after pieces": ("a.model", lambda: b"\x0a\x03\x0a\x01a" * 9 + b"\x12\x00" * 15 * MIB),
        "MessagePack items": ("a.msgpack", lambda: b"\xdf\x00\x1f\xff\xff" + b"\xa1a\x01" * 0x1FFFFF),
        "MessagePack in members": (
            "a.zip",
            lambda: zip_of(b"\xde\x1f\xff" + b"\xa1a\x01" * 0x1FFF, 2_600, lambda n: f"{n}.msgpack"),
        ),
        "records": ("a.tfevents", lambda: _records(190_000)),
        "records in members": ("a.zip", lambda: zip_of(_records(1_000), 4_000)),
    }


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _records(count: int) -> bytes:
    from comity.formats.data_files import _masked_checksum

    length = struct.pack("<Q", 0)
    return (length + struct.pack("<L", _masked_checksum(length)) + bytes(4)) * count


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _array(shape: str, descr: str = "'<f4'") -> bytes:
    return _npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()[:65_000])


def _tensors() -> Files:
    sides = "(0," + "1," * 30_000 + ")"
    large = "(" + "9999999999999999999," * 3_000 + ")"
    fields = "[" + "('a','<f4')," * 5_000 + "]"
    values = json.dumps({"a": [0] * 490_000}).encode()
    objects = b"{" + b",".join(b'"%d":{}' % n for n in range(240_000)) + b"}"
    return {
        "shapes of many sides": ("a.npy", lambda: _array(sides) * 900),
        "shapes of large sides": ("a.npy", lambda: _array(large) * 900),
        "fields": ("a.npy", lambda: _array("(0,)", fields) * 900),
        "headers in an archive": ("a.npz", lambda: zip_of(_array("(0,)", fields), 1_000, lambda n: f"{n}.npy")),
        "values of a header": ("a.safetensors", lambda: struct.pack("<Q", len(values)) + values),
        "tensors of a header": ("a.safetensors", lambda: struct.pack("<Q", len(objects)) + objects),
        "headers in members": ("a.zip", lambda: zip_of(struct.pack("<Q", len(objects)) + objects, 16)),
        "strings": ("a.gguf", lambda: _gguf_strings(4_000_000)),
        "pairs": ("a.gguf", lambda: _gguf_pairs(65_000)),
        "pairs in members": ("a.zip", lambda: zip_of(_gguf_pairs(60_000), 60)),
        "tensors": ("a.gguf", lambda: _gguf_tensors(99_000)),
        "tensors in members": ("a.zip", lambda: zip_of(_gguf_tensors(50_000), 33)),
    }


def _gguf_strings(count: int) -> bytes:
    array = struct.pack("<Q1sIIQ", 1, b"k", 9, 8, count) + bytes(8) * count
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array


def _gguf_pairs(count: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, count) + b"".join(struct.pack("<QIIB", 4, n, 0, 0) for n in range(count))


def _gguf_tensors(count: int) -> bytes:
    return (
        b"GGUF"
        + struct.pack("<IQQ", 3, count, 0)
        + b"".join(struct.pack("<QIIQIQ", 4, n, 1, 0, 0, 0) for n in range(count))
    )


def _hdf5(messages: bytes, more: bytes = b"") -> bytes:
    """A file of version 2 whose root object has these messages; `more` begins at 48 + 12 + the length of them."""
    head = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + struct.pack("<4Q", 0, 2**64 - 1, 0, 48) + bytes(4)
    return head + b"OHDR\x02\x02" + struct.pack("<L", len(messages)) + messages + bytes(4) + more


def _message(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + struct.pack("<HB", len(data), 0) + data


def _attribute(datatype: bytes, space: bytes, value: bytes) -> bytes:
    head = struct.pack("<BBHHHB", 3, 0, 2, len(datatype), len(space), 0)
    return _message(0x0C, head + b"a\0" + datatype + space + value)


def _heap_strings() -> bytes:
    objects = b"".join(struct.pack("<HHLQ", n + 1, 0, 0, 0) for n in range(9_000))
    heap = b"GCOL\x01\0\0\0" + struct.pack("<Q", 16 + len(objects)) + objects
    count, attributes = 4_000, 200
    space = b"\x02\x01\x00\x01" + struct.pack("<Q", count)

    def attribute(at: int) -> bytes:
        return _attribute(b"\x19" + bytes(7), space, struct.pack("<LQL", 0, at, 9_000) * count)

    at = 48 + 10 + len(attribute(0)) * attributes + 4
    return _hdf5(attribute(at) * attributes, heap)


def _opcode_attributes() -> bytes:
    return _hdf5(_attribute(b"\x13" + bytes(7), b"\x02\0\0\0", b"N0" * 9_900 + b"\xff") * 6_000)


def _json_attributes() -> bytes:
    return _hdf5(_attribute(b"\x13" + bytes(7), b"\x02\0\0\0", b"[" + b"{}," * 20_000 + b"1]") * 1_900)


def _cycle() -> bytes:
    """A group of links to itself, at each of 60,000 addresses."""
    link = b"\x01\x00\x01a" + struct.pack("<Q", 48)
    return _hdf5(_message(6, link) * 400_000)


def _png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + (struct.pack(">L", 0) + b"tEXt" + bytes(4)) * 100_000


def _parquet(footer: bytes) -> bytes:
    return b"PAR1" + bytes(4) + footer + struct.pack("<L", len(footer)) + b"PAR1"


def _lines(letter: bytes, length: int, count: int) -> bytes:
    return (letter + b"1" * length + b"\n0") * count + b"\xff"


def _others() -> Files:
    return {
        "strings in a heap": ("a.h5", _heap_strings),
        "opcodes in attributes": ("a.h5", _opcode_attributes),
        "objects in attributes": ("a.h5", _json_attributes),
        "a group that contains itself": ("a.h5", _cycle),
        "chunks of an image": ("a.png", _png),
        "chunks of images": ("a.zip", lambda: zip_of(_png()[: 16 * 1024], 4_000)),
        "structures in a footer": ("a.parquet", lambda: _parquet(b"\x49\xfc\xff\xff\xff\7" + bytes(31 * MIB))),
        "numbers in a footer": ("a.parquet", lambda: _parquet(b"\6\2\0" * 10 * MIB)),
        "a text in a footer": ("a.parquet", lambda: _parquet(tables.pair(b"ARROW:schema", b"A" * 30 * MIB))),
        "a schema of Spark": ("a.parquet", lambda: _parquet(tables.pair(tables.SPARK, b"[" * 150_000))),
        "fields that share fields": ("a.arrow", lambda: tables.message(1, tables.shared_fields(60))),
        "batches of a stream": ("a.arrow", lambda: tables.stream([]) + tables.message(3, tables.table({})) * 150_000),
        "parts of a sound": ("a.ogg", lambda: (b"OggS" + bytes(23)) * 99_000),
        "opcodes": ("a.pkl", lambda: b"N0" * 9_990 + b"\xff"),
        "marks": ("a.pkl", lambda: b"(" * 9_900 + b"1" * 9_900 + b"\xff"),
        "a memo of large numbers": ("a.pkl", lambda: b"Nr\xff\xff\xff\x7f0" * 6_000 + b"\xff"),
        "lines of digits": ("a.pkl", lambda: _lines(b"I", 1_000_000, 11)),
        "lines in members": ("a.zip", lambda: zip_of(_lines(b"I", 15_000, 1), 4_000)),
        "zeros": ("a.bin", lambda: bytes(120 * MIB)),
        "noise": ("a.bin", lambda: _noise(64 * MIB)),
        "a stored archive of zeros": ("a.zip", lambda: _stored(bytes(60 * MIB))),
    }


def _stored(data: bytes) -> bytes:
    for _ in range(3):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.zip", data)
        data = file.getvalue()
    return data
