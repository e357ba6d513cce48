"""From whom the published artifacts descend, how large they are, and how often they are pulled from here.

Rows beside the ledger (`comity.node.projection`), read in the background: publications, the parents that they name, and
derivations that members computed and signed. Where a member, its node, or a publisher to whom the charter binds a
namespace published an artifact, what others say of it does not count: no stranger moves the root of a member's
artifact. What only others publish is counted apart. When the charter changes who these are, all rows are computed
again.

    grows with                      bound                            at the bound
    published artifacts             about 210 bytes each on disk
    publishers of one artifact      MAX_CLAIMS of members, and of    further ones are not counted
                                    others
    parents of one artifact         MAX_EDGES of members, and of     further ones are not counted
                                    others
    an answer                       PAGE artifacts, each with at most `lineage.MAX_NODES` ancestors
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.proven import ProvenLine
from comity.node.file_index import index_basis
from comity.node.members import Membership
from comity.node.projection import Follower, Position, Projection, ProjectionTables, packed, unpacked
from comity.node.pull_counts import counted_file
from comity.node.reading import ReadState
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import read_in_one_step, read_manifest
from comity.rules.descent import LineageFacts, ParentEdge, requires_packages
from comity.rules.file_records import MEMBERS, OTHERS
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statement_kinds import DERIVED, OBSERVED, PUBLICATION_PREDICATES
from comity.trust.statements import Derived, Published
from comity.trust.upstream import Observed

FILE_NAME: Final = "descent.sqlite"
"""The rows, beside the ledger."""
READ_PAGE: Final = 256
"""Statements that are read in one step, at most: `read_in_one_step`."""
TIMING: Final = LoopTiming(interval=2.0, deadline=86_400.0)
MAX_CLAIMS: Final = 16
MAX_EDGES: Final = 64
PREDICATES: Final = (*PUBLICATION_PREDICATES, DERIVED)
_SCHEMA: Final = """
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE artifact (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, size INTEGER, largest BLOB, requiring INTEGER NOT NULL);
CREATE TABLE claim (
    artifact INTEGER, whose INTEGER, author INTEGER, PRIMARY KEY (artifact, whose, author)) WITHOUT ROWID;
CREATE TABLE edge (
    child INTEGER, whose INTEGER, parent INTEGER, author INTEGER, signed INTEGER,
    PRIMARY KEY (child, whose, parent, author, signed)) WITHOUT ROWID;
