"""A node whose ledger is in a real PostgreSQL, and its blobs in a folder: it publishes, is mirrored, and works without
peers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.tlog.note import Checkpoint, SignedNote
from support.federation import Founded, NodeHome, converged, found, processes, until
from support.postgres import Postgres
from support.publisher import Publisher, model, release, send

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def founded(tmp_path: Path, postgres: Postgres, database: str) -> Founded:
    """Two nodes, of which the first keeps its ledger in `database`."""
    founded = found(tmp_path / "nodes", 2)
    founded.homes[0].set("storage", database=postgres.url(database))
    return founded


async def publish(home: NodeHome, folder: Path, name: str) -> None:
    what = release(Publisher.generate(), model(folder, weights=1024), name)
    async with home.client() as client:
        await send(client, what)


def size(note: SignedNote) -> int:
    return Checkpoint.parse(note.text).size


async def test_a_node_on_postgresql_publishes_is_mirrored_and_continues_its_log(
    tmp_path: Path, founded: Founded
) -> None:
    first, _ = founded.homes
    with processes(*founded.homes) as nodes:
        for node in nodes:
            await node.ready()
        await publish(first, tmp_path / "one", "tests/one@v1")
        before = await converged(founded.homes, first, least=3)
        assert nodes[0].stop() == 0
        with processes(first) as (again,):
            await again.ready()
            await publish(first, tmp_path / "two", "tests/two@v1")
            await converged(founded.homes, first, least=size(before) + 1)
            assert not [event for event in again.events if "copy" in str(event["event"])]
    assert not first.config().storage.ledger.exists()


async def test_a_second_process_on_the_same_database_is_refused(
    tmp_path: Path, founded: Founded, postgres: Postgres, database: str
) -> None:
    first, second = founded.homes
    second.set("storage", database=postgres.url(database))
    with processes(first) as (node,):
        await node.ready()
        with processes(second) as (other,):
            await until(lambda: not other.alive, what="the second node to end")
            assert "the ledger is in use" in other.words
        assert node.alive


async def test_a_node_without_its_lock_ends_with_the_reason_and_starts_again(
    tmp_path: Path, founded: Founded, postgres: Postgres, database: str
) -> None:
    first, _ = founded.homes
    with processes(*founded.homes) as (node, _):
        await node.ready()
        await publish(first, tmp_path / "one", "tests/one@v1")
        before = await converged(founded.homes, first, least=3)
        assert postgres.end(database, "pg_try_advisory_lock") == 1
        await until(lambda: not node.alive, what="the node to end")
        (said,) = (event for event in node.events if event["event"] == "own log ended: the node stops signing")
        assert said["code"] == "LEDGER-LOCK-LOST"
        assert "terminating connection due to administrator command" in str(said["why"])
        with processes(first) as (again,):
            await again.ready()
            await publish(first, tmp_path / "two", "tests/two@v1")
            await converged(founded.homes, first, least=size(before) + 1)
            assert again.alive


async def test_a_node_moves_from_sqlite_by_fetching_its_log_from_a_peer(
    tmp_path: Path, founded: Founded, postgres: Postgres
) -> None:
    first, second = founded.homes
    first.set("storage", database="")
    with processes(second) as (peer,):
        await peer.ready()
        with processes(first) as (on_file,):
            await on_file.ready()
            await publish(first, tmp_path / "one", "tests/one@v1")
            before = await converged(founded.homes, first, least=3)
            assert on_file.stop() == 0
        first.set("storage", database=postgres.url(postgres.database()))
        with processes(first) as (moved,):
            await moved.ready()
            await publish(first, tmp_path / "two", "tests/two@v1")
            await converged(founded.homes, first, least=size(before) + 1)
            events = [str(event["event"]) for event in moved.events]
    assert "this ledger is a copy: the node signs nothing before enough peers answered" in events
    assert "own log restored from a peer" in events
