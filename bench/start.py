"""What a start costs a node as its history grows, and what its readers wait for.

    python bench/start.py [--artifacts 1000,5000,20000] [--holders 3] [--hold-batch 32] [--homes FOLDER] [--only STAGE]
                          [--gc 5000]

A federation of three. One node's home is filled through the library: `published` statements in its own log, claims of a
copy of each artifact by each of the three nodes (or fewer) in that node's log, as many in one line as nodes claim by
default, and the manifests and piece indexes. The intake of the library verifies each line. Then the node runs as a
process with its gateway; the two others do not run. `FOLDER` keeps the homes, and a later run continues with them: so a
large one is filled (`--only grow`), run for the first time (`--only first`) and measured (`--only measure`) one by one;
`--only commands` starts it without its gateway, and runs the commands.
After a first run, in which it reads all of this for the first time, the node is started again and measured:

    CPU seconds and resident memory   from the start of the process until it says that it has nothing left to read
    calls                             waiting times of one client on this machine, one call at a time, and the node's
                                      CPU time for each call
    gc plan                           what `comity gc --dry-run` asks for: waiting times of pages, and the node's CPU
                                      time for each copy, over the first copies of the node
    commands                          about all artifacts: CPU seconds of the node and of the command, less the rest of
                                      the node in as much time, and the most memory of the command
    bytes an artifact                 of the ledger, and of the files beside it that are computed from it

The same home grows from size to size, so that a row differs from the one before by its history alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from comity.rules.signing import sign_content
from comity.trust.copies import Holds
from comity.trust.identity import InceptionStatement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx2
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.node.keys import NodeKeys
from comity.node.ledger_mark import LEDGER_MARK, FileMark
from comity.rules.pieces import FIXED_LAYOUT, PieceIndex, PieceLayout
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.copies import HeldArtifact
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import Inception, KeySet
from comity.trust.keys import Signer
from comity.trust.names import Name
from comity.trust.node_records import NodeRecord
from comity.trust.statement import SideObject, Statement, Subject, parse_entry, sign_statement
from comity.trust.statements import Licence, Published
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.node_card import NodeCard
from growth import exponent
from harness import process_seconds, write
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found
from support.ports import free_port
from support.publisher import Publisher
from support.world import signer

QUIET: Final = 30
"""A node is at rest when its status has named nothing that it still reads for so many seconds. Its CPU time says it on
an idle machine only."""
FIRST_LOOK: Final = 120
"""Seconds in which a node looks at its readers for the first time, however busy the machine is."""
BATCH = 2048
"""Artifacts that are made at once."""
WEIGHTS = b"0123456789abcdef" * 64
LICENCE = b"Do as you like.\n"
FAMILIES = ("apertus", "minilm", "teuken", "salamandra", "viking", "poro", "occiglot", "bert", "whisper", "t5")
RULES = '[[rule]]\nname = "newest"\nrepositories = ["*/*"]\nkeep_versions = 1\n'
"""Retention rules by which the node must look for the newest version of each repository."""
DERIVED = ("copies.sqlite", "console-*.sqlite", "hub-list.sqlite", "held-files.sqlite")
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
        lay(store, data)
    objects = SideObject.of(manifest), SideObject.of(pieces)
    licence = Licence("Apache-2.0", SideObject.of(LICENCE))
    said = Published(publisher.id, name_of(number), sha256(manifest), *objects, licence)
    return Made(sha256(manifest), *objects, sign_content(said, publisher.signer).line)


def lay(store: FolderStore, data: bytes) -> None:
    """Put a small object into the store without the three syncs of `put`, which take 25 ms here."""
    path = store.path(sha256(data))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)


def publisher_at(home: str) -> Publisher:
    """The same in each run."""
    key = signer("bench", ("ed25519",))
    inception = Inception("publisher", KeySet((key.public,), 1), (), home, "CH", "bench")
    return Publisher(key, inception, sign_content(InceptionStatement(inception), key).line)


def homes_in(folder: Path) -> tuple[NodeHome, ...]:
    """Three homes that were made there before, or are made now."""
    known = sorted(folder.glob("node-*"))
    made = tuple(NodeHome(each, NodeCard.read(each / "node-card.json")) for each in known)
    homes = made or found(folder, 3, interval=5.0).homes
    # Kept homes are on ports that others may have taken since.
    mutual, open_ = (f"127.0.0.1:{free_port()}" for _ in range(2))
    homes[0].set("listen", mutual=mutual, open=open_)
    homes[0].set("gateway", calls_per_second=1_000_000, ranges="127.0.0.1:0")
    homes[0].set("limits", open_calls_per_second=1_000_000)
    homes[0].set("retention", rules="retention.toml")
    (homes[0].directory / "retention.toml").write_text(RULES)
    return homes


def client_of(home: NodeHome) -> NodeClient:
    """A client at the open port at which the node listens now."""
    return NodeClient.connect(Address.parse(home.config().listen.open), CertificatePin.of(home.record.tls))


class GrowingHome:
    """A node's home that gets more artifacts while its node does not run."""

    def __init__(self, homes: tuple[NodeHome, ...], holders: int, hold_batch: int) -> None:
        self._holders = holders
        self._hold_batch = hold_batch
        self.home, *self._others = homes
        self._keys = [NodeKeys.load(home.config().keys, home.record) for home in homes]
        self._homes = homes
        self._publisher = publisher_at(self.home.origin)
        self._counted = self.home.directory / "artifacts"
        if self._counted.exists():
            self.count = int(self._counted.read_text())
        else:
            self._introduce()
            self._set_count(0)

    def _set_count(self, count: int) -> None:
        self.count = count
        self._counted.write_text(str(count))

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
            FileMark(file.with_name(LEDGER_MARK), ledger.identity).write()  # it is no copy

    def grow(self, count: int) -> None:
        """Publish, and let each node hold, artifacts up to `count`; and have all statements proven."""
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
                    self._log(ledger, home, self._claims(home.record, made, keys.online))
                prover.finish_all()
                self._set_count(end)
            self._cosign(ledger)

    def log_plain(self, count: int, every: int) -> None:
        """Log statements that name no side object, with a checkpoint after `every` so many."""
        with self._open() as ledger:
            for start in range(0, count, every):
                numbers = range(start, min(start + every, count))
                self._log(ledger, self.home, [self._plain(number) for number in numbers])
                self._cosign(ledger)

    def _plain(self, number: int) -> bytes:
        subject = Subject("", sha256(str(number).encode()))
        said = Statement("noted", (subject,), self._publisher.inception.author, {"number": number}, ())
        return sign_statement(said, self._publisher.signer).line

    def _claims(self, record: NodeRecord, made: Sequence[Made], online: Signer) -> list[bytes]:
        def claim(some: Sequence[Made]) -> bytes:
            if len(some) > 1:
                items = [HeldArtifact(record.node, each.manifest, each.pieces) for each in some]
                return sign_content(Holds.of(record.node, items), online).line
            return sign_content(HeldArtifact(record.node, some[0].manifest, some[0].pieces), online).line

        size = self._hold_batch
        return [claim(made[start : start + size]) for start in range(0, len(made), size)]

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


