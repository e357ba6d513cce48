"""Proceedings in a plain folder, to be carried by disk: one line a file, each body as an object.

    FOLDER/lines/<sha256 of the line>.line
           objects/<sha256>

Two folders are joined by copying one over the other. Names mean nothing when it is read: what a file is, its bytes say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.charter.body import MAX_BYTES as MAX_BODY
from comity.trust.digest import sha256
from comity.trust.dsse import MAX_LINE
from comity.trust.errors import Malformed, NotFound
from comity.verifier import read_bounded

from comity_client.governance.sitting import Material

MAX_FILES: Final = 65_536
MAX_TOTAL: Final = 256 * 1024 * 1024


def read_folder(folder: Path) -> Material:
    """Everything in `folder`. Raises NotFound where it is no such folder, Malformed beyond 65,536 files or 256 MiB."""
    if not (folder / "lines").is_dir():
        raise NotFound(
            f"no proceedings in {folder}", why="it has no folder 'lines'", hint="comity proposal export FOLDER"
        )
    budget = _Budget(folder)
    lines = [data.removesuffix(b"\n") for data in budget.files("lines", MAX_LINE + 1)]
    return Material.of(lines, budget.files("objects", MAX_BODY))


def write_folder(folder: Path, material: Material) -> int:
    """Add `material` to `folder`, which is made where it is missing; what is there stays. Returns how many lines are
    new there. Raises OutOfSpace, Unavailable."""
    lines, objects = folder / "lines", folder / "objects"
    with durable.disk_errors(f"{folder} was not written"):
        for made in (lines, objects):
            durable.make_folders(made)
    for digest, data in material.objects.items():
        _add(objects / digest, data)
    return sum(_add(lines / f"{sha256(line)}.line", line + b"\n") for line in material.lines)


def _add(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    durable.write_file(path, data, mode=0o644, point="carried")
    return True


class _Budget:
    """Files of a folder, as long as they are not too many or too large altogether."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files, self._bytes = MAX_FILES, MAX_TOTAL

    def files(self, name: str, most: int) -> Iterator[bytes]:
        for path in sorted((self._folder / name).glob("*")):
            if path.suffix == durable.TEMPORARY or not path.is_file():
                continue
            data = read_bounded(path, most)
            self._files, self._bytes = self._files - 1, self._bytes - len(data)
            if self._files < 0 or self._bytes < 0:
                why = f"at most {MAX_FILES} files and {MAX_TOTAL} bytes are read"
                raise Malformed(f"{self._folder} holds too much", why=why)
            yield data
