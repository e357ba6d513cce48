"""What is inside of a file that is packed: archives by their directory and the heads of their members, streams by their
first bytes. At most `HEAD` bytes of anything are unpacked, and nothing is followed into an archive within one.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from comity.formats import zips
from comity.formats.census import identify
from comity.formats.sanity import MAX_FINDINGS
from comity.formats.source import Source
from comity.formats.texts import active_by_name, active_in_json
from comity.formats.zips import HEAD, Member
from comity.trust.errors import Malformed

MAX_LOOKED_AT: Final = 512
"""Members of an ordinary archive whose first bytes are looked at."""
MAX_MEMORY: Final = 64 * 1024 * 1024
MAX_SHOWN: Final = 2
"""Members that are named for one kind."""
CONFIGURATION: Final = 1024 * 1024
PACKED: Final = frozenset({"zip", "gzip", "bzip2", "xz", "zlib", "archive"})

_STREAMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: zlib.decompressobj(31).decompress(data, HEAD),
    "zlib": lambda data: zlib.decompressobj().decompress(data, HEAD),
    "bzip2": lambda data: bz2.BZ2Decompressor().decompress(data, HEAD),
    "xz": lambda data: lzma.LZMADecompressor(memlimit=MAX_MEMORY).decompress(data, HEAD),
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


def look_into_stream(source: Source, kind: str) -> Unpacked:
    """A file that is one compressed stream. Raises OSError where the file does."""
    try:
        data = _STREAMS[kind](source.at(0, _PACKED_HEAD))
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        return Unpacked(kind, ("archive: it does not unpack",), (f"{kind}: {str(error)[:80]}",))
    inner = identify(Source.of(data, cut=True))
    return Unpacked(kind, tuple(_active_member("inside", inner, Source.of(data, cut=True))))


def look_into_zip(source: Source) -> Unpacked:
    """A zip archive, whatever it is used for. Raises OSError where the file does."""
    try:
        directory = zips.read_directory(source)
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


def holds_objects(source: Source) -> bool:
    """Whether a .npy file holds Python objects, which are a pickle behind its header."""
    length = int.from_bytes(source.at(8, 2) if source.at(6, 1) == b"\x01" else source.at(8, 4), "little")
    return _OBJECTS.search(source.at(8, min(length + 4, _PACKED_HEAD))) is not None


def holds_lambda(source: Source) -> bool:
    """Whether Keras' description of a model names a layer that holds code, in the first 8 MiB or the last one."""
    mib = 1024 * 1024
    ends = (source.at(0, 8 * mib), source.at(max(0, source.size - mib), mib))
    return any(_LAMBDA.search(part) is not None for part in ends)


def _used_for(members: Sequence[Member]) -> str:
    names = {PurePosixPath(member.name).name for member in members}
    folders = {part for member in members for part in PurePosixPath(member.name).parts[:-1]}
    if "constants.pkl" in names or ("data.pkl" in names and "code" in folders):
        return "torchscript"
    if "data.pkl" in names and ("data" in folders or "version" in names):
        return "pytorch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "keras" if {"config.json", "metadata.json"} <= names else "zip"


def _looked_at(kind: str, members: Sequence[Member]) -> list[Member]:
    """Of PyTorch's archives the pickles and the code: the rest are numbers, which only these refer to."""
    if kind not in ("pytorch", "torchscript"):
        return list(members)
    return [m for m in members if not _is_storage(m.name)]


def _is_storage(name: str) -> bool:
    path = PurePosixPath(name)
    return "data" in path.parts[:-1] and not path.suffix


def _member(kind: str, source: Source, member: Member) -> Iterator[str]:
    name = PurePosixPath(member.name).name[:80]
    if "code" not in PurePosixPath(member.name).parts[:-1] or kind != "torchscript":  # whose code is named as such
        yield from (f"{active}: {name}" for active in active_by_name(member.name))
    if name == "config.json":
        data = zips.head(source, member, CONFIGURATION)
        if member.unpacked > len(data):
            yield f"archive: {name} was not looked through"
        yield from active_in_json(Source.of(data), name)[0]
        return
    data = zips.head(source, member)
    inside = Source.of(data, cut=member.unpacked > len(data))
    yield from _active_member(name, identify(inside), inside)


def _active_member(name: str, inner: str, source: Source) -> Iterator[str]:
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
        yield from items[:MAX_SHOWN]
        if len(items) > MAX_SHOWN:
            yield f"{kind}: {len(items) - MAX_SHOWN} more like these"
