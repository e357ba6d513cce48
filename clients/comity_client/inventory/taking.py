"""Makes an inventory of what was identified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comity.trust.encoding import printable
from comity.trust.frozen import frozen

from comity_client.inventory.inventory import (
    MAX_LINE,
    MAX_LISTED,
    MAX_MACHINE,
    MAX_PATH,
    Inventory,
    InventoryArtifact,
    InventoryFile,
    InventoryFolder,
    InventoryNode,
    InventoryWarning,
    UnreadPath,
)

if TYPE_CHECKING:
    from comity_client.events import Advised
    from comity_client.identify.disk import DiskFile
    from comity_client.identify.identify import Identified
    from comity_client.identify.judging import KnownArtifact


@frozen
class TakenAt:
    """Which machine, when (POSIX seconds), and where was looked: absolute paths."""

    machine: str
    time: int
    paths: tuple[Path, ...]


def make_inventory(
    at: TakenAt, files: Sequence[DiskFile], found: Identified, before: Inventory | None = None
) -> Inventory:
    """Return the inventory of `files`, of which `found` was found. What was there `before` keeps its date."""
    judged = [known.verdict.policy for known in found.artifacts.values() if known.verdict is not None]
    nodes = (InventoryNode(line(each.node), each.complete) for each in found.nodes)
    unread = (UnreadPath(shown(each.path), line(each.problem)) for each in found.unread)
    return Inventory(
        machine=line(at.machine)[:MAX_MACHINE] or "this machine",
        taken=at.time,
        paths=tuple(sorted(map(shown, at.paths))),
        policy=next(iter(judged), None),
        artifacts=tuple(sorted(map(_artifact, found.artifacts.values()), key=lambda each: (each.title, each.artifact))),
        folders=tuple(sorted(_folders(at, found, before), key=lambda each: (each.path, each.artifact))),
        files=tuple(sorted(_files(at, files, found, before), key=lambda each: (each.path, each.sha256))),
        unread=tuple(sorted(unread, key=lambda each: (each.path, each.problem))),
        nodes=tuple(sorted(nodes, key=lambda each: each.name)),
    )


def _artifact(known: KnownArtifact) -> InventoryArtifact:
    verdict = "not judged" if known.verdict is None else "refused" if known.problem else "accepted"
    first = sorted(known.advised, key=lambda each: not each.own)[:MAX_LISTED]
    warnings = sorted(set(map(_warning, first)), key=lambda each: (each.kind, each.severity, each.by, each.text))
    why = line(known.problem)
    return InventoryArtifact(known.artifact, line(known.title), verdict, why, known.exit_status, tuple(warnings))


def _warning(each: Advised) -> InventoryWarning:
    said = each.advisory
    return InventoryWarning(said.kind, said.severity, said.by.id, each.own, line(said.text))


def _folders(at: TakenAt, found: Identified, before: Inventory | None) -> Iterator[InventoryFolder]:
    since = {(each.path, each.artifact): each.since for each in before.folders} if before else {}
    for each in found.matched.folders:
        path = shown(each.folder)
        missing, changed, extra = (tuple(map(shown, some)) for some in (each.missing, each.changed, each.extra))
        yield InventoryFolder(
            path,
            each.artifact,
            each.state,
            each.present,
            each.files,
            missing,
            changed,
            extra,
            tuple(sorted(found.matched.others.get(each.folder, ())))[:MAX_LISTED],
            since.get((path, each.artifact), at.time),
            line(each.stored_as) or None,
        )


def _files(
    at: TakenAt, files: Iterable[DiskFile], found: Identified, before: Inventory | None
) -> Iterator[InventoryFile]:
    since = {(each.path, each.sha256): each.since for each in before.files} if before else {}
    unknown, unsure = ({each.sha256 for each in some} for some in (found.matched.unknown, found.unsure))
    elsewhere = {each.file.path: each for each in found.matched.files}

    def known(file: DiskFile) -> str:
        """A file with several paths is in what was found by one of them."""
        if not file.size:
            return "empty"
        if file.sha256 in unknown:
            return "unknown"
        if file.sha256 in unsure:
            return "unsure"
        return "archive" if file.opened and file.path not in elsewhere else "artifact"

    for file in files:
        if file.sha256 is None:
            continue
        path, of = shown(file.path), elsewhere.get(file.path)
        yield InventoryFile(
            path,
            file.sha256,
            file.size,
            known(file),
            since.get((path, file.sha256), at.time),
            of.artifact if of else None,
            shown(of.path) if of else None,
        )


def shown(path: Path | str) -> str:
    """A path as an inventory has it."""
    return printable(os.fspath(path))[:MAX_PATH]


def line(text: str) -> str:
    """A text of others on one line."""
    return printable(text)[:MAX_LINE]
