"""What all rows derived from proven statements have in common: one contract for every reader, and the steps."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from attackers.forging import Identity, Release
from comity.gateway.console.copies import CopyHolders
from comity.gateway.console.listing_file import ListingFile, ReadStatement
from comity.gateway.hub.list_file import KeptItem, ListFile
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node import projection
from comity.node.copies.held_files import HeldFiles
from comity.node.copies.index import CopiesIndex, HoldFact
from comity.node.file_index import FileIndex, IndexedArtifact
from comity.node.projection import START, Follower, Position, Projection, ProjectionTables
from comity.node.publisher_watch import Concern, PublisherWatch
from comity.node.reading import ReadState
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.trust.statement import Envelope, SideObject
from comity.trust.statement_kinds import PUBLISHED
from support.logs import LogKeys, statement_lines

MANY = 10_000


def place(number: int) -> Position:
    return Position(number, sha256(b"statement %d" % number))


def artifact(number: int) -> Digest:
    return sha256(b"artifact %d" % number)


class _Copies(CopiesIndex):
    def __init__(self, file: Path, basis: str) -> None:
        super().__init__(file, basis, lambda: 0)

    def read(self, number: int) -> None:
        side = SideObject(sha256(b"side"), 1)
        facts = [HoldFact(artifact(number), f"log {each}", sha256(b"node"), number, side, side) for each in range(3)]
        self.add(facts, place(number))


class _Held(HeldFiles):
    def read(self, number: int) -> None:
        files = {artifact(number): {sha256(b"file %d" % each) for each in range(3)}}
        self.add(files, {artifact(number + MANY): 1}, place(number), 5)


class _Console(ListingFile):
    def __init__(self, file: Path, basis: str) -> None:
        super().__init__(file, basis, CopyHolders(()))

    def read(self, number: int) -> None:
        name, manifest = f"org/model-{number % 7}", SideObject(artifact(number), 1)
        about = (name, name, f"v{number}", sha256(b"publisher"), "Label", "MIT")
        self.add([ReadStatement("log", number, artifact(number), *about, manifest)], place(number))


class _Hub(ListFile):
    """A statement removes the item that is about it."""

    def __init__(self, file: Path, basis: str) -> None:
        super().__init__(file, basis)
        if not self.position.number:
            self.put(KeptItem(f"org/model-{each}", artifact(each), "author", 1, 0, "{}") for each in range(200))

    def read(self, number: int) -> None:
        self.follow([f"org/model-{number}"], place(number))


class _Files(FileIndex):
    def read(self, number: int) -> None:
        references = frozenset(sha256(b"file %d" % each).encode()[:16] for each in range(number, number + 3))
        self.add([IndexedArtifact(artifact(number), number % 2, references)], place(number))


class _Publishers(PublisherWatch):
    def read(self, number: int) -> None:
        author, other = sha256(b"author %d" % (number % 3)), sha256(b"other")
        names = [Concern(other, "name", author, number), Concern(author, "name", other, 1, 0)]
        self.add([Concern(author, "own", author, number), *names], place(number))


Reader = _Copies | _Held | _Console | _Hub | _Files | _Publishers


@pytest.fixture(
    params=[_Copies, _Held, _Console, _Hub, _Files, _Publishers],
    ids=["copies", "held files", "console list", "Hub list", "files", "publishers"],
)
def opened(request: pytest.FixtureRequest) -> Callable[[Path, str], Reader]:
    made: Callable[[Path, str], Reader] = request.param
    return made


def tables(rows: Projection) -> dict[str, list[tuple[object, ...]]]:
    """What the derived tables have."""
    names = [name for name in projection._TABLE.findall(rows._tables.schema) if name != "words"]
    return {name: sorted(rows._database.execute(f"SELECT * FROM {name}")) for name in names}


def expected(opened: Callable[[Path, str], Reader], file: Path, last: int) -> dict[str, list[tuple[object, ...]]]:
    """What the tables have after all statements up to `last`."""
    with closing(opened(file, "basis")) as rows:
        for number in range(1, last + 1):
            rows.read(number)
        return tables(rows)


def test_a_start_goes_on_from_the_position(opened: Callable[[Path, str], Reader], tmp_path: Path) -> None:
    for start in (1, 4):
        with closing(opened(tmp_path / "rows.sqlite", "basis")) as rows:
            assert rows.position == (place(start - 1) if start > 1 else START)
            for number in range(start, start + 3):
                rows.read(number)
            found = tables(rows)
    assert found == expected(opened, tmp_path / "at once.sqlite", 6)


def test_rows_of_another_basis_or_version_or_damaged_are_computed_again(
    opened: Callable[[Path, str], Reader], tmp_path: Path
) -> None:
    file = tmp_path / "rows.sqlite"
    with closing(opened(file, "basis")) as rows:
        empty = tables(rows)
        rows.read(1)
        assert tables(rows) != empty
    with closing(opened(file, "another")) as rows:
        assert (rows.position, rows.basis, tables(rows)) == (START, "another", empty)
        rows.read(1)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE followed SET version = version + 1")
    with closing(opened(file, "another")) as rows:
        assert (rows.position, tables(rows)) == (START, empty)
        rows.read(1)
    with closing(opened(file, "another")) as rows:
        assert rows.position == place(1)
    file.write_bytes(b"damaged" * 1_000)
    with closing(opened(file, "another")) as rows:
        assert (rows.position, tables(rows)) == (START, empty)


def test_after_a_kill_at_any_moment_the_rest_is_read_and_nothing_twice(
    opened: Callable[[Path, str], Reader], tmp_path: Path
) -> None:
    file = tmp_path / "rows.sqlite"
    opened(file, "basis").close()
    child = os.fork()
    if not child:
        try:
            rows = opened(file, "basis")
            for number in range(1, MANY):
                rows.read(number)
        finally:
            os._exit(1)
    try:
        with closing(sqlite3.connect(file)) as database:
            while database.execute("SELECT number FROM followed").fetchone()[0] < 10:
                time.sleep(0.001)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with closing(opened(file, "basis")) as rows:
        reached = rows.position
        assert reached == place(reached.number)
        for number in range(reached.number + 1, reached.number + 4):
            rows.read(number)
        found = tables(rows)
    assert found == expected(opened, tmp_path / "at once.sqlite", reached.number + 3)


def test_what_fails_moves_no_position_and_leaves_no_half_written_statement(
    opened: Callable[[Path, str], Reader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(opened(tmp_path / "rows.sqlite", "basis")) as rows:
        rows.read(1)
        rows._database.execute(
            "CREATE TEMP TRIGGER refused BEFORE UPDATE ON followed BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(Unavailable) as failed:
            rows.read(2)
        assert (failed.value.code, rows.position) == ("INDEX", place(1))
        rows._database.execute("DROP TRIGGER refused")
        rows.read(2)
        found = tables(rows)
    assert found == expected(opened, tmp_path / "at once.sqlite", 2)


def test_a_file_that_cannot_be_read_is_an_error_that_loops_handle(
    opened: Callable[[Path, str], Reader], tmp_path: Path
) -> None:
    rows = opened(tmp_path / "rows.sqlite", "basis")
    rows.close()
    for used in (lambda: rows.position, lambda: rows.read(1), lambda: rows.begin_again("basis")):
        with pytest.raises(Unavailable) as failed:
            used()
        assert failed.value.code == "INDEX"


OWN, FAR = LogKeys.generate("own.example/log"), LogKeys.generate("far.example/log")
PUBLISHER = Identity.made("a publisher")
LINES = ProjectionTables("lines", "the lines", 1, "CREATE TABLE seen (line BLOB PRIMARY KEY)")


class Lines(Projection):
    """The lines that were read."""

    def add(self, lines: list[ProvenLine]) -> None:
        rows = [(line.line,) for line in lines]
        write = "INSERT OR REPLACE INTO seen VALUES (?)"
        self._write(rows, lambda database, some: database.executemany(write, some), Position.at(lines[-1]))

    @property
    def seen(self) -> set[bytes]:
        return {line for (line,) in self._database.execute("SELECT line FROM seen")}


@dataclass
class World:
    """A ledger with publications, and rows beside it."""

    folder: Path
    ledger: Ledger
    rows: Lines

    @classmethod
    def made(cls, folder: Path) -> World:
        ledger = Ledger.open(folder, lambda: 1_000)
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        return cls(folder, ledger, Lines(folder / "rows.sqlite", LINES))

    def say(self, *numbers: int) -> list[bytes]:
        lines = [PUBLISHER.publish(f"a/m{number}@v1", Release(b"%d" % number)) for number in numbers]
        self.ledger.logs.append(OWN.vkey, lines)
        return lines

    def follower(self, **options: object) -> Follower:
        return Follower(AsyncLedger(self.ledger), self.rows, [PUBLISHED], **options)  # type: ignore[arg-type]

    async def read(self, follower: Follower, limit: int = 100) -> int:
        """Read all. Returns how many statements were read."""
        read = 0
        while lines := await follower.next(limit):
            self.rows.add(lines)
            read += len(lines)
        return read


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.made(tmp_path)
    yield made
    made.rows.close()
    made.ledger.close()


async def test_statements_come_in_bounded_steps_again_until_they_are_written(world: World) -> None:
    lines, follower = world.say(1, 2, 3), world.follower()
    for _ in range(2):
        assert [line.line for line in await follower.next(2)] == lines[:2]
    assert await world.read(follower, 2) == 3
    lines += world.say(4)
    assert await world.read(follower, 2) == 1
    assert await world.read(world.follower()) == 0
    assert world.rows.seen == set(lines)


async def test_a_look_without_news_asks_the_ledger_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.say(1)
    follower, asked = world.follower(), list[int]()
    await world.read(follower)
    original = ProvenTables.since

    def counted(tables: ProvenTables, number: int, *arguments: object) -> list[ProvenLine]:
        asked.append(number)
        return original(tables, number, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ProvenTables, "since", counted)
    assert await follower.next(9) == []
    assert not asked
    world.say(2)
    assert len(await follower.next(9)) == 1
    assert asked


async def test_statements_that_are_not_read_here_are_not_missing(world: World) -> None:
    lines = world.say(1)
    follower = world.follower()
    await world.read(follower)
    world.ledger.logs.append(OWN.vkey, statement_lines(0, 3))
    assert follower.progress() == ReadState(4, 4)
    lines += world.say(2)
    assert follower.progress() == ReadState(1, 5)
    await world.read(follower)
    assert follower.progress() == ReadState(5, 5)
    assert world.rows.seen == set(lines)


async def test_only_the_statements_of_a_log_are_read_if_it_is_named(world: World) -> None:
    world.say(1, 2)
    assert await world.read(world.follower(log=FAR.vkey)) == 0
    assert await world.read(world.follower(log=OWN.vkey)) == 2


@pytest.mark.parametrize("position", [Position(1, "another statement"), Position(99, "beyond this ledger")])
async def test_rows_of_another_ledger_are_computed_again(world: World, position: Position) -> None:
    lines = world.say(1, 2)
    world.rows.begin_again("", position)
    follower = world.follower()
    assert await world.read(follower) == 2
    assert (world.rows.seen, follower.begun) == (set(lines), 1)


async def test_rows_are_computed_again_when_what_they_depend_on_changes(world: World) -> None:
    lines, basis = world.say(1, 2), ["one"]
    follower = world.follower(basis=lambda: basis[0])
    for name in ("one", "two"):
        basis[0] = name
        assert await world.read(follower) == 2
        assert (world.rows.basis, world.rows.seen) == (name, set(lines))
        assert await world.read(follower) == 0
    assert follower.begun == 2


async def test_rows_that_depend_only_on_what_comes_begin_with_it(world: World) -> None:
    world.say(1, 2)
    follower = world.follower(from_newest=True)
    assert (await world.read(follower), follower.begun) == (0, 1)
    assert world.rows.position.number
    lines = world.say(3)
    assert await world.read(follower) == 1
    assert await world.read(world.follower(from_newest=True)) == 0
    assert world.rows.seen == set(lines)
    world.rows.begin_again("", replace(world.rows.position, statement="of another ledger"))
    assert (await world.read(world.follower(from_newest=True)), world.rows.seen) == (0, set())


async def test_the_first_statement_of_an_empty_ledger_is_read_although_the_process_ended_before(world: World) -> None:
    assert await world.read(world.follower(from_newest=True)) == 0
    lines = world.say(1)
    assert await world.read(world.follower(from_newest=True)) == 1
    assert world.rows.seen == set(lines)


def test_a_statement_whose_line_becomes_an_earlier_copy_stays_at_its_position() -> None:
    """Rows were dropped, in an earlier version, when the last statement was found at an earlier place, signed again."""
    line = PUBLISHER.publish("a/m@v1", Release(b"1"))
    envelope = Envelope.parse(line)
    copy = replace(envelope, signatures=(replace(envelope.signatures[0], sig=bytes(64)),)).encode()
    first, last = (ProvenLine(OWN.origin, OWN.vkey, index, each, 7) for index, each in enumerate((copy, line)))
    assert Position.at(first) == Position.at(last)


def test_rows_are_written_in_bounded_transactions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "TOGETHER", 2)
    written = list[int]()
    world.rows._write(range(5), lambda database, some: written.append(len(some)), place(7))
    assert (written, world.rows.position) == ([2, 2, 1], place(7))


def test_what_cannot_be_computed_again_stays_when_rows_are(world: World) -> None:
    tables = replace(LINES, kept="CREATE TABLE IF NOT EXISTS own (id)")
    for version in (1, 2):
        with closing(Projection(world.folder / "kept.sqlite", replace(tables, version=version))) as rows:
            with rows._writing() as database:
                database.execute("INSERT INTO own VALUES (1)")
            assert rows._database.execute("SELECT count(*) FROM own").fetchone() == (version,)
