"""SIGKILL at every step of the write path: publish (client and node), mirror (node), pull (client).

A process dies at a point, is started again, and does the same once more. Nothing that was acknowledged is lost, no log
forks, cosigners converge, blobs verify, nothing that was verified is fetched again. A point that is not hit fails.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from comity.content.folder import FolderStore
from comity.transfer.plan import Limits
from comity.trust.checkpoint import Checkpoint, open_checkpoint
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.merkle import verify_consistency
from comity.trust.note import SignedNote
from comity.trust.pieces import PIECE
from comity_client.client import Client
from comity_client.home import Home
from huggingface_hub import scan_cache_dir
from support.federation import NodeHome, converged, found, until
from support.publisher import model
from support.victims import Victims, run_node

pytestmark = pytest.mark.slow

WEIGHTS = 3 * PIECE + 12_345
COMMIT = ("before-commit", "after-commit")
FILE = ("fsync", "rename", "folder", "done")
MOVED = ("rename", "folder", "source", "done")
"""Steps of a file that comes from another folder."""
BLOB = [f"blob.{step}" for step in ("fsync", *MOVED)]


def commits(*steps: str) -> list[str]:
    return [f"ledger.{step}.{when}" for step in steps for when in COMMIT]


def files(*kinds: str) -> list[str]:
    return [f"{kind}.{step}" for kind in kinds for step in FILE]


AT_START = ["folders.fsync", "store.fsync", *files("continuity"), *commits("migrate", "create")]
NODE_PUBLISHES = [*BLOB, "blob.again", *commits("pieces", "append", "note", "cosign"), "ledger.append.grown"]
NODE_ADOPTS = ["blob.link"]
NODE_MIRRORS = [
    *BLOB,
    "partial.piece",
    "partial.fsync",
    *commits("advance", "cosign", "pieces", "append", "note"),
    "ledger.advance.grown",
]
IDENTITY = ["key.fsync", "key.folder", *files("inception"), "publisher.rename", "publisher.folder", "publisher.done"]
CLIENT_PUBLISHES = [*files("statement", "memory")]
CLIENT_PINS = [*files("trust")]
CLIENT_PULLS = [
    "folders.fsync",
    *files("memory"),
    *(f"placed.{when}" for when in COMMIT),
    "partial.piece",
    "partial.fsync",
    *(f"place.{step}" for step in ("fsync", *MOVED)),
    *files("pack"),
]
CLIENT_FILLS_A_CACHE = [*(f"link.{step}" for step in MOVED), *(f"ref.{step}" for step in ("fsync", *MOVED))]


@dataclass
class World:
    """Two nodes, a publisher and a user; and what the nodes have promised so far."""

    folder: Path
    homes: tuple[NodeHome, NodeHome]
    victims: Victims
    federation: bytes
    running: dict[str, ForkServerProcess] = field(default_factory=dict)
    promised: dict[int, Digest] = field(default_factory=dict)
    seen: dict[str, SignedNote] = field(default_factory=dict)
    number: int = 0

    @property
    def publisher_home(self) -> Home:
        return Home(self.folder / "publisher")

    def start(self, home: NodeHome, point: str = "") -> ForkServerProcess:
        process = self.victims.start(point, home.directory / "node.log", run_node, home.directory / "node.toml")
        self.running[home.name] = process
        return process

    def stop(self, home: NodeHome) -> None:
        process = self.running.pop(home.name)
        process.terminate()
        process.join(20)
        assert process.exitcode == 0, f"{home.name} ended with {process.exitcode}"

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.join()

    def source(self, *, fresh: bool) -> tuple[Path, str]:
        if fresh:
            self.number += 1
            folder = model(self.folder / f"source-{self.number}", weights=WEIGHTS, seed=self.number)
            shutil.copyfile(folder / "config.json", folder / "config-again.json")
        return self.folder / f"source-{self.number}", f"tests/model-{self.number}@v1"

    def publish(self, *, link: bool = False) -> None:
        """Publish the newest source; note what was promised. Raises what the client raises."""
        folder, name = self.source(fresh=False)
        first = self.homes[0]
        nodes = [f"unix:{first.socket}" if link else first.name]
        client = Client(self.publisher_home)
        receipt = client.publish(folder, name, publisher=client.publishers()[0], licence="MIT", nodes=nodes, link=link)
        (logged,) = receipt.logged
        assert self.promised.setdefault(logged.index, logged.line) == logged.line, "one index for two entries"

    def look(self) -> None:
        """As an outsider: each log continues what was seen of it, and holds what was promised at its index."""
        asyncio.run(self._look())

    async def _look(self) -> None:
        for home in self.homes:
            async with home.client() as client:
                try:
                    note = SignedNote.parse(await client.checkpoint(home.origin))
                except ComityError:
                    continue
                head, before = open_checkpoint(note, home.record.log), self.seen.get(home.origin)
                if before is not None:
                    old = Checkpoint.parse(before.text)
                    assert old.size <= head.size, "a log went back"
                    proof = await client.consistency(home.origin, old.size, head.size) if old.size else ()
                    verify_consistency(old.size, old.root, head.size, head.root, proof)
                self.seen[home.origin] = note

    def settled(self) -> None:
        """All is well in the end: nothing lost, nothing forked, everything cosigned, every blob what its name says."""
        first, _ = self.homes
        for home in self.homes:
            if home.name not in self.running or not self.running[home.name].is_alive():
                self.start(home)
        for home in self.homes:
            asyncio.run(converged(self.homes, home, least=2))
        if self.promised:
            asyncio.run(converged(self.homes, first, least=max(self.promised) + 1))
        self.look()
        outsider = Client(Home(self.folder / "outsider"))
        outsider.pin(self.federation)
        for home in self.homes:
            outsider.log_check(home.origin)
        lines = {item.index: sha256(item.line) for item in outsider.log_entries(first.origin, 0, 4096)}
        assert {index: lines.get(index) for index in self.promised} == self.promised, "acknowledged entries are gone"
        assert not outsider.misbehaviour()
        assert [state.misbehaviour for state in outsider.status()] == [0, 0]
        for home in self.homes:
            store = FolderStore(home.directory / "data" / "blobs")
            assert all(store.verify(digest) for digest in store.digests())
            assert list(store.digests())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made(tmp_path) as world:
        yield world


@contextmanager
def made(folder: Path) -> Iterator[World]:
    founded = found(folder / "nodes", 2)
    first, second = founded.homes
    world = World(folder, (first, second), Victims(folder), founded.federation.encode())
    client = Client(world.publisher_home)
    client.pin(world.federation)
    client.new_publisher("tests", "NO", first.origin)
    try:
        yield world
        print(world.victims.histogram())
        print(f"{len(world.promised)} publications acknowledged, {sum(world.victims.killed.values())} deaths")
    finally:
        world.close()


def never_hit(world: World, points: list[str]) -> list[str]:
    return [point for point in points if not world.victims.killed[point]]


def keep_publishing(world: World, victim: ForkServerProcess, *, link: bool = False, most: int = 4) -> None:
    """Publish until the victim dies; what fails for its death is tried again by the caller, with its successor."""
    left = most
    while victim.is_alive() and left:
        try:
            world.publish(link=link)
        except ComityError:
            time.sleep(0.05)
            continue
        world.source(fresh=True)
        left -= 1
    victim.join(20)


def kill_while_publishing(world: World, points: list[str], *, link: bool = False) -> None:
    """The first node dies at each point in turn; the same publication is tried with each successor."""
    first = world.homes[0]
    for point in points:
        victim = world.start(first, point)
        keep_publishing(world, victim, link=link)
        assert not victim.is_alive(), f"{point} was not hit"
        assert world.victims.died(victim, point)
    world.start(first)
    retry(world.publish)
    world.look()


def retry(step: Callable[[], None]) -> None:
    async def tried() -> bool:
        try:
            await asyncio.to_thread(step)
        except ComityError:
            return False
        return True

    asyncio.run(until(tried, patience=60, what="the operation to be done in the end"))


def test_a_node_that_dies_while_it_is_published_to(world: World) -> None:
    world.start(world.homes[1])
    world.source(fresh=True)
    kill_while_publishing(world, [*AT_START, *NODE_PUBLISHES])
    kill_while_adopting(world)
    world.settled()


def kill_while_adopting(world: World) -> None:
    world.stop(world.homes[0])
    world.source(fresh=True)
    kill_while_publishing(world, NODE_ADOPTS, link=True)


def test_a_node_that_dies_while_it_mirrors(world: World) -> None:
    first, second = world.homes
    world.start(first)
    for point in [*AT_START, *NODE_MIRRORS]:
        victim = world.start(second, point)
        for _ in range(4):
            world.source(fresh=True)
            retry(world.publish)
            victim.join(2)
            if not victim.is_alive():
                break
        assert not victim.is_alive(), f"{point} was not hit"
        assert world.victims.died(victim, point)
    world.start(second)
    world.settled()


def make_identity(home: Path, federation: bytes, origin: str) -> None:
    client = Client(Home(home))
    client.pin(federation)
    if not client.publishers():
        client.new_publisher("tests", "NO", origin)


def publish_once(home: Path, source: Path, name: str, node: str) -> None:
    client = Client(Home(home))
    client.publish(source, name, publisher=client.publishers()[0], licence="MIT", nodes=[node])


def pull_once(home: Path, name: str, to: Path | None, cache: Path | None) -> None:
    client = Client(Home(home), limits=Limits(streams=2))
    if to is not None:
        client.pull(name, to=to)
    else:
        client.pull(name, hub_cache=cache)


def die(world: World, point: str, work: Callable[..., None], *arguments: object) -> None:
    victim = world.victims.start(point, world.folder / "client.log", work, *arguments)
    victim.join(60)
    assert world.victims.died(victim, point), f"{point} was not hit"


def test_a_client_that_dies_while_it_publishes(world: World) -> None:
    first, second = world.homes
    world.start(first)
    world.start(second)
    for point in [*CLIENT_PINS, *IDENTITY]:
        home = world.folder / point
        die(world, point, make_identity, home, world.federation, first.origin)
        make_identity(home, world.federation, first.origin)
        assert len(Client(Home(home)).publishers()) == 1
    asyncio.run(converged(world.homes, first, least=2))
    for point in CLIENT_PUBLISHES:
        source, name = world.source(fresh=True)
        die(world, point, publish_once, world.publisher_home.root, source, name, first.name)
        world.publish()
        world.look()
    world.settled()


def test_a_client_that_dies_while_it_pulls(world: World) -> None:
    first, second = world.homes
    world.start(first)
    world.start(second)
    source, name = world.source(fresh=True)
    retry(world.publish)
    world.settled()
    expected = {path.name: path.read_bytes() for path in source.iterdir()}
    weights = sha256(expected["weights.bin"])
    home, to, cache = world.folder / "user", world.folder / "pulled", world.folder / "hub"
    user = Client(Home(home))
    user.pin(world.federation)
    gone = 0
    for point in CLIENT_PULLS:
        die(world, point, pull_once, home, name, to, None)
        gone = gone or (point.startswith("place.") and asyncio.run(served(world.homes, weights)))
        assert all(path.read_bytes() == expected[path.name] for path in placed(to)), "something unverified was placed"
    user.pull(name, to=to)
    assert asyncio.run(served(world.homes, weights)) == gone, "a file that was whole was fetched again"
    assert {path.name: path.read_bytes() for path in placed(to)} == expected
    assert user.verify(to).exit_status == 0
    for point in CLIENT_FILLS_A_CACHE:
        die(world, point, pull_once, home, name, None, cache)
    cached = user.pull(name, hub_cache=cache)
    assert {path.name: path.read_bytes() for path in placed(cached.folder)} == expected
    assert user.verify(name, hub_cache=cache).exit_status == 0
    assert not scan_cache_dir(cache).warnings


def test_a_pull_that_dies_among_its_pieces_fetches_only_what_was_in_flight(world: World) -> None:
    first, second = world.homes
    world.start(first)
    world.start(second)
    _, name = world.source(fresh=True)
    retry(world.publish)
    world.settled()
    home, to = world.folder / "user", world.folder / "pulled"
    user = Client(Home(home))
    user.pin(world.federation)
    kept = 3
    die(world, f"partial.piece:{kept}", pull_once, home, name, to, None)
    pulled = user.pull(name, to=to)
    assert pulled.tally.resumed >= (kept - 1) * PIECE, "a piece that was verified was lost"
    assert pulled.tally.resumed + sum(pulled.tally.by_node.values()) == WEIGHTS + len('{"seed": 1}\n')


def placed(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.exists() else []


async def served(homes: tuple[NodeHome, ...], blob: Digest) -> int:
    """Bytes of a blob that strangers got from all nodes."""
    total = 0
    for home in homes:
        async with home.operator() as operator:
            status = await operator.status()
        total += sum(item.bytes for item in status.served if item.blob == blob and "127.0.0.1" in item.caller)
    return total
