"""What files on this machine are: hash, ask, prove, and judge.

(1) hash       every file at or below the paths (`disk`), also those in archives (`archives`), and what stores call them
               (`layouts`)
(2) ask        the nodes, by prefixes of digests (`lookup`)
(3) prove      the manifests of as few artifacts as have all files that nodes claim to know, and of those that a folder
               may be exactly: a file is in an artifact if the manifest says so, whatever a node said
(4) match      folders and files with artifacts (`match`)
(5) judge      each artifact, by the policy, with the files that are here and the evidence that nodes have (`judging`)

What nodes learn: prefixes for all files (2), and then of which artifacts the user has files (3, 5), which are published
ones; never anything else of a file that they do not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.wire.files import file_reference

from comity_client.events import OnEvent
from comity_client.evidence.proofs import fetch_object
from comity_client.identify.archives import is_archive
from comity_client.identify.disk import UNPACKED, DiskFile, HashCache, read_files, unpack
from comity_client.identify.judging import KnownArtifact, judge
from comity_client.identify.layouts import with_layouts
from comity_client.identify.lookup import ClaimedFiles, NodeAnswer, ask_nodes
from comity_client.identify.match import MatchedFiles, cover, match, within_folders
from comity_client.identify.tensors import SameTensorsFound
from comity_client.pull.order import PullContext
from comity_client.session import Session

NESTED: Final = "an archive in an archive: not looked into"

T = TypeVar("T")
R = TypeVar("R")

MAX_LOOKED_AT: Final = 1_000
"""Artifacts whose manifests are asked for, also in vain: a node may invent any number of them."""
TOGETHER: Final = 8
"""Artifacts that are asked about at the same time."""


@frozen
class IndexedFile:
    """A file that an index of files names, which was not proven: its artifact, the name that a publication claims,
    whether that is of a publisher of the charter's namespaces, a member or a member's node; and the nodes whose index
    says so."""

    file: DiskFile
    artifact: Digest
    name: str
    of_members: bool
    nodes: tuple[str, ...]


@frozen
class Identified:
    """What was found. `unsure` are files of which nothing was found, while nodes left something out of their answers
    or named too many artifacts to look at all; `unread`: what could not be read (`unread_paths`); `named`: files that
    an index names, where nobody was asked."""

    matched: MatchedFiles
    artifacts: Mapping[Digest, KnownArtifact]
    unsure: tuple[DiskFile, ...]
    unread: tuple[DiskFile, ...]
    nodes: tuple[NodeAnswer, ...]
    files: int
    bytes: int
    tensors: SameTensorsFound = SameTensorsFound()
    """Of files of which nothing was found (`same_tensors`)."""
    named: tuple[IndexedFile, ...] = ()

    @property
    def by_index(self) -> bool:
        """Whether indexes were read, and no node was asked."""
        return any(node.as_of is not None for node in self.nodes)


def hash_paths(
    paths: Iterable[Path], cache: HashCache | None, workers: int, on_hashed: Callable[[int], None]
) -> list[DiskFile]:
    """Step (1). Blocking."""
    try:
        files = read_files(paths, cache, workers=workers, on_hashed=on_hashed)
        return with_layouts(files, lambda archive: unpack(archive, cache))
    finally:
        if cache is not None:
            cache.close()


async def identify(
    session: Session,
    files: Sequence[DiskFile],
    context_of: Callable[[OnEvent], PullContext],
) -> Identified:
    """Steps (2) to (5). Raises Unavailable, NotFound (NO-NODES) where no node answers.

    Args:
        files: what `hash_paths` returned.
        context_of: returns what an artifact is judged with.
    """
    digests = await asyncio.to_thread(lambda: {each.sha256 for each in files if each.sha256 is not None and each.size})
    claims = await ask_nodes(session, digests) if digests else ClaimedFiles({}, ())
    manifests, not_looked_at = await manifests_of(session, claims, files)
    matched = await asyncio.to_thread(match, files, manifests)
    here, places = locate(files, matched)
    judged = await each_of(places, lambda each: judge(context_of, manifests[each], here, places[each]))

    def is_unknown(file: DiskFile) -> bool:
        reference = file_reference(file.sha256 or Digest(""))
        return claims.is_unknown(reference) and reference not in not_looked_at

    unknown, unsure = list[DiskFile](), list[DiskFile]()
    for each in matched.unknown:
        (unknown if is_unknown(each) else unsure).append(each)
    return Identified(
        matched=replace(matched, unknown=tuple(unknown)),
        artifacts=dict(zip(places, judged, strict=True)),
        unsure=tuple(unsure),
        unread=unread_paths(files, matched.unknown),
        nodes=claims.nodes,
        files=sum(each.within is None for each in files),
        bytes=sum({each.identity: each.size for each in files if each.within is None}.values()),
    )


def unread_paths(files: Iterable[DiskFile], unknown: Iterable[DiskFile]) -> tuple[DiskFile, ...]:
    """What could not be read, and the content of each archive that is in an archive and is no known file itself."""
    nested = (each.path for each in unknown if each.in_archive and is_archive(each.path.name))
    contents = (DiskFile(path.with_name(path.name + UNPACKED), problem=NESTED) for path in nested)
    return (*(each for each in files if each.sha256 is None), *contents)


def locate(files: Iterable[DiskFile], matched: MatchedFiles) -> tuple[dict[Digest, Path], dict[Digest, Path]]:
    """Where each digest is on the disk, and the folder of each artifact that was found, first those of folders."""
    places = dict[Digest, Path]()
    for folder in matched.folders:
        places.setdefault(folder.artifact, folder.folder)
    for file in matched.files:
        places.setdefault(file.artifact, file.file.path.parent)
    here = dict[Digest, Path]()
    for each in files:
        if each.sha256 is not None and each.within is None:
            here.setdefault(each.sha256, each.path)
    return here, places


async def manifests_of(
    session: Session, claims: ClaimedFiles, files: Sequence[DiskFile] = ()
) -> tuple[dict[Digest, Manifest], frozenset[bytes]]:
    """Step (3): the manifests of artifacts that have the claimed files, as few as are needed, and of those that folders
    may be exactly; and the references of files of which other artifacts were not looked at. What an artifact is claimed
    to have and has not does not count."""
    candidates, found, left = dict(claims.artifacts), dict[Digest, Manifest](), MAX_LOOKED_AT

    def chosen() -> list[Digest]:
        both = dict.fromkeys([*cover(candidates), *within_folders(candidates, files)])
        return [each for each in both if each not in found]

    while (new := chosen()) and left:
        some = new[:left]
        left -= len(some)
        for artifact, manifest in zip(some, await each_of(some, partial(_manifest, session)), strict=True):
            if manifest is None:
                del candidates[artifact]
            else:
                candidates[artifact] &= {file_reference(entry.sha256) for entry in manifest.files}
                found[artifact] = manifest
    return found, frozenset[bytes]().union(*(candidates[each] for each in new))


async def _manifest(session: Session, artifact: Digest) -> Manifest | None:
    try:
        return Manifest.parse(await fetch_object(session, artifact))
    except ComityError:
        return None


async def each_of(items: Iterable[T], ask: Callable[[T], Awaitable[R]]) -> list[R]:
    """The answers about items, of which a few are asked about at a time."""
    answers, waiting = dict[int, R](), enumerate(items)

    async def ask_next() -> None:
        for number, item in waiting:
            answers[number] = await ask(item)

    await asyncio.gather(*(ask_next() for _ in range(TOGETHER)))
    return [answers[number] for number in range(len(answers))]
