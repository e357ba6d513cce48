"""Inspects one file: its format, content that a loader would execute, and problems in its header.

The format is identified by bytes; the name is used only where bytes cannot decide, such as for program text. Nothing is
executed, unpickled, imported or rendered. At most `tensors.BUDGET` bytes of a file are read, wherever its own offsets
point, and anything that cannot be inspected within that limit is reported.

Pickles: opcodes are stepped over as `pickletools` describes them, with the stack depth tracked, because text that
begins with the letter `c` looks like an import at first. Pickles of protocol 2 and later begin with a magic byte. A
stream that goes on beyond the limit counts as a pickle. Protocol Buffers messages are recognised by their field numbers
(onnx.proto and sentencepiece_model.proto, ModelProto). JSON is parsed within limits, because one key can be spelled in
many ways. Of a member of an archive or a compressed stream only the first `ARCHIVE_HEAD` bytes are unpacked, and no
nested archive.
"""

from __future__ import annotations

import bz2
import json
import lzma
import pickletools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, TypeAlias

from comity.formats.archives import ARCHIVE_HEAD, ArchiveMember, has_zip_end_record, member_head, read_directory
from comity.formats.sanity import MAX_FINDINGS, check_gguf_header, check_safetensors_header
from comity.formats.tensors import BoundedFile, BudgetExceeded, Cursor
from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection

MAX_OPCODES: Final = 20_000
PICKLE_BUDGET: Final = 12 * 1024 * 1024
"""Bytes read to recognise a pickle."""
PICKLE_WINDOW: Final = 512
MAX_LINE: Final = 1024 * 1024
PROTOCOLS: Final = range(6)

_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_IMPORTS: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_OPCODES: Final[Mapping[int, pickletools.OpcodeInfo]] = {ord(op.code): op for op in pickletools.opcodes}
_COUNTED: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LINES: Final = {"stringnl_noescape_pair": 2}


def is_pickle(source: BoundedFile, start: int = 0) -> bool:
    """Whether an unpickler that starts at `start` would call something, or read a pickle that has the magic byte.
    Raises OSError if the file does."""
    source = source.slice_from(start, PICKLE_BUDGET)
    try:
        has_magic = source.read_at(0, 1) == b"\x80"
        return _executes(Cursor(source, 0, source.size, PICKLE_WINDOW), has_magic)
    except _NotPickleError:
        return False  # an unpickler would stop here too
    except BudgetExceeded:
        return True
    except Malformed:
        return source.truncated


class _NotPickleError(Exception):
    """An unpickler would fail here."""


def _executes(cursor: Cursor, has_magic: bool) -> bool:
    """Whether the opcodes call something. Raises Malformed if the bytes end before any call, _NotPickleError if they
    are not valid."""
    stack: list[object] = []
    imported = False
    for _ in range(MAX_OPCODES):
        opcode = _OPCODES.get(cursor.take(1)[0])
        if opcode is None:
            raise _NotPickleError("unknown opcode")
        if not _step_over(cursor, opcode):
            return True
        _apply(stack, opcode)
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        if opcode.name == "STOP":
            if has_magic:
                return True
            stack = []  # a loader may read another pickle from here
    return True


def _step_over(cursor: Cursor, opcode: pickletools.OpcodeInfo) -> bool:
    """Step over the opcode's argument; False if a line exceeds MAX_LINE."""
    argument = opcode.arg
    if argument is None:
        return True
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(_LINES.get(argument.name, 1)):
            line = cursor.line(MAX_LINE)
            if line is None:
                return False
            if opcode.name in _IMPORTS and (not line or line.split() != [line]):
                raise _NotPickleError("not a name")
    elif argument.n == 1 and opcode.name == "PROTO":
        if cursor.uint(1) not in PROTOCOLS:
            raise _NotPickleError("unknown protocol")
    elif argument.n in _COUNTED:
        cursor.skip(cursor.uint(_COUNTED[argument.n]))
    else:
        cursor.skip(argument.n)
    return True


