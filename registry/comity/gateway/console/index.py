"""Artifacts by name, and the members that claim copies of them: read from the ledger by a background task.

(1) the task reads verified `published`, `observed`, `hold` and `hold-withdrawn` statements in the order in which they
    were proven, in steps of `STEP`, and starts again when the charter or the known nodes change
(2) a repository is listed under the publisher that the charter binds to its namespace, else under the first claimant
(3) sizes and file formats come from the manifest, of which a few are read in each step
(4) a page reads a bounded part: names from a key on, at most `SCANNED` of them

The index is in memory. A log may add what fits into its share of `MAX_LISTED`, so that a member that publishes
without end hides nothing of the others; what is left out is counted and said. Not thread-safe: call from the event
loop.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

import structlog

from comity.gateway.console.copies import CopyHolders, CopyRule
from comity.gateway.hub.mirrored import LocalArtifacts
from comity.ledger.intake import HOLD, PUBLISHED, fold_name
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Pools
from comity.trust.artifact import Manifest
from comity.trust.copies import HOLD_WITHDRAWN, parse_hold_withdrawn
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.names import UPSTREAM
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements import Published, parse_hold
from comity.trust.upstream import OBSERVED, Observed

STEP: Final = 256
"""Statements read at a time."""
DETAILS: Final = 32
"""Manifests read after each step."""
PAUSE: Final = 1.0
"""Seconds between two looks at a ledger without news."""
MAX_LISTED: Final = 400_000
"""Artifacts and names in memory, before a log is held to its share."""
MAX_QUEUED: Final = 50_000
MAX_MANIFEST: Final = 256 * 1024
"""Bytes of the largest manifest that is read for the list: about 1,500 files."""
SCANNED: Final = 20_000
"""Names that one page looks at. A page may be short and still have a next one."""
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
SIZES: Final = ((1_000_000_000, "s"), (20_000_000_000, "m"), (200_000_000_000, "l"))
"""Upper bounds in bytes of the size classes; larger is `xl`, not read yet is empty."""

_log: Final = structlog.get_logger("comity.gateway.console")


@dataclass(slots=True, eq=False)
class ListedArtifact:
    """An artifact: the set of members that claim a copy, and facts of its manifest (`size` -1: not read)."""

    digest: Digest
    held_by: int = 0
    named: bool = False
    size: int = -1
    files: int = 0
    formats: tuple[str, ...] = ()
    shown_by: list[ListedRepository] = field(default_factory=list)

    @property
    def size_class(self) -> str:
        if self.size < 0:
            return ""
        return next((name for most, name in SIZES if self.size < most), "xl")


@dataclass(slots=True, eq=False)
class ListedRepository:
    """A repository, with its last logged version by its owner. `publisher` is None for a mirrored repository.
    `others`: others claim the name too."""

    key: str
    name: str
    publisher: Digest | None
    label: str
    version: str
    licence: str
    artifact: ListedArtifact
    versions: int = 1
    others: bool = False

    @property
    def mirrored(self) -> bool:
        return self.publisher is None


@dataclass(frozen=True, slots=True)
class ReadStatement:
    """What one line adds: a name (`repository` not empty), or a copy claimed by `member`, or `withdrawn` by it."""

    log: str
    number: int
    artifact: Digest
    repository: str = ""
    version: str = ""
    publisher: Digest | None = None
    label: str = ""
    licence: str = ""
    manifest: SideObject | None = None
    member: Digest | None = None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueQuery:
    """A search. `words` must all be in the name; other fields select one value each, empty for any."""

    words: tuple[str, ...] = ()
    publisher: str = ""
    licence: str = ""
    format: str = ""
    size: str = ""
    jurisdiction: str = ""
    short_of: CopyRule | None = None


@dataclass(frozen=True, slots=True)
class CataloguePage:
    """Repositories, and the key after which the next page begins, empty at the end."""

    found: tuple[ListedRepository, ...]
    after: str


@dataclass
class Listing:
    """One complete reading of the ledger. `sets` counts named artifacts by the set of their holders."""

    basis: object
    holders: CopyHolders
    position: int = 0
    artifacts: dict[Digest, ListedArtifact] = field(default_factory=dict)
    repositories: dict[str, ListedRepository] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    sets: Counter[int] = field(default_factory=Counter)
    by_log: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    by_member: Counter[Digest] = field(default_factory=Counter)
    nodes: dict[tuple[Digest, Digest], set[str]] = field(default_factory=dict)
    """By artifact and member, the logs of its nodes that claim a copy; only of members with several nodes."""
    facets: dict[str, Counter[str]] = field(
        default_factory=lambda: {kind: Counter() for kind in ("publisher", "licence", "format", "size")}
    )
    labels: dict[str, str] = field(default_factory=dict)


class ArtifactIndex:
    """Attributes:
    ready: whether everything that the ledger had at some moment was read.
    version: changes with every change of the index.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        local: LocalArtifacts,
        most: int = MAX_LISTED,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._local = local
        self._most = most
        self._queue: deque[tuple[Listing, ListedArtifact, SideObject]] = deque(maxlen=MAX_QUEUED)
        self._next = self.listing = self._empty()
        self.ready = False
        self._read_to = -1
        self.version = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                more = await self.step()
            except ComityError as error:
                _log.warning("the artifact index cannot read the ledger", why=str(error))
                more = False
            await asyncio.sleep(0 if more else PAUSE)

    async def step(self) -> bool:
        """Read one step. Returns whether there is more to read now."""
        if self._next.basis != self._basis():
            self._next, self._read_to = self._empty(), -1
            self._queue.clear()
        listing = self._next
        found, last = await self._ledger.run(self._read, listing.position)
        for statement in found:
            self.add(listing, statement)
        listing.position = last
        details = await self._read_details()
        if not found and last == self._read_to:
            self.listing, self.ready = listing, True  # until now, pages showed the reading before a change
        self._read_to = last
        if found or details or not self.version:
            self.version += 1
        return bool(found) or details

    def page(self, query: CatalogueQuery, after: str, most: int, readable: Callable[[str], bool]) -> CataloguePage:
        """At most `most` repositories whose names follow `after`, in order of their names."""
        listing, found = self.listing, list[ListedRepository]()
        start = bisect.bisect_right(listing.keys, fold_name(after)) if after else 0
        end = min(len(listing.keys), start + SCANNED)
        wanted = listing.holders.where(query.jurisdiction) if query.jurisdiction else 0
        for at in range(start, end):
            key = listing.keys[at]
            repository = listing.repositories[key]
            if readable(key) and _matches(repository, query, listing.holders, wanted):
                found.append(repository)
                if len(found) == most:
                    return CataloguePage(tuple(found), key if at + 1 < len(listing.keys) else "")
        return CataloguePage(tuple(found), listing.keys[end - 1] if end < len(listing.keys) else "")

    def repository(self, name: str) -> ListedRepository | None:
        return self.listing.repositories.get(fold_name(name))

    def affected(self, changed: Callable[[int], bool], most: int, readable: Callable[[str], bool]) -> CataloguePage:
        """Repositories whose last version has a set of holders for which `changed`; at most `SCANNED` are looked at."""
        found: list[ListedRepository] = []
        for key in self.listing.keys[:SCANNED]:
            repository = self.listing.repositories[key]
            if changed(repository.artifact.held_by) and readable(key):
                found.append(repository)
                if len(found) == most:
                    return CataloguePage(tuple(found), key)
        return CataloguePage(tuple(found), "")

    def _basis(self) -> object:
        body = self._membership.body
        return (body.digest if body else None, self._membership.node_ids, tuple(self._membership.reaches().items()))

    def _empty(self) -> Listing:
        body = self._membership.body
        return Listing(self._basis(), CopyHolders(body.members if body else (), self._membership.reaches()))

    def _read(self, position: int) -> tuple[list[ReadStatement], int]:
        """Blocking. The next statements, and the number of the last line that was read."""
        proven = self._ledger.tables.proven
        lines = proven.since(position, (PUBLISHED, OBSERVED, HOLD, HOLD_WITHDRAWN), STEP)
        found = [statement for line in lines if (statement := self._statement(line)) is not None]
        publishers = {statement.publisher for statement in found if statement.publisher is not None}
        labels = {known.id: known.display for known in proven.identities(publishers).values()} if publishers else {}
        named = [_with_label(statement, labels) for statement in found]
        return named, lines[-1].number if lines else position

    def _statement(self, line: ProvenLine) -> ReadStatement | None:
        """Blocking. What a line adds; None if it adds nothing: its author is not a node of this federation."""
        entry = parse_entry(line.line)
        predicate = entry.statement.predicate
        if predicate == PUBLISHED:
            said = Published.parse(entry.statement)
            name, spdx = said.name, said.licence.spdx
            return ReadStatement(
                line.vkey, line.number, said.artifact, name.repository, name.version, said.by, "", spdx, said.manifest
            )
        author = entry.statement.by
        record = self._membership.node(author) if author is not None else None
        if record is None:
            return None
        if predicate in (HOLD, HOLD_WITHDRAWN):
            if str(record.log) != line.vkey:  # it counts only in its own node's log
                return None
            said_of = parse_hold if predicate == HOLD else parse_hold_withdrawn
            artifact, withdrawn = said_of(entry.statement).artifact, predicate == HOLD_WITHDRAWN
            return ReadStatement(line.vkey, line.number, artifact, member=record.member, withdrawn=withdrawn)
        seen = Observed.parse(entry.statement)
        upstream, licence = seen.upstream, seen.conditions.licence
        return ReadStatement(
            line.vkey,
            line.number,
            seen.artifact,
            upstream.repository,
            upstream.commit,
            None,
            "",
            licence,
            seen.manifest,
        )

    def add(self, listing: Listing, said: ReadStatement) -> None:
        """Add what one line says."""
        artifact = listing.artifacts.get(said.artifact)
        if artifact is None:
            if not self._fits(listing, said.log):
                return
            artifact = listing.artifacts[said.artifact] = ListedArtifact(said.artifact)
        if said.member is not None:
            self._set_copy(listing, artifact, said, said.member)
        else:
            self._add_name(listing, artifact, said)

    def _fits(self, listing: Listing, log: str) -> bool:
        """Whether a log may add an artifact or a name: while there is room, or within its share. If so, it is counted.

        One artifact can have many names, so both are counted.
        """
        logs = len(self._membership.peers) + 1
        size = len(listing.artifacts) + len(listing.repositories)
        if size >= self._most and listing.by_log[log] >= self._most // logs:
            listing.left_out[log] += 1
            return False
        listing.by_log[log] += 1
        return True

    def _set_copy(self, listing: Listing, artifact: ListedArtifact, said: ReadStatement, identity: Digest) -> None:
        """Add the claim of a member, or take it back when the last of its nodes withdraws it."""
        member = self._membership.member(identity)
        bit = listing.holders.bit(member) if member is not None else 0
        if not bit:
            return
        held = not said.withdrawn
        if len(self._membership.nodes_of(identity)) > 1:
            logs = listing.nodes.setdefault((artifact.digest, identity), set())
            if said.withdrawn:
                logs.discard(said.log)
            else:
                logs.add(said.log)
            held = bool(logs)
        before, after = artifact.held_by, artifact.held_by | bit if held else artifact.held_by & ~bit
        if before == after:
            return
        artifact.held_by = after
        if artifact.named:
            _move(listing.sets, before, after)
            listing.by_member[identity] += 1 if held else -1

    def _add_name(self, listing: Listing, artifact: ListedArtifact, said: ReadStatement) -> None:
        if not artifact.named:
            artifact.named = True
            listing.sets[artifact.held_by] += 1
            listing.by_member.update(member.id for member in listing.holders.of(artifact.held_by))
            if said.manifest is not None and said.manifest.size <= MAX_MANIFEST:
                self._queue.append((listing, artifact, said.manifest))
        key = fold_name(said.repository)
        known = listing.repositories.get(key)
        if known is None:
            if not self._fits(listing, said.log):
                return
            listing.repositories[key] = _new_repository(key, artifact, said)
            bisect.insort(listing.keys, key)
            _count(listing, listing.repositories[key], 1)
        elif known.publisher == said.publisher:
            _count(listing, known, -1)
            known.versions += known.version != said.version
            known.version, known.licence, known.artifact = said.version, said.licence, artifact
            _count(listing, known, 1)
        elif said.publisher is not None and said.publisher == self._bound_publisher(said.repository):
            _count(listing, known, -1)
            listing.repositories[key] = _new_repository(key, artifact, said)
            listing.repositories[key].others = True
            _count(listing, listing.repositories[key], 1)
        else:
            known.others = True

    def _bound_publisher(self, repository: str) -> Digest | None:
        body = self._membership.body
        namespace = repository.removeprefix(UPSTREAM).partition("/")[0]
        return body.namespaces.get(namespace) if body else None

    async def _read_details(self) -> bool:
        """Read some manifests. Returns whether more are queued."""
        some = [self._queue.popleft() for _ in range(min(DETAILS, len(self._queue)))]
        if not some:
            return False
        manifests = await self._pools.files(self._manifests, [item for _, _, item in some])
        for (listing, artifact, _), manifest in zip(some, manifests, strict=True):
            if manifest is None:
                continue
            shown = tuple(artifact.shown_by)
            for repository in shown:
                _count(listing, repository, -1)
            artifact.size, artifact.files = manifest.size, len(manifest.files)
            artifact.formats = formats_of(manifest)
            for repository in shown:
                _count(listing, repository, 1)
        return bool(self._queue)

    def _manifests(self, items: Sequence[SideObject]) -> list[Manifest | None]:
        """Blocking."""
        return [self._manifest(item) for item in items]

    def _manifest(self, item: SideObject) -> Manifest | None:
        try:
            return self._local.manifest(item)
        except ComityError:
            return None