"""
_TABLES: Final = ProjectionTables("descent", "the descent of artifacts", 1, _SCHEMA)
_log: Final = structlog.get_logger("comity.node")


@frozen
class ArtifactFacts:
    """What the manifest of an artifact says: bytes of its files, the file by which its pulls are counted, and whether
    it requires packages that it does not contain."""

    size: int
    largest: Digest
    requiring: bool


@frozen
class NamedParent:
    """A parent: by digest, or None; the organisation of an upstream repository that its name has, or empty; `signed`:
    whether the child was computed from it exactly."""

    digest: Digest | None
    author: str
    signed: bool


@frozen
class DescentFact:
    """What one statement says of an artifact: its author for a publication, empty for a derivation, and its parents."""

    artifact: Digest
    whose: int
    author: str
    parents: tuple[NamedParent, ...]
    facts: ArtifactFacts | None = None


@frozen
class CatalogueRow:
    """A published artifact. `number`: by which a page continues; `size` and `largest` are None where the manifest could
    not be read."""

    number: int
    digest: Digest
    size: int | None
    largest: Digest | None
    requiring: bool
    of_members: bool
    authors: tuple[str, ...]


class DescentRows(Projection):
    """Each call raises as those of `Projection`.

    Args:
        file: the database; made if it is missing.
        basis: who members are, as one text.
    """

    def __init__(self, file: Path, basis: str) -> None:
        """Raises Unavailable, OutOfSpace."""
        super().__init__(file, _TABLES, basis)

    def add(self, facts: Iterable[DescentFact], position: Position) -> None:
        """Add what some statements say, and move the position with the last."""
        self._write(facts, _add, position)

    def sized(self, artifacts: Collection[Digest]) -> set[Digest]:
        """Of these artifacts, those whose manifest was read."""
        wanted = f"SELECT digest FROM artifact WHERE size IS NOT NULL AND digest IN ({','.join('?' * len(artifacts))})"
        with self._reading() as database:
            return {unpacked(digest) for (digest,) in database.execute(wanted, [*map(packed, artifacts)])}

    def page(self, after: int, most: int) -> list[CatalogueRow]:
        """The published artifacts after a number, at most `most`."""
        with self._reading() as database:
            rows = database.execute(_PAGE, (after, most)).fetchall()
            authors = _authors(database, [row[0] for row in rows])
        return [
            CatalogueRow(
                number,
                unpacked(digest),
                size,
                None if largest is None else unpacked(largest),
                bool(requiring),
                whose == MEMBERS,
                authors[number],
            )
            for number, digest, size, largest, requiring, whose in rows
        ]

    def known(self, number: int) -> LineageFacts:
        """The authors and the parents of an artifact, by its number."""
        with self._reading() as database:
            (whose,) = database.execute("SELECT min(whose) FROM claim WHERE artifact = ?", (number,)).fetchone()
            authors = _authors(database, [number]).get(number, ())
            edges = database.execute(_EDGES, (number, OTHERS if whose is None else whose)).fetchall()
        parents = (ParentEdge(parent or None, name or "", bool(signed)) for parent, name, signed in edges)
        return LineageFacts(authors, tuple(parents))


_PAGE: Final = (
    "SELECT id, digest, size, largest, requiring, (SELECT min(whose) FROM claim WHERE artifact = id) AS best"
    " FROM artifact WHERE id > ? AND best IS NOT NULL ORDER BY id LIMIT ?"
)
_EDGES: Final = (
    "SELECT parent, name, signed FROM edge LEFT JOIN author ON author.id = author"
    " WHERE child = ? AND (whose = ? OR signed = 1)"
)
"""Derivations are kept of members only; so are parents as their publisher names them where the first claim is a
member's."""