def _apply(stack: list[object], opcode: pickletools.OpcodeInfo) -> None:
    """Apply the opcode's effect to the stack, as `pickletools.dis` does."""
    before = opcode.stack_before
    takes = len(before)
    on_mark = opcode.name == "POP" and bool(stack) and stack[-1] is pickletools.markobject
    if pickletools.markobject in before or on_mark:
        while stack and stack[-1] is not pickletools.markobject:
            stack.pop()
        if not stack:
            raise _NotPickleError("no mark on the stack")
        stack.pop()
        takes = 0 if on_mark else before.index(pickletools.markobject)
    if len(stack) < takes:
        raise _NotPickleError("stack underflow")
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)


MAX_PROTO_FIELDS: Final = 512
PROTO_WINDOW: Final = 4096
_LENGTH_DELIMITED: Final = 2
_ONNX: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Wire types of the fields of an ONNX ModelProto, by field number."""


def is_onnx(source: BoundedFile) -> bool:
    """Whether the whole file is fields of an ONNX model, including version and graph."""
    seen = set()
    try:
        for number, kind, _ in _fields(source, 0, source.size):
            if _ONNX.get(number) != kind:
                return False
            seen.add(number)
    except Malformed:
        return False
    return {1, 7} <= seen


def is_sentencepiece(source: BoundedFile) -> bool:
    """Whether the file begins with SentencePiece pieces, each a text and a score."""
    pieces = 0
    try:
        for number, kind, at in _fields(source, 0, source.size):
            if (number, kind) != (1, _LENGTH_DELIMITED) or source.read_at(at, 1) != b"\n":
                return False
            pieces += 1
            if pieces == 3:
                return True
    except Malformed:
        return False
    return False


def _fields(source: BoundedFile, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, wire type, offset of its bytes) of each field. Raises Malformed."""
    cursor = Cursor(source, start, end, PROTO_WINDOW)
    for _ in range(MAX_PROTO_FIELDS):
        if cursor.position == end:
            return
        key = _varint(cursor)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _varint(cursor)
            yield number, kind, cursor.position
        elif kind == _LENGTH_DELIMITED:
            length = _varint(cursor)
            at = cursor.position
            cursor.skip(length)
            yield number, kind, at
        elif kind in (1, 5):
            cursor.skip(8 if kind == 1 else 4)
            yield number, kind, cursor.position
        else:
            raise Malformed("not a message", why="unknown wire type")
    raise Malformed("not a message", why=f"more than {MAX_PROTO_FIELDS} fields")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.uint(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("not a message", why="a number of more than 9 bytes")


FILE_HEAD: Final = 4096
MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The limit that the format sets."""

_MAGIC: Final[Mapping[bytes, str]] = {
    b"GGUF": "gguf",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x93NUMPY": "numpy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x7fELF": "executable",
    b"\xfe\xed\xfa\xce": "executable",
    b"\xfe\xed\xfa\xcf": "executable",
    b"\xce\xfa\xed\xfe": "executable",
    b"\xcf\xfa\xed\xfe": "executable",
    b"\xca\xfe\xba\xbe": "executable",
    b"\0asm": "executable",
    b"!<arch>\n": "executable",
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "archive",
    b"\x04\x22\x4d\x18": "archive",
    b"7z\xbc\xaf\x27\x1c": "archive",
    b"Rar!\x1a\x07": "archive",
}
_WEAK_MAGIC: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "image",
    b"\xff\xd8\xff": "image",
    b"GIF8": "image",
    b"%PDF-": "pdf",
    b"OggS": "audio",
    b"fLaC": "audio",
    b"PAR1": "table",
    b"ARROW1": "table",
    b"SQLite format 3\0": "table",
    b"ggjt": "ggml",
    b"tjgg": "ggml",
    b"lmgg": "ggml",
}
"""Magic strings of letters that an unpickler could step over: the file may still be a pickle."""
_SCRIPT: Final = re.compile(rb"#! ?/[ -~]+(\n|\r|$)")
_BZIP2: Final = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_JSON: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[\]\-0-9tfn])')
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def identify(source: BoundedFile) -> str:
    """The format's name. Raises Malformed if the source's read budget is exhausted, OSError if the file does."""
    head = source.read_at(0, FILE_HEAD)
    if not head:
        return "empty"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if _is_safetensors(head, source.size):
        return "safetensors"
    if is_pickle(source):
        return "pickle"
    if found := _identify_weak(source, head):
        return found
    if _is_text(head, source.size):
        return "json" if _JSON.match(head) else "text"
    if is_onnx(source):
        return "onnx"
    return "sentencepiece" if is_sentencepiece(source) else "unknown"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER)


def _identify_weak(source: BoundedFile, head: bytes) -> str:
    """The format by weak magic strings and by magic at other offsets; "" if none matches."""
    for magic, name in _WEAK_MAGIC.items():
        if head.startswith(magic):
            return name
    if _SCRIPT.match(head):
        return "script"
    if _BZIP2.match(head):
        return "bzip2"
    if head[257:262] == b"ustar":
        return "archive"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE"):
        return "image" if head[8:12] == b"WEBP" else "audio"
    if head[:2] == b"MZ" and len(head) >= 64:
        where = int.from_bytes(head[60:64], "little")
        if where < source.size and source.read_at(where, 4) == b"PE\0\0":
            return "executable"
    if _is_zlib(head):
        return "zlib"
    if head[2:4] == b"\r\n" and head[1] in (0x0C, 0x0D, 0x0E):
        return "bytecode"
    return ""


def _is_zlib(head: bytes) -> bool:
    if head[:1] != b"x" or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 16))
    except zlib.error:
        return False


def _is_text(head: bytes, size: int) -> bool:
    if not _CONTROLS.isdisjoint(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) < size and error.start >= len(head) - 3
    return True


MAX_TEXT: Final = 4 * 1024 * 1024
"""Bytes of text that are inspected. Configurations have thousands; loaders do not read larger files as such."""
MAX_VALUES: Final = 200_000
CODE_SUFFIXES: Final = frozenset({".py", ".pyw", ".pyc", ".pyo", ".pyi", ".pyx", ".ipynb"})
SCRIPT_SUFFIXES: Final = frozenset({".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".mjs", ".lua", ".rb", ".pl"})
TEMPLATE_SUFFIXES: Final = frozenset({".jinja", ".jinja2", ".j2"})
CONFIGURATION_FILES: Final = frozenset(
    {
        *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
        *("image_processor_config.json", "video_preprocessor_config.json", "feature_extractor_config.json"),
        *("generation_config.json", "adapter_config.json", "model_index.json", "modules.json", "chat_template.json"),
    }
)
"""Files that tell loaders what to import or which template to use: one that cannot be inspected is a finding."""

_TEMPLATE_ESCAPE: Final = re.compile(
    rb"__(class|subclasses|globals|builtins|import|mro|bases?|init|getattribute|dict|code|reduce|loader)__"
    rb"|\|\s*attr\s*\(|\b(lipsum|cycler|joiner|namespace)\s*\.\s*_|\bos\s*\.\s*(system|popen)\b"
)
_ACTIVE_KEYS: Final = re.compile(rb"auto_map|chat_template|class_name|nbformat|\\\\u00[4-7]")
"""Keys that may activate code, or an escaped letter."""
_YAML_OBJECT: Final = re.compile(rb"!!python/|tag:yaml\.org,2002:python/")
_YAML: Final = (".yaml", ".yml")

Findings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Active content, and problems."""


def active_by_name(path: str) -> tuple[str, ...]:
    """Active content according to the name only."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE_SUFFIXES:
        return ("python",)
    if suffix in SCRIPT_SUFFIXES:
        return ("script",)
    return ("chat-template",) if suffix in TEMPLATE_SUFFIXES else ()


def active_in_text(source: BoundedFile, path: str) -> Findings:
    """Active content in a text file, in addition to `active_by_name`. Raises OSError if the file does."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".json":
        return active_in_json(source, path)
    if suffix not in (*TEMPLATE_SUFFIXES, *_YAML):
        return (), ()
    text = source.read_at(0, MAX_TEXT)
    problems = (f"more than {MAX_TEXT} bytes of text",) if source.size > MAX_TEXT else ()
    if suffix in TEMPLATE_SUFFIXES:
        return tuple(active_in_template(text)), problems
    found = _YAML_OBJECT.search(text) is not None
    return ("python: YAML that creates objects when loaded unsafely",) if found else (), problems


def active_in_template(template: bytes) -> Iterator[str]:
    if match := _TEMPLATE_ESCAPE.search(template):
        yield f"template-escape: {match[0][:40].decode('ascii', 'replace')}"


def active_in_json(source: BoundedFile, path: str) -> Findings:
    """Active content and problems in a JSON file. Raises OSError if the file does."""
    important = PurePosixPath(path).name in CONFIGURATION_FILES
    if source.size > MAX_TEXT:
        return (), (f"more than {MAX_TEXT} bytes of configuration",) if important else ()
    text = source.read_at(0, MAX_TEXT)
    if not _ACTIVE_KEYS.search(text) and not important:
        return (), ()
    members = JsonMembers()
    if sum(text.count(magic) for magic in (b"{", b"[", b",")) > MAX_VALUES:  # before the parser allocates memory
        return (), (f"more than {MAX_VALUES} values of configuration",) if important else ()
    try:
        json.loads(text.decode("utf-8-sig"), object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        return (), (f"not JSON: {str(error)[:80]}",) if important else ()
    return tuple(dict.fromkeys(members.active)), ()


class JsonMembers:
    """Collects active content from each member of each object in a JSON document, including duplicate names."""

    def __init__(self) -> None:
        self.active: list[str] = []
        self._readers: Mapping[str, Callable[[Any], Iterator[str]]] = {
            "auto_map": _imports,
            "chat_template": _templates,
            "class_name": lambda value: iter(("keras-lambda",) if value == "Lambda" else ()),
            "nbformat": lambda value: iter(("python: a notebook",)),
        }

    def __call__(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in members:
            if reader := self._readers.get(name):
                self.active.extend(reader(value))
        return dict(members)


def _imports(value: object) -> Iterator[str]:
    names = sorted(str(item) for item in value.values()) if isinstance(value, dict) else [str(value)]
    if value:
        yield f"remote-code: auto_map imports {', '.join(names[:3])[:120]}{', …' if len(names) > 3 else ''}"


def _templates(value: object) -> Iterator[str]:
    """Findings for one template or a list of named templates."""
    texts = [item.get("template") for item in value if isinstance(item, dict)] if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str) and text:
            yield "chat-template"
            yield from active_in_template(text.encode("utf-8", "replace"))


MAX_INSPECTED_MEMBERS: Final = 512
"""Members of an ordinary archive whose first bytes are inspected."""
MAX_MEMORY: Final = 64 * 1024 * 1024
MAX_SHOWN_OF_A_KIND: Final = 2
"""Findings listed per kind."""
MAX_CONFIGURATION: Final = 1024 * 1024
PACKED_FORMATS: Final = frozenset({"zip", "gzip", "bzip2", "xz", "zlib", "archive"})

_STREAMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: zlib.decompressobj(31).decompress(data, ARCHIVE_HEAD),
    "zlib": lambda data: zlib.decompressobj().decompress(data, ARCHIVE_HEAD),
    "bzip2": lambda data: bz2.BZ2Decompressor().decompress(data, ARCHIVE_HEAD),
    "xz": lambda data: lzma.LZMADecompressor(memlimit=MAX_MEMORY).decompress(data, ARCHIVE_HEAD),
}
_PACKED_HEAD: Final = 1024 * 1024
_OBJECTS: Final = re.compile(rb"'[|<>=]?O\d*'")
_LAMBDA: Final = re.compile(rb'"class_name"\s*:\s*"Lambda"')


@dataclass(frozen=True, slots=True)
class PackedInspection:
    """The format of a packed file, its active content, and problems."""

    format: str
    active: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


def inspect_stream(source: BoundedFile, kind: str) -> PackedInspection:
    """Inspect a file that is one compressed stream. Raises OSError if the file does."""
    try:
        data = _STREAMS[kind](source.read_at(0, _PACKED_HEAD))
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        return PackedInspection(kind, ("archive: it cannot be unpacked",), (f"{kind}: {str(error)[:80]}",))
    inner = identify(BoundedFile.of(data, truncated=True))
    return PackedInspection(kind, tuple(_active_in_member("inside", inner, BoundedFile.of(data, truncated=True))))


def inspect_zip(source: BoundedFile) -> PackedInspection:
    """Inspect a zip archive of any kind. Raises OSError if the file does."""
    try:
        directory = read_directory(source)
    except Malformed as error:
        return PackedInspection("zip", ("archive: its directory cannot be read",), (str(error),))
    files = [member for member in directory.members if not member.name.endswith("/")]
    kind = _archive_kind(files)
    to_inspect, active, problems = _members_to_inspect(kind, files), list[str](), list(directory.findings)
    if kind == "torchscript":
        active.append("torchscript")
    for member in to_inspect[:MAX_INSPECTED_MEMBERS]:
        try:
            active += _inspect_member(kind, source, member)
        except Malformed as error:
            problems.append(f"zip: {error}")
            active.append("archive: a member cannot be read")
    if len(to_inspect) > MAX_INSPECTED_MEMBERS:
        active.append(f"archive: {len(to_inspect) - MAX_INSPECTED_MEMBERS} of {len(files)} members were not inspected")
    return PackedInspection(kind, tuple(_limit_per_kind(active)), tuple(dict.fromkeys(problems))[:MAX_FINDINGS])


def has_objects(source: BoundedFile) -> bool:
    """Whether a .npy file holds Python objects, which are a pickle after its header."""
    length = int.from_bytes(source.read_at(8, 2) if source.read_at(6, 1) == b"\x01" else source.read_at(8, 4), "little")
    return _OBJECTS.search(source.read_at(8, min(length + 4, _PACKED_HEAD))) is not None


def has_lambda_layer(source: BoundedFile) -> bool:
    """Whether a Keras model description, in the first 8 MiB or the last MiB, has a layer that holds code."""
    mib = 1024 * 1024
    ends = (source.read_at(0, 8 * mib), source.read_at(max(0, source.size - mib), mib))
    return any(_LAMBDA.search(part) is not None for part in ends)


def _archive_kind(members: Sequence[ArchiveMember]) -> str:
    names = {PurePosixPath(member.name).name for member in members}
    folders = {part for member in members for part in PurePosixPath(member.name).parts[:-1]}
    if "constants.pkl" in names or ("data.pkl" in names and "code" in folders):
        return "torchscript"
    if "data.pkl" in names and ("data" in folders or "version" in names):
        return "pytorch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "keras" if {"config.json", "metadata.json"} <= names else "zip"


def _members_to_inspect(kind: str, members: Sequence[ArchiveMember]) -> list[ArchiveMember]:
    """The members to inspect. In PyTorch archives only pickles and code; the rest are numbers."""
    if kind not in ("pytorch", "torchscript"):
        return list(members)
    return [m for m in members if not _is_storage(m.name)]


def _is_storage(name: str) -> bool:
    path = PurePosixPath(name)
    return "data" in path.parts[:-1] and not path.suffix


def _inspect_member(kind: str, source: BoundedFile, member: ArchiveMember) -> Iterator[str]:
    name = PurePosixPath(member.name).name[:80]
    if (
        "code" not in PurePosixPath(member.name).parts[:-1] or kind != "torchscript"
    ):  # TorchScript code has its own finding
        yield from (f"{active}: {name}" for active in active_by_name(member.name))
    if name == "config.json":
        data = member_head(source, member, MAX_CONFIGURATION)
        if member.unpacked > len(data):
            yield f"archive: {name} was not fully inspected"
        yield from active_in_json(BoundedFile.of(data), name)[0]
        return
    data = member_head(source, member)
    inside = BoundedFile.of(data, truncated=member.unpacked > len(data))
    yield from _active_in_member(name, identify(inside), inside)


def _active_in_member(name: str, inner: str, source: BoundedFile) -> Iterator[str]:
    if inner in PACKED_FORMATS:
        yield f"archive: {name} is a nested archive"
    elif inner == "bytecode":
        yield f"python: {name}"
    elif inner in ("pickle", "executable", "script"):
        yield f"{inner}: {name}"
    elif inner == "numpy" and has_objects(source):
        yield f"pickle: {name}"
    elif inner == "hdf5" and has_lambda_layer(source):
        yield f"keras-lambda: {name}"


def _limit_per_kind(active: Sequence[str]) -> Iterator[str]:
    """The first findings of each kind, and the number of others."""
    kinds: dict[str, list[str]] = {}
    for item in dict.fromkeys(active):
        kinds.setdefault(item.partition(":")[0], []).append(item)
    for kind, items in kinds.items():
        yield from items[:MAX_SHOWN_OF_A_KIND]
        if len(items) > MAX_SHOWN_OF_A_KIND:
            yield f"{kind}: {len(items) - MAX_SHOWN_OF_A_KIND} more like these"


MAX_TEXT_LENGTH: Final = 200
"""Characters of one finding."""

_Inspector = Callable[[BoundedFile, str, str], Inspection]


def inspect(file: BinaryIO, path: str, size: int) -> Inspection:
    """Inspect a file of `size` bytes that its artifact names `path`. Raises OSError if `file` does."""
    source = BoundedFile(file, size)
    try:
        kind = identify(source)
        found = _INSPECTORS.get(kind, _inspect_unknown)(source, path, kind)
        extra = ("it is also a zip archive",) if kind not in PACKED_FORMATS and has_zip_end_record(source) else ()
    except Malformed as error:
        found, extra = Inspection("unknown"), (str(error),)
    active = dict.fromkeys((*active_by_name(path), *found.active))
    return Inspection(found.format, _shorten(active), _shorten((*found.malformed, *extra)))


def _shorten(texts: Mapping[str, None] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:MAX_TEXT_LENGTH] for text in texts)


