"""Which artifacts have the same tensors as weight files that no node knows: renamed, resharded, changed in part.

(1) cut     each file at its tensors, and hash the pieces (`tensors`): the file is read a second time, once
(2) ask     the nodes which published files have some of these pieces, by prefixes as for files (`lookup`), and then
            which artifacts have these files
(3) prove   that an artifact has such a file, by its manifest; that the file has such pieces, by the piece index of a
            signed statement about the artifact; that the pieces are tensors of some names, types and shapes, by the
            header of the file, which is fetched and hashed against the same index
(4) compare tensor by tensor (`tensors`)

A piece index is what its signer says of the pieces of a file. A node that has a copy has hashed them, and refuses an
index that is not right; nobody can tell it from the index alone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from comity.formats.tensors import tensor_reader
from comity.rules.file_records import REFERENCE_BYTES
from comity.rules.pieces import SMALL_TENSOR, lowest_pieces
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError

from comity_client.events import OnEvent, ignore_event
from comity_client.evidence.lookup import reference_of
from comity_client.evidence.resolve import resolve
from comity_client.identify.disk import DiskFile
from comity_client.identify.identify import Identified, each_of, manifests_of
from comity_client.identify.judging import judge
from comity_client.identify.lookup import ClaimedFiles, ask_nodes
from comity_client.identify.match import cover
from comity_client.identify.piece_cache import PieceCache
from comity_client.identify.tensors import SameTensors, SameTensorsFound, WeightFile, compare, read_weight_file
from comity_client.pull.fetch import Layouts, holders
from comity_client.pull.order import PullContext
from comity_client.session import Session
from comity_client.weight_headers import fetch_header

ASKED: Final = 32
"""Pieces of each file that nodes are asked about: the lowest ones, of which a node has indexed more. Where a tenth of a
file is in another one, one of these is too, 29 times of 30."""
MAX_FILES: Final = 200
"""Published files that are looked at: a node may invent any number of them."""
ALIKE: Final = 4
"""Artifacts with the same pieces of which the best one is chosen."""
MAX_HEADERS: Final = 100
"""Weight files of an artifact whose headers are read."""


async def find_same_tensors(
    session: Session,
    identified: Identified,
    context_of: Callable[[OnEvent], PullContext],
    cache: PieceCache | None,
    on_hashed: Callable[[int], None],
) -> SameTensorsFound:
    """Steps (1) to (4), for the files of which nothing was found. Raises Unavailable.

    Args:
        cache: pieces that were hashed before; None to hash all again.
        context_of: returns what an artifact is judged with.
        on_hashed: called with the number of bytes hashed since the last call, from several threads.
    """
    unknown = (*identified.matched.unknown, *identified.unsure)
    large = [each for each in unknown if each.within is None and each.size >= SMALL_TENSOR]  # of others, none is asked
    found = {each.identity: each for each in large}.values()
    read = await each_of(found, lambda each: asyncio.to_thread(read_weight_file, each, cache, on_hashed))
    search = _Search(session, context_of, {e: file for e, file in zip(found, read, strict=True) if file is not None})
    return await search.run()


class _Search:
    """The search for the artifacts of some weight files."""

    def __init__(
        self, session: Session, context_of: Callable[[OnEvent], PullContext], weights: Mapping[DiskFile, WeightFile]
    ) -> None:
        self._session = session
        self._context_of = context_of
        self._weights = weights
        self._lowest = {file: lowest_pieces(cut.pieces.records, ASKED) for file, cut in weights.items()}
        self._manifests = dict[Digest, Manifest]()
        self._published = dict[Digest, Sequence[WeightFile]]()

    async def run(self) -> SameTensorsFound:
        asked = {Digest(digest.hex()) for some in self._lowest.values() for digest in some}
        claims = await ask_nodes(self._session, asked, pieces=True) if asked else ClaimedFiles({}, ())
        candidates, left, same = dict(claims.artifacts), MAX_FILES, list[SameTensors]()
        rest = dict.fromkeys(self._weights)
        while candidates and left:
            files = cover(candidates)[:left]
            left -= len(files)
            for found in await self._look_at({file: candidates.pop(file) for file in files}, rest):
                same.append(found)
                rest = {file: None for file in rest if file not in found.files}
            wanted = {reference for file in rest for reference in self._references(file)}
            candidates = {file: some & wanted for file, some in candidates.items() if some & wanted}
        places = {each.artifact: each.folder for each in same}
        known = [await judge(self._context_of, self._manifests[each], {}, folder) for each, folder in places.items()]
        return SameTensorsFound(tuple(same), {each.artifact: each for each in known})

    def _references(self, file: DiskFile) -> frozenset[bytes]:
        return frozenset(digest[:REFERENCE_BYTES] for digest in self._lowest[file])

    async def _look_at(
        self, claimed: Mapping[Digest, frozenset[bytes]], weights: Iterable[DiskFile]
    ) -> list[SameTensors]:
        """Compare files with the artifacts that have some of these published files."""
        manifests, _ = await manifests_of(self._session, await ask_nodes(self._session, claimed))
        self._manifests |= manifests
        pieces = {
            artifact: frozenset[bytes]().union(*(claimed.get(entry.sha256, ()) for entry in manifest.files))
            for artifact, manifest in manifests.items()
        }
        together = defaultdict[tuple[Path, Digest], list[DiskFile]](list)
        for file in weights:
            if (artifact := await self._best_for(file, pieces, claimed)) is not None:
                together[file.path.parent, artifact].append(file)
        compared = [
            SameTensors(
                folder, tuple(files), artifact, compare([self._weights[e] for e in files], self._published[artifact])
            )
            for (folder, artifact), files in together.items()
        ]
        return [each for each in compared if each.compared.found]

    async def _best_for(
        self, file: DiskFile, pieces: Mapping[Digest, frozenset[bytes]], claimed: Collection[Digest]
    ) -> Digest | None:
        """The artifact that has most of the pieces of a file that nodes were asked about, whatever is claimed; of a few
        with equally many, the one with most of the same tensors."""
        asked, found = self._references(file), list[tuple[int, int, Digest]]()
        for artifact in sorted(pieces, key=lambda each: -len(asked & pieces[each])):
            best = [most for most, _, _ in found if most == max(found)[0]]
            if len(asked & pieces[artifact]) < (best[0] if best else 1) or len(best) == ALIKE:
                break
            if artifact not in self._published:
                self._published[artifact] = await self._weights_of(self._manifests[artifact], claimed)
            there = self._published[artifact]
            hashes = {record.sha256[:REFERENCE_BYTES] for each in there for record in each.pieces.records}
            same = compare([self._weights[file]], there).same_bytes
            found.append((len(asked & hashes), same, artifact))
        return max(found, key=lambda each: each[:2])[2] if found else None

    async def _weights_of(self, manifest: Manifest, first: Collection[Digest]) -> Sequence[WeightFile]:
        """The weight files of an artifact whose pieces and header are proven, at most `MAX_HEADERS`."""
        try:
            context = self._context_of(ignore_event)
            reference = reference_of(f"sha256:{manifest.digest}")
            resolution = await resolve(context.inquiry, reference, context.bindings, context.names)
        except ComityError:
            return ()
        claims, published = resolution.evidence.claims, resolution.publication
        holding = holders(self._session, claims, manifest.digest)
        named = published.published if published else None
        layouts = Layouts.named(self._session, manifest, claims, named, holding)
        entries = [entry for entry in manifest.files if tensor_reader(entry.path) is not None]
        entries.sort(key=lambda entry: entry.sha256 not in first)
        some = entries[:MAX_HEADERS]
        headers = await each_of(some, lambda entry: fetch_header(self._session, layouts, entry))
        found = zip(some, headers, strict=True)
        return [WeightFile(entry.path, header.pieces, header.table.tensors) for entry, header in found if header]
