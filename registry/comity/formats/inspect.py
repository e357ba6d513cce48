"""Inspects one file: its format, content that a loader would execute, and problems in its header.

The format is identified by bytes (`identify`); the name is used only where bytes cannot decide, such as for program
text. Nothing is executed, unpickled, imported or rendered. At most `tensors.BUDGET` bytes of a file are read, wherever
its own offsets point, and anything that cannot be inspected within that limit is reported.

JSON is parsed within limits, because one key can be spelled in many ways. Of a member of an archive or a compressed
stream only the first `ARCHIVE_HEAD` bytes are unpacked, and no nested archive.
"""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, TypeAlias

from comity.formats.archives import ARCHIVE_HEAD, ArchiveMember, has_zip_end_record, member_head, read_directory
from comity.formats.identify import identify
from comity.formats.sanity import MAX_FINDINGS, check_gguf_header, check_safetensors_header
from comity.formats.tensors import BoundedFile
from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection

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

TextFindings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Active content, and problems."""


def active_by_name(path: str) -> tuple[str, ...]:
    """Active content according to the name only."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE_SUFFIXES:
        return ("python",)
    if suffix in SCRIPT_SUFFIXES:
        return ("script",)
    return ("chat-template",) if suffix in TEMPLATE_SUFFIXES else ()


def active_in_text(source: BoundedFile, path: str) -> TextFindings:
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


def active_in_json(source: BoundedFile, path: str) -> TextFindings:
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
    """TextFindings for one template or a list of named templates."""
    texts = [item.get("template") for item in value if isinstance(item, dict)] if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str) and text:
            yield "chat-template"
            yield from active_in_template(text.encode("utf-8", "replace"))


MAX_INSPECTED_MEMBERS: Final = 512
"""Members of an ordinary archive whose first bytes are inspected."""
MAX_MEMORY: Final = 64 * 1024 * 1024
MAX_SHOWN_OF_A_KIND: Final = 2
"""TextFindings listed per kind."""
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


def _inspect_stream(source: BoundedFile, path: str, kind: str) -> Inspection:
    """Inspect a file that is one compressed stream. Raises OSError if the file does."""
    try:
        data = _STREAMS[kind](source.read_at(0, _PACKED_HEAD))
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        return Inspection(kind, ("archive: it cannot be unpacked",), (f"{kind}: {str(error)[:80]}",))
    inner = identify(BoundedFile.of(data, truncated=True))
    return Inspection(kind, tuple(_active_in_member("inside", inner, BoundedFile.of(data, truncated=True))))


def _inspect_zip(source: BoundedFile, path: str, kind: str) -> Inspection:
    """Inspect a zip archive of any kind. Raises OSError if the file does."""
    try:
        directory = read_directory(source)
    except Malformed as error:
        return Inspection("zip", ("archive: its directory cannot be read",), (str(error),))
    files = [member for member in directory.members if not member.name.endswith("/")]
    archive = _archive_kind(files)
    to_inspect, active, problems = _members_to_inspect(archive, files), list[str](), list(directory.findings)
    if archive == "torchscript":
        active.append("torchscript")
    for member in to_inspect[:MAX_INSPECTED_MEMBERS]:
        try:
            active += _inspect_member(archive, source, member)
        except Malformed as error:
            problems.append(f"zip: {error}")
            active.append("archive: a member cannot be read")
    if len(to_inspect) > MAX_INSPECTED_MEMBERS:
        active.append(f"archive: {len(to_inspect) - MAX_INSPECTED_MEMBERS} of {len(files)} members were not inspected")
    return Inspection(archive, tuple(_limit_per_kind(active)), tuple(dict.fromkeys(problems))[:MAX_FINDINGS])


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