async def settled(node: NodeProcess, home: NodeHome, patience: float = 14_400.0) -> dict[str, float]:
    """Wait until a node is at rest; on a shared machine a busy node may get little time. Returns the cost up to when it
    had read everything."""
    began, resident = time.monotonic(), Resident(node.pid)
    listening = seconds = used = 0.0
    looked = False
    async with home.operator() as client:
        while not seconds or time.monotonic() - began - seconds < (QUIET if looked else FIRST_LOOK):
            assert time.monotonic() - began < patience and node.alive, node.words[-2000:]
            await asyncio.sleep(5 if listening else 1)  # its answers cost the node CPU too
            resident.now()
            if not listening and any(event.get("event") == "listening" for event in node.events):
                listening = time.monotonic() - began
            status = await client.with_timeout(900).status()
            if any(warning.startswith("this node reads ") for warning in status.warnings):
                looked, seconds = True, 0.0
            elif not seconds:
                seconds, used = time.monotonic() - began, process_seconds(node.pid)
    return {
        "start_cpu_s": round(used, 2),
        "start_wall_s": round(seconds, 1),
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

    async with client_of(grown.home) as client, httpx2.AsyncClient(base_url=url, timeout=600) as http:

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
            "hub list, page of 100 of one author": (page, rounds),
            "hub list, first page of 100": (lambda: listed("limit=100"), rounds),
            "hub list, an absent word": (lambda: listed(f"search={WORD}"), rounds),
        }
        table = {}
        for what, (call, times) in measured.items():
            table[what] = await timed(node, call, times)
            print(f"  {what:40} {table[what]}", flush=True)
        return table


async def gc_plan(node: NodeProcess, home: NodeHome, copies: int) -> dict[str, float]:
    """The pages of a plan, until `copies` were looked at or all were."""
    waited, seen, before = list[float](), 0, process_seconds(node.pid)
    async with home.operator() as client:
        began = time.perf_counter()
        async for page in client.with_timeout(900).audits.retention():
            waited.append(1000 * (time.perf_counter() - began))
            seen += len(page.copies)
            if seen >= copies:
                break
            began = time.perf_counter()
    waited.sort()
    return {
        "copies": seen,
        "pages": len(waited),
        "page_p50_ms": round(statistics.median(waited), 1),
        "page_p99_ms": round(waited[min(len(waited) - 1, int(0.99 * len(waited)))], 1),
        "cpu_ms_a_copy": round(1000 * (process_seconds(node.pid) - before) / max(1, seen), 3),
    }


COMMANDS: Final = {
    "copies --short": ("copies", "--short"),
    "copies": ("copies",),
    "impact CH": ("impact", "CH"),
    "impact --all": ("impact", "--all"),
    "transparency-report": ("transparency-report",),
    "gc --dry-run": ("gc", "--dry-run"),
    "doctor": ("doctor",),
}
"""Of an operator, about its own node."""
MEASURED: Final = """
import atexit, sys, time
from pathlib import Path
def used():
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(time.process_time(), peak, file=sys.stderr)
atexit.register(used)
from comity_cli.main import main
main()
"""
"""A command that says at its end what it used: `wait4` gives the memory of the process that forked it."""


