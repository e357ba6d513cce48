"""The charter statements that this user delivered, kept until the pin moves, so that commands read their own writes.

A node shows a line to others some seconds after it logged it, and the node that logged it may not be among those that
are asked. The lines are statements like those of any other source: the tally verifies them.

    FOLDER/<federation>-<pinned body>/lines, objects      as in an exported folder
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.charter.federation import Federation
from comity.trust.errors import ComityError
from comity_client.charter.state import CharterMaterial, read_folder, write_folder

DIGITS: Final = 16
"""Digits of a digest in a folder's name."""


@dataclass(frozen=True, slots=True)
class OwnLines:
    """The delivered lines of one federation, below `folder`."""

    folder: Path
    federation: Federation

    @property
    def material(self) -> CharterMaterial:
        """The lines that were delivered since the pin; none if they cannot be read, because nodes have them too."""
        try:
            return read_folder(self._current) if self._current.is_dir() else CharterMaterial()
        except ComityError:
            return CharterMaterial()

    def add(self, material: CharterMaterial) -> None:
        """Keep accepted lines, and drop those of earlier pins. Raises OutOfSpace, Unavailable."""
        with durable.disk_errors(f"{self.folder} was not written"):
            durable.make_folders(self._current, mode=0o700)
            for other in self.folder.glob(f"{self.federation.id[:DIGITS]}-*"):
                if other != self._current:
                    shutil.rmtree(other, ignore_errors=True)
        write_folder(self._current, material)

    @property
    def _current(self) -> Path:
        return self.folder / f"{self.federation.id[:DIGITS]}-{self.federation.body.digest[:DIGITS]}"
