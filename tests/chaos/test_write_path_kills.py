"""SIGKILL at every step of the write path: publish (client and node), mirror (node), pull (client).

A process is killed at a point, started again, and repeats the operation. Nothing that was acknowledged is lost, no log
forks, cosigners converge, blobs verify, nothing that was verified is fetched again. A point that is not hit fails the
test.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.statement import Statement, Subject, sign_statement
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity_client.client import Client
from comity_client.home import Home
from huggingface_hub import scan_cache_dir
from support.federation import NodeHome, until
from support.killed_nodes import TWO_PIECES, WEIGHTS, World, made, retry
from support.publisher import Publisher as Somebody
from support.waiting import PATIENCE
from support.write_path import (
    AT_START,
    CLIENT_FILLS_A_CACHE,
    CLIENT_PINS,
    CLIENT_PUBLISHES,
    CLIENT_PULLS,
    IDENTITY,
    NODE_ADOPTS,
    NODE_MIRRORS,
    NODE_PUBLISHES,
    NODE_SCRUBS,
    NODE_STAGES,
    commits,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """The long form has more pieces, and so more instants between them at which to kill."""
    weights = WEIGHTS if request.node.get_closest_marker("long") else TWO_PIECES
    with made(tmp_path, weights) as world:
        yield world


def keep_publishing(world: World, victim: ForkServerProcess, *, link: bool = False, patience: float = PATIENCE) -> None:
    """Publish until the process is killed; the caller repeats a publication that failed, with the next process.

    Args:
        patience: seconds for which it may live after the fourth publication.
    """
    left = 4
    while world.up(world.homes[0], victim) and left:
        try:
            world.publish(link=link)
        except ComityError:
            time.sleep(0.05)
            continue
        world.source(fresh=True)
        left -= 1
    victim.join(patience)


def kill_while_publishing(world: World, points: Iterable[str], *, link: bool = False, sure: bool = True) -> None:
    """The first node is killed at each point in turn; the same publication is repeated with each next process.

    Args:
        sure: a point that is not reached is a failure; else the node lives on.
    """
    first = world.homes[0]
    for point in points:
        victim = world.start(first, point)
        keep_publishing(world, victim, link=link, patience=PATIENCE if sure else 20)
        if victim.is_alive() and not sure:
            world.stop(first)
            continue
        assert not victim.is_alive(), f"{point} was not hit"
        assert world.victims.died(victim, point)
    world.start(first)
    retry(world.publish)
    world.look()


def kill_while_mirroring(world: World, points: Iterable[str], *, sure: bool = True) -> None:
    """The second node is killed at each point in turn, during publications at the first one."""
    second = world.homes[1]
    for point in points:
        victim = world.start(second, point)
        for _ in range(4):
            if not world.up(second, victim):
                break
            world.source(fresh=True)
            retry(world.publish)
            victim.join(2)
        if victim.is_alive() and not sure:
            world.stop(second)
            continue
        victim.join(PATIENCE)
        assert not victim.is_alive(), f"{point} was not hit"
        assert world.victims.died(victim, point)
    world.start(second)


def test_a_node_is_killed_during_publications(world: World) -> None:
    world.start(world.homes[1])
    world.source(fresh=True)
    kill_while_publishing(world, [*AT_START, *NODE_PUBLISHES])
    kill_while_adopting(world)
    world.settled()


def kill_while_adopting(world: World) -> None:
    world.stop(world.homes[0])
    world.source(fresh=True)
    kill_while_publishing(world, NODE_ADOPTS, link=True)


def test_a_node_is_killed_while_it_mirrors(world: World) -> None:
    first, second = world.homes
    world.start(first)
    kill_while_mirroring(world, NODE_MIRRORS)
    world.settled()
    world.stop(second)
    asyncio.run(fatten(first))
    for point in NODE_STAGES:
        victim = world.start(second, point)
        victim.join(PATIENCE)
        assert world.victims.died(victim, point), f"{point} was not hit"
    world.settled()


def test_a_node_is_killed_while_it_stores_the_position_of_its_scrub(world: World) -> None:
    first, second = world.homes
    for point in NODE_SCRUBS:
        (first.directory / "data" / "scrub.json").unlink(missing_ok=True)
        victim = world.start(first, point)
        victim.join(PATIENCE)
        assert world.victims.died(victim, point), f"{point} was not hit"
    world.start(first)
    world.start(second)
    world.source(fresh=True)
    retry(world.publish)
    world.settled()


def test_nodes_that_were_stopped_and_just_started_again_have_lost_nothing(world: World) -> None:
    first, second = world.homes
    world.start(first)
    world.start(second)
    world.source(fresh=True)
    retry(world.publish)
    world.settled()
    world.stop(first)
    world.stop(second)
    world.settled()


async def fatten(home: NodeHome) -> None:
    """Log more than one step mirrors, and wait for the checkpoint over it."""
    somebody = Somebody.generate()
    async with home.client() as client:
        await client.submit([somebody.announcement])
        for batch in range(6):
            about = [sha256(b"%d" % number) for number in range(45 * batch, 45 * (batch + 1))]
            said = (
                Statement("noted", (Subject("", digest),), somebody.inception.author, {"text": "x" * 43_000})
                for digest in about
            )
            submitted = await client.submit([sign_statement(each, somebody.signer).line for each in said])
        last = submitted.receipts[-1].index

        async def covered() -> bool:
            note = SignedNote.parse(await client.checkpoint(home.origin))
            return Checkpoint.parse(note.text).size > last

        await until(covered, what="a checkpoint over all of it")


@pytest.mark.long
def test_a_node_that_mirrors_is_killed_while_it_starts(world: World) -> None:
    """The short form kills the node of `test_a_node_is_killed_during_publications` at these points."""
    world.start(world.homes[0])
    kill_while_mirroring(world, AT_START)
    world.settled()


@pytest.mark.long
def test_many_kills_at_every_point_of_the_nodes(world: World) -> None:
    chance = random.Random()
    first, second = world.homes
    world.start(second)
    world.source(fresh=True)
    for _ in range(5):
        points = [*commits("migrate", "create"), *NODE_PUBLISHES]
        kill_while_publishing(world, at_random(points, chance), sure=False)
        world.stop(second)
        kill_while_mirroring(world, at_random(NODE_MIRRORS, chance), sure=False)
        world.settled()
        world.stop(first)
    # Some points are passed once in the life of a node, so their second to fourth hits never come.
    kill_while_publishing(world, [point for point in NODE_PUBLISHES if not world.victims.killed[point]])
    world.stop(second)
    kill_while_mirroring(world, [point for point in NODE_MIRRORS if not world.victims.killed[point]])
    world.settled()
    assert all(world.victims.killed[point] for point in {*NODE_PUBLISHES, *NODE_MIRRORS}), "a point was never hit"


@pytest.mark.long
def test_many_kills_of_either_node_at_any_instant(world: World) -> None:
    chance = random.Random()
    for home in world.homes:
        world.start(home)
    for _ in range(100):
        world.source(fresh=True)
        publishing = threading.Thread(target=retry, args=(world.publish,))
        publishing.start()
        home = chance.choice(world.homes)
        time.sleep(chance.expovariate(2))
        world.running[home.name].kill()
        world.running[home.name].join()
        world.start(home)
        publishing.join()
        world.look()
    world.settled()


@pytest.mark.long
def test_many_kills_of_a_pull_at_any_instant(world: World) -> None:
    chance = random.Random()
    for home in world.homes:
        world.start(home)
    source, name = world.source(fresh=True)
    retry(world.publish)
    world.settled()
    expected = {path.name: path.read_bytes() for path in source.iterdir()}
    for turn in range(100):
        user_home, to = world.folder / f"user-{turn}", world.folder / f"pulled-{turn}"
        user = Client(Home(user_home))
        user.pin(world.federation)
        for _ in range(3):
            victim = world.victims.start("", world.folder / "client.log", pull_once, user_home, name, to, None)
            time.sleep(chance.uniform(0, 1))
            victim.kill()
            victim.join()
            assert all(path.read_bytes() == expected[path.name] for path in placed(to)), "something unverified"
        user.pull(name, to=to)
        assert {path.name: path.read_bytes() for path in placed(to)} == expected
        assert user.verify(to).exit_status == 0
        shutil.rmtree(to)


def at_random(points: Sequence[str], chance: random.Random) -> list[str]:
    return [f"{point}:{chance.randint(1, 4)}" for point in chance.sample(points, len(points))]


def make_identity(home: Path, federation: bytes, origin: str) -> None:
    client = Client(Home(home))
    client.pin(federation)
    if not client.publishers():
        client.new_publisher("tests", "NO", origin)


def publish_once(home: Path, source: Path, name: str, node: str) -> None:
    client = Client(Home(home))
    client.publish(source, name, publisher=client.publishers()[0], licence="MIT", nodes=[node])


def pull_once(home: Path, name: str, to: Path | None, cache: Path | None) -> None:
    client = Client(Home(home), limits=TransferLimits(streams=2))
    if to is not None:
        client.pull(name, to=to)
    else:
        client.pull(name, hub_cache=cache)


def die(world: World, point: str, work: Callable[..., None], *arguments: object) -> None:
    victim = world.victims.start(point, world.folder / "client.log", work, *arguments)
    victim.join(PATIENCE)
    assert world.victims.died(victim, point), f"{point} was not hit"


def test_a_client_is_killed_while_it_publishes(world: World) -> None:
    first, second = world.homes
    world.start(first)
    world.start(second)
    for point in [*CLIENT_PINS, *IDENTITY]:
        home = world.folder / point
        die(world, point, make_identity, home, world.federation, first.origin)
        make_identity(home, world.federation, first.origin)
        assert len(Client(Home(home)).publishers()) == 1
    world.agreed(first, least=2)
    for point in CLIENT_PUBLISHES:
        source, name = world.source(fresh=True)
        die(world, point, publish_once, world.publisher_home.root, source, name, first.name)
        world.publish()
        world.look()
    world.settled()


def test_a_client_is_killed_while_it_pulls(world: World) -> None:
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
        if point.startswith("link."):  # all links are renamed together: the try before has left none to be made
            for link in cache.glob("models--*/snapshots/*/*"):
                if link.is_symlink():
                    link.unlink()
        die(world, point, pull_once, home, name, None, cache)
    cached = user.pull(name, hub_cache=cache)
    assert {path.name: path.read_bytes() for path in placed(cached.folder)} == expected
    assert user.verify(name, hub_cache=cache).exit_status == 0
    assert not scan_cache_dir(cache).warnings


def test_a_pull_killed_between_pieces_fetches_only_unfinished_pieces(world: World) -> None:
    first, second = world.homes
    world.weights = WEIGHTS
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
    assert pulled.tally.resumed >= (kept - 1) * PIECE_SIZE, "a piece that was verified was lost"
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