def run_commands(node: NodeProcess, home: NodeHome) -> dict[str, dict[str, float]]:
    """What commands about all artifacts cost the node and the client."""
    began, before = time.monotonic(), process_seconds(node.pid)
    time.sleep(QUIET)
    rest = (process_seconds(node.pid) - before) / (time.monotonic() - began)
    table = {}
    for what, arguments in COMMANDS.items():
        began, before = time.monotonic(), process_seconds(node.pid)
        ran = [sys.executable, "-c", MEASURED, *arguments, "--node", str(home.directory)]
        ended = subprocess.run(ran, capture_output=True, text=True, check=False)
        waited = time.monotonic() - began
        cpu, peak = ended.stderr.split()[-2:]
        table[what] = {
            "exit": ended.returncode,
            "lines": ended.stdout.count("\n"),
            "node_cpu_s": round(process_seconds(node.pid) - before - rest * waited, 2),
            "client_cpu_s": round(float(cpu), 2),
            "client_peak_mb": round(int(peak) / 1e3),
        }
        print(f"  {what:40} {table[what]}", flush=True)
    return table


def bytes_an_artifact(home: NodeHome, artifacts: int) -> dict[str, float]:
    """Of a node that does not run."""
    ledger = home.config().storage.ledger
    derived = (file for pattern in DERIVED for file in ledger.parent.glob(pattern))
    found = {"ledger": ledger.stat().st_size} | {file.name.partition("-")[0]: file.stat().st_size for file in derived}
    return {name: round(size / artifacts) for name, size in found.items()}


async def run_once(home: NodeHome) -> dict[str, float]:
    """Start the node, let it come to rest, and stop it."""
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY, fresh=True)) as node:
        await node.ready(600)
        cost = await settled(node, home)
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
    gc_plan: dict[str, float]
    commands: dict[str, dict[str, float]]
    bytes: dict[str, float]


async def measure(grown: GrowingHome, count: int, rounds: int, only: str, gc: int) -> Row | None:
    if only in ("", "grow"):
        grown.grow(count)
    first = await run_once(grown.home) if only in ("", "first") else {}
    if only in ("grow", "first"):
        print(f"{count} artifacts: {only} {first}", flush=True)
        return None
    if only == "commands":
        with contextlib.closing(NodeProcess(grown.home, fresh=True)) as node:
            await node.ready(600)
            print(f"{count} artifacts: {await settled(node, grown.home)}", flush=True)
            commands = run_commands(node, grown.home)
            node.stop()
        return Row(count, round(os.getloadavg()[0], 1), {}, {}, {}, {}, commands, {})
    with contextlib.closing(NodeProcess(grown.home, main=WITH_GATEWAY, fresh=True)) as node:
        await node.ready(600)
        again = await settled(node, grown.home)
        print(f"{count} artifacts: {again} (first run: {first})", flush=True)
        table = await calls(node, grown, rounds)
        plan = await gc_plan(node, grown.home, gc)
        print(f"  gc plan {plan}", flush=True)
        commands = run_commands(node, grown.home)
        node.stop()
    size = bytes_an_artifact(grown.home, count)
    print(f"  bytes an artifact {size}", flush=True)
    return Row(count, round(os.getloadavg()[0], 1), first, again, table, plan, commands, size)


async def main(arguments: argparse.Namespace) -> None:
    sizes, holders, rows = list(map(int, arguments.artifacts.split(","))), arguments.holders, list[Row]()
    with tempfile.TemporaryDirectory() as scratch:
        grown = GrowingHome(homes_in(arguments.homes or Path(scratch)), holders, arguments.hold_batch)
        for size in sizes:
            row = await measure(grown, size, arguments.rounds, arguments.only, arguments.gc)
            if row is not None:
                rows.append(row)
                record(rows, arguments)


def record(rows: list[Row], arguments: argparse.Namespace) -> None:
    """Print and write the results so far: a large size may be cut short."""
    measured = ("start_cpu_s", "rss_mb") if all(row.again for row in rows) else ()
    exponents = {what: exponent([(row.artifacts, row.again[what]) for row in rows]) for what in measured}
    print(exponents, flush=True)
    if arguments.result:
        made = {"holders": arguments.holders, "hold_batch": arguments.hold_batch}
        write(arguments.result, **made, rows=[asdict(row) for row in rows], exponents=exponents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", default="1000,5000,20000")
    parser.add_argument("--holders", type=int, default=3, choices=(1, 2, 3), help="nodes that hold each artifact")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind")
    parser.add_argument("--gc", type=int, default=5_000, help="copies for which a gc plan is made")
    parser.add_argument(
        "--hold-batch", type=int, default=32, choices=range(1, 65), metavar="N", help="artifacts that a line claims"
    )
    parser.add_argument("--homes", type=Path, help="where the homes are kept; its disk is measured too")
    parser.add_argument("--only", default="", choices=("grow", "first", "measure", "commands"), help="one stage")
    parser.add_argument("--result", default="start", help="the name of the result file; empty: none")
    asyncio.run(main(parser.parse_args()))