def formats_of(manifest: Manifest) -> tuple[str, ...]:
    """The formats of the weights, by the ends of the file names."""
    ends = (FORMATS.get(PurePosixPath(entry.path).suffix.lower()) for entry in manifest.files)
    return tuple(sorted({name for name in ends if name}))


def _matches(repository: ListedRepository, query: CatalogueQuery, holders: CopyHolders, wanted: int) -> bool:
    artifact = repository.artifact
    return (
        all(word in repository.key for word in query.words)
        and (not query.publisher or (repository.publisher or "mirrored") == query.publisher)
        and (not query.licence or repository.licence.lower() == query.licence)
        and (not query.format or query.format in artifact.formats)
        and (not query.size or artifact.size_class == query.size)
        and (not query.jurisdiction or bool(artifact.held_by & wanted))
        and (query.short_of is None or not holders.meets(artifact.held_by, query.short_of))
    )


def _new_repository(key: str, artifact: ListedArtifact, said: ReadStatement) -> ListedRepository:
    return ListedRepository(key, said.repository, said.publisher, said.label, said.version, said.licence, artifact)


def _with_label(statement: ReadStatement, labels: Mapping[Digest, str]) -> ReadStatement:
    if statement.publisher is None:
        return statement
    return replace(statement, label=labels.get(statement.publisher, ""))


def _move(counts: Counter[int], before: int, after: int) -> None:
    counts[before] -= 1
    if not counts[before]:
        del counts[before]
    counts[after] += 1


def _count(listing: Listing, repository: ListedRepository, step: int) -> None:
    """Add a repository to the counts of the facets, or take it out."""
    publisher = repository.publisher or "mirrored"
    artifact = repository.artifact
    if step > 0:
        artifact.shown_by.append(repository)
    else:
        artifact.shown_by.remove(repository)
    listing.facets["publisher"][publisher] += step
    listing.labels.setdefault(publisher, repository.label)
    listing.facets["licence"][repository.licence.lower()] += step
    listing.facets["size"][artifact.size_class] += step
    for name in artifact.formats:
        listing.facets["format"][name] += step
