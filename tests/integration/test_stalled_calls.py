"""I16: a peer that stalls any of its calls, in any way, makes no outcome of the others take longer than three times.

Whole nodes run on virtual time behind a network in memory: a case takes seconds, whatever it waits for. The calls are
those of the services' descriptors, of which the honest run shows which ones nodes make: a new call is stalled here as
soon as a node makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from attackers import ATTACKERS, Attacker, Known, Target
from attackers.hostile_node import HostileNode
from comity.rules.signing import sign_content
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import SideObject
from comity.trust.statements import Vouched
from comity.wire.publish import InlineObject
from comity.wire.services import SERVICES
from google.protobuf import descriptor_pool
from support.federation import NodeHome, found
from support.governing import Person, reseated
from support.memory_network import STALLS, MemoryNetwork, Stall, networked
from support.publisher import Publisher, model, release, send
from support.short_form import cases
from support.virtual_federation import VirtualFederation, when
from support.virtual_time import run

pytestmark = pytest.mark.slow

INTERVAL = 1.0
OBJECTS = 73
"""Side objects that the restored node lacks: as many as in the lab in which this was found."""
TIMES = 3.0
Stalls = Mapping[str, Stall]
"""By call."""


def all_calls() -> list[str]:
    """The calls of all services of `comity.v1`, by their descriptors."""
    pool = descriptor_pool.Default()
    return sorted({method.name for name in SERVICES for method in pool.FindServiceByName(name).methods})


@dataclass
class Played:
    """The virtual seconds until each outcome was there, and the calls that nodes made."""

    seconds: dict[str, float] = field(default_factory=dict)
    called: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Prepared:
    """The homes of three honest nodes and a hostile one that follow one another; the first log names the objects."""

    folder: Path
    homes: tuple[NodeHome, ...]
    body: Body
    publisher: Publisher

    def copied(self, to: Path) -> Prepared:
        shutil.copytree(self.folder, to, symlinks=True)
        homes = [NodeHome(to / home.directory.relative_to(self.folder), home.card) for home in self.homes]
        return replace(self, folder=to, homes=tuple(homes))


def data_of(number: int) -> bytes:
    return b"side object %d" % number


async def prepare(folder: Path) -> Prepared:
    founded = found(folder, 4, interval=INTERVAL, policy=(2, 2))
    publisher, nodes = Publisher.generate(), VirtualFederation()
    async with nodes.running(*founded.homes):
        third, *others = founded.homes
        hostile = nodes.first_peer(third, others)  # so that nothing is won by a lucky order
        first, second = (home for home in others if home is not hostile)
        homes = (first, second, third, hostile)
        items = [(data_of(number), SideObject.of(data_of(number))) for number in range(OBJECTS)]
        by = publisher.inception.author
        said = [Vouched(by, sha256(data), "evaluated", document=item) for data, item in items]
        lines = [publisher.announcement, *(sign_content(each, publisher.signer).line for each in said)]
        async with homes[0].client() as client:
            for start in range(0, len(lines), 16):
                part = [InlineObject(item.digest, data) for data, item in items[max(0, start - 1) : start + 15]]
                await client.submit(lines[start : start + 16], part)
        await when(lambda: all(nodes.follows(at, of) for at in homes for of in homes), "the logs")
    return Prepared(folder, homes, founded.federation.body, publisher)


class Script:
    """What the honest members do, and when its outcomes are there, beside a node that stalls some calls, or the node of
    an attacker of the library.
    """

    def __init__(
        self, prepared: Prepared, network: MemoryNetwork, stalls: Stalls, attackers: Sequence[Attacker]
    ) -> None:
        self._prepared = prepared
        self._network = network
        self._stalls = stalls
        self._attackers = attackers
        self._nodes = VirtualFederation()
        self._played = Played()

    async def play(self) -> Played:
        _, _, third, hostile = homes = self._prepared.homes
        backup = self._prepared.folder / "backup"
        shutil.copytree(third.directory, backup)
        members = homes[:3] if self._attackers else homes
        async with self._nodes.running(*(home for home in members if home is not third)):
            async with self._nodes.running(third):
                await when(lambda: all(self._nodes.follows(at, of) for at in members for of in members), "the logs")
                if self._attackers:
                    self._attack(hostile)
                self._network.stalled = dict.fromkeys((*hostile.card.mutual, *hostile.card.open), self._stalls)
                files = await self._copy()
                epoch = await self._decide()
                size = self._nodes.size(third, third)
            shutil.rmtree(third.directory)
            shutil.copytree(backup, third.directory)
            shutil.rmtree(third.config().storage.blobs)
            async with self._nodes.running(third):
                await self._restore(third, files, epoch, size)
        self._played.called = self._network.called
        return self._played

    def _attack(self, hostile: NodeHome) -> None:
        """Let attackers choose the answers of the hostile member's node, which shows the log that the others know."""
        first = self._prepared.homes[0]
        node = HostileNode(hostile.directory)
        node.log.lines = self._nodes.lines(first, hostile)
        node.have(*map(data_of, range(OBJECTS)))
        target = Target((), Known(), node)
        target.ended.set()  # what they hold is held until the script ends
        for attacker in self._attackers:
            attacker.attack(target)
        self._network.serve(node, *hostile.card.mutual, *hostile.card.open)

    @contextlib.asynccontextmanager
    async def _timed(self, **outcomes: Callable[[], object]) -> AsyncIterator[None]:
        begun = asyncio.get_running_loop().time()
        yield
        times = await asyncio.gather(*(when(holds, name) for name, holds in outcomes.items()))
        self._played.seconds |= {name: at - begun for name, at in zip(outcomes, times, strict=True)}

    async def _copy(self) -> tuple[Digest, ...]:
        """Publish an artifact, which all copy. Returns its files."""
        first, second, third, hostile = self._prepared.homes
        source = model(self._prepared.folder / "model", weights=9_000_000)
        what = release(self._prepared.publisher, source, "tests/model@v1")
        async with first.client() as client:
            await send(client, what)
        files, nodes = tuple(what.blobs), self._nodes
        async with self._timed(
            heads_advanced=lambda: nodes.follows(second, first) and nodes.follows(third, first),
            artifact_copied=lambda: nodes.stored(second, *files) and nodes.stored(third, *files),
        ):
            pass
        if not self._attackers:
            await when(lambda: nodes.stored(hostile, *files), "the copy of the hostile member")
        return files

    async def _decide(self) -> int:
        """The honest members, who are a quorum, adopt an epoch."""
        homes = self._prepared.homes[:3]
        people, before = [Person(home) for home in homes], self._prepared.body
        body = reseated(before, before.members)
        await people[0].say(people[0].drafting(body), bodies=[body])

        async def adopted() -> bool:
            for person in people:
                if self._nodes.epoch(person.home) < body.epoch:
                    await person.vote(body)
            return all(self._nodes.epoch(home) >= body.epoch for home in homes)

        async with self._timed(epoch_adopted=adopted):
            pass
        return body.epoch

    async def _restore(self, home: NodeHome, files: tuple[Digest, ...], epoch: int, size: int) -> None:
        objects = [sha256(data_of(number)) for number in range(OBJECTS)]
        async with self._timed(
            own_log_restored=lambda: self._nodes.size(home, home) >= size,
            side_objects_complete=lambda: self._nodes.stored(home, *objects),
            artifact_restored=lambda: self._nodes.stored(home, *files),
            epoch_followed=lambda: self._nodes.epoch(home) >= epoch,
        ):
            self._nodes.blobs_lost(home)


