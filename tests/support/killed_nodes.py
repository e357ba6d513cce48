"""Two nodes that may be killed at any moment, a publisher who continues to publish, and an outsider who checks that
every promise still holds.
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

from comity.content.blobs import FolderStore
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import Checkpoint, SignedNote, open_checkpoint
from comity_client.client import Client
from comity_client.home import Home
from support.federation import NodeHome, converged, found, until
from support.ports import is_listening
from support.publisher import model
from support.victims import Victims, run_node
from support.waiting import PATIENCE
from support.write_path import ALL

WEIGHTS = 3 * PIECE_SIZE + 12_345
TWO_PIECES = PIECE_SIZE + 12_345
"""The least size of a file that is fetched piece by piece."""


@dataclass
class World:
    """Two nodes, a publisher and a user; and the promises of the nodes so far.

    Attributes:
        weights: bytes of the large file of each publication.
    """

    folder: Path
    homes: tuple[NodeHome, NodeHome]
    victims: Victims
    federation: bytes
    weights: int
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
        process.join(PATIENCE)
        assert process.exitcode == 0, f"{home.name} ended with {process.exitcode}"

    def up(self, home: NodeHome, process: ForkServerProcess) -> bool:
        """Wait until the node's process listens, or has ended. Returns whether it runs."""
        deadline = time.monotonic() + PATIENCE
        while process.is_alive() and not is_listening(home.listener_port):
            assert time.monotonic() < deadline, f"{home.name} did not listen"
            process.join(0.02)
        return process.is_alive()

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.join()

    def source(self, *, fresh: bool) -> tuple[Path, str]:
        if fresh:
            self.number += 1
            folder = model(self.folder / f"source-{self.number}", weights=self.weights, seed=self.number)
            shutil.copyfile(folder / "config.json", folder / "config-again.json")
        return self.folder / f"source-{self.number}", f"tests/model-{self.number}@v1"

    def publish(self, *, link: bool = False) -> None:
        """Publish the newest source; record the promises. Raises what the client raises."""
        folder, name = self.source(fresh=False)
        first = self.homes[0]
        nodes = [f"unix:{first.socket}" if link else first.name]
        client = Client(self.publisher_home)
        receipt = client.publish(folder, name, publisher=client.publishers()[0], licence="MIT", nodes=nodes, link=link)
        (logged,) = receipt.logged
        assert self.promised.setdefault(logged.index, logged.line) == logged.line, "one index for two entries"

    def look(self) -> None:
        """As an outsider: each log continues its earlier state, and holds the promised entries at their indexes."""
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

    def agreed(self, origin: NodeHome, *, least: int) -> None:
        """Wait until the nodes show one cosigned checkpoint of this log. Fails at once, with its last words, if a node
        that was started has ended."""
        asyncio.run(converged(self.homes, origin, least=least, watch=self._none_has_ended))

    def _none_has_ended(self) -> None:
        for home in self.homes:
            process = self.running.get(home.name)
            if process is not None and not process.is_alive():
                words = (home.directory / "node.log").read_text(errors="replace")[-4000:]
                raise AssertionError(f"{home.name} ended with {process.exitcode}: {words}")

    def settled(self) -> None:
        """The state at the end is correct: nothing lost, nothing forked, everything cosigned, every blob matches its
        digest.
        """
        first, _ = self.homes
        for home in self.homes:
            if home.name not in self.running or not self.running[home.name].is_alive():
                self.start(home)
        for home in self.homes:
            self.agreed(home, least=2)
        if self.promised:
            self.agreed(first, least=max(self.promised) + 1)
        self.look()
        outsider = Client(Home(self.folder / "outsider"))
        outsider.pin(self.federation)
        for home in self.homes:
            outsider.log_check(home.origin)
        lines = {item.index: sha256(item.line) for item in outsider.log_entries(first.origin, 0, 4096)}
        assert {index: lines.get(index) for index in self.promised} == self.promised, "acknowledged entries are lost"
        assert not outsider.misbehaviour()
        assert [state.misbehaviour for state in outsider.status()] == [0, 0]
        for home in self.homes:
            store = FolderStore(home.directory / "data" / "blobs")
            assert all(store.verify(digest) for digest, _ in store.sizes())
            assert list(store.sizes())


@contextmanager
def made(folder: Path, weights: int = WEIGHTS) -> Iterator[World]:
    founded = found(folder / "nodes", 2)
    first, second = founded.homes
    world = World(folder, (first, second), Victims(folder), founded.federation.encode(), weights)
    client = Client(world.publisher_home)
    client.pin(world.federation)
    client.new_publisher("tests", "NO", first.origin)
    try:
        yield world
        print(world.victims.histogram())
        print(f"{len(world.promised)} publications acknowledged, {sum(world.victims.killed.values())} deaths")
        assert set(world.victims.hits()) - ALL == set(), "points at which no process is killed"
    finally:
        world.close()


def retry(step: Callable[[], None]) -> None:
    async def tried() -> bool:
        try:
            await asyncio.to_thread(step)
        except ComityError:
            return False
        return True

    asyncio.run(until(tried, what="the operation to be done in the end"))
