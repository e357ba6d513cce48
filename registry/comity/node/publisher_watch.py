"""What concerns a publisher: what is said under its identity, and what others publish under its names or of its files.

    own     a statement under the identity, which a thief of a key may have made
    name    a publication of somebody else under a name that the publisher uses too, or in a namespace that the charter
            binds to it
    files   a publication or observation of somebody else that has a file of an artifact that the publisher published
            earlier; only files of weight (`heavy_files`), because licences and configurations are everywhere

Rows beside the ledger (`comity.node.projection`), read in the background, after the index of files has read as far.
Rows of members and of others are apart, and of each author the newest are kept, so that nobody displaces what somebody
else said. Members are those of the index of files.

    grows with                           bound                     at the bound
    statements under an identity         KEPT_OWN                  the oldest are dropped
    what an author says of a publisher   KEPT                      the oldest are dropped
    authors                              those of the ledger; about 40 bytes a row on disk
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final, Literal, get_args

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.proven import ProvenLine
from comity.node.file_index import FileIndexReader, index_basis, publication_of
from comity.node.members import Membership
from comity.node.projection import Follower, Position, Projection, ProjectionTables, packed, unpacked
from comity.node.reading import ReadState
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import read_in_one_step, read_manifest
from comity.rules import precedence
from comity.rules.file_records import MEMBERS, OTHERS
from comity.rules.precedence import Said, newest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.statement import Author, SideObject, parse_entry
from comity.trust.statement_kinds import NODE, OBSERVED, PUBLICATION_PREDICATES, PUBLISHED, STATEMENT_KINDS
from comity.trust.statements import Published
from comity.trust.upstream import Observed

FILE_NAME: Final = "publishers.sqlite"
"""The rows, beside the ledger."""
PAGE: Final = 256
"""Statements that are read in one step, at most: `read_in_one_step`."""
TIMING: Final = LoopTiming(interval=2.0, deadline=86_400.0)
WATCHED_PREDICATES: Final = tuple(
    kind.predicate
    for kind in STATEMENT_KINDS.values()
    if (kind.logged and kind.by is not NODE) or kind.predicate == OBSERVED
)
"""Kinds that an identity may say, and observations, which name files."""
KEPT: Final = 64
KEPT_OWN: Final = 1_024
READ: Final = 1_000
"""Rows of members, and of others, among which those of a list are chosen."""
CLAIMANTS: Final = 8
"""Claimants of a name, the earliest, who are told of another one."""
HOLDERS: Final = 8
"""Artifacts of members, and of others, the first with a file, whose publishers are told."""
MOST_HOLDERS: Final = 32
"""Of all files of an artifact."""
PUBLISHERS: Final = 2
"""Of such an artifact, the first who are told."""
PUBLICATIONS: Final = 16
"""Of such an artifact, among which those are. Of each log, no later ones are looked at."""
HEAVY: Final = 1024 * 1024
LEAST: Final = 4096
MOST_HEAVY: Final = 16

Why = Literal["own", "name", "files"]
WHYS: Final[tuple[Why, ...]] = get_args(Why)
_SCHEMA: Final = """
CREATE TABLE identity (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
CREATE TABLE own (identity INTEGER, number INTEGER, PRIMARY KEY (identity, number)) WITHOUT ROWID;
CREATE TABLE concern (
    identity INTEGER, why INTEGER, author INTEGER, number INTEGER, whose INTEGER NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (identity, why, author, number)) WITHOUT ROWID;
CREATE INDEX concern_newest ON concern (identity, whose, since)
"""
_log: Final = structlog.get_logger("comity.node")
_TABLES: Final = ProjectionTables("publishers", "what concerns publishers", 2, _SCHEMA)


@frozen
class Concern:
    """That the statement with this number, of `author`, concerns an identity. `whose`: MEMBERS or OTHERS. `later`: the
    number of a later statement, of the identity itself, without which it would not; 0 if there is none."""

    identity: Digest
    why: Why
    author: Digest
    number: int
    whose: int = OTHERS
    later: int = 0

    @property
    def since(self) -> int:
        """The number of the statement since which it concerns the identity."""
        return max(self.number, self.later)


@frozen
class FoundConcerns:
    """In the order in which they began to concern the identity; `more`: there are others, older ones or of the same
    authors."""

    found: tuple[Concern, ...]
    more: bool


class PublisherWatch(Projection):
    """Each call raises as those of `Projection`.

    Args:
        file: the database; made if it is missing.
        basis: who members are, as one text.
    """

    def __init__(self, file: Path, basis: str) -> None:
        """Raises Unavailable, OutOfSpace."""
        super().__init__(file, _TABLES, basis)

    def add(self, concerns: Iterable[Concern], position: Position) -> None:
        """Add what some statements concern, and move the position with the last."""
        self._write(concerns, _add, position)

    def concerns(self, identity: Digest, most: int, after: int = 0, upto: int = 2**62) -> FoundConcerns:
        """What concerns an identity since statements after and up to these numbers: at most `most`, the newest. The
        identity's own, those of members and those of others have places apart (`comity.rules.precedence`)."""
        with self._reading() as database:
            rows = list(_rows(database, identity, after, upto))
        said = [Said(each.author, (each.number, each.why), "", each) for each in sorted(rows, key=_turn_of)]
        chosen = newest(said, lambda each: group_of(each.item), most)
        limited = max(Counter(map(group_of, rows)).values(), default=0) > READ
        return FoundConcerns(tuple(each.item for each in chosen), limited or len(chosen) < len(said))


def _turn_of(concern: Concern) -> tuple[int, int]:
    return concern.since, concern.number


def group_of(concern: Concern) -> int:
    """Of the author, in lists for the identity."""
    if concern.why == "own":
        return precedence.NAMED
    return precedence.MEMBERS if concern.whose == MEMBERS else precedence.OTHERS


def _rows(database: sqlite3.Connection, identity: Digest, after: int, upto: int) -> Iterator[Concern]:
    """The newest rows, of each group one more than `READ`."""
    bounds, most = (packed(identity), after, upto), READ + 1
    known = "identity = (SELECT id FROM identity WHERE digest = ?)"
    own = f"SELECT number FROM own WHERE {known} AND number > ? AND number <= ? ORDER BY number DESC LIMIT ?"
    for (number,) in database.execute(own, (*bounds, most)):
        yield Concern(identity, "own", identity, number)
    others = (
        f"SELECT why, digest, number, since FROM (SELECT why, author, number, since FROM concern WHERE {known}"
        " AND since > ? AND since <= ? AND whose = ? ORDER BY since DESC LIMIT ?) JOIN identity ON id = author"
    )
    for whose in (MEMBERS, OTHERS):
        for why, author, number, since in database.execute(others, (*bounds, whose, most)):
            yield Concern(identity, WHYS[why], unpacked(author), number, whose, since if since > number else 0)


def _add(database: sqlite3.Connection, concerns: Sequence[Concern]) -> None:
    """What is asked and dropped for an identity is so once for all concerns: most of them are of few identities."""
    numbers = _numbers(database, {each for item in concerns for each in (item.identity, item.author)})
    own, others = list[tuple[int, int]](), list[tuple[int, int, int, int, int, int]]()
    for each in concerns:
        identity, author = numbers[each.identity], numbers[each.author]
        if each.why == "own":
            own.append((identity, each.number))
        else:
            others.append((identity, WHYS.index(each.why), author, each.number, each.whose, each.since))
    database.executemany("INSERT OR IGNORE INTO own VALUES (?, ?)", own)
    database.executemany("INSERT OR IGNORE INTO concern VALUES (?, ?, ?, ?, ?, ?)", others)
    for identity in dict.fromkeys(row[0] for row in own):
        _keep(database, "own", "number", ("identity",), (identity,), KEPT_OWN)
    for key in dict.fromkeys(row[:3] for row in others):
        _keep(database, "concern", "since", ("identity", "why", "author"), key, KEPT)


def _numbers(database: sqlite3.Connection, identities: Collection[Digest]) -> dict[Digest, int]:
    rows = [(packed(each),) for each in identities]
    database.executemany("INSERT OR IGNORE INTO identity VALUES (NULL, ?)", rows)
    wanted = "SELECT id FROM identity WHERE digest = ?"
    return {unpacked(row[0]): int(database.execute(wanted, row).fetchone()[0]) for row in rows}


def _keep(
    database: sqlite3.Connection, table: str, age: str, columns: Sequence[str], key: tuple[int, ...], most: int
) -> None:
    """Drop all but the newest rows with a key, by the column `age`."""
    which = " AND ".join(f"{column} = ?" for column in columns)
    oldest = f"SELECT {age} FROM {table} WHERE {which} ORDER BY {age} DESC LIMIT 1 OFFSET ?"
    database.execute(f"DELETE FROM {table} WHERE {which} AND {age} <= ({oldest})", (*key, *key, most))


@frozen
class _ReadStatement:
    """A statement, its number and its author; what it says, if it is a publication or an observation."""

    number: int
    by: Author | None
    said: Published | Observed | None

    @property
    def published(self) -> Published | None:
        return self.said if isinstance(self.said, Published) else None


def _read(line: ProvenLine) -> _ReadStatement:
    statement = parse_entry(line.line).statement
    names_files = statement.predicate in PUBLICATION_PREDICATES
    return _ReadStatement(line.number, statement.by, publication_of(statement) if names_files else None)


class WatchReader:
    """Keeps the rows up to date. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        files: FileIndexReader,
        watch: PublisherWatch,
    ) -> None:
        self._proven = ledger.tables.proven
        self._store = store
        self._pools = pools
        self._membership = membership
        self._files = files
        self.watch = watch
        self._follower = Follower(ledger, watch, WATCHED_PREDICATES, basis=partial(index_basis, membership))

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("publisher watch", self.read, TIMING)

    def progress(self) -> ReadState:
        """Up to which statement everything was read. Blocking."""
        return self._follower.progress()

    async def read(self) -> None:
        """Read all new statements, in bounded steps."""
        while await self.step():
            pass

    async def step(self) -> bool:
        """Read the next statements that the index of files has read. Returns whether more may follow."""
        lines = await self._follower.next(PAGE)
        if lines:
            indexed = await self._pools.files(self._files.progress)
            lines = [line for line in lines if line.number <= indexed.done]
        if not lines:
            return False
        await self._pools.files(self._add, lines)
        return True

    def _add(self, lines: Sequence[ProvenLine]) -> None:
        """Blocking. What is nobody else's is most of what is read, and is found for all lines together."""
        read = [_read(line) for line in lines]
        del read[read_in_one_step(each.said.manifest if each.said else None for each in read) :]
        said = [(each, each.by) for each in read if each.by is not None]
        claims = {(each.published.name.repository, by.id) for each, by in said if each.published}
        shared = self._proven.claimed_by_others(claims)
        holders = {each.number: self._holders(each.said.manifest) for each, _ in said if each.said}
        every = list(dict.fromkeys(chain.from_iterable(holders.values())))
        authors = self._proven.first_publishers_of_each(every, PUBLICATIONS)
        concerns = list[Concern]()
        for each, author in said:
            by, whose = author.id, self._whose(author.id)
            if author.kind == "identity":
                concerns.append(Concern(by, "own", by, each.number, whose))
            if each.published:
                name = each.published.name.repository
                concerns += self._of_names(name, (name, by) in shared, by, each.number, whose)
            others = [holder for holder in holders.get(each.number, ()) if set(authors[holder]) - {by}]
            concerns += self._of_files(others, by, each.number, whose)
        self.watch.add(concerns, Position.at(lines[len(read) - 1]))

    def _of_names(self, name: str, shared: bool, by: Digest, number: int, whose: int) -> Iterator[Concern]:
        """Who else uses the name is told of this claim, and who makes it for the first time, of theirs. `shared`:
        somebody else uses it."""
        others = self._proven.claimants(name, CLAIMANTS).found if shared else ()
        earlier = [each for each in others if each.publisher != by and each.number < number]
        told = {each.publisher for each in earlier} | {self._membership.bound_publisher(name.partition("/")[0])}
        yield from (Concern(each, "name", by, number, whose) for each in told if each is not None and each != by)
        if earlier and [each.number for each in self._proven.claims_of(name, [by])] == [number]:
            for each in earlier:
                yield Concern(by, "name", each.publisher, each.number, self._whose(each.publisher), number)

    def _holders(self, item: SideObject) -> Sequence[Digest]:
        """The artifact that is published, and the first ones that have one of its files."""
        try:
            manifest = read_manifest(self._store, item)
        except ComityError as error:  # it was lost: it is here before its statement
            _log.warning("the files of an artifact are not compared", artifact=item.digest, why=str(error))
            return ()
        found = (self._files.index.artifacts_with(entry.sha256, HOLDERS)[0] for entry in heavy_files(manifest))
        holders = dict.fromkeys([item.digest, *chain.from_iterable(zip_longest(*found))])
        return [holder for holder in list(holders)[:MOST_HOLDERS] if holder]

    def _of_files(self, holders: Sequence[Digest], by: Digest, number: int, whose: int) -> Iterator[Concern]:
        """Those are told who published one of these artifacts earlier."""
        told = {each for holder in holders for each in self._publishers(holder, number)}
        yield from (Concern(each, "files", by, number, whose) for each in sorted(told) if each != by)

    def _publishers(self, artifact: Digest, before: int) -> list[Digest]:
        """The first who published an artifact, before a statement."""
        published = self._proven.publications_of(artifact, PUBLICATIONS, self._membership.precedence).found
        earlier = sorted((each.number, each.publisher) for each in published if each.predicate == PUBLISHED)
        return list(dict.fromkeys(by for number, by in earlier if number < before))[:PUBLISHERS]

    def _whose(self, author: Digest) -> int:
        return MEMBERS if author in self._membership.precedence.members else OTHERS


def heavy_files(manifest: Manifest) -> Sequence[FileEntry]:
    """The files by which an artifact is known again: those of at least 1 MiB, the largest first; of an artifact without
    any, its largest file, if that has at least 4 KiB."""
    ordered = sorted(manifest.files, key=lambda entry: -entry.size)
    return [entry for entry in ordered if entry.size >= HEAVY][:MOST_HEAVY] or [
        entry for entry in ordered[:1] if entry.size >= LEAST
    ]
