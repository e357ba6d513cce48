"""What a start costs a node as its history grows, and what its readers wait for.

    python bench/start.py [--artifacts 1000,5000,20000] [--holders 3] [--folder FOLDER]

A federation of three. One node's home is filled through the library: `published` statements in its own log, a `hold`
of each artifact by each of the three nodes (or fewer) in that node's log, and the manifests and piece indexes. The
intake of the library verifies each line. Then the node runs as a process with its gateway; the two others do not run.
After a first run, in which it reads all of this for the first time, the node is started again and measured:

    CPU seconds and resident memory   from the start of the process until it has used at most 10 % of a core for 5 s
    calls                             waiting times of one client on this machine, one call at a time, and the node's
                                      CPU time for each call

The same home grows from size to size, so that a row differs from the one before by its history alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx2
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.node.keys import NodeKeys
from comity.node.own_log import LEDGER_MARK, LedgerMark
from comity.trust.artifact import FIXED_LAYOUT, FileEntry, Manifest, PieceIndex, PieceLayout
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import Inception, KeySet, sign_inception
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.statement import SideObject, parse_entry
from comity.trust.statements import Licence, Published, sign_hold, sign_published
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint
from growth import exponent
from harness import process_seconds, write
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found
from support.publisher import Publisher

BATCH = 256
WEIGHTS = b"0123456789abcdef" * 64
LICENCE = b"Do as you like.\n"
FAMILIES = ("apertus", "minilm", "teuken", "salamandra", "viking", "poro", "occiglot", "bert", "whisper", "t5")
WORD = "zzabsentzz"
"""A word that no name has."""


@dataclass(frozen=True)
class Made:
    """An artifact: its digest, its side objects, and the line that publishes it."""

    artifact: Digest
    manifest: SideObject
    pieces: SideObject
    line: bytes


def name_of(number: int) -> Name:
    """Names with a few common words and one rare one, in a hundred namespaces."""
    return Name(f"org-{number % 97:02}", f"{FAMILIES[number % len(FAMILIES)]}-{number:07}", "v1")


def make(number: int, publisher: Publisher, store: FolderStore) -> Made:
    """An artifact of two files: the weights, which all share, and a configuration. Its side objects are stored."""
    files = tuple(FileEntry(f"{stem}-{number}", len(WEIGHTS), sha256(WEIGHTS)) for stem in ("config", "weights"))
    layout = PieceLayout(FIXED_LAYOUT, 1, sha256(leaf_hash(WEIGHTS)))
    manifest = Manifest.of(files).encode()
    pieces = PieceIndex(tuple((file.path, layout) for file in files)).encode()
    for data in (manifest, pieces):
        store.put(sha256(data), data)
    objects = SideObject.of(manifest), SideObject.of(pieces)
    licence = Licence("Apache-2.0", SideObject.of(LICENCE))
    said = Published(publisher.id, name_of(number), sha256(manifest), *objects, licence)
    return Made(sha256(manifest), *objects, sign_published(said, publisher.signer).line)


def new_publisher(home: str) -> Publisher:
    signer = HybridSigner.generate(("ed25519",))
    inception = Inception("publisher", KeySet((signer.public,), 1), (), home, "CH", "bench")
    return Publisher(signer, inception, sign_inception(inception, signer).line)


class GrowingHome:
    """A node's home that gets more artifacts while its node does not run."""

    def __init__(self, homes: tuple[NodeHome, ...], holders: int) -> None:
        self._holders = holders
        self.home, *self._others = homes
        self._keys = [NodeKeys.load(home.config().keys, home.record) for home in homes]
        self._homes = homes
        self._publisher = new_publisher(self.home.origin)
        self.count = 0
        self._introduce()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Ledger]:
        ledger = Ledger.open(self.home.config().storage.ledger.parent, time.time)
        try:
            yield ledger
        finally:
            ledger.close()

    def _introduce(self) -> None:
        with self._open() as ledger:
            for home in self._homes:
                key = home.record.log
                ledger.logs.create(home.origin, str(key), own=home is self.home)
                lines = [(home.directory / name).read_bytes() for name in ("inception.line", "node-record.line")]
                self._log(ledger, home, [line.removesuffix(b"\n") for line in lines])
            self._log(ledger, self.home, [self._publisher.announcement])
            file = self.home.config().storage.ledger
            LedgerMark(file.with_name(LEDGER_MARK), ledger.identity).write()  # it is no copy

    def grow(self, count: int) -> None:
        """Publish, and let each node hold, artifacts up to `count`; and have it all proven."""
        store = FolderStore(self.home.config().storage.blobs)
        for data in (WEIGHTS, LICENCE):
            store.put(sha256(data), data)
        with self._open() as ledger:
            prover = LineProver(ledger, lambda identity: ())
            while self.count < count:
                end = min(count, self.count + BATCH)
                made = [make(number, self._publisher, store) for number in range(self.count, end)]
                self._log(ledger, self.home, [each.line for each in made])
                for home, keys in list(zip(self._homes, self._keys, strict=True))[: self._holders]:
                    held = (
                        sign_hold(home.record, each.artifact, each.manifest, each.pieces, keys.online) for each in made
                    )
                    self._log(ledger, home, [entry.line for entry in held])
                prover.finish_all()
                self.count = end
            self._cosign(ledger)

    def _log(self, ledger: Ledger, home: NodeHome, lines: list[bytes]) -> None:
        if home is self.home:
            ledger.logs.append(str(home.record.log), lines)
            return
        key = str(home.record.log)
        start = ledger.logs.get(key).size
        root = ledger.logs.stage(key, start, lines)
        keys = self._keys[self._homes.index(home)]
        checkpoint = Checkpoint(home.origin, start + len(lines), root)
        ledger.logs.advance(key, checkpoint.size, [], checkpoint.signed(keys.log))

    def _cosign(self, ledger: Ledger) -> None:
        """The own log's checkpoint, cosigned by the two others."""
        key = str(self.home.record.log)
        size = ledger.logs.get(key).size
        checkpoint = Checkpoint(self.home.origin, size, ledger.history.root(key, size))
        ledger.logs.set_note(key, checkpoint.signed(self._keys[0].log))
        for keys in self._keys[1:]:
            ledger.cosignatures.add(key, size, checkpoint.root, keys.cosign(checkpoint, time.time))


