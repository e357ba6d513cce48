"""Is it a pickle: would an unpickler, starting at its first byte, import or call something? Nothing is unpickled.

Opcodes are stepped over as `pickletools` describes them, with the depth of the stack kept in mind, because a text that
begins with the letter `c` looks like an import at first. Pickles of protocol 2 and later begin with a mark and are
known by it. What goes on beyond the bound counts as a pickle: nothing has shown that it is none.


Formats without a mark at their beginning: messages of Protocol Buffers, known by which fields they have.

Fields are stepped over, never decoded. Source: onnx.proto (ModelProto), sentencepiece_model.proto (ModelProto).


What a file is, by its bytes. Its name is asked only where bytes cannot say: which text is a program.

What is active in files that are text: configurations that ask for code, templates, notebooks, objects in YAML.

A configuration is parsed, within bounds, since JSON has many spellings of one key; nothing is rendered or imported.


What is inside of a file that is packed: archives by their directory and the heads of their members, streams by their
first bytes. At most `HEAD` bytes of anything are unpacked, and nothing is followed into an archive within one.


One look at one file: what it is, what in it would run, what is wrong with its header.

Nothing is executed, unpickled, imported or rendered. Of no file more is read than `source.BUDGET`, wherever its own
numbers point, and what cannot be looked at within that is stated, never passed over.
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

from comity.formats.archives import ARCHIVE_HEAD, ArchiveMember, ends_like_a_zip, member_head, read_directory
from comity.formats.sanity import MAX_FINDINGS, look_at_gguf, look_at_safetensors
from comity.formats.tensors import BoundedFile, BudgetExceeded, Cursor
from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection

MAX_OPCODES: Final = 20_000
BUDGET: Final = 12 * 1024 * 1024
"""Bytes that are read to find out."""
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
    """Whether an unpickler that begins at `start` would call something, or go through a pickle that is marked as one.
    Raises OSError where the file does."""
    source = source.rest(start, BUDGET)
    try:
        marked = source.at(0, 1) == b"\x80"
        return _goes_on(Cursor(source, 0, source.size, PICKLE_WINDOW), marked)
    except _NoPickleError:
        return False  # an unpickler would stop there as well
    except BudgetExceeded:
        return True
    except Malformed:
        return source.cut


class _NoPickleError(Exception):
    """No unpickler would go on here."""


def _goes_on(cursor: Cursor, marked: bool) -> bool:
    """Raises Malformed where the bytes end before anything is called, _NoPickleError where they stop making sense."""
    stack: list[object] = []
    imported = False
    for _ in range(MAX_OPCODES):
        opcode = _OPCODES.get(cursor.take(1)[0])
        if opcode is None:
            raise _NoPickleError("no such opcode")
        if not _step_over(cursor, opcode):
            return True
        _apply(stack, opcode)
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        if opcode.name == "STOP":
            if marked:
                return True
            stack = []  # a loader may read the next one from here
    return True


def _step_over(cursor: Cursor, opcode: pickletools.OpcodeInfo) -> bool:
    """Go behind the opcode's argument; False where that is beyond the bound."""
    argument = opcode.arg
    if argument is None:
        return True
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(_LINES.get(argument.name, 1)):
            line = cursor.line(MAX_LINE)
            if line is None:
                return False
            if opcode.name in _IMPORTS and (not line or line.split() != [line]):
                raise _NoPickleError("prose, where a name would be")
    elif argument.n == 1 and opcode.name == "PROTO":
        if cursor.uint(1) not in PROTOCOLS:
            raise _NoPickleError("no such protocol")
    elif argument.n in _COUNTED:
        cursor.skip(cursor.uint(_COUNTED[argument.n]))
    else:
        cursor.skip(argument.n)
    return True