def _authors(database: sqlite3.Connection, artifacts: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The authors of artifacts: those of members, or else the others."""
    wanted = (
        "SELECT artifact, name FROM claim AS c JOIN author ON author.id = author WHERE artifact = ?"
        " AND whose = (SELECT min(whose) FROM claim WHERE artifact = c.artifact) ORDER BY name"
    )
    return {number: tuple(name for _, name in database.execute(wanted, (number,))) for number in artifacts}


def _add(database: sqlite3.Connection, facts: Sequence[DescentFact]) -> None:
    authors = {"": 0}
    for name in {each for fact in facts for each in (fact.author, *(parent.author for parent in fact.parents)) if each}:
        authors[name] = _author(database, name)
    for fact in facts:
        artifact = _artifact(database, fact.artifact, fact.facts)
        if fact.author and _room(database, "claim", "artifact", artifact, fact.whose, MAX_CLAIMS):
            row = (artifact, fact.whose, authors[fact.author])
            database.execute("INSERT OR IGNORE INTO claim VALUES (?, ?, ?)", row)
        for parent in fact.parents:
            if _room(database, "edge", "child", artifact, fact.whose, MAX_EDGES):
                to = 0 if parent.digest is None else _artifact(database, parent.digest)
                edge = (artifact, fact.whose, to, authors[parent.author], parent.signed)
                database.execute("INSERT OR IGNORE INTO edge VALUES (?, ?, ?, ?, ?)", edge)


def _room(database: sqlite3.Connection, table: str, key: str, artifact: int, whose: int, most: int) -> bool:
    counted = f"SELECT count(*) FROM {table} WHERE {key} = ? AND whose = ?"
    (count,) = database.execute(counted, (artifact, whose)).fetchone()
    return int(count) < most


_KNOWN: Final = (
    "INSERT INTO artifact VALUES (NULL, ?, NULL, NULL, 0) ON CONFLICT (digest) DO UPDATE SET digest = digest"
    " RETURNING id"
)
_SIZED: Final = (
    "INSERT INTO artifact VALUES (NULL, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
    " size = excluded.size, largest = excluded.largest, requiring = excluded.requiring RETURNING id"
)


def _artifact(database: sqlite3.Connection, digest: Digest, facts: ArtifactFacts | None = None) -> int:
    """The number of an artifact, which gets these facts."""
    if facts is None:
        (number,) = database.execute(_KNOWN, (packed(digest),)).fetchone()
    else:
        values = packed(digest), facts.size, packed(facts.largest), facts.requiring
        (number,) = database.execute(_SIZED, values).fetchone()
    return int(number)


def _author(database: sqlite3.Connection, name: str) -> int:
    database.execute("INSERT OR IGNORE INTO author VALUES (NULL, ?)", (name,))
    (number,) = database.execute("SELECT id FROM author WHERE name = ?", (name,)).fetchone()
    return int(number)


@frozen
class _SaidFact:
    """A statement as a fact, and the manifest that it names, if any."""

    fact: DescentFact
    manifest: SideObject | None


class DescentReader:
    """Keeps the rows up to date. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, membership: Membership, rows: DescentRows
    ) -> None:
        self._store = store
        self._pools = pools
        self._membership = membership
        self.rows = rows
        self._follower = Follower(ledger, rows, PREDICATES, basis=partial(index_basis, membership))

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("descent", self.read, TIMING)

    def progress(self) -> ReadState:
        """Up to which statement everything was read. Blocking."""
        return self._follower.progress()

    async def read(self) -> None:
        """Read all new statements, in bounded steps."""
        while lines := await self._follower.next(READ_PAGE):
            await self._pools.files(self._add, lines, self._membership.precedence.members)

    def _add(self, lines: Sequence[ProvenLine], members: Collection[Digest]) -> None:
        """Blocking."""
        read = [[*_said(line, members)] for line in lines]
        del read[read_in_one_step(found[0].manifest if found else None for found in read) :]
        said = [each for found in read for each in found]
        sized = self.rows.sized({each.fact.artifact for each in said if each.manifest is not None})
        known: dict[Digest, ArtifactFacts | None] = dict.fromkeys(sized)
        facts = [self._with_size(each, known) for each in said]
        self.rows.add(facts, Position.at(lines[len(read) - 1]))

    def _with_size(self, said: _SaidFact, known: dict[Digest, ArtifactFacts | None]) -> DescentFact:
        fact = said.fact
        if said.manifest is None or fact.artifact in known:
            return fact
        known[fact.artifact] = facts = self._facts(said.manifest)
        return DescentFact(fact.artifact, fact.whose, fact.author, fact.parents, facts)

    def _facts(self, item: SideObject) -> ArtifactFacts | None:
        try:
            manifest = read_manifest(self._store, item)
        except ComityError as error:  # it was lost: it is here before its statement
            _log.warning("the size of an artifact is not known", artifact=item.digest, why=str(error))
            return None
        requiring = requires_packages([entry.path for entry in manifest.files])
        return ArtifactFacts(manifest.size, counted_file(manifest), requiring)


def _said(line: ProvenLine, members: Collection[Digest]) -> Iterator[_SaidFact]:
    """What a statement says of roots; nothing for a derivation that no member signed, or that is of some tensors."""
    statement = parse_entry(line.line).statement
    by = statement.by
    whose = MEMBERS if by is not None and by.id in members else OTHERS
    if statement.predicate == DERIVED:
        derived = Derived.parse(statement)
        if whose == MEMBERS and derived.exact:
            yield _SaidFact(DescentFact(derived.child, whose, "", (NamedParent(derived.parent, "", True),)), None)
    elif statement.predicate == OBSERVED:
        observed = Observed.parse(statement)
        yield _SaidFact(DescentFact(observed.artifact, whose, organisation(str(observed.name)), ()), observed.manifest)
    else:
        published = Published.parse(statement)
        parents = tuple(NamedParent(each.digest, organisation(each.name), False) for each in published.lineage)
        yield _SaidFact(DescentFact(published.artifact, whose, published.by, parents), published.manifest)


def organisation(name: str) -> str:
    """`hf:org` of the name of an upstream repository; empty for other names."""
    first, slash, _ = name.partition("/")
    return first.lower() if slash and first.startswith(UPSTREAM) and first != UPSTREAM else ""