class Resident:
    """Resident bytes of a process, and the most that were seen."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most = 0

    def now(self) -> int:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        found = pages * os.sysconf("SC_PAGE_SIZE")
        self.most = max(self.most, found)
        return found


async def settled(node: NodeProcess, patience: float = 3600.0) -> dict[str, float]:
    """Wait until a node has come to rest. Returns what that cost."""
    began, resident, used = time.monotonic(), Resident(node.pid), [process_seconds(node.pid)]
    listening = 0.0
    while len(used) < 6 or used[-1] - used[-6] > 0.5:
        assert time.monotonic() - began < patience and node.alive, node.words[-2000:]
        await asyncio.sleep(1)
        used.append(process_seconds(node.pid))
        resident.now()
        if not listening and any(event.get("event") == "listening" for event in node.events):
            listening = time.monotonic() - began
    return {
        "start_cpu_s": round(used[-1], 2),
        "start_wall_s": round(time.monotonic() - began - 5, 1),
        "listening_after_s": round(listening, 1),
        "rss_mb": round(resident.now() / 1e6),
        "rss_peak_mb": round(resident.most / 1e6),
    }


Call = Callable[[], Awaitable[object]]


async def timed(node: NodeProcess, call: Call, rounds: int) -> dict[str, float]:
    """The first call, and the percentiles of the others; the node's CPU time for each."""
    waited = list[float]()
    first = time.perf_counter()
    await call()
    first = time.perf_counter() - first
    before = process_seconds(node.pid)
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        waited.append(1000 * (time.perf_counter() - began))
    used = 1000 * (process_seconds(node.pid) - before) / rounds
    waited.sort()
    return {
        "first_ms": round(1000 * first, 1),
        "p50_ms": round(statistics.median(waited), 1),
        "p99_ms": round(waited[min(len(waited) - 1, int(0.99 * len(waited)))], 1),
        "cpu_ms": round(used, 1),
    }


