"""The federation under attack: nodes of three honest members, a fourth member that is hostile, publishers, and a
provider.

It is prepared once. Each run begins with a copy of the prepared homes, so that the same keys, logs and names are there
with an attacker and without. Nodes and the hostile party are processes of their own, forked from a server that has
imported everything already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import ssl
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from attackers import ATTACKERS, Known, Target, Victim, attacking
from attackers.hostile_node import HostileNode
from comity.content.blobs import FolderStore
from comity.trust.charter.document import CharterPolicy, quorum
from comity.trust.encoding import Digest, sha256
from comity_client.founding import consent_to, draft_genesis, seal_federation
from support.federation import NodeHome, make_home
from support.forked import FORKS
from support.ports import free_port
from support.waiting import PATIENCE

HONEST = 3
DISK = 96 << 20
SPARE = 8 << 20
"""The disk of each honest node, for its blobs, and what its copies leave free: small, so that claims reach them."""
QUOTA_ENTRIES = 20_000
QUOTA_BYTES = 64 << 20
"""The limits of a node for one log: small, so that floods of a test reach them."""


@dataclass(frozen=True)
class Members:
    """Homes of the honest members' nodes, and of the hostile one."""

    honest: tuple[NodeHome, ...]
    hostile: NodeHome
    hostile_address: str
    federation: bytes

    def copied(self, source: Path, to: Path) -> Members:
        """The same members in homes that are copies."""
        homes = [NodeHome(to / home.directory.relative_to(source), home.card) for home in (*self.honest, self.hostile)]
        return replace(self, honest=tuple(homes[:-1]), hostile=homes[-1])

    @property
    def victims(self) -> tuple[Victim, ...]:
        return tuple(
            Victim(
                home.name,
                home.record.node.id,
                home.origin,
                home.card.open[0],
                home.card.mutual[0],
                home.config().gateway.http,
                ssl.DER_cert_to_PEM_cert(home.record.tls).encode(),
            )
            for home in self.honest
        )


