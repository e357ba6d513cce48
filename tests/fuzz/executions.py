"""Whether a loader that people use would execute something in some bytes: asked of the loaders, which call a recorder.

Every name that a pickle imports is the recorder's class here, so that nothing of a mutated file runs. The answer is
the loader's own, and shares nothing with the inspection that it checks.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import tarfile
import zipfile
import zipimport
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

MAX_READ: Final = 8 * 1024 * 1024
MAX_MEMBERS: Final = 8
MAX_DEPTH: Final = 3
_KERNEL_HEAD: Final = 256
_OBJECT: Final = re.compile(r"(?:\||[<>=])?O\d*|object")


class _Recorder:
    """Stands for every class and function that a pickle names. `called` says whether any instance was made."""

    called = False

    def __new__(cls, *arguments: object, **named: object) -> _Recorder:
        _Recorder.called = True
        return super().__new__(cls)


class _Unpickler(pickle._Unpickler):
    """In Python, because the one in C allocates what a memo's index asks for."""

    def find_class(self, module: str, name: str) -> type[_Recorder]:
        if any(text.encode().split() != [text.encode()] for text in (module, name)):
            raise pickle.UnpicklingError("no module and no attribute has blanks in its name")
        return _Recorder

    def persistent_load(self, pid: object) -> None:
        if not isinstance(pid, tuple):
            raise pickle.UnpicklingError("torch takes no other")


def _unpickles(file: io.BytesIO) -> bool:
    """Whether one of the first pickles in the file calls anything."""
    _Recorder.called = False
    try:
        for _ in range(MAX_MEMBERS):
            _Unpickler(file).load()
            if _Recorder.called:
                return True
    except Exception:  # a loader fails on hostile bytes in any way
        return _Recorder.called
    return False


def _streams(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What each decompressor gives for the bytes, also before an error."""
    openers: dict[str, Callable[[io.BytesIO], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    for name, opener in openers.items():
        got = bytearray()
        try:
            with opener(io.BytesIO(data)) as stream:
                while len(got) < MAX_READ and (some := stream.read(64)):
                    got += some
        except Exception:
            pass
        if got:
            yield name, bytes(got)
    try:
        yield "zlib", zlib.decompressobj().decompress(data, MAX_READ)
    except zlib.error:
        return


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist()[:MAX_MEMBERS]:
                if info.file_size <= MAX_READ:
                    yield "zip", archive.read(info)
    except Exception:
        pass
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for _, head in zip(range(MAX_MEMBERS), tar, strict=False):
                member = tar.extractfile(head)
                if member is not None and head.size <= MAX_READ:
                    yield "tar", member.read()
    except Exception:
        return


def _has_objects(descr: object) -> bool:
    if isinstance(descr, str):
        return _OBJECT.fullmatch(descr) is not None
    return isinstance(descr, list | tuple) and any(_has_objects(part) for part in descr)


def _loads_array(data: bytes) -> bool:
    """As numpy: the header is a literal, and a pickle follows if it names objects."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12 or data[6] not in (1, 2, 3):
        return False
    width = 2 if data[6] == 1 else 4
    start = 8 + width
    end = start + int.from_bytes(data[8:start], "little")
    try:
        header = ast.literal_eval(data[start:end].decode("utf-8" if data[6] == 3 else "latin-1"))
        if not _has_objects(header["descr"]):
            return False
    except Exception:
        return False
    return _unpickles(io.BytesIO(data[end:]))


def _runs_as_script(data: bytes) -> bool:
    """As the kernel: the interpreter is the first word after the mark, up to a blank, the line's end or a zero."""
    head = data[:_KERNEL_HEAD]
    if head[:2] != b"#!" or b"\n" not in head:
        return False
    line = head[2:].split(b"\n")[0].strip(b" \t")
    interpreter = re.split(rb"[ \t\0]", line)[0]
    return interpreter.startswith(b"/") and os.access(interpreter, os.X_OK) and b"\0" not in line


def _runs_as_zip(data: bytes, scratch: Path) -> bool:
    """As `python FILE`: the code of `__main__` is compiled, and not run."""
    if b"__main__" not in data:
        return False
    path = scratch / "archive"
    path.write_bytes(data)
    zipimport._zip_directory_cache.clear()  # type: ignore[attr-defined]
    try:
        return zipimport.zipimporter(str(path)).get_code("__main__") is not None
    except Exception:
        return False


def executes(data: bytes, scratch: Path, depth: int = 0) -> str:
    """The loader that would execute something in these bytes; empty if none would.

    Args:
        scratch: a folder for one file.
    """
    if _unpickles(io.BytesIO(data)):
        return "pickle"
    if _loads_array(data):
        return "numpy"
    if _runs_as_script(data):
        return "script"
    if _runs_as_zip(data, scratch):
        return "zipapp"
    if depth < MAX_DEPTH:
        for name, inside in (*_streams(data), *_members(data)):
            if inner := executes(inside, scratch, depth + 1):
                return f"{name}: {inner}"
    return ""
