"""What the ledger costs: appends in batches of several sizes, the sequencer's latency, proofs from logs that grow.

    python bench/ledger.py [--largest 1000000] [--runs 5] [--folder DIR] [--part PART] > bench/results/ledger.json

Every number is the median of `--runs` runs with the least and the largest beside it. The folder should be on the disk
that a node would use: appends wait for it. Of a log that grows, the time of the CPU is given too: it does not grow with
the load of the machine, as waiting times do. `--part growth --largest 10000000` takes gigabytes and half an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from comity.ledger.entry_index import EntryQuery
from comity.ledger.entry_rows import MAX_LINES
from comity.ledger.ledger import Ledger
from comity.ledger.sequencer import Sequencer
from comity.rules.tree_proofs import Frontier
from comity.trust.encoding import sha256
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.statement import Author, Statement, Subject, sign_statement
from comity.trust.tlog.merkle import leaf_hash, verify_inclusion
from comity.trust.tlog.note import Checkpoint, log_verifier_key, sign_note

ORIGIN = "bench.example/log"
KEY = PrivateKey.generate("ed25519")
VKEY = str(log_verifier_key(ORIGIN, KEY.public))
AUTHOR = Author("identity", sha256(b"bench"))
SIGNERS = {"ed25519": HybridSigner.generate(("ed25519",)), "hybrid": HybridSigner.generate()}


@dataclass(frozen=True)
class Result:
    """Samples of one quantity in `unit`."""

    what: str
    unit: str
    samples: list[float]

    def summary(self) -> dict[str, object]:
        numbers = {
            "median": statistics.median(self.samples),
            "least": min(self.samples),
            "largest": max(self.samples),
        }
        return {"what": self.what, "unit": self.unit, "n": len(self.samples)} | {
            name: float(f"{value:.4g}") for name, value in numbers.items()
        }


def statements(count: int, signer: HybridSigner) -> list[bytes]:
    lines = []
    for number in range(count):
        subject = Subject(f"bench/model-{number}@v1", sha256(b"%d" % number))
        lines.append(sign_statement(Statement("vouched", (subject,), AUTHOR, {}), signer).line)
    return lines


@contextmanager
def fresh(parent: Path, *, own: bool) -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        ledger = Ledger.open(Path(folder), time.time)
        ledger.logs.create(ORIGIN, VKEY, own=own)
        try:
            yield ledger
        finally:
            ledger.close()


def appends(parent: Path, runs: int) -> Iterator[Result]:
    """Entries a second, each batch one commit."""
    for kind, signer in SIGNERS.items():
        lines = statements(2560, signer)
        for batch in (1, 10, 100, 256):
            total = min(len(lines), 100 * batch)
            samples = []
            for _ in range(runs):
                with fresh(parent, own=True) as ledger:
                    started = time.perf_counter()
                    for at in range(0, total, batch):
                        ledger.logs.append(ORIGIN, lines[at : at + batch])
                    samples.append(total / (time.perf_counter() - started))
            yield Result(f"append, {kind} statements of {len(lines[0])} B, batches of {batch}", "entries/s", samples)


def sequenced(parent: Path, runs: int) -> Iterator[Result]:
    """How long writers wait for their index, and how many entries pass, with checkpoints signed meanwhile."""
    lines = statements(2000, SIGNERS["ed25519"])
    for writers in (1, 10, 100):
        waits, rates = [], []
        count = min(len(lines), 100 * writers)
        for _ in range(runs):
            with fresh(parent, own=True) as ledger:
                wait, rate = asyncio.run(_sequence(ledger, lines[:count], writers))
            waits.append(1000 * wait)
            rates.append(rate)
        yield Result(f"sequencer, {writers} writers: median wait for an index", "ms", waits)
        yield Result(f"sequencer, {writers} writers", "entries/s", rates)


async def _sequence(ledger: Ledger, lines: list[bytes], writers: int) -> tuple[float, float]:
    log = log_verifier_key(ORIGIN, KEY.public)
    sequencer = Sequencer(ledger, log, lambda checkpoint: sign_note(checkpoint.text, ORIGIN, KEY))
    running = asyncio.create_task(sequencer.run())
    waits: list[float] = []
    left = iter(lines)

    async def writer() -> None:
        for line in left:
            started = time.perf_counter()
            await sequencer.append(line)
            waits.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(writers)))
    seconds = time.perf_counter() - started
    running.cancel()
    await asyncio.wait([running])
    return statistics.median(waits), len(lines) / seconds


def growth(parent: Path, runs: int, largest: int) -> Iterator[Result]:
    """A mirrored log grows, the same 8,192 statements again and again; at each size: proofs, lookups, the check."""
    lines = statements(MAX_LINES, SIGNERS["ed25519"])
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000) if size <= largest]
    frontier = Frontier.empty()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for size in sizes:
            openings = [_opening(Path(folder)) for _ in range(runs)] if frontier.size else []
            if openings:
                yield Result(f"opened with {frontier.size} entries", "CPU s", openings)
            with closing(Ledger.open(Path(folder), time.time)) as ledger:
                ledger.logs.create(ORIGIN, VKEY)
                started, used, before = time.perf_counter(), time.process_time(), frontier.size
                frontier = _mirror(ledger, lines, frontier, size)
                rates = {"s": time.perf_counter() - started, "CPU s": time.process_time() - used}
                for unit, seconds in rates.items():
                    what = f"mirror from {before} to {size} entries, steps of {MAX_LINES}"
                    yield Result(what, f"entries/{unit}", [(size - before) / seconds])
                yield from _at_size(ledger, size, frontier.root(), runs)
                staged = [_stage(ledger, lines, size) for _ in range(runs)]
                yield Result(f"batches of 256 at {size} entries, durable", "entries/CPU s", staged)
        yield Result(f"opened with {sizes[-1]} entries", "CPU s", [_opening(Path(folder)) for _ in range(runs)])


def _mirror(ledger: Ledger, lines: list[bytes], frontier: Frontier, size: int) -> Frontier:
    while frontier.size < size:
        start, end = frontier.size, min(size, frontier.size + MAX_LINES)
        step = lines[: end - start]
        ledger.logs.stage(ORIGIN, start, step)
        frontier = frontier.extend(map(leaf_hash, step))
    ledger.logs.advance(ORIGIN, size, [], Checkpoint(ORIGIN, size, frontier.root()).signed(KEY))
    return frontier


def _opening(folder: Path) -> float:
    """Seconds of CPU to open a ledger, and to check the right edge of the log, as a start does."""
    before = time.process_time()
    with closing(Ledger.open(folder, time.time)) as ledger:
        ledger.history.verify_right_edge(ORIGIN)
        return time.process_time() - before


def _stage(ledger: Ledger, lines: list[bytes], size: int, batches: int = 32) -> float:
    """Entries a second of CPU, staged in batches of 256; each is on the disk before the next."""
    before = time.process_time()
    for at in range(batches):
        ledger.logs.stage(ORIGIN, size + 256 * at, lines[256 * at :][:256])
    return batches * 256 / (time.process_time() - before)


def _at_size(ledger: Ledger, size: int, root: bytes, runs: int) -> Iterator[Result]:
    chance = random.Random(size)

    def inclusion() -> None:
        index = chance.randrange(size)
        proof = ledger.history.inclusion(ORIGIN, index, size)
        verify_inclusion(leaf_hash(ledger.history.entry(ORIGIN, index)), index, size, proof, root)

    measured: dict[str, Callable[[], object]] = {
        "inclusion proof, made and verified": inclusion,
        "consistency proof": lambda: ledger.history.consistency(ORIGIN, chance.randrange(1, size), size),
        "find by subject": lambda: ledger.index.find(EntryQuery(subject=sha256(b"0")), limit=1),
        "repositories by prefix of a name": lambda: ledger.proven.repositories(prefix="bench/model-819", limit=20),
        "right edge re-derived": lambda: ledger.history.verify_right_edge(ORIGIN),
    }
    for what, call in measured.items():
        for unit, clock in (("ms", time.perf_counter), ("CPU ms", time.thread_time)):
            yield Result(f"{what}, {size} entries", unit, [_per_call(call, clock) for _ in range(runs)])


def _per_call(call: Callable[[], object], clock: Callable[[], float], times: int = 100) -> float:
    """Milliseconds of a call, by a clock."""
    started = clock()
    for _ in range(times):
        call()
    return 1000 * (clock() - started) / times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--largest", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--folder", type=Path, default=Path.cwd())
    arguments.add_argument("--part", choices=("appends", "sequencer", "growth"), help="Default: all three.")
    chosen = arguments.parse_args()
    before = os.getloadavg()[0]
    results = []
    parts = {
        "appends": appends(chosen.folder, chosen.runs),
        "sequencer": sequenced(chosen.folder, chosen.runs),
        "growth": growth(chosen.folder, chosen.runs, chosen.largest),
    }
    for result in parts[chosen.part] if chosen.part else chain.from_iterable(parts.values()):
        print(result.summary(), file=sys.stderr)
        results.append(result.summary())
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_average": [round(load, 1) for load in (before, os.getloadavg()[0])],
    }
    json.dump({"machine": machine, "results": results}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
