"""Inspects one file: its format, content that a loader would execute, and problems in its header.

Every reading that a loader may try is asked before any answer: from the first byte, from the end, after each wrapper.
A file is clean only if one format is recognised, is read to its end within the limits, and cannot call anything; where
a second reading begins, or a limit is reached, that is a finding. The format is identified by bytes; the name is used
only where bytes cannot decide, such as for program text. Nothing is executed, unpickled, imported or rendered.

Work is bounded by counts (`source`), so that the same version gives the same answer everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from comity.formats import (
    archives,
    arrays,
    binaries,
    coreml,
    data_files,
    datasets,
    fonts,
    hdf5,
    messages,
    streams,
    texts,
)
from comity.formats.archives import ArchiveMember, has_zip_end_record
from comity.formats.loaders import active_by_name, is_packed_chunk, is_raw_by_name
from comity.formats.pickles import is_pickle
from comity.formats.sanity import MAX_FINDINGS, check_gguf_header, check_safetensors_header
from comity.formats.source import BoundedFile, InspectedFile, NotInspected
from comity.formats.templates import active_in_template
from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection
from comity.trust.frozen import frozen

SCANNER_VERSION: Final = 6
"""Raised whenever an answer about any file may be another: answers are kept by digest and this number."""
FILE_HEAD: Final = 512
MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The limit that the format sets."""
MAX_SHOWN_OF_A_KIND: Final = 2
"""Findings listed per kind."""
MAX_TEXT_LENGTH: Final = 200
"""Characters of one finding."""
STREAMS: Final = ("gzip", "bzip2", "xz")
PROBED: Final = ("zlib", "lzma")
"""Streams whose first bytes other formats have too: they count if they unpack to their end, or to something active."""


def inspect(file: BinaryIO, path: str, size: int) -> Inspection:
    """Inspect a file of `size` bytes that its artifact names `path`. Raises OSError if `file` does."""
    found = _inspect(InspectedFile(BoundedFile(file, size), path, _inspect))
    active = dict.fromkeys((*active_by_name(path), *_limit_per_kind(found.active)))
    if any(text.startswith("chat-template:") for text in active):
        active.pop("chat-template", None)
    return Inspection(found.format, _shorten(active), _shorten(dict.fromkeys(found.malformed))[:MAX_FINDINGS])


def inspect_name(path: str) -> Inspection:
    """The inspection of a file by name only, before its bytes are available."""
    return Inspection("unknown", active_by_name(path))


def _shorten(found: Mapping[str, None]) -> tuple[str, ...]:
    return tuple(text[:MAX_TEXT_LENGTH] for text in found)


def _limit_per_kind(active: Sequence[str]) -> Iterator[str]:
    """The first findings of each kind, and the number of others."""
    kinds: dict[str, list[str]] = {}
    for item in dict.fromkeys(active):
        kinds.setdefault(item.partition(":")[0], []).append(item)
    for kind, items in kinds.items():
        yield from items[:MAX_SHOWN_OF_A_KIND]
        if len(items) > MAX_SHOWN_OF_A_KIND:
            yield f"{kind}: {len(items) - MAX_SHOWN_OF_A_KIND} more like these"


@frozen
class Reading:
    """A way in which a loader begins to read a file.

    Attributes:
        begins: whether it would, by the first bytes of the file.
        read: what it would find.
    """

    name: str
    begins: Callable[[InspectedFile, bytes], bool]
    read: Callable[[InspectedFile], Inspection]


def _inspect(file: InspectedFile) -> Inspection:
    """All readings of one file, together. Raises OSError if the file does."""
    if file.source.size == 0:
        return Inspection("empty")
    found, answers = list[tuple[str, Inspection]](), 0
    try:
        head = file.source.read_at(0, FILE_HEAD)
        for reading in READINGS:
            if reading.begins(file, head):
                found.append((reading.name, _answer(reading, file)))
        for kind in PROBED:
            if streams.begins_stream(kind, head) and (inside := _probe(file, kind, bool(found))) is not None:
                found.append((kind, inside))
        answers = len(found)
        if not found:
            found.append(_weak(file, head))
    except Malformed as error:  # a limit of the readings themselves
        found.append(("unknown", _not_inspected("unknown", error)))
    (_, first), others = found[0], found[1:]
    active = [text for _, each in found for text in each.active]
    malformed = [text for _, each in found for text in each.malformed]
    if answers > 1:
        malformed += [f"two readings: it is also {_ARTICLES.get(name, f'a {name} file')}" for name, _ in others]
    return Inspection(first.format, tuple(dict.fromkeys(active)), tuple(dict.fromkeys(malformed)))


