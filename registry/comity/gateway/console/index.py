"""Artifacts by name, and the members with copies of them: read from the ledger and the index of copies by a background
task.

(1) the task reads verified `published`, `observed` and `artifact-kind` statements in the order in which they were
    proven, in steps of `STEP`, into a file (`listing_file`). A start goes on from the position in the file; when the
    charter or the known nodes change, another file is made; until it is complete, pages show the old one
(2) who has a copy, and whose copy another member tested, is what `comity.node.copies.index` has and
    `comity.trust.copies` says of it; the task follows its changes, and looks at an artifact again on the day on which a
    result about it becomes stale
(3) a repository is listed under the publisher to whom the charter binds its namespace, in whatever case of letters; in
    another namespace, under the first claimant. What somebody else claims in a bound namespace is not listed
(4) sizes and file formats come from the manifest, of which a few are read in each step

Not thread-safe: call from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from comity.content.sqlite_cache import remove_sqlite_cache
from comity.gateway.console.copies import CopyHolders
from comity.gateway.console.listing_file import (
    NEVER,
    CataloguePage,
    CatalogueQuery,
    CopySets,
    ListedArtifact,
    ListingFile,
    Readable,
    ReadKind,
    ReadStatement,
    Standing,
)
from comity.gateway.hub.mirrored import LocalArtifacts
from comity.ledger.intake import fold_name
from comity.ledger.proven import ProvenLine
from comity.node.copies.counter import CopyAssessor
from comity.node.copies.index import CopiesIndex
from comity.node.members import Membership
from comity.node.projection import Follower, Position
from comity.node.reading import ReadState
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.artifact_kind import kind_of
from comity.rules.audit import DAY
from comity.rules.copy_counts import holders, next_change
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import SideObject, Statement, parse_entry
from comity.trust.statement_kinds import ARTIFACT_KIND, PUBLICATION_PREDICATES, PUBLISHED
from comity.trust.statements import Published
from comity.trust.upstream import Observed

PREDICATES: Final = (*PUBLICATION_PREDICATES, ARTIFACT_KIND)
STEP: Final = 256
"""Statements read at a time."""
DETAILS: Final = 32
"""Manifests read after each step."""
LOOKS: Final = LoopTiming(interval=1.0, deadline=86_400.0)
"""Of looks at a ledger without news; the first one may read a million names."""
FILE_NAME: Final = "console-{}.sqlite"
FORMATS: Final = {
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".onnx": "onnx",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".h5": "keras",
    ".keras": "keras",
    ".tflite": "tflite",
}
"""Formats by the ends of file names. A name is a claim; `comity scan` reads the files."""


class ArtifactIndex:
    """`close` it after its loop has ended.

    Args:
        folder: where the files of the list are, beside the ledger.

    Attributes:
        ready: whether everything that the ledger had at some moment was read.
        version: changes with every change of the index.
    """

    def __init__(
        self,
        folder: Path,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        local: LocalArtifacts,
        copies: CopiesIndex,
        clock: Clock,
    ) -> None:
        """Opens the file of the list. Blocking. Raises Unavailable, OutOfSpace."""
        self._folder = folder
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._local = local
        self._copies = copies
        self._clock = clock
        self._next = self.listing = self._open()
        self._former: ListingFile | None = None
        """The list that was shown before: a page may still read it."""
        self._follower = Follower(ledger, self._next, PREDICATES)
        self._follower.check()
        self._followed = 0
        """The position in the changes of the index of copies, of this process."""
        if self._next.followed != copies.opened_position.number:
            self._look_at_all()
        self.ready = False
        self.version = 0

    def progress(self) -> ReadState:
        """Up to which statement the list has read. Blocking."""
        return self._follower.progress()

    def begin(self, supervisor: Supervisor) -> None:
        """Follow the ledger in the background."""
        supervisor.loop("console index", self._follow, LOOKS)

    async def _follow(self) -> None:
        while await self.step():
            await asyncio.sleep(0)

    async def step(self) -> bool:
        """Read one step. Returns whether there is more to read now."""
        if self._next.basis != self._basis():
            await self._pools.files(self._begin_again)
        listing, follower = self._next, self._follower
        lines = await follower.next(STEP)
        if lines:
            found, kinds = await self._ledger.run(self._read, lines)
            await self._pools.files(listing.add, found, Position.at(lines[-1]), kinds)
        refreshed = await self._pools.files(self._refresh, listing)
        details = await self._pools.files(self._read_details, listing)
        if not lines:
            await self._pools.files(self._show, listing)
        if lines or refreshed or details or not self.version:
            self.version += 1
        return bool(lines) or refreshed or details

    async def page(self, query: CatalogueQuery, after: str, most: int, readable: Readable) -> CataloguePage:
        """At most `most` repositories whose names follow `after`, in order of their names."""
        return await self._pools.files(self.listing.page, query, fold_name(after), most, readable)

    async def affected(self, changed: Callable[[int], bool], most: int, readable: Readable) -> CataloguePage:
        """Repositories whose last version has a set of holders for which `changed`."""
        return await self._pools.files(self.listing.affected, changed, most, readable)

    async def facets(self, kind: str, most: int) -> list[tuple[str, str, int]]:
        """The most frequent values of a facet: value, label, and number of repositories."""
        return await self._pools.files(self.listing.facets, kind, most)

    def close(self) -> None:
        """Blocking."""
        for listing in (self.listing, self._next, self._former):
            if listing is not None:
                listing.close()

    def _basis(self) -> str:
        """On what the list depends besides the ledger."""
        body = self._membership.body
        nodes = list[Json](sorted(self._membership.node_ids))
        reaches = [list[Json]((member, *sorted(found))) for member, found in sorted(self._membership.reaches().items())]
        return sha256(canonical([body.digest if body else "", nodes, list[Json](reaches)]))

    def _open(self) -> ListingFile:
        body, basis = self._membership.body, self._basis()
        holders = CopyHolders(body.members if body else (), self._membership.reaches())
        return ListingFile(self._folder / FILE_NAME.format(basis[:16]), basis, holders)

    def _begin_again(self) -> None:
        """Blocking. The charter or the nodes have changed: make another list."""
        if self._next is not self.listing:
            self._next.close()
        if self.listing.basis == self._basis():
            self._next = self.listing
        else:
            self._next = self._open()
        self._follower = Follower(self._ledger, self._next, PREDICATES)
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Blocking. Look at the copies of every artifact, because changes may have been missed."""
        self._followed = self._copies.change_position
        self._next.forget_copies()

    def _refresh(self, listing: ListingFile) -> bool:
        """Blocking. Look at the copies of artifacts with changes, and of some that are due. Returns whether there were
        any."""
        today, position = int(self._clock()) // DAY, self._copies.position.number
        changes = self._copies.changes(self._followed, STEP)
        if changes.missed:
            self._look_at_all()
            return True
        wanted = dict.fromkeys((*listing.known(changes.artifacts), *listing.due(today, STEP)))
        found = self._sets_of_members(listing, list(wanted), today)
        complete = len(changes.artifacts) < STEP
        if found or (complete and listing.followed != position):
            listing.set_copies(found, position if complete else None)
        self._followed = changes.position
        return bool(found or changes.artifacts)

    def _sets_of_members(self, listing: ListingFile, artifacts: Sequence[Digest], today: int) -> list[CopySets]:
        own, found = self._membership.own_node.inception.id, list[CopySets]()
        assessor, known = CopyAssessor(self._membership, today), dict[int, CopySets]()
        claims = self._copies.claims_about(artifacts)
        for artifact, rows in zip(artifacts, claims, strict=True):
            if (same := known.get(id(rows))) is not None:
                found.append(replace(same, artifact=artifact))
                continue
            with_copy = holders(assessor.assess(rows), own)
            held_by = listing.holders.set_of(holder.member for holder in with_copy)
            tested_by = listing.holders.set_of(holder.member for holder in with_copy if holder.tested)
            due = next_change((result for row in rows for result in row.results), today)
            found.append(CopySets(artifact, held_by, tested_by, NEVER if due is None else due))
            known[id(rows)] = found[-1]
        return found

    def _show(self, listing: ListingFile) -> None:
        """Blocking. Show a complete list, and remove the files of others."""
        if self.ready and listing is self.listing:
            return
        if listing is not self.listing:
            if self._former is not None:
                self._former.close()
            self._former, self.listing = self.listing, listing
        for other in self._folder.glob(FILE_NAME.format("*")):
            if other != listing.file:
                remove_sqlite_cache(other)
        self.ready = True

    def _read(self, lines: Sequence[ProvenLine]) -> tuple[list[ReadStatement], list[ReadKind]]:
        """Blocking. What lines add: names, and kinds of artifacts that may have had a name before."""
        found, corrected = list[ReadStatement](), set[tuple[Digest, Digest]]()
        for line in lines:
            said = parse_entry(line.line).statement
            if said.predicate == ARTIFACT_KIND:
                corrected |= {(said.subject, said.by.id)} if said.by is not None else set()
            elif (statement := self._statement(line, said)) is not None:
                found.append(statement)
        published = {(each.artifact, each.publisher) for each in found if each.publisher is not None}
        stated = self._ledger.tables.listed.stated_kinds(corrected | published)
        kinds = {pair: kind_of(stated.get(pair, ())) for pair in corrected | published}
        publishers = {statement.publisher for statement in found if statement.publisher is not None}
        proven = self._ledger.tables.proven
        claims = {(each.key, each.publisher) for each in found if each.publisher and each.standing == "bound"}
        shared = proven.claimed_by_others(claims)
        labels = {known.id: known.display for known in proven.identities(publishers).values()} if publishers else {}
        known = [
            replace(
                each,
                label=labels.get(each.publisher, ""),
                kind=kinds[each.artifact, each.publisher],
                others=(each.key, each.publisher) in shared,
            )
            if each.publisher is not None
            else each
            for each in found
        ]
        return known, [ReadKind(*pair, kinds[pair]) for pair in sorted(corrected)]

    def _statement(self, line: ProvenLine, said: Statement) -> ReadStatement | None:
        """The name that a line adds; None if it adds none: its author is not a node of this federation."""
        if said.predicate == PUBLISHED:
            return self._published(line, Published.parse(said))
        record = self._membership.node(said.by) if said.by is not None else None
        if record is None:
            return None
        seen = Observed.parse(said)
        upstream, licence = seen.upstream, seen.conditions.licence
        about = (upstream.repository, fold_name(upstream.repository), upstream.commit)
        return ReadStatement(line.vkey, line.number, seen.artifact, *about, None, "", licence, seen.manifest)

    def _published(self, line: ProvenLine, said: Published) -> ReadStatement:
        name, spdx = said.name, said.licence.spdx
        bound = self._membership.bound_publisher(name.namespace)
        standing: Standing = "first" if bound is None else "bound" if bound == said.by else "foreign"
        about = (name.repository, fold_name(name.repository), name.version)
        return ReadStatement(line.vkey, line.number, said.artifact, *about, said.by, "", spdx, said.manifest, standing)

    def _read_details(self, listing: ListingFile) -> bool:
        """Blocking. Read some manifests. Returns whether there are more."""
        pending = listing.pending(DETAILS + 1)
        if not pending:
            return False
        listing.add_details([self._details(item) for item in pending[:DETAILS]])
        return len(pending) > DETAILS

    def _details(self, item: SideObject) -> ListedArtifact:
        try:
            manifest = self._local.manifest(item)
        except ComityError:
            return ListedArtifact(item.digest)
        return ListedArtifact(item.digest, 0, 0, manifest.size, len(manifest.files), formats_of(manifest))


def formats_of(manifest: Manifest) -> tuple[str, ...]:
    """The formats of the weights, by the ends of the file names."""
    ends = (FORMATS.get(PurePosixPath(entry.path).suffix.lower()) for entry in manifest.files)
    return tuple(sorted({name for name in ends if name}))
