"""Two machines of one node take turns, with one of three members down: in each round the one that writes is killed,
frozen, or cut from its database, or the database crashes. A publication is acknowledged in each round, and in the end
every acknowledged one is in the log, which has one history.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from comity.node.maintenance.takeover import end_writer, writer_state
from comity.trust.encoding import Digest, sha256
from support.federation import Founded, NodeHome, NodeProcess, converged, found, until
from support.ports import free_port
from support.postgres import Postgres, start_postgres
from support.publisher import Publisher, model, release, send

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(name="server")
def _server() -> Iterator[Postgres]:
    """A database server of its own, because it crashes."""
    with start_postgres() as server:
        yield server


@pytest.fixture
def database(server: Postgres) -> str:
    return server.database()


@pytest.fixture(name="founded")
def _founded(tmp_path: Path, server: Postgres, database: str) -> Founded:
    """Three nodes, of which the first has two machines, and the third never runs."""
    founded = found(tmp_path / "nodes", 3)
    founded.homes[0].set("storage", database=server.url(database))
    founded.homes[0].set("node", role="standby")
    founded.homes[1].set("replication", private_networks=["127.0.0.0/8"])
    return founded


def second_machine(first: NodeHome, directory: Path) -> NodeHome:
    shutil.copytree(first.directory, directory, ignore=shutil.ignore_patterns("data", "offline", "*.log", "*.sock"))
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("mutual", "open")}
    home = NodeHome(directory, replace(first.card, open=(ports["open"],)))
    home.set("listen", **ports)
    for machine in (first, home):  # both addresses, so that a peer that knows one machine finds the other
        listen = first.config().listen
        machine.set("advertise", mutual=[listen.mutual, ports["mutual"]], open=[listen.open, ports["open"]])
    home.set("storage", blobs=str(first.config().storage.blobs))
    return home


class Machines:
    """The machines of one node, and the faults of the one that writes."""

    def __init__(self, postgres: Postgres, database: str, *homes: NodeHome) -> None:
        self._postgres = postgres
        self._database = database
        self._homes = homes
        self._running: dict[NodeHome, NodeProcess] = {}

    async def writer(self) -> tuple[NodeHome, NodeProcess]:
        """The one that writes, once one does; one that ended is started again, as a service manager does."""

        def writing() -> list[NodeHome]:
            for home in self._homes:
                if home not in self._running or not self._running[home].alive:
                    self._running[home] = NodeProcess(home)
            return [home for home, node in self._running.items() if _listens(node)]

        await until(lambda: len(writing()) == 1, what="one machine to write")
        (home,) = writing()
        return home, self._running[home]

    def add(self, home: NodeHome) -> None:
        self._homes += (home,)

    def close(self) -> None:
        for node in self._running.values():
            node.close()

    async def kill(self) -> None:
        _, node = await self.writer()
        node.kill()

    async def freeze(self) -> None:
        """Stop the writer, and let it go on when another one writes. Its last sign of life is made older, instead of
        waiting for that."""
        home, node = await self.writer()
        os.kill(node.pid, signal.SIGSTOP)
        try:
            self._postgres.admin("UPDATE writer_heartbeat SET at = at - 60000", self._database)
            others = [each for each in self._homes if each is not home]
            await until(lambda: any(_listens(self._running[each]) for each in others), what="another to write")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        node.ended()

    async def cut(self) -> None:
        home, node = await self.writer()
        end_writer(home.directory / "node.toml")
        node.ended()

    async def crash(self) -> None:
        _, node = await self.writer()
        self._postgres.crash()
        node.ended()


def _listens(node: NodeProcess) -> bool:
    return node.alive and any(event.get("event") == "listening" for event in node.events)


@pytest.mark.parametrize("rounds", [pytest.param(10, id="short"), pytest.param(100, id="long", marks=pytest.mark.long)])
async def test_nothing_acknowledged_is_lost_and_there_is_one_history(
    tmp_path: Path, founded: Founded, server: Postgres, database: str, rounds: int
) -> None:
    first, other, _ = founded.homes
    second = second_machine(first, tmp_path / "second")
    machines = Machines(server, database, first)
    kinds = (machines.kill, machines.freeze, machines.cut, machines.crash)
    faults: cycle[Callable[[], Awaitable[None]]] = cycle(kinds)
    acknowledged: dict[int, Digest] = {}
    mirror = NodeProcess(other)
    try:
        home, _ = await machines.writer()
        await until(lambda: writer_state(first.directory / "node.toml").silent is not None, what="a sign of life")
        # A peer that never met the node knows the address of its federation file alone, where the other machine is not.
        await converged((home, other), home)
        machines.add(second)
        for number in range(rounds):
            home, _ = await machines.writer()
            what = release(Publisher.generate(), model(tmp_path / f"m{number}", weights=1024), f"tests/m{number}@v1")
            async with home.client() as client:
                for receipt in (await send(client, what)).receipts:
                    acknowledged[receipt.index] = receipt.line_digest
            await next(faults)()
        home, _ = await machines.writer()
        note = await converged((home, other), home, least=max(acknowledged) + 1)
        assert note
        async with home.client() as client, other.client() as elsewhere:
            for source in (client, elsewhere):
                lines = [
                    line
                    async for batch in source.entries(home.origin, 0, max(acknowledged) + 1)
                    for line in batch.lines
                ]
                assert {at: sha256(lines[at]) for at in acknowledged} == acknowledged
            assert await elsewhere.misbehaviour() == ()
    finally:
        machines.close()
        mirror.close()