_ARTICLES: Final = {
    "pickle": "a pickle",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "numpy": "a NumPy array",
    "hdf5": "an HDF5 file",
    "program": "a program",
    **dict.fromkeys((*STREAMS, *PROBED), "a compressed stream"),
}


def _answer(reading: Reading, file: InspectedFile) -> Inspection:
    try:
        return reading.read(file)
    except NotInspected as error:
        return _not_inspected(reading.name, error)
    except Malformed as error:
        return Inspection(reading.name, malformed=(str(error),))


def _not_inspected(name: str, error: Malformed) -> Inspection:
    return Inspection(name, (f"not-inspected: {error}",))


def _probe(file: InspectedFile, kind: str, otherwise: bool) -> Inspection | None:
    """What a stream unpacks to, if it is one: to its end, or to something active before an error.

    Args:
        otherwise: whether the file is something else.
    """
    try:
        unpacked = streams.unpack(kind, file.source)
        if unpacked.error and not unpacked.data:
            return None
        source = BoundedFile.of(unpacked.data, file.work, truncated=kind == "lzma" and bool(unpacked.error))
        inside = file.inside(source, _unpacked_name(file))
    except NotInspected as error:
        return _not_inspected(kind, error)
    calls = tuple(text for text in inside.active if not text.startswith(("unknown", "not-inspected")))
    if not unpacked.error:
        return Inspection(kind, inside.active, inside.malformed)
    return Inspection(kind, calls, ("it cannot be unpacked to its end",)) if calls else None


def _weak(file: InspectedFile, head: bytes) -> tuple[str, Inspection]:
    """The format of a file in which no loader's reading begins: data, text, and messages without magic bytes."""
    source, suffix = file.source, PurePosixPath(file.path).suffix.lower()
    if name := data_files.data_format(head):
        return name, _read_data(file, name, head)
    if datasets.is_arrow_stream(source):
        return "table", _read_data(file, "table", head)
    printable = not texts.has_controls(head)
    if printable and texts.is_text(source):
        return _text(file, head)
    if messages.is_onnx(source):
        return "onnx", _read_onnx(file)
    if coreml.is_coreml(source):
        return "coreml", _read_coreml(file)
    if messages.is_saved_model(source) or (suffix == ".pb" and messages.is_graph(source)):
        return "tensorflow", Inspection("tensorflow", ("tensorflow",))
    if messages.is_sentencepiece(source):
        return "sentencepiece", Inspection("sentencepiece")
    if suffix == ".pb" and messages.is_tensor(source):
        return "onnx", Inspection("onnx")
    if texts.is_text(source):
        return _text(file, head)
    if suffix == ".msgpack" and data_files.is_message_pack(source):
        return "msgpack", Inspection("msgpack")
    if texts.is_wide_text(source, file.path):
        return "text", Inspection("text")
    if data_files.is_record_file(source):
        return "table", Inspection("table")
    if is_raw_by_name(file.path):
        return "raw", Inspection("raw")
    return "unknown", Inspection("unknown", ("unknown",))


def _text(file: InspectedFile, head: bytes) -> tuple[str, Inspection]:
    beginning = head if head.strip() else file.source.read_at(0, texts.CHUNK)
    lines = PurePosixPath(file.path).suffix.lower() in texts.LINES_SUFFIXES
    kind = "json" if texts.looks_like_json(beginning) and not lines else "text"
    try:
        active, malformed = texts.active_in_text(file.source, file.path)  # the name may be that of YAML, with JSON
        if kind == "json":
            more, problems = texts.active_in_json(file.source, file.path)
            active, malformed = (*active, *more), (*malformed, *problems)
    except NotInspected as error:
        return kind, _not_inspected(kind, error)
    return kind, Inspection(kind, active, malformed)


def _read_data(file: InspectedFile, name: str, head: bytes) -> Inspection:
    try:
        if name == "table" and head.startswith(b"SQLite"):
            return Inspection(name, ("not-inspected: tables of SQLite, in which programs keep pickles",))
        if name == "table":
            return Inspection(name, tuple(dict.fromkeys(datasets.active_in_table(file.source))))
        if name in ("image", "audio"):
            data_files.check_media(file.source, head)
        if name in _CHECKS:
            _CHECKS[name](file.source)
        if name == "tflite":
            custom = tuple(f"custom-operator: {each[:60]}" for each in data_files.tflite_operators(file.source))
            return Inspection(name, custom)
    except NotInspected as error:
        return _not_inspected(name, error)
    except Malformed as error:
        return _not_inspected(name, error) if name == "ggml" else Inspection(name, malformed=(str(error),))
    return Inspection(name)


