"""One look at one file: what it is, what in it would run, what is wrong with its header.

Nothing is executed, unpickled, imported or rendered. Of no file more is read than `source.BUDGET`, wherever its own
numbers point, and what cannot be looked at within that is stated, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO, Final

from comity.formats import packed, texts
from comity.formats.census import identify
from comity.formats.gguf_sanity import look_at_gguf
from comity.formats.safetensors_sanity import look_at_safetensors
from comity.formats.source import Source
from comity.formats.zips import ends_like_a_zip
from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection

MAX_SHOWN: Final = 200
"""Characters of one text of an inspection."""

_Look = Callable[[Source, str, str], Inspection]


def inspect(file: BinaryIO, path: str, size: int) -> Inspection:
    """Look at a file of `size` bytes that is called `path` in its artifact. Raises OSError where `file` does."""
    source = Source(file, size)
    try:
        kind = identify(source)
        found = _LOOKS.get(kind, _plain)(source, path, kind)
        beside = ("it is a zip archive as well",) if kind not in packed.PACKED and ends_like_a_zip(source) else ()
    except Malformed as error:
        found, beside = Inspection("unknown"), (str(error),)
    active = dict.fromkeys((*texts.active_by_name(path), *found.active))
    return Inspection(found.format, _shown(active), _shown((*found.malformed, *beside)))


def _shown(texts: Mapping[str, None] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:MAX_SHOWN] for text in texts)


def by_name(path: str) -> Inspection:
    """What is known of a file before its bytes are here."""
    return Inspection("unknown", texts.active_by_name(path))


def _plain(source: Source, path: str, kind: str) -> Inspection:
    return Inspection(kind)


def _safetensors(source: Source, path: str, kind: str) -> Inspection:
    return Inspection(kind, malformed=tuple(look_at_safetensors(source).findings))


def _gguf(source: Source, path: str, kind: str) -> Inspection:
    looked = look_at_gguf(source)
    active = [item for text in looked.templates for item in ("chat-template", *texts.active_in_template(text))]
    return Inspection(kind, tuple(dict.fromkeys(active)), tuple(looked.findings))


def _zip(source: Source, path: str, kind: str) -> Inspection:
    found = packed.look_into_zip(source)
    return Inspection(found.format, found.active, found.malformed)


def _stream(source: Source, path: str, kind: str) -> Inspection:
    found = packed.look_into_stream(source, kind)
    return Inspection(found.format, found.active, found.malformed)


def _numpy(source: Source, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("pickle: an array of objects",) if packed.holds_objects(source) else ())


def _hdf5(source: Source, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("keras-lambda",) if packed.holds_lambda(source) else ())


def _json(source: Source, path: str, kind: str) -> Inspection:
    active, malformed = texts.active_in_json(source, path)
    return Inspection(kind, active, malformed)


def _text(source: Source, path: str, kind: str) -> Inspection:
    active, malformed = texts.active_in_text(source, path)
    return Inspection(kind, active, malformed)


def _program(source: Source, path: str, kind: str) -> Inspection:
    return Inspection(kind, ("python",) if kind == "bytecode" else (kind,))


def _archive(source: Source, path: str, kind: str) -> Inspection:
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
