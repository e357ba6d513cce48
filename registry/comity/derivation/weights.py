"""The weight files of a folder, as groups of tensors: what was saved together, in however many files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from comity.formats.tensors import Fact, Table, Tensor, reader_of
from comity.trust.errors import Malformed, Unavailable

MAX_TENSORS: Final = 1_000_000
UNREAD: Final = frozenset(
    (".bin", ".ckpt", ".h5", ".jit", ".keras", ".mar", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".pb")
) | {".pickle", ".pkl", ".pt", ".pth", ".tflite"}
"""Endings of weight files whose tensors are not read here."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}\Z")


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor and the file that holds it: where that lies, and its path in the artifact."""

    path: Path
    file: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that were saved together. `gguf` says in which format, `facts` what the first file says of itself."""

    key: str
    gguf: bool
    tensors: Mapping[str, Located]
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Weights:
    """What a folder holds: groups, the files that they are in, and weight files that are not read here."""

    groups: tuple[Group, ...]
    files: tuple[str, ...]
    unread: tuple[str, ...]


def read_weights(folder: Path, paths: Iterable[str]) -> Weights:
    """The weights among the files of `folder` called `paths`.

    Raises Malformed (TENSORS) for a header that cannot be read, and for more than MAX_TENSORS tensors; Unavailable for
    a file that cannot be opened.
    """
    names = sorted(paths)
    unread = tuple(path for path in names if PurePosixPath(path).suffix.lower() in UNREAD)
    tables: dict[str, Table] = {}
    total = 0
    for path in names:
        if (read := reader_of(path)) is None:
            continue
        with readable(folder / path), (folder / path).open("rb") as file:
            try:
                tables[path] = read(file, (folder / path).stat().st_size)
            except Malformed as error:
                raise Malformed(f"the tensors of {path} cannot be read", why=error.why, code="TENSORS") from error
        total += len(tables[path].tensors)
        if total > MAX_TENSORS:
            raise Malformed("too many tensors", why=f"more than {MAX_TENSORS}", code="TENSORS")
    return Weights(tuple(_groups(folder, tables)), tuple(tables), unread)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What cannot be read is Unavailable, by its name."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot read {path}", why=error.strerror or str(error)) from error


def _groups(folder: Path, tables: Mapping[str, Table]) -> Iterator[Group]:
    """One for each folder and format, or for each set of shards where names in a folder are given twice."""
    together: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for path in tables:
        together[PurePosixPath(path).parent.as_posix(), path.lower().endswith(".gguf")].append(path)
    for (parent, gguf), paths in together.items():
        names = [tensor.name for path in paths for tensor in tables[path].tensors]
        if len(set(names)) == len(names) and not gguf:
            yield _group(parent, gguf, folder, {path: tables[path] for path in paths})
            continue
        sets: dict[str, dict[str, Table]] = defaultdict(dict)
        for path in paths:
            sets[_SHARD.sub("", PurePosixPath(path).with_suffix("").as_posix())][path] = tables[path]
        for key, shards in sets.items():
            yield _group(key, gguf, folder, shards)


def _group(key: str, gguf: bool, folder: Path, tables: Mapping[str, Table]) -> Group:
    tensors: dict[str, Located] = {}
    for path, table in tables.items():
        for tensor in table.tensors:
            if tensor.name in tensors:
                why = f"{tensor.name[:80]!r} is in {tensors[tensor.name].file} and in {path}"
                raise Malformed("the tensors cannot be read", why=why, code="TENSORS")
            tensors[tensor.name] = Located(folder / path, path, tensor)
    return Group(key, gguf, tensors, next(iter(tables.values())).facts)
