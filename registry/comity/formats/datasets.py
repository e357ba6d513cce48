"""Reads what data sets are described with: Parquet's footers, Arrow's schemas and streams, and the metadata of Zarr.

Their numbers call nothing. What calls something is named in the descriptions: a type that a library makes from a
pickle, a class that Spark or Avro makes from its name, a codec of another package, a column in another file.

Sources: parquet.thrift and the compact protocol of Thrift; Message.fbs, Schema.fbs and File.fbs of Arrow, and its
canonical extension types; pyspark.sql.types; org.apache.avro.specific.SpecificData; the specifications of Zarr 2 and 3;
numcodecs.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from comity.formats.data_files import table_field, u32
from comity.formats.messages import is_inside, varint
from comity.formats.source import BoundedFile, Cursor, NotInspected, Work
from comity.trust.errors import Malformed

MAX_FOOTER: Final = 32 * 1024 * 1024
"""Bytes of a footer, or of one message of Arrow."""
MAX_NESTED: Final = 64
"""Levels of a footer or of a schema."""
MAX_MESSAGES: Final = 200_000
MAX_SCHEMA: Final = 4 * 1024 * 1024
MAX_VALUES: Final = 200_000
"""Bytes and values of a schema in JSON."""
WINDOW: Final = 64 * 1024
_CONTINUES: Final = b"\xff\xff\xff\xff"
_SCHEMA_MESSAGE: Final = 1
_BATCHES: Final = (2, 3)
"""Of dictionaries and of records."""

Path: TypeAlias = tuple[int, ...]
"""The numbers of the fields from the footer to a value; an item of a list has that of its list."""


def active_in_table(source: BoundedFile) -> Iterator[str]:
    """Active content of Parquet, of a file of Arrow, or of a stream of it. Raises Malformed, NotInspected."""
    head = source.read_at(0, 8)
    if head.startswith(b"PAR1"):
        return _active_in_parquet(source)
    return _active_in_arrow_file(source) if head.startswith(b"ARROW1") else _active_in_arrow_stream(source)


def is_arrow_stream(source: BoundedFile) -> bool:
    """Whether the file begins with a message that has a schema. Raises NotInspected."""
    head = source.read_at(0, 8)
    if head[:4] != _CONTINUES or not 16 <= int.from_bytes(head[4:], "little") <= source.size - 8:
        return False
    try:
        return _message(source, 0)[0] == _SCHEMA_MESSAGE
    except NotInspected:
        raise
    except Malformed:
        return False


# Parquet

_STRUCT: Final = 12
_BOOLEANS: Final = (1, 2)
_KEY, _VALUE, _PAIR = (5, 1), (5, 2), (5,)
_ENCRYPTION: Final = (8,)
_CHUNK, _OTHER_FILE, _CHUNK_FIELDS = (4, 1), (4, 1, 1), (4, 1, 3)
_SIZE, _PAGES, _DICTIONARY = 7, 9, 11
_TEXTS: Final = frozenset({_KEY, _VALUE, _OTHER_FILE})
"""Byte strings that are read; all others are skipped."""


def _active_in_parquet(source: BoundedFile) -> Iterator[str]:
    """What the footer, which is read to its end, names that a library makes. Each column must be in the file."""
    tail = source.read_exactly(source.size - 8, 8) if source.size >= 12 else b""
    if tail[4:] != b"PAR1":
        raise Malformed("parquet: it has no end")
    length, end = int.from_bytes(tail[:4], "little"), source.size - 8
    if length > MAX_FOOTER:
        raise NotInspected(f"a footer of {length} bytes")
    if length > end - 4:
        raise Malformed("parquet: the footer begins before the file")
    cursor = Cursor(source, end - length, end, WINDOW)
    pair, chunk, elsewhere = dict[Path, bytes](), dict[int, int](), False
    for path, value in _leaves(cursor, _STRUCT, (), 0):
        if path[:1] == _ENCRYPTION:
            raise NotInspected("an encrypted table")
        if path in (_KEY, _VALUE) and isinstance(value, bytes):
            pair[path] = value
        elif path == _OTHER_FILE and isinstance(value, bytes):
            _check_inside(value)
            elsewhere = True
        elif path[:3] == _CHUNK_FIELDS and len(path) == 4 and isinstance(value, int):
            chunk[path[3]] = value
        elif path == _PAIR and value is None:
            yield from _active_in_pair(pair.get(_KEY, b""), pair.get(_VALUE, b""), source.work)
            pair = {}
        elif path == _CHUNK and value is None:
            if not elsewhere:
                _check_chunk(chunk, end - length)
            chunk, elsewhere = {}, False
    if cursor.position != end:
        raise Malformed(f"parquet: {end - cursor.position} bytes after its footer")


def _leaves(cursor: Cursor, kind: int, path: Path, depth: int) -> Iterator[tuple[Path, int | bytes | None]]:
    """The numbers and byte strings of a value in the compact protocol, and None where a structure ends. Raises
    Malformed, NotInspected."""
    if depth > MAX_NESTED:
        raise NotInspected(f"a footer of more than {MAX_NESTED} levels")
    cursor.step()
    if kind == _STRUCT:
        number = 0
        while head := cursor.uint(1):
            number = number + (head >> 4) if head >> 4 else _signed(varint(cursor))
            if head & 15 in _BOOLEANS:
                cursor.step()
                yield (*path, number), 2 - (head & 15)
            else:
                yield from _leaves(cursor, head & 15, (*path, number), depth + 1)
        yield path, None
    elif kind in (9, 10):  # a list, a set
        head = cursor.uint(1)
        count = head >> 4 if head >> 4 < 15 else varint(cursor)
        if head & 15 in _BOOLEANS:
            cursor.skip(count)
        else:
            for _ in range(count):
                yield from _leaves(cursor, head & 15, path, depth + 1)
    elif kind == 8:
        length = varint(cursor)
        if path in _TEXTS:
            cursor.step(length // 256)
            yield path, cursor.take(length)
        else:
            cursor.skip(length)
    elif kind in (4, 5, 6):
        yield path, _signed(varint(cursor))
    elif kind in (3, 7):
        cursor.skip(1 if kind == 3 else 8)
    else:
        raise Malformed("parquet: a value of an unknown type in its footer")


def _signed(number: int) -> int:
    return number >> 1 ^ -(number & 1)


def _check_inside(name: bytes) -> None:
    location = name.decode("utf-8", "replace")
    if not is_inside(location):
        raise Malformed(f"parquet: a column outside the folder: {location[:60]!r}")


def _check_chunk(chunk: dict[int, int], end: int) -> None:
    """A column that lies between the mark and the footer."""
    if _PAGES not in chunk or _SIZE not in chunk:
        raise Malformed("parquet: a column without a place")
    start = min((at for at in (chunk.get(_DICTIONARY, 0), chunk[_PAGES]) if at > 0), default=0)
    if chunk[_SIZE] and (start < 4 or not 0 < chunk[_SIZE] <= end - start):
        raise Malformed("parquet: a column outside the file")


def _active_in_pair(key: bytes, value: bytes, work: Work) -> Iterator[str]:
    if key == b"ARROW:schema":
        try:
            schema = BoundedFile.of(base64.b64decode(value, validate=True), work)
        except binascii.Error as error:
            raise Malformed("parquet: the schema of Arrow is not base64") from error
        yield from _active_in_schema_message(schema, 0)
    elif key in _SCHEMAS_IN_JSON:
        yield from _active_in_json_schema(value, _SCHEMAS_IN_JSON[key], work)


_SPARK: Final = {"class": "org.apache.spark.", "pyClass": "pyspark.", "serializedClass": ""}
_AVRO: Final = {"java-class": "", "java-element-class": "", "java-key-class": ""}
_SCHEMAS_IN_JSON: Final = {
    b"org.apache.spark.sql.parquet.row.metadata": _SPARK,
    b"parquet.avro.schema": _AVRO,
    b"avro.schema": _AVRO,
}
"""By key: the members with which these name a class that is made, and what a class of their own begins with."""


def _active_in_json_schema(text: bytes, names: dict[str, str], work: Work) -> Iterator[str]:
    values = sum(text.count(mark) for mark in (b"{", b"[", b","))
    if len(text) > MAX_SCHEMA or values > MAX_VALUES:
        raise NotInspected("a schema in JSON that is too large")
    work.step(values)
    found: dict[str, None] = {}

    def members(pairs: list[tuple[str, Any]]) -> None:
        for name, value in pairs:
            own = names.get(name)
            if own is None or not isinstance(value, str) or not value or (own and value.startswith(own)):
                continue
            kind = "pickle: a class in" if name == "serializedClass" else f"remote-code: {value[:80]} in"
            found[f"{kind} the schema of {'Spark' if names is _SPARK else 'Avro'}"] = None

    try:
        json.loads(text, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        raise NotInspected("a schema that is not JSON") from error
    yield from found


# Arrow

_KNOWN_TYPES: Final = frozenset(
    {
        *("arrow.fixed_shape_tensor", "arrow.variable_shape_tensor", "arrow.json", "arrow.uuid", "arrow.opaque"),
        *("arrow.bool8", "arrow.parquet.variant", "arrow.timestamp_with_offset", "pandas.period", "pandas.interval"),
        *("ogc.wkb", "geoarrow.wkb", "geoarrow.wkt", "geoarrow.point", "geoarrow.linestring", "geoarrow.polygon"),
        *("geoarrow.multipoint", "geoarrow.multilinestring", "geoarrow.multipolygon", "geoarrow.box"),
        *(f"datasets.features.features.Array{dimensions}DExtensionType" for dimensions in range(2, 6)),
    }
)
_PICKLED_TYPES: Final = frozenset({"arrow.py_extension_type", "ray.data.arrow_pickled_object"})
MAX_NAME: Final = 256


def _active_in_arrow_file(source: BoundedFile) -> Iterator[str]:
    """What the schema names, in the footer and before the first batch; each batch must be in the file."""
    tail = source.read_exactly(source.size - 10, 10) if source.size >= 24 else b""
    if tail[4:] != b"ARROW1":
        raise Malformed("arrow: it has no end")
    length = int.from_bytes(tail[:4], "little")
    if length > MAX_FOOTER:
        raise NotInspected(f"a footer of {length} bytes")
    begin = source.size - 10 - length
    if begin < 8:
        raise Malformed("arrow: the footer begins before the file")
    footer = source.part(begin, length)
    root = u32(footer, 0)
    if (schema := _table(footer, root, 1)) is None:
        raise Malformed("arrow: it has no schema")
    yield from _active_in_schema(footer, schema)
    for field in (2, 3):
        for block in _vector(footer, root, field, 24):
            offset = int.from_bytes(footer.read_exactly(block, 8), "little")
            size = u32(footer, block + 8) + int.from_bytes(footer.read_exactly(block + 16, 8), "little")
            if offset < 8 or offset + size > begin:
                raise Malformed("arrow: a batch outside the file")
    yield from _active_in_schema_message(source, 8)


def _active_in_arrow_stream(source: BoundedFile) -> Iterator[str]:
    """What the schema names; every message is stepped over, to the end of the file."""
    yield from _active_in_schema_message(source, 0)
    position = _message(source, 0)[2]
    for _ in range(MAX_MESSAGES):
        if position == source.size:
            return
        if source.read_exactly(position, min(8, source.size - position)) == _CONTINUES + bytes(4):
            if position + 8 < source.size:
                raise Malformed(f"arrow: {source.size - position - 8} bytes after its end")
            return
        kind, _, position = _message(source, position)
        if kind not in _BATCHES:
            raise Malformed("arrow: a message that is no batch")
        if position > source.size:
            raise Malformed("arrow: a batch outside the file")
    raise NotInspected(f"more than {MAX_MESSAGES} batches")


def _message(source: BoundedFile, at: int) -> tuple[int, BoundedFile, int]:
    """The kind of the message at this place, its description, and where the next one begins."""
    head = source.read_exactly(at, 8)
    before = 8 if head[:4] == _CONTINUES else 4  # streams before Arrow 0.15 have no mark
    length = int.from_bytes(head[before - 4 : before], "little")
    if length > MAX_FOOTER:
        raise NotInspected(f"a message of {length} bytes")
    message = source.part(at + before, length)
    root = u32(message, 0)
    kind, body = table_field(message, root, 1), table_field(message, root, 3)
    size = int.from_bytes(message.read_exactly(body, 8), "little") if body is not None else 0
    return message.read_exactly(kind, 1)[0] if kind is not None else 0, message, at + before + length + size


def _active_in_schema_message(source: BoundedFile, at: int) -> Iterator[str]:
    kind, message, _ = _message(source, at)
    schema = _table(message, u32(message, 0), 2)
    if kind != _SCHEMA_MESSAGE or schema is None:
        raise Malformed("arrow: it does not begin with a schema")
    yield from _active_in_schema(message, schema)


def _active_in_schema(source: BoundedFile, schema: int) -> Iterator[str]:
    """The extension types of all fields that a library may make from what the file has."""
    waiting = [(at, 0) for at in _tables(source, schema, 1)]
    while waiting:
        field, depth = waiting.pop()
        if depth > MAX_NESTED:
            raise NotInspected(f"a schema of more than {MAX_NESTED} levels")
        source.work.step()
        waiting += [(at, depth + 1) for at in _tables(source, field, 5)]
        if len(waiting) > MAX_VALUES:
            raise NotInspected(f"more than {MAX_VALUES} fields")
        for pair in _tables(source, field, 6):
            if _text(source, pair, 0) == "ARROW:extension:name":
                yield from _active_type(_text(source, pair, 1))


def _active_type(name: str) -> Iterator[str]:
    if name in _PICKLED_TYPES:
        yield f"pickle: the type {name}"
    elif name not in _KNOWN_TYPES:
        yield f"custom-operator: the type {name[:80]}"


def _table(source: BoundedFile, table: int, number: int) -> int | None:
    at = table_field(source, table, number)
    return at if at is None else at + u32(source, at)


def _vector(source: BoundedFile, table: int, number: int, width: int) -> range:
    """The positions of the items of a vector; none if the field is missing."""
    if (vector := _table(source, table, number)) is None:
        return range(0)
    count = u32(source, vector)
    if vector + 4 + width * count > source.size:
        raise Malformed("arrow: a vector outside its message")
    return range(vector + 4, vector + 4 + width * count, width)


def _tables(source: BoundedFile, table: int, number: int) -> Iterator[int]:
    return (at + u32(source, at) for at in _vector(source, table, number, 4))


def _text(source: BoundedFile, table: int, number: int) -> str:
    """A text, at most its first MAX_NAME bytes."""
    if (at := _table(source, table, number)) is None:
        return ""
    return source.read_exactly(at + 4, min(u32(source, at), MAX_NAME)).decode("utf-8", "replace")


# Zarr

ZARR_METADATA: Final = frozenset({".zarray", ".zmetadata", "zarr.json"})
_CODEC_LISTS: Final = frozenset({"filters", "codecs", "index_codecs", "storage_transformers"})
_KNOWN_CODECS: Final = frozenset(
    {
        *("blosc", "zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "delta", "fixedscaleoffset", "quantize", "packbits"),
        *("categorize", "astype", "shuffle", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
        *("vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "base64", "bitround", "pcodec", "zfpy"),
        *("bytes", "transpose", "sharding_indexed", "endian", "bitshuffle"),
    }
)


def active_codec(name: str, value: object) -> Iterator[str]:
    """What a member of the metadata of Zarr names that numcodecs or Zarr would make, other than codecs of their own."""
    if name == "compressor":
        codecs: list[object] = [value]
    elif name in _CODEC_LISTS and isinstance(value, list):
        codecs = value
    else:
        return
    for codec in codecs:
        named = codec if isinstance(codec, str) else ""
        if isinstance(codec, dict):
            named = str(codec.get("id", "")) or str(codec.get("name", ""))
        plain = named.removeprefix("numcodecs.")
        if plain == "pickle":
            yield "pickle: the codec pickle"
        elif named and plain not in _KNOWN_CODECS:
            yield f"custom-operator: the codec {named[:80]}"


def is_zarr_chunk(parts: tuple[str, ...]) -> bool:
    """Whether a path is that of a chunk, `0.0`, `c/0/0` or `c`, in a folder `NAME.zarr`: Zarr decodes it with the
    codecs of the metadata beside it."""
    folder = next((at for at, part in enumerate(parts[:-1]) if part.lower().endswith(".zarr")), None)
    return folder is not None and (parts[-1] == "c" or _CHUNK_NAME.fullmatch(parts[-1]) is not None)


_CHUNK_NAME: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