_CHECKS: Final = {
    "ggml": binaries.check_ggml,
    "fasttext": binaries.check_fasttext,
    "coreml": binaries.check_coreml_weights,
    "font": fonts.check_font,
}


def _read_coreml(file: InspectedFile) -> Inspection:
    try:
        found = coreml.CoreMlReader(file.source).read()
    except NotInspected as error:
        return _not_inspected("coreml", error)
    except Malformed as error:
        return Inspection("coreml", malformed=(str(error),))
    outside = tuple(f"coreml: a file outside the package: {each[:60]!r}" for each in found.outside)
    return Inspection("coreml", tuple(f"custom-operator: the class {each[:60]}" for each in found.classes), outside)


def _read_onnx(file: InspectedFile) -> Inspection:
    try:
        found = messages.OnnxReader(file.source).read()
    except NotInspected as error:
        return _not_inspected("onnx", error)
    except Malformed as error:
        return Inspection("onnx", malformed=(str(error),))
    outside = tuple(f"onnx: external data outside the folder: {each[:60]!r}" for each in found.outside)
    return Inspection("onnx", tuple(f"custom-operator: {each[:60]}" for each in found.operators), outside)


def _begins_safetensors(file: InspectedFile, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(file.source.size - 8, MAX_SAFETENSORS_HEADER)


def _read_safetensors(file: InspectedFile) -> Inspection:
    return Inspection("safetensors", malformed=tuple(check_safetensors_header(file.source).findings))


def _read_gguf(file: InspectedFile) -> Inspection:
    checked = check_gguf_header(file.source)
    active = [item for text in checked.templates for item in active_in_template(text, file.work)]
    return Inspection("gguf", tuple(dict.fromkeys(active)), tuple(checked.findings))


def _begins_zip(file: InspectedFile, head: bytes) -> bool:
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or has_zip_end_record(file.source)


def _read_zip(file: InspectedFile) -> Inspection:
    try:
        directory = archives.read_directory(file.source)
    except Malformed as error:
        return Inspection("zip", ("archive: its directory cannot be read",), (str(error),))
    file.work.step(STEPS_OF_ENTRY * len(directory.members))
    files = [member for member in directory.members if not member.name.endswith("/")]
    kind = _archive_kind(files)
    active, problems = list[str](), list(directory.findings)
    if kind == "torchscript":
        active.append("torchscript")
    for member in files:
        if kind in ("pytorch", "torchscript") and _is_storage(member.name):
            continue
        try:
            found = _inspect_zip_member(file, kind, member)
        except NotInspected as error:
            active.append(f"not-inspected: {member.name[-60:]}: {error}")
            break
        except Malformed as error:
            problems.append(f"zip: {error}")
            active.append("archive: a member cannot be read")
            continue
        active += found.active
        problems += found.malformed
    return Inspection(kind, tuple(_limit_per_kind(active)), tuple(dict.fromkeys(problems))[:MAX_FINDINGS])


STEPS_OF_ENTRY: Final = 8
"""Of one entry of the directory of an archive."""


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


def _is_storage(name: str) -> bool:
    """Whether a member of a PyTorch archive is numbers, which its loader reads as such."""
    path = PurePosixPath(name)
    return "data" in path.parts[:-1] and not path.suffix


def _inspect_zip_member(file: InspectedFile, kind: str, member: ArchiveMember) -> Inspection:
    """Raises Malformed, NotInspected."""
    part = archives.stored_member(file.source, member)
    if part is None and kind == "npz":
        data = archives.member_head(file.source, member, NPZ_HEAD)
        if data.startswith(arrays.MAGIC):
            file.work.unpack(len(data))
            file.work.count_member()
            objects = arrays.read_arrays(BoundedFile.of(data, file.work), whole=False)
            return Inspection("numpy", (f"pickle: {member.name[-80:]}",) if objects else ())
    if part is None:
        part = BoundedFile.of(archives.unpack_member(file.source, member), file.work)
    code = kind == "torchscript" and "code" in PurePosixPath(member.name).parts[:-1]
    return _in_member(file, part, member.name, by_name=not code)


NPZ_HEAD: Final = arrays.MAX_HEADER + 12


def _in_member(file: InspectedFile, part: BoundedFile, name: str, *, by_name: bool = True) -> Inspection:
    """The inspection of a member, whose findings name it. Raises NotInspected."""
    shown = PurePosixPath(name).name[-60:] or "inside"
    found = file.inside(part, name)
    named = active_by_name(name) if by_name else ()
    active = dict.fromkeys((*named, *found.active))
    return Inspection(
        found.format,
        tuple(text if ": " in text and shown in text else _in_file(text, shown) for text in active),
        tuple(f"{shown}: {text}" for text in found.malformed),
    )


def _in_file(active: str, name: str) -> str:
    kind, _, detail = active.partition(": ")
    return f"{kind}: {name}{': ' * bool(detail)}{detail}"


def _read_tar(file: InspectedFile) -> Inspection:
    directory = archives.read_tar(file.source)
    active, problems = list[str](), list(directory.findings)
    for member in directory.members:
        try:
            found = _in_member(file, file.source.part(member.offset, member.packed), member.name)
        except NotInspected as error:
            active.append(f"not-inspected: {member.name[-60:]}: {error}")
            break
        active += found.active
        problems += found.malformed
    return Inspection("tar", tuple(_limit_per_kind(active)), tuple(dict.fromkeys(problems))[:MAX_FINDINGS])


def _stream(kind: str) -> Reading:
    def read(file: InspectedFile) -> Inspection:
        unpacked = streams.unpack(kind, file.source)
        name = _unpacked_name(file)
        inside = BoundedFile.of(unpacked.data, file.work, truncated=bool(unpacked.error))
        found = _in_member(file, inside, name or "inside")
        if unpacked.error:
            problem = f"{kind}: {unpacked.error}"
            return Inspection(kind, (*found.active, "archive: it cannot be unpacked"), (problem, *found.malformed))
        return Inspection(kind, found.active, found.malformed)

    return Reading(kind, lambda file, head: streams.begins_stream(kind, head), read)


def _unpacked_name(file: InspectedFile) -> str:
    """The name of what a stream unpacks to: without its last suffix, but the name of numbers remains."""
    return file.path if is_raw_by_name(file.path) else PurePosixPath(file.path).stem


def _read_numpy(file: InspectedFile) -> Inspection:
    objects = arrays.read_arrays(file.source)
    return Inspection("numpy", ("pickle: an array of objects",) if objects else ())


def _read_hdf5(file: InspectedFile) -> Inspection:
    def read_text(text: bytes, name: str) -> Iterator[str]:
        yield from texts.active_in_json(BoundedFile.of(text, file.work), name)[0]

    found = hdf5.Hdf5Reader(file.source, read_text).read()
    return Inspection("hdf5", tuple(found.active), tuple(found.malformed))


def _read_program(file: InspectedFile) -> Inspection:
    name = data_files.program_format(file.source, file.source.read_at(0, FILE_HEAD))
    return Inspection(name, ("python",) if name == "bytecode" else (name,))


def _read_serialized(file: InspectedFile) -> Inspection:
    language = data_files.serialized_by(file.source.read_at(0, FILE_HEAD))
    return Inspection("serialized", (f"serialized: objects of {language}",))


READINGS: Final = (
    Reading("safetensors", _begins_safetensors, _read_safetensors),
    Reading("gguf", lambda file, head: head.startswith(b"GGUF"), _read_gguf),
    Reading("numpy", lambda file, head: head.startswith(arrays.MAGIC), _read_numpy),
    Reading("hdf5", lambda file, head: hdf5.superblock_offset(file.source) is not None, _read_hdf5),
    *map(_stream, STREAMS),
    Reading("zip", _begins_zip, _read_zip),
    Reading(
        "archive",
        lambda file, head: head.startswith(streams.PACKED_MAGIC) and not is_packed_chunk(file.path, head),
        lambda file: Inspection("archive", ("archive",)),
    ),
    Reading("program", lambda file, head: bool(data_files.program_format(file.source, head)), _read_program),
    Reading("serialized", lambda file, head: bool(data_files.serialized_by(head)), _read_serialized),
    Reading("tar", lambda file, head: archives.is_tar(file.source), _read_tar),
    Reading("pickle", lambda file, head: is_pickle(file.source), lambda file: Inspection("pickle", ("pickle",))),
)
"""The readings that are asked of every file; the first that begins gives the format its name."""
