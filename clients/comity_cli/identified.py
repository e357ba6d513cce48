"""What `comity identify --json` prints, and the exit status."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from comity.trust.encoding import Digest, format_time
from comity.trust.exit_statuses import EVIDENCE_MISSING, NOBODY_KNOWS, PARTIAL, VERIFICATION_FAILED
from comity.trust.frozen import frozen
from comity_client.identify.folder_state import State

from comity_cli.document import document
from comity_cli.tensors_view import KnownDerivationItem, SameTensorsItem, same_tensors_items

if TYPE_CHECKING:
    from comity_client.identify.identify import Identified, IndexedFile
    from comity_client.identify.judging import KnownArtifact
    from comity_client.identify.lookup import NodeAnswer
    from comity_client.identify.match import FileOf, FolderOf


@frozen
class JudgedArtifact:
    """An artifact that files are of. `accepted`: by the policy, as before a pull; null if it could not be judged."""

    artifact: Digest
    title: str
    basis: str
    accepted: bool | None
    exit_status: int
    problem: str
    advisories: tuple[str, ...]
    derived: tuple[KnownDerivationItem, ...]

    @classmethod
    def of(cls, known: KnownArtifact) -> JudgedArtifact:
        accepted = None if known.verdict is None else known.verdict.accepted and not known.problem
        said = tuple(map(str, known.advised)), tuple(KnownDerivationItem(*astuple(each)) for each in known.derived)
        return cls(known.artifact, known.title, known.basis, accepted, known.exit_status, known.problem, *said)


@frozen
class FolderItem:
    """A folder with the files of an artifact at their paths. `or_any_of`: further artifacts of which as many files are
    there. `stored_as`: what a store, such as a Hub cache, calls it. `within`: the archive that has it, or the document
    of a store that names its files, where it is no folder on the disk."""

    folder: Path
    artifact: Digest
    state: State
    present: int
    files: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    or_any_of: tuple[Digest, ...]
    stored_as: str
    within: Path | None


@frozen
class FileItem:
    """A file of an artifact at another place than in a folder with that artifact: `path` is that in the manifest."""

    file: Path
    sha256: Digest
    artifact: Digest
    path: str
    stored_as: str


@frozen
class NamedItem:
    """A file that indexes of files name, not proven: the artifact, the name that a publication claims, whether that is
    said to be of a member or of a publisher of the charter's namespaces, and the nodes whose indexes say so."""

    file: Path
    sha256: Digest
    artifact: Digest
    claimed_name: str
    of_members: bool
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, each: IndexedFile) -> NamedItem:
        sha256 = each.file.sha256 or Digest("")
        return cls(each.file.path, sha256, each.artifact, each.name, each.of_members, each.nodes)


@frozen
class UnknownItem:
    """A file that no artifact has."""

    file: Path
    sha256: Digest


@frozen
class UnreadItem:
    """What was not read, and why."""

    path: Path
    problem: str


@frozen
class AskedNode:
    """What a node said: the files that it has indexed, and the statements that it has not read yet; `problem` if it
    gave no answer. `as_of`: when it signed its index, if that was read here and no node was asked."""

    node: str
    indexed: int
    unread: int
    complete: bool
    problem: str
    as_of: str | None

    @classmethod
    def of(cls, said: NodeAnswer) -> AskedNode:
        as_of = None if said.as_of is None else format_time(said.as_of)
        return cls(said.node, said.indexed, said.unread, said.complete, said.problem, as_of)


@document("identified")
class IdentifiedDocument:
    """What files are, as `comity identify --json` prints it.

    That a file is in an artifact is proven by the artifact's manifest. `unknown`: every node that answered says that no
    publication that it has names this file. `unsure`: nothing was found of these, and a node left something out.
    `tensors`: which of them have tensors of an artifact; `tensors_of`: what the policy says of these artifacts, not of
    the files.
    `named`: with `--index`, files that an index names, of which no manifest is here.
    """

    artifacts: tuple[JudgedArtifact, ...]
    folders: tuple[FolderItem, ...]
    files: tuple[FileItem, ...]
    named: tuple[NamedItem, ...]
    unknown: tuple[UnknownItem, ...]
    unsure: tuple[UnknownItem, ...]
    unread: tuple[UnreadItem, ...]
    tensors: tuple[SameTensorsItem, ...]
    tensors_of: tuple[JudgedArtifact, ...]
    nodes: tuple[AskedNode, ...]
    read_files: int
    read_bytes: int
    exit_status: Annotated[int, "0: all files are of accepted artifacts, which are complete"]

    @classmethod
    def of(cls, found: Identified) -> IdentifiedDocument:
        matched = found.matched
        return cls(
            artifacts=tuple(map(JudgedArtifact.of, found.artifacts.values())),
            folders=tuple(_folder_item(found, each) for each in matched.folders),
            files=tuple(map(_file_item, matched.files)),
            named=tuple(map(NamedItem.of, found.named)),
            unknown=tuple(UnknownItem(each.path, each.sha256 or Digest("")) for each in matched.unknown),
            unsure=tuple(UnknownItem(each.path, each.sha256 or Digest("")) for each in found.unsure),
            unread=tuple(UnreadItem(each.path, each.problem) for each in found.unread),
            tensors=same_tensors_items(found.tensors),
            tensors_of=tuple(map(JudgedArtifact.of, found.tensors.artifacts.values())),
            nodes=tuple(map(AskedNode.of, found.nodes)),
            read_files=found.files,
            read_bytes=found.bytes,
            exit_status=exit_status(found),
        )


def _folder_item(found: Identified, each: FolderOf) -> FolderItem:
    counts, lists = (each.present, each.files), (each.missing, each.changed, each.extra)
    others = tuple(found.matched.others.get(each.folder, ()))
    return FolderItem(each.folder, each.artifact, each.state, *counts, *lists, others, each.stored_as, each.within)


def _file_item(each: FileOf) -> FileItem:
    return FileItem(each.file.path, each.file.sha256 or Digest(""), each.artifact, each.path, each.file.stored_as)


def exit_status(found: Identified) -> int:
    """What is worst: a file with other bytes than its artifact has (3), an artifact that is refused (3, 4, 5), a file
    that nobody knows (9), one of which nodes said too little, that an index names without proof, that could not be
    read, or none at all (5), files that are missing or at other places (8)."""
    refused = [known.exit_status for known in found.artifacts.values() if known.problem]
    if any(folder.changed for folder in found.matched.folders):
        refused.append(VERIFICATION_FAILED)
    if refused:
        return min(refused)
    if found.matched.unknown:
        return NOBODY_KNOWS
    if found.named or found.unsure or found.unread or not found.files:
        return EVIDENCE_MISSING
    whole = all(each.complete and not each.in_archive for each in found.matched.folders) and not found.matched.files
    return 0 if whole else PARTIAL
