"""A standby on a second machine, beside a real PostgreSQL: it goes on where the writer is killed, frozen or ended by a
person, in the same log, and a writer that comes back writes nothing more.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from comity.node.maintenance.takeover import writer_state
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity_cli.commands.takeover import command as takeover
from support.federation import Founded, NodeHome, NodeProcess, found, processes, until
from support.ports import free_port
from support.postgres import Postgres
from support.publisher import Publisher, model, release, send
from support.run_command import printed, refused

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture(name="founded")
def _founded(tmp_path: Path, postgres: Postgres, database: str) -> Founded:
    """Two nodes, of which the first keeps its ledger in `database`."""
    founded = found(tmp_path / "nodes", 2)
    founded.homes[0].set("storage", database=postgres.url(database))
    return founded


def standby_of(writer: NodeHome, directory: Path) -> NodeHome:
    """The home of a second machine of the node: the same keys, database and files, no mark, other ports."""
    shutil.copytree(writer.directory, directory, ignore=shutil.ignore_patterns("data", "offline", "*.log", "*.sock"))
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("mutual", "open")}
    home = NodeHome(directory, replace(writer.card, open=(ports["open"],)))
    home.set("node", role="standby")
    home.set("listen", **ports)
    home.set("advertise", **{name: [address] for name, address in ports.items()})
    home.set("storage", blobs=str(writer.config().storage.blobs))
    return home


@asynccontextmanager
async def writing(home: NodeHome) -> AsyncIterator[NodeProcess]:
    with processes(home) as (node,):
        await node.ready()
        yield node


@asynccontextmanager
async def waiting(home: NodeHome) -> AsyncIterator[NodeProcess]:
    """A standby that has seen a writer, which gives signs of life."""
    with processes(home) as (node,):
        await until(lambda: said(node, "a writer runs"), what="the standby to see the writer")
        file = home.directory / "node.toml"
        await until(lambda: writer_state(file).silent is not None, what="a sign of life of the writer")
        yield node


async def publish(home: NodeHome, folder: Path, name: str) -> None:
    async with home.client() as client:
        await send(client, release(Publisher.generate(), model(folder, weights=1024), name))


async def size_of(home: NodeHome) -> int:
    async with home.client() as client:
        return Checkpoint.parse(SignedNote.parse(await client.checkpoint(home.origin)).text).size


def said(node: NodeProcess, text: str) -> bool:
    return any(text in str(event["event"]) for event in node.events)


async def test_a_standby_goes_on_where_the_writer_is_killed(tmp_path: Path, founded: Founded) -> None:
    writer, standby = founded.homes[0], standby_of(founded.homes[0], tmp_path / "second")
    async with writing(writer) as first, waiting(standby) as second:
        await publish(writer, tmp_path / "one", "tests/one@v1")
        before = await size_of(writer)
        first.kill()
        await second.ready()
        await publish(standby, tmp_path / "two", "tests/two@v1")
        assert await size_of(standby) > before, "the same log goes on"
        assert not said(second, "copy"), "the mark is in the database"
        with processes(writer) as (again,):
            await until(lambda: not again.alive, what="the old writer to be refused")
            assert "the ledger is in use" in again.words


async def test_a_frozen_writer_is_ended_and_writes_nothing_when_it_comes_back(
    tmp_path: Path, founded: Founded, postgres: Postgres, database: str
) -> None:
    writer, standby = founded.homes[0], standby_of(founded.homes[0], tmp_path / "second")
    async with writing(writer) as first, waiting(standby) as second:
        await publish(writer, tmp_path / "one", "tests/one@v1")
        os.kill(first.pid, signal.SIGSTOP)
        try:
            # as long as it takes: the clock of the server is not moved, its record of the last sign is
            postgres.admin("UPDATE writer_heartbeat SET at = at - 60000", database)
            await second.ready()
            await publish(standby, tmp_path / "two", "tests/two@v1")
            after = await size_of(standby)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        assert first.ended() != 0
        assert "LEDGER-LOCK-LOST" in first.words or said(first, "own log ended")
        assert await size_of(standby) >= after
        assert said(second, "ended a writer that gave no sign of life")


async def test_a_person_ends_the_writer_and_a_standby_goes_on(tmp_path: Path, founded: Founded) -> None:
    writer, standby = founded.homes[0], standby_of(founded.homes[0], tmp_path / "second")
    assert refused(takeover, "--node", standby.directory, "--yes").code == "NO-WRITER"
    async with writing(writer) as first, waiting(standby) as second:
        document = printed(takeover, "--node", standby.directory, "--yes")
        assert document["ended"] >= 1 and document["silent"] is not None
        await second.ready()
        assert first.ended() != 0
        await publish(standby, tmp_path / "one", "tests/one@v1")


def test_a_home_without_a_database_has_no_standby(founded: Founded) -> None:
    other = founded.homes[1]
    assert refused(takeover, "--node", other.directory, "--yes").code == "CONFIG"
    other.set("node", role="standby")
    with processes(other) as (node,):
        assert node.ended() != 0
        assert "a standby needs storage.database" in json.dumps(node.words)
