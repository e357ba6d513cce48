"""What of a model has to lie in memory: bytes by number type, and where that is known from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Protocol, TypeVar

from comity.trust.errors import Malformed, NotFound

_SUFFIXES: Final = (".safetensors", ".gguf", ".bin", ".pth", ".pt")
"""In the order of preference: one model is often published in several of them."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.[a-z]+$)")
_OTHER_COPY: Final = ("consolidated", "original/", "metal/", "onnx/", "openvino/", "tf_model", "training_args")
"""Beginnings of paths under which publishers keep the same weights once more, or none."""


class Listed(Protocol):
    """A file of an artifact: its path in it, and its size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


L = TypeVar("L", bound=Listed)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of tensors.

    Attributes:
        by_type: by the name of their number type, as the files call it; the type is `unknown` where no header was read.
        source: a phrase that says where this is known from.
        files: the paths that were counted.
    """

    by_type: Mapping[str, int]
    source: str
    files: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.by_type.values())

    @property
    def types(self) -> tuple[str, ...]:
        """Largest first."""
        return tuple(sorted(self.by_type, key=lambda name: (-self.by_type[name], name)))


def weight_files(entries: Iterable[L], pattern: str = "") -> tuple[L, ...]:
    """The files of one model: all that match `pattern`; without it those of one format, and of one of several
    quantizations only where there is no other.

    Raises NotFound where there are none, Malformed (WHICH-WEIGHTS) where several models are meant.
    """
    listed = tuple(entries)
    if pattern:
        chosen = tuple(entry for entry in listed if fnmatchcase(entry.path, pattern))
        if not chosen:
            raise NotFound("no weights", why=f"no file matches {pattern!r}", code="NO-WEIGHTS")
        return chosen
    for suffix in _SUFFIXES:
        found = [e for e in listed if e.path.endswith(suffix) and not e.path.startswith(_OTHER_COPY)]
        if found:
            return _one_model(found)
    raise NotFound("no weights", why=f"no file ends in {', '.join(_SUFFIXES)}", code="NO-WEIGHTS")


def by_size(entries: Sequence[Listed]) -> Weights:
    """What sizes in the manifest say: headers are counted along, which is less than a thousandth."""
    counted = tuple(entry.path for entry in entries)
    return Weights({"unknown": sum(entry.size for entry in entries)}, f"{_files(counted)}, by size alone", counted)


def by_headers(tensors: Iterable[Mapping[str, int]], paths: Sequence[str]) -> Weights:
    """What the headers of `paths` say, each as bytes by number type."""
    total: dict[str, int] = {}
    for types in tensors:
        for name, count in types.items():
            total[name] = total.get(name, 0) + count
    return Weights(total, f"the headers of {_files(paths)}", tuple(paths))


def _one_model(found: Sequence[L]) -> tuple[L, ...]:
    gguf = found[0].path.endswith(".gguf")
    models = {_SHARD.sub("", entry.path) for entry in found if not _is_projector(entry.path)}
    if gguf and len(models) > 1:
        shown = ", ".join(sorted(models)[:6])
        raise Malformed("several models in one artifact", why=f"it has {shown}",
                        hint="choose the files of one: --file '*Q4_K_M*'", code="WHICH-WEIGHTS")  # fmt: skip
    return tuple(found)


def _is_projector(path: str) -> bool:
    return path.rpartition("/")[2].startswith("mmproj")


def _files(paths: Sequence[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"
