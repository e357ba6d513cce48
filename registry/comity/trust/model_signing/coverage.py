"""The signed list against the files that are there. Every file counts, whatever the signer asked verifiers to ignore.

What can be compared is compared: whole files by SHA-256, and shards that are a whole file. What is listed by another
algorithm, or in several shards, is *unchecked*: neither right nor wrong, and never passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from comity.trust.evidence import MODEL_SIG, FoundFile
from comity.trust.model_signing.statement import ModelStatement, Resource

_ASKED = "; its signer asks verifiers to ignore it"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the list says of the files: each text names a path first. `right` counts files that are as signed;
    `tolerated` are unsigned files that the owner lets be."""

    right: int
    wrong: tuple[str, ...]
    missing: tuple[str, ...]
    unsigned: tuple[str, ...]
    tolerated: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def false(self) -> tuple[str, ...]:
        """What cannot be if the signer signed this folder."""
        return self.wrong + self.unsigned


def cover(statement: ModelStatement, files: Iterable[FoundFile], allowed: Iterable[str] = ()) -> Coverage:
    """Compare.

    Args:
        files: all that is in the folder. The signature file itself is passed over.
        allowed: paths, and folders, of which unsigned files are tolerated.
    """
    found = {file.path: file for file in files if file.path != MODEL_SIG}
    listed: dict[str, list[Resource]] = {}
    for resource in statement.resources:
        listed.setdefault(resource.path, []).append(resource)
    states = {path: _compare(parts, found[path], statement) for path, parts in listed.items() if path in found}
    strangers = [path for path in found if path not in listed]
    accepted, ignored = _bare(allowed), _bare(statement.ignored)
    tolerated = {path for path in strangers if _within(path, accepted)}
    return Coverage(
        right=sum(1 for wrong, unchecked in states.values() if not wrong and not unchecked),
        wrong=tuple(f"{path}: {wrong}" for path, (wrong, _) in states.items() if wrong),
        missing=tuple(f"{path}: signed, and not here" for path in listed if path not in found),
        unsigned=tuple(
            f"{path}: not signed{_ASKED if _within(path, ignored) else ''}"
            for path in strangers
            if path not in tolerated
        ),
        tolerated=tuple(f"{path}: not signed, which the policy allows" for path in strangers if path in tolerated),
        unchecked=tuple(f"{path}: {why}" for path, (_, why) in states.items() if why),
    )


def _compare(parts: list[Resource], found: FoundFile, statement: ModelStatement) -> tuple[str, str]:
    """(what is wrong, what could not be checked); both empty where the file is as signed."""
    if found.kind != "file":
        return ("a link out of the folder" if found.kind == "link" else "not a regular file"), ""
    if (wrong := _torn(parts, found.size)) is not None:
        return wrong, ""
    if statement.algorithm != "sha256":
        return "", f"signed by {statement.algorithm}, which is not computed here"
    if len(parts) > 1:
        return "", f"signed in {len(parts)} parts, which are not computed here"
    return ("its bytes are not the signed ones" if parts[0].digest != found.sha256 else ""), ""


def _torn(parts: list[Resource], size: int) -> str | None:
    """Shards have to be the whole file, once."""
    if parts[0].end is None:
        return None
    at = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start != at or part.end is None:
            return "its signed parts do not make a whole"
        at = part.end
    return None if at == size else f"{size} bytes instead of {at}"


def _within(path: str, folders: Set[str]) -> bool:
    """Whether `path`, or a folder that it is in, is among `folders`: in time that does not grow with them."""
    parts = path.split("/")
    return any("/".join(parts[:count]) in folders for count in range(1, len(parts) + 1))


def _bare(folders: Iterable[str]) -> frozenset[str]:
    return frozenset(folder.rstrip("/") for folder in folders)