def _apply(stack: list[object], opcode: pickletools.OpcodeInfo) -> None:
    """What the opcode takes from the stack and puts there, as `pickletools.dis` has it."""
    before = opcode.stack_before
    takes = len(before)
    on_mark = opcode.name == "POP" and bool(stack) and stack[-1] is pickletools.markobject
    if pickletools.markobject in before or on_mark:
        while stack and stack[-1] is not pickletools.markobject:
            stack.pop()
        if not stack:
            raise _NoPickleError("no mark on the stack")
        stack.pop()
        takes = 0 if on_mark else before.index(pickletools.markobject)
    if len(stack) < takes:
        raise _NoPickleError("nothing on the stack")
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)


MAX_FIELDS: Final = 512
PROTO_WINDOW: Final = 4096
LENGTH: Final = 2
_ONNX: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Fields of an ONNX ModelProto, and the wire type of each."""


def is_onnx(source: BoundedFile) -> bool:
    """Every field is one of an ONNX model's, its version and its graph among them, up to the last byte."""
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
    """It begins with pieces: a text and a score each."""
    pieces = 0
    try:
        for number, kind, at in _fields(source, 0, source.size):
            if (number, kind) != (1, LENGTH) or source.at(at, 1) != b"\n":
                return False
            pieces += 1
            if pieces == 3:
                return True
    except Malformed:
        return False
    return False


def _fields(source: BoundedFile, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, wire type, where its bytes begin) of each field. Raises Malformed."""
    cursor = Cursor(source, start, end, PROTO_WINDOW)
    for _ in range(MAX_FIELDS):
        if cursor.position == end:
            return
        key = _varint(cursor)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _varint(cursor)
            yield number, kind, cursor.position
        elif kind == LENGTH:
            length = _varint(cursor)
            at = cursor.position
            cursor.skip(length)
            yield number, kind, at
        elif kind in (1, 5):
            cursor.skip(8 if kind == 1 else 4)
            yield number, kind, cursor.position
        else:
            raise Malformed("no message", why="an unknown wire type")
    raise Malformed("no message", why=f"more than {MAX_FIELDS} fields")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.uint(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("no message", why="a number of more than 9 bytes")


FILE_HEAD: Final = 4096
MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The format's own bound."""

_MARKS: Final[Mapping[bytes, str]] = {
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
_LOOSE: Final[Mapping[bytes, str]] = {
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
"""Marks of letters that an unpickler could step over: what they begin may be a pickle all the same."""
_SCRIPT: Final = re.compile(rb"#! ?/[ -~]+(\n|\r|$)")
_BZIP2: Final = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_JSON: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[\]\-0-9tfn])')
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def identify(source: BoundedFile) -> str:
    """The format's name. Raises Malformed once the source's budget is spent, OSError where the file does."""
    head = source.at(0, FILE_HEAD)
    if not head:
        return "empty"
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if _is_safetensors(head, source.size):
        return "safetensors"
    if is_pickle(source):
        return "pickle"
    if found := _by_place(source, head):
        return found
    if _is_text(head, source.size):
        return "json" if _JSON.match(head) else "text"
    if is_onnx(source):
        return "onnx"
    return "sentencepiece" if is_sentencepiece(source) else "unknown"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER)


def _by_place(source: BoundedFile, head: bytes) -> str:
    """Marks that are not at the beginning; "" where there is none."""
    for mark, name in _LOOSE.items():
        if head.startswith(mark):
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
        if where < source.size and source.at(where, 4) == b"PE\0\0":
            return "executable"
    if _opens_as_zlib(head):
        return "zlib"
    if head[2:4] == b"\r\n" and head[1] in (0x0C, 0x0D, 0x0E):
        return "bytecode"
    return ""


