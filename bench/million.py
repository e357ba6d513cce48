"""What reads of a ledger cost when its tables have a million artifacts: each query that a reader or a start waits for.

    python bench/million.py [--artifacts 10000,100000,1000000] [--rounds 200] [--folder DIR]

Nodes are too slow to fill for this (`start.py` does it, with real signatures, for smaller ones): the rows of each table
are written by SQL, in the order of their keys, as the intake of a node with three members would have written them. Each
artifact has a publication in the node's log, a name of its own among a hundred namespaces, two side objects, a claim of
each member, 32 in one line; all lines are the same one. So sizes of files say nothing here, and no line proves
anything. The reads are those of the library, over SQLite, in a process that opens the ledger as a node does.

`cpu` is the time of the calling thread: it does not grow with the load of the machine, as waiting times do.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from comity.trust.statement_kinds import PUBLISHED

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comity.content.blobs import FolderStore
from comity.ledger import name_search
from comity.ledger.intake import named_version
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.stored_lines import pack_line
from comity.node.copies.index import CopiesIndex
from comity.trust.encoding import Digest, sha256
from harness import write
from start import WORD, make, name_of, publisher_at
from support.case import nodes

PER_LINE = 32
"""Claims in one line."""
MEMBERS = 3
_LOG_BITS = 20

Rows = Iterator[tuple[object, ...]]


class ByKey:
    """The artifacts of a made ledger: their digests, in their order, with the number of each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sorted = sorted((bytes.fromhex(sha256(b"artifact %d" % number)), number) for number in range(count))

    def some(self, chance: random.Random) -> Digest:
        return Digest(chance.choice(self.sorted)[0].hex())


def fill(folder: Path, artifacts: ByKey) -> list[str]:
    """Write the tables of a ledger, and the index of copies. Returns the keys of the logs."""
    members = nodes(MEMBERS)
    keys = [str(node.record.log) for node in members]
    with closing(Ledger.open(folder, time.time)) as ledger:
        for at, (node, key) in enumerate(zip(members, keys, strict=True)):
            ledger.logs.create(node.record.origin, key, own=not at)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -400000")
        database.execute("PRAGMA foreign_keys = OFF")
        for table, rows in tables(artifacts):
            first = next(rows)
            marks = ",".join("?" * len(first))
            database.execute(f"INSERT INTO {table} VALUES ({marks})", first)
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return keys