async def calls(node: NodeProcess, grown: GrowingHome, rounds: int) -> dict[str, dict[str, float]]:
    chance, count = random.Random(1), grown.count
    url = next(str(event["http"]) for event in node.events if event.get("event") == "listening")

    def some() -> str:
        return str(name_of(chance.randrange(count))).partition("@")[0]

    async with grown.home.client() as client, httpx2.AsyncClient(base_url=url, timeout=600) as http:

        async def artifact(number: int) -> Digest:
            lines = await client.resolve(str(name_of(number)).partition("@")[0])
            said = (parse_entry(located.line).statement for located in lines)
            return next(statement.subject for statement in said if statement.predicate == "published")

        picked = [await artifact(chance.randrange(count)) for _ in range(32)]

        async def page() -> None:
            author = f"org-{chance.randrange(97):02}"
            answer = await http.get(f"/api/models?limit=100&author={author}")
            assert answer.status_code == 200, answer.text

        async def listed(query: str) -> None:
            answer = await http.get(f"/api/models?{query}")
            assert answer.status_code == 200, answer.text

        measured: dict[str, tuple[Call, int]] = {
            "search, a rare word": (lambda: client.search(f"{chance.randrange(count):07}", limit=50), rounds),
            "search, a common word": (lambda: client.search("apertus", limit=50), rounds),
            "search, an absent word": (lambda: client.search(WORD, limit=50), rounds),
            "resolve a name": (lambda: client.resolve(some()), rounds),
            "show: claims of an artifact": (lambda: client.claims(chance.choice(picked)), rounds),
            "whereis: copies of an artifact": (lambda: client.audits.copies(chance.choice(picked)), rounds),
            "hub list, page of 100 of one author": (page, max(3, rounds // 10)),
            "hub list, first page of 100": (lambda: listed("limit=100"), max(3, rounds // 10)),
            "hub list, an absent word": (lambda: listed(f"search={WORD}"), max(3, rounds // 10)),
        }
        table = {}
        for what, (call, times) in measured.items():
            table[what] = await timed(node, call, times)
            print(f"  {what:40} {table[what]}", flush=True)
        return table


async def run_once(home: NodeHome) -> dict[str, float]:
    """Start the node, let it come to rest, and stop it."""
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY, fresh=True)) as node:
        await node.ready(600)
        cost = await settled(node)
        node.stop()
        return cost


@dataclass(frozen=True)
class Row:
    """What was measured at one size."""

    artifacts: int
    load: float
    first_run: dict[str, float]
    again: dict[str, float]
    calls: dict[str, dict[str, float]]


async def measure(grown: GrowingHome, count: int, rounds: int) -> Row:
    grown.grow(count)
    first = await run_once(grown.home)
    with contextlib.closing(NodeProcess(grown.home, main=WITH_GATEWAY, fresh=True)) as node:
        await node.ready(600)
        again = await settled(node)
        print(f"{count} artifacts: {again} (first run: {first})", flush=True)
        table = await calls(node, grown, rounds)
        node.stop()
    load = round(os.getloadavg()[0], 1)
    return Row(count, load, first, again, table)


async def main(sizes: list[int], holders: int, folder: Path | None, rounds: int, result: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        homes = found(Path(scratch), 3, interval=5.0).homes
        homes[0].set("gateway", calls_per_second=1_000_000)
        grown = GrowingHome(homes, holders)
        rows = [await measure(grown, size, rounds) for size in sizes]
    exponents = {
        what: exponent([(row.artifacts, row.again[what]) for row in rows]) for what in ("start_cpu_s", "rss_mb")
    }
    print(exponents)
    if result:
        write(result, holders=holders, rows=[asdict(row) for row in rows], exponents=exponents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", default="1000,5000,20000")
    parser.add_argument("--holders", type=int, default=3, choices=(1, 2, 3), help="nodes that hold each artifact")
    parser.add_argument("--rounds", type=int, default=100, help="calls of each kind; lists a tenth of it")
    parser.add_argument("--folder", type=Path, help="where the home is made; its disk is measured too")
    parser.add_argument("--result", default="start", help="the name of the result file; empty: none")
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.artifacts.split(",")]
    asyncio.run(main(numbers, arguments.holders, arguments.folder, arguments.rounds, arguments.result))
