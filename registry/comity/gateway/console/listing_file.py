"""The list of artifacts of the console, in an SQLite file beside the ledger: names, facts of manifests, and holders.

The file is derived from verified statements (`comity.node.projection`) and from the index of copies. It also keeps how
far it has followed that index, and on which day the copies of each artifact must be looked at again. Rows and counts
change in one transaction. Memory does not grow with the number of artifacts, except for the distinct sets of members
with a copy of one artifact, of which a federation has few.

Publishers take turns in the list, as in that of the Hub (`comity.ledger.listing_turns`): ten names of each, in their
order, then the next ten. Under one publisher, its names are in their order.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from comity.gateway.console.copies import CopyHolders
from comity.ledger.listing_turns import NAMES_TOGETHER, next_part
from comity.ledger.name_search import MAX_GRAMS, SQLITE_INDEX, grams_of, sqlite_match
from comity.node.projection import START, Position, Projection, ProjectionTables, packed, unpacked
from comity.rules.artifact_kind import MODEL
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest, bare_digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject

SCANNED: Final = 20_000
"""Names that one page looks at. A page may be short and still have a next one."""
MAX_RARE: Final = 2_000
"""Names with the words of a search that are sorted; a search with more reads names in order."""
MAX_SETS: Final = 500
"""Sets of holders that the database compares; with more, they are compared one by one."""
MAX_MANIFEST: Final = 256 * 1024
"""Bytes of the largest manifest that is read for the list: about 1,500 files."""
SIZES: Final = {
    "s": (0, 1_000_000_000),
    "m": (1_000_000_000, 20_000_000_000),
    "l": (20_000_000_000, 200_000_000_000),
    "xl": (200_000_000_000, 1 << 62),
}
"""Least size in bytes of each size class, and the least above it."""
MIRRORED: Final = "mirrored"
"""The value of the facet `publisher` of mirrored repositories."""
ROW: Final = "#"
"""Begins a cursor that is the number of a row. It stands for a name that the reader may not see: where the names that
one page looks at end."""
MAX_DIGITS: Final = 18
NEVER: Final = (1 << 62) - 1
"""The day on which artifacts are due whose copies no date changes."""
_SCHEMA: Final = f"""
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), followed INTEGER NOT NULL);
INSERT INTO state VALUES (1, -1);
CREATE TABLE artifact (
    digest BLOB PRIMARY KEY, held TEXT NOT NULL, tested TEXT NOT NULL, due INTEGER NOT NULL, size INTEGER NOT NULL,
    files INTEGER NOT NULL, formats TEXT NOT NULL, manifest_size INTEGER NOT NULL, pending INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX artifact_due ON artifact (due) WHERE due < {NEVER};
CREATE INDEX artifact_pending ON artifact (digest) WHERE pending = 1;
CREATE TABLE repository (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, publisher BLOB NOT NULL, label TEXT NOT NULL,
    version TEXT NOT NULL, licence TEXT NOT NULL, artifact BLOB NOT NULL, versions INTEGER NOT NULL,
    others INTEGER NOT NULL, part INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE INDEX repository_turn ON repository (part, key);
CREATE INDEX repository_kind ON repository (kind, part, key);
CREATE INDEX repository_publisher ON repository (publisher, part DESC);
CREATE INDEX repository_artifact ON repository (artifact, publisher);
CREATE VIRTUAL TABLE words USING {SQLITE_INDEX};
CREATE TABLE holders (
    kind TEXT NOT NULL, members TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (kind, members)) WITHOUT ROWID;
CREATE TABLE facet (
    kind TEXT NOT NULL, value TEXT NOT NULL, number INTEGER NOT NULL, label TEXT NOT NULL,
    PRIMARY KEY (kind, value)) WITHOUT ROWID;
CREATE INDEX facet_number ON facet (kind, number DESC);
"""
_TABLES: Final = ProjectionTables("console list", "the list of the console", 4, _SCHEMA)
_REPOSITORY: Final = (
    "r.key, r.name, r.publisher, r.label, r.version, r.licence, r.versions, r.others, r.kind,"
    " a.digest, a.held, a.tested, a.size, a.files, a.formats"
)
_COLUMNS: Final = ("name", "publisher", "label", "version", "licence", "artifact", "versions", "others", "part", "kind")
_PUT_REPOSITORY: Final = (
    f"INSERT INTO repository (key, {', '.join(_COLUMNS)}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
    f" ON CONFLICT (key) DO UPDATE SET {', '.join(f'{each} = excluded.{each}' for each in _COLUMNS)}"
)


Standing = Literal["first", "bound", "foreign"]
"""Of a claim to a name: the charter binds the namespace to nobody, so that who was first has the name; to the
publisher; or to somebody else."""


@frozen
class ListedArtifact:
    """An artifact: the sets of members with a copy that counts, and with a tested one, and facts of its manifest
    (`size` -1: not read)."""

    digest: Digest
    held_by: int = 0
    tested_by: int = 0
    size: int = -1
    files: int = 0
    formats: tuple[str, ...] = ()

    @property
    def size_class(self) -> str:
        return next((name for name, (least, above) in SIZES.items() if least <= self.size < above), "")


@frozen
class ListedRepository:
    """A repository, with its last logged version by its owner, of which `kind` is that of the artifact. `publisher` is
    None for a mirrored repository. `others`: others claim the name too."""

    key: str
    name: str
    publisher: Digest | None
    label: str
    version: str
    licence: str
    artifact: ListedArtifact
    versions: int = 1
    others: bool = False
    kind: str = MODEL

    @property
    def mirrored(self) -> bool:
        return self.publisher is None


@frozen
class ReadStatement:
    """What one line adds: a name for an artifact, `key` its folded form. `others`: somebody else claims the name too,
    where that is known."""

    log: str
    number: int
    artifact: Digest
    repository: str
    key: str
    version: str
    publisher: Digest | None = None
    label: str = ""
    licence: str = ""
    manifest: SideObject | None = None
    standing: Standing = "first"
    kind: str = MODEL
    others: bool = False


@frozen
class ReadKind:
    """What a line adds that states the kind of an artifact: the kind that counts with it."""

    artifact: Digest
    publisher: Digest
    kind: str


@frozen
class CatalogueQuery:
    """A search. `words` must all be in the name; other fields select one value each, empty for any."""

    words: tuple[str, ...] = ()
    publisher: str = ""
    licence: str = ""
    format: str = ""
    size: str = ""
    kind: str = ""
    jurisdiction: str = ""
    short_of: CopyPolicy | None = None


@frozen
class CataloguePage:
    """Repositories, and the cursor after which the next page begins, empty at the end."""

    found: tuple[ListedRepository, ...]
    after: str


@frozen
class CopySets:
    """The members with a copy of an artifact that counts, and those with a tested one. `due`: the first day, counted
    from 1970, on which this may be different although no log says anything else."""

    artifact: Digest
    held_by: int
    tested_by: int
    due: int = NEVER


@dataclass(slots=True)
class _CountChanges:
    """Changes of one transaction."""

    sets: Counter[int] = field(default_factory=Counter)
    tested: Counter[int] = field(default_factory=Counter)
    facets: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: dict[str, str] = field(default_factory=dict)


@frozen
class _ListPlace:
    """Where a name is in the list: its part, and its key there."""

    part: int
    key: str


@frozen
class _ListOrder:
    """An order of names in SQL: its columns, and the condition of what is after a place."""

    columns: str
    later: str

    def of(self, place: _ListPlace) -> tuple[object, ...]:
        """The values of `later`."""
        return (place.part, place.key) if "part" in self.columns else (place.key,)


_FIRST: Final = _ListPlace(-1, "")
_IN_TURN: Final = _ListOrder("r.part, r.key", "(r.part, r.key) > (?, ?)")
_BY_KEY: Final = _ListOrder("r.key", "r.key > ?")
Readable = Callable[[str], bool]


class ListingFile(Projection):
    """Each call raises as those of `Projection`.

    Attributes:
        holders: the members in the order of their bits.
        sets: the number of artifacts by the set of members with a copy that counts.
        tested: the same by the set of members with a tested copy.
    """

    def __init__(self, file: Path, basis: str, holders: CopyHolders) -> None:
        """Open the list, or make it. Raises Unavailable, OutOfSpace."""
        super().__init__(file, _TABLES, basis)
        self.holders = holders
        self.sets, self.tested = self._read_sets("held"), self._read_sets("tested")

    def begin_again(self, basis: str, position: Position = START) -> None:
        super().begin_again(basis, position)
        self.sets, self.tested = Counter(), Counter()

    def _read_sets(self, kind: str) -> Counter[int]:
        rows = self._database.execute("SELECT members, number FROM holders WHERE kind = ?", (kind,))
        return Counter({int(members, 16): number for members, number in rows})

    @property
    def followed(self) -> int:
        """The position of the index of copies up to which its changes are in this list; -1 if that is not known."""
        with self._reading() as database:
            return int(database.execute("SELECT followed FROM state").fetchone()[0])

    def add(self, statements: Sequence[ReadStatement], position: Position, kinds: Sequence[ReadKind] = ()) -> None:
        """Add what lines say, and move the position, in one transaction. The copies of new artifacts are due."""
        counts = _CountChanges()
        with self._counting(counts, position) as database:
            for said in statements:
                _add_artifact(database, counts, said)
                _add_name(database, counts, said)
            for stated in kinds:
                values = (stated.kind, packed(stated.artifact), packed(stated.publisher), stated.kind)
                database.execute(
                    "UPDATE repository SET kind = ? WHERE artifact = ? AND publisher = ? AND kind <> ?", values
                )

    def due(self, day: int, limit: int) -> list[Digest]:
        """Artifacts whose copies must be looked at on this day: new ones, and those that are due."""
        wanted = f"SELECT digest FROM artifact WHERE due < {NEVER} AND due <= ? ORDER BY due LIMIT ?"
        with self._reading() as database:
            return [unpacked(row[0]) for row in database.execute(wanted, (day, limit))]

    def known(self, artifacts: Sequence[Digest]) -> list[Digest]:
        """Those of `artifacts` that are listed."""
        wanted = "SELECT 1 FROM artifact WHERE digest = ?"
        with self._reading() as database:
            return [each for each in artifacts if database.execute(wanted, (packed(each),)).fetchone()]

    def forget_copies(self) -> None:
        """The copies of all artifacts are due."""
        with self._writing() as database:
            database.execute("UPDATE artifact SET due = 0")
            database.execute("UPDATE state SET followed = -1")

    def set_copies(self, found: Sequence[CopySets], followed: int | None) -> None:
        """Count listed artifacts under these sets of members.

        Args:
            followed: the position of the index of copies, if all its changes up to there are in this list.
        """
        counts = _CountChanges()
        with self._counting(counts) as database:
            for item in found:
                _set_copies(database, counts, item)
            if followed is not None:
                database.execute("UPDATE state SET followed = ?", (followed,))

    def pending(self, limit: int) -> list[SideObject]:
        """Manifests that were not read yet."""
        wanted = "SELECT digest, manifest_size FROM artifact WHERE pending = 1 ORDER BY digest LIMIT ?"
        with self._reading() as database:
            return [SideObject(unpacked(digest), size) for digest, size in database.execute(wanted, (limit,))]

    def add_details(self, details: Sequence[ListedArtifact]) -> None:
        """Add facts of manifests that were read, or could not be (`size` -1)."""
        counts = _CountChanges()
        with self._counting(counts) as database:
            for found in details:
                shown = list(_rows(database, "WHERE r.artifact = ?", (packed(found.digest),)))
                for repository in shown:
                    _count(counts, repository, -1)
                values = (found.size, found.files, ",".join(found.formats), packed(found.digest))
                database.execute(
                    "UPDATE artifact SET size = ?, files = ?, formats = ?, pending = 0 WHERE digest = ?", values
                )
                for repository in _rows(database, "WHERE r.artifact = ?", (packed(found.digest),)):
                    _count(counts, repository, 1)

    def facets(self, kind: str, most: int) -> list[tuple[str, str, int]]:
        """The most frequent values of `publisher`, `licence`, `format` or `size`: value, label, and number."""
        wanted = (
            "SELECT value, label, number FROM facet WHERE kind = ? AND number > 0 AND value <> ''"
            " ORDER BY number DESC, value LIMIT ?"
        )
        with self._reading() as database:
            return list(database.execute(wanted, (kind, most)))

    def page(self, query: CatalogueQuery, after: str, most: int, readable: Readable) -> CataloguePage:
        """At most `most` repositories that follow `after`, a key or the cursor of a page. Raises Malformed (CURSOR)."""
        start = self._place(after)
        order = _BY_KEY if query.publisher else _IN_TURN
        wanted = self.holders.where(query.jurisdiction) if query.jurisdiction else 0
        rule = query.short_of

        def matches(held: int) -> bool:
            if query.jurisdiction and not held & wanted:
                return False
            return rule is None or not self.holders.meets(held, rule)

        where, values = _conditions(query)
        with self._reading() as database:
            rare = _rare(database, query.words)
        if rare is None:
            return self._read_page(
                (where, values),
                order,
                start,
                most,
                lambda found: readable(found.key) and matches(found.artifact.held_by),
                query.kind,
            )
        with self._reading() as database:
            named = f"r.id IN ({','.join('?' * len(rare))})" if rare else "0"
            sql = f"WHERE {named} AND {order.later} AND {where} ORDER BY {order.columns}"
            rows = list(_rows(database, sql, (*rare, *order.of(start), *values)))
        fitting = [row for row in rows if readable(row.key) and matches(row.artifact.held_by)]
        return CataloguePage(tuple(fitting[:most]), fitting[most - 1].key if len(fitting) > most else "")

    def affected(self, changed: Callable[[int], bool], most: int, readable: Readable) -> CataloguePage:
        """Repositories whose last version has a set of holders for which `changed`; at most `SCANNED` are looked at."""
        sets = [f"{held:x}" for held, number in list(self.sets.items()) if number and changed(held)]
        if not sets:
            return CataloguePage((), "")
        among = (f"a.held IN ({','.join('?' * len(sets))})", tuple(sets)) if len(sets) <= MAX_SETS else ("1", ())

        def fits(found: ListedRepository) -> bool:
            return changed(found.artifact.held_by) and readable(found.key)

        page = self._read_page(among, _IN_TURN, _FIRST, most, fits)
        return page if len(page.found) == most else CataloguePage(page.found, "")

    def _read_page(
        self,
        condition: tuple[str, tuple[object, ...]],
        order: _ListOrder,
        start: _ListPlace,
        most: int,
        fits: Callable[[ListedRepository], bool],
        kind: str = "",
    ) -> CataloguePage:
        """Read at most `SCANNED` names after `start`, with a kind only names of that kind."""
        where, values = condition
        later, place = (
            (f"{order.later} AND r.kind = ?", (*order.of(start), kind)) if kind else (order.later, order.of(start))
        )
        window = f"SELECT * FROM repository r WHERE {later} ORDER BY {order.columns} LIMIT ?"
        last = f"SELECT id FROM repository r WHERE {later} ORDER BY {order.columns} LIMIT 1 OFFSET ?"
        joined = f"({window}) r JOIN artifact a ON a.digest = r.artifact"
        wanted = f"SELECT {_REPOSITORY} FROM {joined} WHERE {where} ORDER BY {order.columns}"
        found: list[ListedRepository] = []
        with self._reading() as database:
            with closing(database.execute(wanted, (*place, SCANNED, *values))) as rows:
                for repository in map(_listed, rows):
                    if fits(repository):
                        found.append(repository)
                    if len(found) > most:
                        return CataloguePage(tuple(found[:most]), found[most - 1].key)
            row = database.execute(last, (*place, SCANNED - 1)).fetchone()
        return CataloguePage(tuple(found), f"{ROW}{row[0]}" if row else "")

    def _place(self, after: str) -> _ListPlace:
        """The place of a name, or of a row, in the list; for a name that is not listed, its first part."""
        if not after:
            return _FIRST
        if not after.startswith(ROW):
            with self._reading() as database:
                found = database.execute("SELECT part, key FROM repository WHERE key = ?", (after,)).fetchone()
            return _ListPlace(*found) if found else _ListPlace(0, after)
        number = after.removeprefix(ROW)
        if number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS:
            with self._reading() as database:
                found = database.execute("SELECT part, key FROM repository WHERE id = ?", (int(number),)).fetchone()
            if found is not None:
                return _ListPlace(*found)
        raise Malformed("not a page of this list", why="start again from the first page", code="CURSOR")

    @contextmanager
    def _counting(self, counts: _CountChanges, position: Position | None = None) -> Iterator[sqlite3.Connection]:
        with self._writing(position) as database:
            yield database
            _write_counts(database, counts)
        for known, changes in ((self.sets, counts.sets), (self.tested, counts.tested)):
            for members, change in changes.items():
                known[members] += change
                if not known[members]:
                    del known[members]


def _set_copies(database: sqlite3.Connection, counts: _CountChanges, found: CopySets) -> None:
    digest = packed(found.artifact)
    row = database.execute("SELECT held, tested FROM artifact WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return
    _move(counts.sets, int(row[0], 16), found.held_by)
    _move(counts.tested, int(row[1], 16), found.tested_by)
    values = (f"{found.held_by:x}", f"{found.tested_by:x}", min(found.due, NEVER), digest)
    database.execute("UPDATE artifact SET held = ?, tested = ?, due = ? WHERE digest = ?", values)


def _move(counts: Counter[int], before: int, after: int) -> None:
    counts[before] -= 1
    counts[after] += 1


def _add_artifact(database: sqlite3.Connection, counts: _CountChanges, said: ReadStatement) -> None:
    size = said.manifest.size if said.manifest is not None else 0
    values = (packed(said.artifact), size, 0 < size <= MAX_MANIFEST)
    wanted = "INSERT OR IGNORE INTO artifact VALUES (?, '0', '0', 0, -1, 0, '', ?, ?)"
    added = database.execute(wanted, values).rowcount
    counts.sets[0] += added
    counts.tested[0] += added


def _add_name(database: sqlite3.Connection, counts: _CountChanges, said: ReadStatement) -> None:
    known = next(_rows(database, "WHERE r.key = ?", (said.key,)), None)
    same = known is not None and known.publisher == said.publisher
    if known is not None:
        if not same and said.standing != "bound":
            database.execute("UPDATE repository SET others = 1 WHERE key = ?", (said.key,))
            return
        _count(counts, known, -1)
    elif said.standing == "foreign":
        return
    newest = (said.version, said.licence, packed(said.artifact))
    if same:
        wanted = "version = ?, licence = ?, artifact = ?, versions = versions + (version <> ?), kind = ? WHERE key = ?"
        database.execute(f"UPDATE repository SET {wanted}", (*newest, said.version, said.kind, said.key))
    else:
        owner = (said.key, said.repository, _stored(said.publisher), said.label)
        part = _next_part(database, said.publisher)
        others = said.others or known is not None
        added = database.execute(_PUT_REPOSITORY, (*owner, *newest, 1, others, part, said.kind))
        if known is None:
            database.execute("INSERT INTO words (rowid, name) VALUES (?, ?)", (added.lastrowid, said.key))
    for repository in _rows(database, "WHERE r.key = ?", (said.key,)):
        _count(counts, repository, 1)


def _next_part(database: sqlite3.Connection, publisher: Digest | None) -> int:
    wanted = "SELECT part FROM repository WHERE publisher = ? ORDER BY part DESC LIMIT ?"
    return next_part([row[0] for row in database.execute(wanted, (_stored(publisher), NAMES_TOGETHER))])


def _count(counts: _CountChanges, repository: ListedRepository, step: int) -> None:
    """Add a repository to the counts of the facets, or take it out."""
    publisher, artifact = repository.publisher or MIRRORED, repository.artifact
    counts.labels.setdefault(publisher, repository.label)
    counts.facets["publisher", publisher] += step
    counts.facets["licence", repository.licence.lower()] += step
    counts.facets["size", artifact.size_class] += step
    for name in artifact.formats:
        counts.facets["format", name] += step


def _write_counts(database: sqlite3.Connection, counts: _CountChanges) -> None:
    for (kind, value), change in counts.facets.items():
        if change:
            label = counts.labels.get(value, "") if kind == "publisher" else value
            database.execute(
                "INSERT INTO facet VALUES (?, ?, ?, ?) ON CONFLICT (kind, value) DO UPDATE SET"
                " number = number + excluded.number",
                (kind, value, change, label),
            )
    for kind, sets in (("held", counts.sets), ("tested", counts.tested)):
        for members, change in sets.items():
            database.execute(
                "INSERT INTO holders VALUES (?, ?, ?) ON CONFLICT (kind, members) DO UPDATE SET"
                " number = number + excluded.number",
                (kind, f"{members:x}", change),
            )
    database.execute("DELETE FROM holders WHERE number = 0")


def _conditions(query: CatalogueQuery) -> tuple[str, tuple[object, ...]]:
    """The conditions of a query that SQL decides, and their values."""
    parts, values = ["1"], list[object]()
    for word in query.words:
        parts.append("instr(r.key, ?) > 0")
        values.append(word)
    if query.publisher:
        parts.append("r.publisher = ?")
        values.append(_stored(query.publisher))
    if query.licence:
        parts.append("lower(r.licence) = ?")
        values.append(query.licence)
    if query.format:
        parts.append("instr(',' || a.formats || ',', ',' || ? || ',') > 0")
        values.append(query.format)
    if query.kind:
        parts.append("r.kind = ?")
        values.append(query.kind)
    if query.size:
        parts.append("a.size >= ? AND a.size < ?")
        values += SIZES.get(query.size, (0, 0))
    return " AND ".join(parts), tuple(values)


def _rare(database: sqlite3.Connection, words: Sequence[str]) -> list[int] | None:
    """The rows of names with all grams of these words, if they are few; None if there are many or no word is long."""
    if not all(word.isprintable() for word in words):
        return []  # no name has such characters
    grams = grams_of(*words)[:MAX_GRAMS]
    if not grams:
        return None
    wanted = "SELECT rowid FROM words WHERE words MATCH ? LIMIT ?"
    found = [row[0] for row in database.execute(wanted, (sqlite_match(grams), MAX_RARE + 1))]
    return found if len(found) <= MAX_RARE else None


def _rows(database: sqlite3.Connection, where: str, values: Sequence[object]) -> Iterator[ListedRepository]:
    wanted = f"SELECT {_REPOSITORY} FROM repository r JOIN artifact a ON a.digest = r.artifact {where}"
    return map(_listed, database.execute(wanted, values).fetchall())


def _listed(row: tuple[object, ...]) -> ListedRepository:
    key, name, publisher, label, version, licence, versions, others, kind, *facts = row
    digest, held, tested, size, files, formats = facts
    known = tuple(each for each in str(formats).split(",") if each)
    assert isinstance(digest, bytes)
    sets = (int(str(held), 16), int(str(tested), 16))
    artifact = ListedArtifact(unpacked(digest), *sets, int(str(size)), int(str(files)), known)
    owner = unpacked(publisher) if isinstance(publisher, bytes) and publisher else None
    about = (str(key), str(name), owner, str(label), str(version), str(licence), artifact)
    return ListedRepository(*about, int(str(versions)), bool(others), str(kind))


def _stored(publisher: str | None) -> bytes:
    """The form in which rows have a publisher; empty for a mirrored repository. What is no digest is in no row."""
    if publisher is None or publisher == MIRRORED:
        return b""
    try:
        return packed(bare_digest(publisher))
    except Malformed:
        return publisher.encode("utf-8", "replace")
