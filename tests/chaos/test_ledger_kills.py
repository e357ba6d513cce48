"""The process of a ledger is killed at every fault point and at random instants; what it promised still holds.

After each kill the ledger is opened again and read as an outsider would: every entry bundle and tile is read, the roots
are computed from the entries, and compared with the signed checkpoints. The short form takes each point once; `-m long`
runs for minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.ledger.page_sums import check_pages
from comity.trust.encoding import Digest, sha256
from comity.trust.keys import PrivateKey
from support import ledger_workload
from support.forked import start_forked
from support.ledger_workload import COSIGNER, FAR, OWN, far_lines
from support.logs import LogKeys
from support.outsider import read_log, signed_checkpoint
from support.tools import needs
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

STEPS = ("append", "stage", "advance", "note", "cosign", "misbehaviour", "pieces", "forget")
AT_START = [f"ledger.{step}.{when}-commit" for step in ("migrate", "fence", "create") for when in ("before", "after")]
AT_START += ["ledger.sums.begin"]
AT_WORK = [f"ledger.{step}.{when}-commit" for step in STEPS for when in ("before", "after")]
AT_WORK += ["ledger.append.grown", "ledger.advance.grown", "ledger.sums.fsync"]

ROUNDS = 60
TESTS = Path(__file__).resolve().parents[1]


class Victim:
    """A ledger folder, the processes that were killed on it, and what they had promised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = LogKeys(OWN, PrivateKey.generate("ed25519"))
        self.far = LogKeys(FAR, PrivateKey.generate("ed25519"))
        for keys, name in ((self.own, "own.pem"), (self.far, "far.pem")):
            (folder / name).write_bytes(keys.key.to_pem())
        self.hits = folder / "hits.txt"
        self.promises = folder / "promises.txt"
        self.entries: dict[int, Digest] = {}
        self.signed: dict[int, bytes] = {}
        self.far_size = 0
        self.cosigned = 0

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def arguments(self) -> tuple[str, ...]:
        return str(self.ledger), str(self.folder / "own.pem"), str(self.folder / "far.pem"), str(ROUNDS)

    def environ(self, fault: str = "") -> dict[str, str]:
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {"PYTHONPATH": path, "COMITY_FAULT": fault, "COMITY_FAULT_LOG": str(self.hits)}

    def start(self, fault: str = "") -> ForkServerProcess:
        self.promises.write_bytes(b"")
        return start_forked(ledger_workload.main, *self.arguments, environ=self.environ(fault), log=self.promises)

    def die_at(self, point: str, hit: int) -> None:
        process = self.start(f"{point}:{hit}")
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL, f"{point} was not hit {hit} times"
        self.received(self.promises.read_bytes())
        self.check()

    def die_after(self, seconds: float) -> None:
        """Counted from its first promise."""
        process = self.start()
        while not wait([process.sentinel], 0.002) and not self.promises.stat().st_size:
            pass
        wait([process.sentinel], seconds)
        process.kill()
        process.join(PATIENCE)
        self.received(self.promises.read_bytes())
        self.check()

    def fails_at(self, call: str, fate: str, nth: int) -> bool:
        """Whether a thread of the process made the system call `nth` times, and so got `fate`."""
        strace = needs("strace", unlock="apt-get install strace")
        command = [strace, "-f", "--seccomp-bpf", "-qq"]  # only the traced calls stop the program, which is quicker
        command += ["-e", f"trace={call}", "-e", f"inject={call}:{fate}:when={nth}"]
        command += ["-o", "/dev/null", sys.executable, "-m", "support.ledger_workload", *self.arguments]
        ran = subprocess.run(command, env=self.environ(), stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
        self.received(ran.stdout)
        self.check()
        return ran.returncode != 0

    def received(self, output: bytes) -> None:
        for line in output.decode().splitlines():
            match line.split():
                case ["own", index, digest]:
                    assert self.entries.setdefault(int(index), Digest(digest)) == digest, "one index for two entries"
                case ["signing", size, root]:
                    assert self.signed.setdefault(int(size), bytes.fromhex(root)).hex() == root, "a fork was signed"
                case ["far", size]:
                    self.far_size = max(self.far_size, int(size))
                case ["cosigned", size]:
                    self.cosigned = max(self.cosigned, int(size))
                case _:
                    pytest.fail(f"the process said {line!r}")

    def check(self) -> None:
        with closing(Ledger.open(self.ledger, time.time)) as ledger:
            assert ledger.pages is not None and check_pages(ledger.pages) == (), "a sound page is called damaged"
            origins = {log.origin for log in ledger.logs.all()}
            if OWN in origins:
                self.check_own(ledger)
            if FAR in origins:
                self.check_far(ledger)
        assert origins == {OWN, FAR} or not (self.entries or self.far_size)

    def check_own(self, ledger: Ledger) -> None:
        state = ledger.logs.get(OWN)
        lines, tree = read_log(ledger, self.own, state.size)
        assert tree.root() == state.root
        lost = [
            index for index, digest in self.entries.items() if index >= state.size or sha256(lines[index]) != digest
        ]
        assert lost == [], "acknowledged entries are lost"
        for size, root in self.signed.items():
            assert size <= state.size and tree.root(size) == root, "a root was signed that is not the log's"
        if state.note is not None:
            checkpoint = signed_checkpoint(ledger, self.own)
            assert checkpoint.root == tree.root(checkpoint.size)
            assert self.signed[checkpoint.size] == checkpoint.root
        ledger.history.verify_all(OWN)

    def check_far(self, ledger: Ledger) -> None:
        state = ledger.logs.get(FAR)
        lines, tree = read_log(ledger, self.far, state.size)
        assert lines == far_lines(0, state.size)
        assert tree.root() == state.root
        assert state.size >= self.far_size, "the mirror went backwards"
        if state.size:
            assert signed_checkpoint(ledger, self.far).root == tree.root()
        if self.cosigned:
            best = ledger.cosignatures.best_note(FAR, self.cosigned - 1)
            assert COSIGNER in {signature.name for signature in best.signatures}
        ledger.history.verify_all(FAR)

    def histogram(self) -> Counter[str]:
        return Counter(self.hits.read_text().split())


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(tmp_path)
    yield victim
    histogram = victim.histogram()
    for point in sorted(histogram):
        print(f"{histogram[point]:6d}  {point}")
    print(f"{len(victim.entries)} entries acknowledged, {len(victim.signed)} checkpoints signed")
    print(f"{victim.far_size} entries mirrored")


@pytest.mark.parametrize("point", AT_START)
def test_a_ledger_killed_while_it_is_created_can_be_created_again(victim: Victim, point: str) -> None:
    victim.die_at(point, 1)
    victim.die_after(0.1)


def test_a_kill_at_each_point_leaves_the_old_or_the_new_state(victim: Victim) -> None:
    for nth, point in enumerate(AT_WORK):
        victim.die_at(point, 1 + nth % 4)
    assert set(victim.histogram()) >= {*AT_WORK, *AT_START}, "a point was never hit"


def test_a_ledger_killed_while_it_is_closed_has_everything(victim: Victim) -> None:
    victim.die_at("ledger.sums.end", 1)
    assert victim.entries and victim.far_size


def test_a_kill_at_any_instant_leaves_the_old_or_the_new_state(victim: Victim) -> None:
    chance = random.Random(7)
    for _ in range(6):
        victim.die_after(chance.uniform(0, 0.4))
    assert victim.entries and victim.far_size


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_at_every_point(victim: Victim, seed: int) -> None:
    chance = random.Random(seed)
    for point in chance.sample(AT_WORK, len(AT_WORK)):
        victim.die_at(point, chance.randint(1, 20))
    assert set(victim.histogram()) >= {*AT_WORK, *AT_START}, "a point was never hit"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_many_kills_at_any_instant(victim: Victim, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        victim.die_after(chance.expovariate(5))


@pytest.mark.long
@pytest.mark.parametrize("fate", ["signal=KILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_or_a_failure_of_any_write_to_the_disk(victim: Victim, call: str, fate: str) -> None:
    met = [victim.fails_at(call, fate, nth) for nth in (*range(1, 20), *range(20, 200, 20))]
    assert sum(met) > len(met) / 2, "the process hardly ever met its fate"