def inspect_name(path: str) -> Inspection:
    """The inspection of a file by name only, before its bytes are available."""
    return Inspection("unknown", active_by_name(path))


def _inspect_unknown(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind)


def _inspect_safetensors(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, malformed=tuple(check_safetensors_header(source).findings))


def _inspect_gguf(source: BoundedFile, path: str, kind: str) -> Inspection:
    checked = check_gguf_header(source)
    active = [item for text in checked.templates for item in ("chat-template", *active_in_template(text))]
    return Inspection(kind, tuple(dict.fromkeys(active)), tuple(checked.findings))


def _inspect_zip(source: BoundedFile, path: str, kind: str) -> Inspection:
    found = inspect_zip(source)
    return Inspection(found.format, found.active, found.malformed)


def _inspect_stream(source: BoundedFile, path: str, kind: str) -> Inspection:
    found = inspect_stream(source, kind)
    return Inspection(found.format, found.active, found.malformed)


def _inspect_numpy(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("pickle: an array of objects",) if has_objects(source) else ())


def _inspect_hdf5(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("keras-lambda",) if has_lambda_layer(source) else ())


def _inspect_json(source: BoundedFile, path: str, kind: str) -> Inspection:
    active, malformed = active_in_json(source, path)
    return Inspection(kind, active, malformed)


def _inspect_text(source: BoundedFile, path: str, kind: str) -> Inspection:
    active, malformed = active_in_text(source, path)
    return Inspection(kind, active, malformed)


def _inspect_program(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("python",) if kind == "bytecode" else (kind,))


def _inspect_archive(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("archive",))


_INSPECTORS: Final[Mapping[str, _Inspector]] = {
    "safetensors": _inspect_safetensors,
    "gguf": _inspect_gguf,
    "zip": _inspect_zip,
    **dict.fromkeys(("gzip", "bzip2", "xz", "zlib"), _inspect_stream),
    "numpy": _inspect_numpy,
    "hdf5": _inspect_hdf5,
    "json": _inspect_json,
    "text": _inspect_text,
    **dict.fromkeys(("pickle", "executable", "script", "bytecode"), _inspect_program),
    "archive": _inspect_archive,
}