def _opens_as_zlib(head: bytes) -> bool:
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
"""Bytes of a text that is looked through. Configurations have thousands; what is larger, loaders do not read as one."""
MAX_VALUES: Final = 200_000
CODE: Final = frozenset({".py", ".pyw", ".pyc", ".pyo", ".pyi", ".pyx", ".ipynb"})
SCRIPTS: Final = frozenset({".sh", ".bash", ".bat", ".cmd", ".ps1", ".js", ".mjs", ".lua", ".rb", ".pl"})
TEMPLATES: Final = frozenset({".jinja", ".jinja2", ".j2"})
CONFIGURATIONS: Final = frozenset(
    {
        *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
        *("image_processor_config.json", "video_preprocessor_config.json", "feature_extractor_config.json"),
        *("generation_config.json", "adapter_config.json", "model_index.json", "modules.json", "chat_template.json"),
    }
)
"""Files from which loaders take what to import and how to talk: one that cannot be looked through is a finding."""

_ESCAPE: Final = re.compile(
    rb"__(class|subclasses|globals|builtins|import|mro|bases?|init|getattribute|dict|code|reduce|loader)__"
    rb"|\|\s*attr\s*\(|\b(lipsum|cycler|joiner|namespace)\s*\.\s*_|\bos\s*\.\s*(system|popen)\b"
)
_WORTH_PARSING: Final = re.compile(rb"auto_map|chat_template|class_name|nbformat|\\\\u00[4-7]")
"""The keys that matter, or a letter in disguise."""
_YAML_OBJECT: Final = re.compile(rb"!!python/|tag:yaml\.org,2002:python/")
_YAML: Final = (".yaml", ".yml")

Findings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""What is active, and what is wrong."""


def active_by_name(path: str) -> tuple[str, ...]:
    """What the name alone says, before there are bytes to look at."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE:
        return ("python",)
    if suffix in SCRIPTS:
        return ("script",)
    return ("chat-template",) if suffix in TEMPLATES else ()


def active_in_text(source: BoundedFile, path: str) -> Findings:
    """What is active in a text beyond what its name says. Raises OSError where the file does."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".json":
        return active_in_json(source, path)
    if suffix not in (*TEMPLATES, *_YAML):
        return (), ()
    text = source.at(0, MAX_TEXT)
    wrong = (f"more than {MAX_TEXT} bytes of text",) if source.size > MAX_TEXT else ()
    if suffix in TEMPLATES:
        return tuple(active_in_template(text)), wrong
    found = _YAML_OBJECT.search(text) is not None
    return ("python: YAML that makes objects when it is loaded unsafely",) if found else (), wrong


def active_in_template(template: bytes) -> Iterator[str]:
    if match := _ESCAPE.search(template):
        yield f"template-escape: {match[0][:40].decode('ascii', 'replace')}"


def active_in_json(source: BoundedFile, path: str) -> Findings:
    """What is active, or wrong, in a file of JSON. Raises OSError where the file does."""
    important = PurePosixPath(path).name in CONFIGURATIONS
    if source.size > MAX_TEXT:
        return (), (f"more than {MAX_TEXT} bytes of configuration",) if important else ()
    text = source.at(0, MAX_TEXT)
    if not _WORTH_PARSING.search(text) and not important:
        return (), ()
    members = JsonMembers()
    if sum(text.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before memory is spent on them
        return (), (f"more than {MAX_VALUES} values of configuration",) if important else ()
    try:
        json.loads(text.decode("utf-8-sig"), object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        return (), (f"not JSON: {str(error)[:80]}",) if important else ()
    return tuple(dict.fromkeys(members.active)), ()


class JsonMembers:
    """Sees each member of each object in a JSON document, also of a name that is given twice."""

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
    """A template, or a list of named ones."""
    texts = [item.get("template") for item in value if isinstance(item, dict)] if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str) and text:
            yield "chat-template"
            yield from active_in_template(text.encode("utf-8", "replace"))


MAX_LOOKED_AT: Final = 512
"""Members of an ordinary archive whose first bytes are looked at."""
MAX_MEMORY: Final = 64 * 1024 * 1024
MAX_SHOWN_OF_A_KIND: Final = 2
"""Members that are named for one kind."""
CONFIGURATION: Final = 1024 * 1024
PACKED: Final = frozenset({"zip", "gzip", "bzip2", "xz", "zlib", "archive"})

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
class Unpacked:
    """What a packed file is, what is active in it, and what is wrong with it."""

    format: str
    active: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


def look_into_stream(source: BoundedFile, kind: str) -> Unpacked:
    """A file that is one compressed stream. Raises OSError where the file does."""
    try:
        data = _STREAMS[kind](source.at(0, _PACKED_HEAD))
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        return Unpacked(kind, ("archive: it does not unpack",), (f"{kind}: {str(error)[:80]}",))
    inner = identify(BoundedFile.of(data, cut=True))
    return Unpacked(kind, tuple(_active_member("inside", inner, BoundedFile.of(data, cut=True))))


def look_into_zip(source: BoundedFile) -> Unpacked:
    """A zip archive, whatever it is used for. Raises OSError where the file does."""
    try:
        directory = read_directory(source)
    except Malformed as error:
        return Unpacked("zip", ("archive: its directory cannot be read",), (str(error),))
    files = [member for member in directory.members if not member.name.endswith("/")]
    kind = _used_for(files)
    looked_at, active, wrong = _looked_at(kind, files), list[str](), list(directory.findings)
    if kind == "torchscript":
        active.append("torchscript")
    for member in looked_at[:MAX_LOOKED_AT]:
        try:
            active += _member(kind, source, member)
        except Malformed as error:
            wrong.append(f"zip: {error}")
            active.append("archive: a member cannot be read here")
    if len(looked_at) > MAX_LOOKED_AT:
        active.append(f"archive: {len(looked_at) - MAX_LOOKED_AT} of {len(files)} members were not looked at")
    return Unpacked(kind, tuple(_few(active)), tuple(dict.fromkeys(wrong))[:MAX_FINDINGS])


def holds_objects(source: BoundedFile) -> bool:
    """Whether a .npy file holds Python objects, which are a pickle behind its header."""
    length = int.from_bytes(source.at(8, 2) if source.at(6, 1) == b"\x01" else source.at(8, 4), "little")
    return _OBJECTS.search(source.at(8, min(length + 4, _PACKED_HEAD))) is not None


def holds_lambda(source: BoundedFile) -> bool:
    """Whether Keras' description of a model names a layer that holds code, in the first 8 MiB or the last one."""
    mib = 1024 * 1024
    ends = (source.at(0, 8 * mib), source.at(max(0, source.size - mib), mib))
    return any(_LAMBDA.search(part) is not None for part in ends)


