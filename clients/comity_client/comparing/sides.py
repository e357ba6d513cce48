"""One side of a comparison: an artifact, what is said of it, and its bytes where they can be had."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from comity.trust.digest import Digest
from comity.trust.errors import NotFound, Unavailable, Untrusted
from comity.trust.evidence import Evidence
from comity.trust.judging.reading import Readings
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.pieces import PieceRecord
from comity.trust.policy import Policy
from comity.trust.statements.published import Published
from comity.trust.verdict import Verdict
from comity.trust.verify import verify
from comity.verifier import read_bounded
from comity.wire.client import NodeClient

from comity_client.events import OnEvent
from comity_client.evidence.catalogue import Resolution
from comity_client.evidence.collecting import collect_proofs, fetch_object
from comity_client.nodes.session import Session
from comity_client.owner.memory import Memory
from comity_client.pulling.held import Held
from comity_client.pulling.layouts import Layouts, named_indexes


@dataclass(frozen=True, slots=True)
class Side:
    """`folder` holds the bytes, hashed just now; None where only manifest and claims are known. `verdict` judges the
    claims, not the files; `published` is what the publication says that it goes by."""

    title: str
    manifest: Manifest
    folder: Path | None
    readings: Readings
    published: Published | None
    verdict: Verdict

    @property
    def artifact(self) -> Digest:
        return self.manifest.digest


def side_of_folder(here: Held, policy: Policy) -> Side:
    """A folder, with what its pack says."""
    verdict = verify(replace(here.evidence, manifest=here.manifest.encode(), files=None), policy)
    return Side(here.title, here.manifest, here.folder, here.readings, _published(here.readings, verdict), verdict)


async def side_of_resolution(
    session: Session,
    memory: Memory,
    resolution: Resolution,
    policy: Policy,
    on_event: OnEvent,
    hold: Callable[[], Held] | None,
) -> Side:
    """What all nodes say, and the bytes where `hold` hashes them on this machine. Raises NotFound, Unavailable."""
    data = await fetch_object(session, resolution.artifact)
    gathered = resolution.gathered
    collected = await collect_proofs(session, memory, gathered.readings, policy, (), on_event)
    evidence = Evidence(data, None, gathered.lines, tuple(kept.proof for kept in collected.proofs))
    verdict = verify(evidence, policy)
    folder = (await asyncio.to_thread(hold)).folder if hold else None
    published = resolution.publication.published if resolution.publication else None
    return Side(resolution.title, Manifest.parse(data), folder, gathered.readings, published, verdict)


async def read_file(session: Session, side: Side, path: str, limit: int) -> bytes:
    """The bytes of one small file, from the folder or from a node, checked against the manifest.

    Raises NotFound where the side has no such file, Unavailable where nobody gives it or it is larger than `limit`.
    """
    entry = side.manifest.by_path.get(path)
    if entry is None:
        raise NotFound(f"{side.title} has no {path}")
    if entry.size > limit:
        raise Unavailable(f"{path} was not read", why=f"{entry.size} bytes, at most {limit} are compared")
    if side.folder is not None:
        return read_bounded(side.folder / path, limit)
    return await session.first(lambda node: _blob(node, entry), f"nobody gives {path} of {side.title}")


async def pieces_of(session: Session, side: Side, entry: FileEntry) -> list[PieceRecord]:
    """The records of a file, from the nodes. Raises Unavailable."""
    first = side.published.pieces.digest if side.published else None
    async for wanted in Layouts(session, side.manifest, named_indexes(side.readings, first)).ways(entry):
        return list(wanted.records)
    raise Unavailable(f"{entry.path} cannot be had in pieces")


async def _blob(node: NodeClient, entry: FileEntry) -> bytes:
    parts = [part async for part in node.read(entry.sha256, 0, entry.size)]
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise Untrusted(f"{entry.path} has other bytes", why="its hash is not the manifest's")
    return data


def _published(readings: Readings, verdict: Verdict) -> Published | None:
    """The publication that the verdict goes by; without a name in it, the first."""
    publications = [publication.published for publication in readings.publications]
    named = [published for published in publications if str(published.name) == verdict.name]
    return next(iter((*named, *publications)), None)
