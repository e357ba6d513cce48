"""What each file of a folder is, and what the policy would refuse about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comity.trust.encoding import Json
from comity.trust.evidence import FoundFile, Inspection
from comity.trust.policy import SafetyRule
from comity.trust.rows.safety import refused
from comity.verifier import survey

_NO_PICKLES = frozenset({"safetensors", "gguf", "json", "text", "empty", "image", "audio", "onnx", "sentencepiece"})


@dataclass(frozen=True, slots=True)
class Scanned:
    """A file, what was seen in it (None for what is no file of the folder), and what the policy refuses about it."""

    file: FoundFile
    refused: tuple[str, ...]

    @property
    def seen(self) -> Inspection:
        return self.file.inspection or Inspection(self.file.kind)

    @property
    def may_hold_pickles(self) -> bool:
        """Whether another tool should look as well: formats that have no room for a pickle are left out."""
        return self.file.kind == "file" and self.seen.format not in _NO_PICKLES

    def to_json(self) -> dict[str, Json]:
        return {
            "path": self.file.path,
            "size": self.file.size,
            "format": self.seen.format,
            "active": list(self.seen.active),
            "malformed": list(self.seen.malformed),
            "refused": list(self.refused),
        }


@dataclass(frozen=True, slots=True)
class Census:
    """All files of a folder, by path."""

    folder: Path
    files: tuple[Scanned, ...]

    @property
    def formats(self) -> Mapping[str, int]:
        return dict(sorted(Counter(each.seen.format for each in self.files).items()))

    @property
    def refused(self) -> tuple[Scanned, ...]:
        return tuple(each for each in self.files if each.refused)

    @property
    def worth_a_look(self) -> tuple[Scanned, ...]:
        """Those in which something is active, or odd."""
        return tuple(e for e in self.files if e.seen.active or e.seen.malformed or e.refused or e.file.kind != "file")


def take_census(folder: Path, rule: SafetyRule, *, workers: int) -> Census:
    """Look into every file of `folder` but its evidence pack. Hashes nothing, so what is allowed by digest is not known
    here. Raises NotFound, Unavailable, Malformed as `verifier.examine` does."""
    files = survey(folder, workers=workers)
    return Census(folder, tuple(Scanned(file, _refused(rule, file)) for file in files))


def _refused(rule: SafetyRule, file: FoundFile) -> tuple[str, ...]:
    if file.kind != "file":
        return (f"a {'link out of the folder' if file.kind == 'link' else 'special file'}, which is not read",)
    return tuple(refused(rule, file))