def _used_for(members: Sequence[ArchiveMember]) -> str:
    names = {PurePosixPath(member.name).name for member in members}
    folders = {part for member in members for part in PurePosixPath(member.name).parts[:-1]}
    if "constants.pkl" in names or ("data.pkl" in names and "code" in folders):
        return "torchscript"
    if "data.pkl" in names and ("data" in folders or "version" in names):
        return "pytorch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "keras" if {"config.json", "metadata.json"} <= names else "zip"


def _looked_at(kind: str, members: Sequence[ArchiveMember]) -> list[ArchiveMember]:
    """Of PyTorch's archives the pickles and the code: the rest are numbers, which only these refer to."""
    if kind not in ("pytorch", "torchscript"):
        return list(members)
    return [m for m in members if not _is_storage(m.name)]


def _is_storage(name: str) -> bool:
    path = PurePosixPath(name)
    return "data" in path.parts[:-1] and not path.suffix


def _member(kind: str, source: BoundedFile, member: ArchiveMember) -> Iterator[str]:
    name = PurePosixPath(member.name).name[:80]
    if "code" not in PurePosixPath(member.name).parts[:-1] or kind != "torchscript":  # whose code is named as such
        yield from (f"{active}: {name}" for active in active_by_name(member.name))
    if name == "config.json":
        data = member_head(source, member, CONFIGURATION)
        if member.unpacked > len(data):
            yield f"archive: {name} was not looked through"
        yield from active_in_json(BoundedFile.of(data), name)[0]
        return
    data = member_head(source, member)
    inside = BoundedFile.of(data, cut=member.unpacked > len(data))
    yield from _active_member(name, identify(inside), inside)