def founded(folder: Path, namespaces: Mapping[str, Digest], accepted: Sequence[str]) -> Members:
    """Found a federation of `HONEST` members and a hostile one below `folder`. Operators allow the identities
    `accepted` to publish, and no others.
    """
    homes = [make_home(folder / f"n{number}", number, interval=0.2) for number in range(HONEST + 1)]
    *honest, hostile = homes
    address = f"127.0.0.1:{free_port()}"
    policy = CharterPolicy(quorum(HONEST + 1), min_copies=2, min_jurisdictions=2, cosigner_quorum=1)
    body = draft_genesis([home.card for home in homes], policy, namespaces)
    cards = [*(home.card for home in honest), replace(hostile.card, mutual=(address,), open=(address,))]
    federation = seal_federation(body, [consent_to(body, home.directory) for home in homes], cards).encode()
    for home in honest:
        (home.directory / "federation.json").write_bytes(federation)
        home.set("listen", operator="operator.sock")
        home.set("publishing", accept=list(accepted))
        home.set("gateway", http=f"127.0.0.1:{free_port()}", files="", ranges="")
        home.set("storage", reserve_bytes=SPARE // 8)
        home.set("replication", stop_free_bytes=SPARE, resume_free_bytes=2 * SPARE)
        home.set("limits", entries_per_origin=QUOTA_ENTRIES, bytes_per_origin=QUOTA_BYTES)
    return Members(tuple(honest), hostile, address, federation)


@dataclass(frozen=True)
class Process:
    """A node's process."""

    home: NodeHome
    process: ForkServerProcess

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def memory(self) -> dict[str, int]:
        """Bytes of memory: current, and maximum."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {key: int(text.split()[0]) << 10 for key, _, text in (line.partition(":") for line in lines)
                if key in ("VmRSS", "VmHWM")}  # fmt: skip

    def disk(self) -> int:
        """Bytes of all files of its home, and of a database what it contains: SQLite moves the pages of a write-ahead
        log, which has each version of a page, to the file at 16 MiB (`CHECKPOINT_BYTES`), in one run but not in the
        next."""
        databases = list(self.home.directory.rglob("*.sqlite"))
        files = [file for one in databases for file in one.parent.glob(f"{one.name}*") if file.is_file()]
        return allocated(self.home.directory) - sum(map(_used, files)) + sum(map(_contained, databases))

    def cpu(self) -> float:
        """Seconds of processor time."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        return (self.home.directory / "node.log").read_text(errors="replace")

    def ready(self) -> None:
        deadline = time.monotonic() + 60
        while '"event": "listening"' not in self.log:
            assert self.alive and time.monotonic() < deadline, f"{self.home.name} did not come up: {self.log[-2000:]}"
            time.sleep(0.02)

    def end(self) -> None:
        self.process.terminate()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def free_of_disk(store: FolderStore) -> int:
    """What is free on a disk of `DISK` bytes that has this store alone."""
    return max(0, DISK - allocated(store.partial_path(sha256(b"")).parent.parent))


def _used(file: Path) -> int:
    return file.stat().st_blocks * 512


def _contained(database: Path) -> int:
    """Bytes of the pages of an SQLite database, those in its write-ahead log included."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages) * int(size)


def allocated(folder: str | Path) -> int:
    """Bytes that the files below a folder take on the disk."""
    used = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for each in found:
            with contextlib.suppress(FileNotFoundError):
                if each.is_dir(follow_symlinks=False):
                    used += allocated(each.path)
                elif each.is_file(follow_symlinks=False):
                    used += each.stat(follow_symlinks=False).st_blocks * 512
    return used


def run_node(home: str) -> None:
    """A node with its gateway. Its log is `node.log`."""
    output = os.open(Path(home) / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    from comity.gateway import app as gateway
    from comity.node import app as node

    setattr(FolderStore, "free_bytes", free_of_disk)  # noqa: B010  # a disk of its own, without root
    node.run(Path(home) / "node.toml", gateway.serve_gateway)


@contextlib.contextmanager
def running(*homes: NodeHome) -> Iterator[tuple[Process, ...]]:
    started = []
    try:
        for home in homes:
            (home.directory / "node.log").write_bytes(b"")
            process = FORKS.Process(target=run_node, args=(str(home.directory),))
            process.start()
            started.append(Process(home, process))
        for each in started:
            each.ready()
        yield tuple(started)
    finally:
        for each in started:
            each.process.terminate()
        for each in started:
            each.end()


@dataclass
class Report:
    """What the hostile party did: bytes sent to each victim, how many of these lines each victim logged, bytes that its
    node answered, lines of its own log, and programming errors of its own.
    """

    sent: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    lines: int = 0
    mirrored: tuple[int, ...] = ()
    """How much of its log each victim had when the honest script began, and last its size then."""
    failed: tuple[str, ...] = ()
    knocks: int = 0
    """The most connections within a minute to machines that the hostile party named, and that are not its own."""


class Hostile:
    """The hostile party's process: its node runs from the start, and answers truthfully until it attacks."""

    def __init__(self, members: Members) -> None:
        self._near, far = FORKS.Pipe()
        arguments = (str(members.hostile.directory), members.hostile_address, members.victims, far)
        self._process = FORKS.Process(target=run_hostile, args=arguments)
        self._process.start()
        far.close()
        assert self._told(60) == "up"

    def attack(self, names: Sequence[str], known: Known) -> None:
        """Begin; returns when every attacker is ready."""
        self._near.send((list(names), known))
        assert self._told(120) == "ready"

    def end(self) -> Report:
        self._near.send("end")
        report = self._told(60)
        assert isinstance(report, Report)
        return report

    def rounds(self) -> tuple[int, int]:
        """How often its node was asked for its logs, which is once in each round of each honest node; and the size of
        its log.
        """
        self._near.send("rounds")
        asked = self._told(PATIENCE)
        assert isinstance(asked, tuple)
        return asked

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._near.close()

    def _told(self, patience: float) -> object:
        assert self._near.poll(patience), "the hostile party says nothing"
        return self._near.recv()


def run_hostile(home: str, address: str, victims: tuple[Victim, ...], told: Connection) -> None:
    node = HostileNode(Path(home))
    face = node.listen(address)
    told.send("up")
    target = Target(victims, Known(), node)
    failed: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        while True:
            asked = told.recv()
            if asked == "end":
                stack.close()
                break
            if asked == "rounds":
                told.send((face.asked["ListLogs"], len(node.log.lines)))
                continue
            names, target.known = asked
            failed = stack.enter_context(attacking(target, *(ATTACKERS[name] for name in names)))
            told.send("ready")
    said = tuple(f"{type(error).__name__}: {error}"[:500] for error in (*failed, *node.errors[:3]))
    answered = sum(node.answered.values())
    knocks = sorted(target.knocks)
    most = max((bisect_left(knocks, first + 60) - at for at, first in enumerate(knocks)), default=0)
    sent, taken = dict(target.sent), dict(target.taken)
    told.send(Report(sent, taken, answered, len(node.log.lines), failed=said, knocks=most))
    node.close()


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    return to