def tables(artifacts: ByKey) -> Iterator[tuple[str, Rows]]:
    """The rows of each table, in the order of its columns, sorted by its key."""
    count, lines = artifacts.count, -(-artifacts.count // PER_LINE)
    publisher = publisher_at("bench.example/log")
    with tempfile.TemporaryDirectory() as folder:
        made = make(0, publisher, FolderStore(Path(folder)))
    line, by = pack_line(made.line), bytes.fromhex(publisher.id)

    def digest(what: str, number: int) -> bytes:
        return bytes.fromhex(sha256(f"{what} {number}".encode()))

    sizes = (count + lines, lines, lines)
    entries = ((log, at, line, digest(f"entry {log}", at)) for log, size in enumerate(sizes, 1) for at in range(size))
    yield "entries", entries
    yield "statements", _statements(count, lines, by, digest)
    held = sorted((key, number) for key, number in artifacts.sorted)
    yield "subjects", _subjects(held, count)
    named = ((1, at, at, PUBLISHED, name_of(at).repository, by, "v1", name_of(at).repository) for at in range(count))
    by_number = {number: key for key, number in artifacts.sorted}
    yield "publications", ((*row, by_number[at]) for at, row in enumerate(named))
    names = sorted((name_of(at).repository, at) for at in range(count))
    yield "claimants", ((name, by, at + 1) for name, at in names)
    objects = sorted(digest("object", number) for number in range(2 * count))
    yield "log_objects", ((1, name, at // 2, 600) for at, name in enumerate(objects))
    yield "replicas", ((key, count + number // PER_LINE, -1, 0) for key, number in held)
    words = ((at << _LOG_BITS | 1, named_version(name_of(at).repository, "v1")) for at in range(count))
    yield f"{name_search.TABLE} (rowid, name)", words


def _statements(count: int, lines: int, by: bytes, digest: Callable[[str, int], bytes]) -> Rows:
    """In the first log the publications, then the claims; in the others claims."""
    for at in range(count + lines):
        published = at < count
        yield 1, at, at + 1, digest("statement 1", at), PUBLISHED if published else "holds", by
    for log in (2, 3):
        for at in range(lines):
            number = count + lines * (log - 1) + at + 1
            yield log, at, number, digest(f"statement {log}", at), "holds", by


def _subjects(held: list[tuple[bytes, int]], count: int) -> Rows:
    for key, number in held:
        claim = number // PER_LINE
        for log in range(1, MEMBERS + 1):
            yield key, "holds", log, 0, claim + (count if log == 1 else 0)
        yield key, PUBLISHED, 1, 0, number


def fill_copies(file: Path, keys: list[str], artifacts: ByKey) -> None:
    """The index of copies, which is a file of its own."""
    CopiesIndex(file, keys[0], lambda: 0).close()
    chance, lines = random.Random(2), artifacts.count
    rows = (
        (key, log, key, number // PER_LINE, key, 600, key, 600, -1, "", int(log > 1), 0, chance.getrandbits(60))
        for key, number in artifacts.sorted
        for log in range(1, MEMBERS + 1)
    )
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -400000")
        database.executemany("INSERT INTO log (vkey) VALUES (?)", [(key,) for key in keys])
        database.executemany("INSERT INTO copy VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)
        database.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (lines,))
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def timed(call: Callable[[], object], rounds: int) -> dict[str, float]:
    waited, used = list[float](), list[float]()
    for _ in range(rounds + 1):
        began, cpu = time.perf_counter(), time.thread_time()
        call()
        waited.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.thread_time() - cpu))
    waited, used = sorted(waited[1:]), sorted(used[1:])
    last = min(rounds - 1, int(0.99 * rounds))
    return {
        "p50_ms": round(statistics.median(waited), 2),
        "p99_ms": round(waited[last], 2),
        "cpu_p50_ms": round(statistics.median(used), 2),
        "cpu_p99_ms": round(used[last], 2),
    }


def reads(ledger: Ledger, copies: CopiesIndex, artifacts: ByKey, by: Digest) -> dict[str, Callable[[], object]]:
    chance, count = random.Random(1), artifacts.count
    proven = ledger.proven

    def name() -> str:
        return name_of(chance.randrange(count)).repository

    def place() -> tuple[int, int]:
        return chance.randrange(count), 1

    def page() -> object:
        names = proven.repositories(name(), "", 100)
        return ledger.listed.owned(names, {}, 1_000)

    return {
        "search, a rare word": lambda: proven.named((f"{chance.randrange(count):07}",), None, 50),
        "search, a common word": lambda: proven.named(("apertus",), None, 50),
        "search, a common word, a later page": lambda: proven.named(("apertus",), place(), 50),
        "search, two common words": lambda: proven.named(("apertus", f"org-{chance.randrange(97):02}"), None, 50),
        "search, two common words, never together": lambda: proven.named(("apertus", "minilm"), None, 50),
        "search, an absent word": lambda: proven.named((WORD,), None, 50),
        "search, an absent word of common parts": lambda: proven.named(("sutrepa-000",), None, 50),
        "names with a rare word": lambda: proven.names_with((f"{chance.randrange(count):07}",), 1_000),
        "names with a common word": lambda: proven.names_with(("apertus",), 1_000),
        "list, a page of 100": page,
        "list, the first page of an author": lambda: proven.repositories("", f"org-{chance.randrange(97):02}/", 100),
        "resolve: claimants of a name": lambda: proven.claimants(name()),
        "resolve: publications of a name": lambda: proven.publications(name(), by),
        "show: statements about an artifact": lambda: proven.about(artifacts.some(chance)),
        "whereis: copies of an artifact": lambda: copies.copies(artifacts.some(chance)),
        "gc: newest of a repository": lambda: proven.newest_artifacts(name(), by, 200),
        "gc: 200 own copies": lambda: ledger.replicas.standing(artifacts.some(chance), 200),
        "audit: the next copies": lambda: copies.next_copies(int(time.time()), 3600, 16),
        "readers: the next 256 publications": lambda: proven.since(chance.randrange(count), (PUBLISHED,), 256),
        "start: number of own copies": ledger.replicas.numbers,
        "start: logs that are behind": ledger.intake.pending_logs,
        "start: newest numbers": lambda: proven.last_number_of((PUBLISHED, "holds")),
        "start: positions of readers": lambda: ledger.reader_positions.load("holds", by),
    }


def measure(folder: Path, count: int, rounds: int) -> dict[str, object]:
    artifacts = ByKey(count)
    began = time.process_time()
    keys = fill(folder, artifacts)
    fill_copies(folder / "copies.sqlite", keys, artifacts)
    print(f"{count} artifacts: filled in {time.process_time() - began:.0f} s of CPU", flush=True)
    began = time.process_time()
    with closing(Ledger.open(folder, time.time)) as ledger:
        opened = time.process_time() - began
        with closing(CopiesIndex(folder / "copies.sqlite", keys[0], lambda: 0)) as copies:
            both = time.process_time() - began
            table = {}
            for what, call in reads(ledger, copies, artifacts, Digest(publisher_at("bench.example/log").id)).items():
                table[what] = timed(call, rounds)
                print(f"  {what:42} {table[what]}", flush=True)
    load = round(os.getloadavg()[0], 1)
    return {"artifacts": count, "load": load, "open_cpu_s": round(opened, 2), "open_both_cpu_s": round(both, 2)} | {
        "reads": table
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind")
    parser.add_argument("--folder", type=Path, help="where the tables are made; they are removed at the end")
    parser.add_argument("--result", default="million", help="the name of the result file; empty: none")
    arguments = parser.parse_args()
    rows = list[dict[str, object]]()
    for count in map(int, arguments.artifacts.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows.append(measure(Path(folder), count, arguments.rounds))
        if arguments.result:
            write(arguments.result, rows=rows)


if __name__ == "__main__":
    main()