@functools.cache
def prepared() -> Prepared:
    with networked(MemoryNetwork()):
        return run(prepare(Path(tempfile.mkdtemp(prefix="stalls-"))))[0]


def played(stalls: Stalls, *attackers: Attacker) -> Played:
    network = MemoryNetwork()
    with networked(network), tempfile.TemporaryDirectory() as folder:
        return run(Script(prepared().copied(Path(folder) / "f"), network, stalls, attackers).play())[0]


@functools.cache
def honest() -> Played:
    return played({})


def late(beside: Played) -> dict[str, tuple[float, float]]:
    """The outcomes that took too long: without the stalling peer, and beside it. What takes a round takes two where it
    just missed one."""
    return {
        outcome: (seconds, beside.seconds[outcome])
        for outcome, seconds in honest().seconds.items()
        if beside.seconds[outcome] > TIMES * max(seconds, 2 * INTERVAL)
    }


def test_the_calls_that_nodes_make_are_calls_of_the_services() -> None:
    called = set(honest().called)
    assert called <= set(all_calls())
    assert {"ReadNews", "GetEntries", "GetObjects", "GetRecords", "Stat", "Read", "GetEpochs"} <= called


NAMED = [stall.name for stall in STALLS]
EACH_STALL = pytest.mark.parametrize("stall", STALLS, ids=NAMED)
SHORT = (
    "never answers",
    "after 0.9 of the deadline",
    "fast and late answers in turn",
    "answers that stop after their first byte",
    "late answers of every kind, a little within each limit",
)
"""Stalls and attackers of the short form."""


@pytest.mark.parametrize("stall", cases(STALLS, [each for each in STALLS if each.name in SHORT]), ids=NAMED)
def test_a_peer_that_stalls_every_call_delays_nobody(stall: Stall) -> None:
    assert not late(played(dict.fromkeys(all_calls(), stall)))


@pytest.mark.long
@EACH_STALL
@pytest.mark.parametrize("call", all_calls())
def test_a_peer_that_stalls_one_call_delays_nobody(call: str, stall: Stall) -> None:
    if call not in honest().called:
        pytest.skip("nodes do not make this call in the honest script")
    assert not late(played({call: stall}))


STALLING = [each for each in ATTACKERS.values() if each.attack.__module__ == "attackers.stalls"]


@pytest.mark.parametrize(
    "attacker",
    cases(STALLING, [each for each in STALLING if each.name in SHORT]),
    ids=[each.name for each in STALLING],
)
def test_an_attacker_that_stalls_delays_nobody(attacker: Attacker) -> None:
    assert not late(played({}, attacker))