def _active_member(name: str, inner: str, source: BoundedFile) -> Iterator[str]:
    if inner in PACKED:
        yield f"archive: {name} is packed once more"
    elif inner == "bytecode":
        yield f"python: {name}"
    elif inner in ("pickle", "executable", "script"):
        yield f"{inner}: {name}"
    elif inner == "numpy" and holds_objects(source):
        yield f"pickle: {name}"
    elif inner == "hdf5" and holds_lambda(source):
        yield f"keras-lambda: {name}"


def _few(active: Sequence[str]) -> Iterator[str]:
    """The first of each kind, and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for item in dict.fromkeys(active):
        kinds.setdefault(item.partition(":")[0], []).append(item)
    for kind, items in kinds.items():
        yield from items[:MAX_SHOWN_OF_A_KIND]
        if len(items) > MAX_SHOWN_OF_A_KIND:
            yield f"{kind}: {len(items) - MAX_SHOWN_OF_A_KIND} more like these"


MAX_SHOWN: Final = 200
"""Characters of one text of an inspection."""

_Look = Callable[[BoundedFile, str, str], Inspection]


def inspect(file: BinaryIO, path: str, size: int) -> Inspection:
    """Look at a file of `size` bytes that is called `path` in its artifact. Raises OSError where `file` does."""
    source = BoundedFile(file, size)
    try:
        kind = identify(source)
        found = _LOOKS.get(kind, _plain)(source, path, kind)
        beside = ("it is a zip archive as well",) if kind not in PACKED and ends_like_a_zip(source) else ()
    except Malformed as error:
        found, beside = Inspection("unknown"), (str(error),)
    active = dict.fromkeys((*active_by_name(path), *found.active))
    return Inspection(found.format, _shown(active), _shown((*found.malformed, *beside)))


def _shown(texts: Mapping[str, None] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:MAX_SHOWN] for text in texts)


def by_name(path: str) -> Inspection:
    """What is known of a file before its bytes are here."""
    return Inspection("unknown", active_by_name(path))


def _plain(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind)


def _safetensors(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, malformed=tuple(look_at_safetensors(source).findings))


def _gguf(source: BoundedFile, path: str, kind: str) -> Inspection:
    looked = look_at_gguf(source)
    active = [item for text in looked.templates for item in ("chat-template", *active_in_template(text))]
    return Inspection(kind, tuple(dict.fromkeys(active)), tuple(looked.findings))


def _zip(source: BoundedFile, path: str, kind: str) -> Inspection:
    found = look_into_zip(source)
    return Inspection(found.format, found.active, found.malformed)


def _stream(source: BoundedFile, path: str, kind: str) -> Inspection:
    found = look_into_stream(source, kind)
    return Inspection(found.format, found.active, found.malformed)


def _numpy(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("pickle: an array of objects",) if holds_objects(source) else ())


def _hdf5(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("keras-lambda",) if holds_lambda(source) else ())


def _json(source: BoundedFile, path: str, kind: str) -> Inspection:
    active, malformed = active_in_json(source, path)
    return Inspection(kind, active, malformed)


def _text(source: BoundedFile, path: str, kind: str) -> Inspection:
    active, malformed = active_in_text(source, path)
    return Inspection(kind, active, malformed)


def _program(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("python",) if kind == "bytecode" else (kind,))


def _archive(source: BoundedFile, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("archive",))


_LOOKS: Final[Mapping[str, _Look]] = {
    "safetensors": _safetensors,
    "gguf": _gguf,
    "zip": _zip,
    **dict.fromkeys(("gzip", "bzip2", "xz", "zlib"), _stream),
    "numpy": _numpy,
    "hdf5": _hdf5,
    "json": _json,
    "text": _text,
    **dict.fromkeys(("pickle", "executable", "script", "bytecode"), _program),
    "archive": _archive,
}
