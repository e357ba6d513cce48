"""The attackers that claim space for copies, on virtual time: an honest artifact that fits the disk beside what one
member may use is copied by all within three times its honest time, and copies for one member use its share at most.

Without the defences each of these attackers does harm: an attacker that changes nothing even then would test nothing.
"""

from __future__ import annotations

import asyncio
import functools
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from attackers import ATTACKERS, Attacker, Known, Target
from attackers.hostile_node import HostileNode
from attackers.space_claims import PIECE
from comity.content.blobs import FolderStore
from comity.node.replication import setup
from comity.node.replication.copy_admission import CopyAdmission
from comity.trust.errors import OutOfSpace
from interference.federation import DISK, SPARE, free_of_disk
from support.federation import NodeHome, found
from support.memory_network import MemoryNetwork, networked
from support.publisher import Publisher, model, release, send
from support.virtual_federation import VirtualFederation, when
from support.virtual_time import run

pytestmark = pytest.mark.slow

INTERVAL = 1.0
SIZE = 4 * PIECE
"""Of the honest artifacts: more than a member's part of the space, and less than what one member may use."""
PATIENCE = 12.0
"""Virtual seconds that an honest copy is waited for."""
HEAD_START = 3.0
"""Virtual seconds that go by after each node has the attacker's log, before the honest artifact comes."""
SHARE = (DISK - SPARE) * 3 // 8
"""What one of four members may use while the others use nothing: its part, and half of the common half."""
TIMES = 3.0
FAST = frozenset(("claims of all free space that receive a few bytes",))
"""Attackers of the fast form."""
CLAIMING = [each for each in ATTACKERS.values() if each.attack.__module__ == "attackers.space_claims"]


HARMLESS = frozenset(
    (
        "claims of more bytes than any disk has",
        "one artifact under many names, and each of its files in a hundred others",
    )
)
"""Attackers that do no harm without the defences either: other rules, which were there before, hold them off."""


@dataclass(frozen=True)
class Copied:
    """Virtual seconds until all honest nodes had an artifact: before the attack, and beside it; infinite if some had it
    not after `PATIENCE`. `beyond`: bytes that copies for the hostile member use at a node beyond its share there."""

    before: float
    beside: float
    beyond: int

    @property
    def harm(self) -> dict[str, object]:
        """What no attacker may reach."""
        late = {"late": (self.before, self.beside)} if self.beside > TIMES * max(self.before, INTERVAL) else {}
        return late | ({"beyond its share": self.beyond} if self.beyond > 0 else {})


@contextmanager
def small_disks() -> Iterator[None]:
    """Each store has a disk of `DISK` bytes of its own, and copies are admitted on virtual time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FolderStore, "free_bytes", free_of_disk)
        patched.setattr(setup, "monotonic", lambda: asyncio.get_running_loop().time())
        yield


@functools.cache
def prepared() -> tuple[Path, tuple[NodeHome, ...]]:
    folder = Path(tempfile.mkdtemp(prefix="space-"))
    homes = found(folder, 4, interval=INTERVAL, policy=(2, 2)).homes
    for home in homes:
        home.set("storage", reserve_bytes=SPARE // 8)
        home.set("replication", stop_free_bytes=SPARE, resume_free_bytes=2 * SPARE)
    return folder, homes


async def play(folder: Path, homes: tuple[NodeHome, ...], network: MemoryNetwork, attacker: Attacker) -> Copied:
    *honest, hostile = homes
    nodes, clock = VirtualFederation(), asyncio.get_running_loop().time
    async with nodes.running(*honest):
        before = await published(nodes, honest, folder, 0)
        node = HostileNode(hostile.directory)
        target = Target((), Known(), node)
        target.ended.set()  # what it holds is held until the nodes end
        attacker.attack(target)
        network.serve(node, *hostile.card.mutual, *hostile.card.open)
        lines = len(node.log.lines)
        start = await when(lambda: all(nodes.size(home, hostile) >= lines for home in honest), "the log") + HEAD_START
        await when(lambda: clock() > start, "the head start")
        beside = await published(nodes, honest, folder, 1)
        used = max(nodes.copies_for(home, hostile).used for home in honest)
    return Copied(before, beside, used - SHARE)


async def published(nodes: VirtualFederation, honest: list[NodeHome], folder: Path, at: int) -> float:
    """Publish an artifact at one node. Returns the virtual seconds until all honest nodes have it."""
    what = release(Publisher.generate(), model(folder / f"model-{at}", weights=SIZE, seed=at), f"tests/model-{at}@v1")
    try:
        async with honest[at].client() as client:
            await send(client, what)
    except OutOfSpace:
        return math.inf
    begun, files = asyncio.get_running_loop().time(), tuple(what.blobs)
    try:
        return await when(lambda: all(nodes.stored(home, *files) for home in honest), "the copies", PATIENCE) - begun
    except AssertionError:
        return math.inf


@contextmanager
def undefended() -> Iterator[None]:
    """The rules of before: what is claimed first is promised until it ends, for any member."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CopyAdmission, "_most", lambda self, member, uses: 1 << 62)
        patched.setattr(CopyAdmission, "_idle", lambda self, now: [])
        patched.setattr(CopyAdmission, "_measure", lambda self, copy, now: None)
        patched.setattr(CopyAdmission, "_give_way", lambda self: None)
        yield


def copied(attacker: Attacker) -> Copied:
    network, (folder, homes) = MemoryNetwork(), prepared()
    with networked(network), small_disks(), tempfile.TemporaryDirectory() as name:
        to = Path(name) / "f"
        shutil.copytree(folder, to, symlinks=True)
        own = tuple(NodeHome(to / home.directory.relative_to(folder), home.card) for home in homes)
        return run(play(to, own, network, attacker))[0]


EACH = [pytest.param(each, id=each.name, marks=[] if each.name in FAST else [pytest.mark.long]) for each in CLAIMING]


@pytest.mark.parametrize("attacker", EACH)
def test_claims_of_space_delay_no_copy_and_use_no_more_than_the_member_s_share(attacker: Attacker) -> None:
    assert not copied(attacker).harm


@pytest.mark.long
@pytest.mark.parametrize("attacker", EACH)
def test_without_the_defences_these_claims_do_harm(attacker: Attacker) -> None:
    with undefended():
        assert bool(copied(attacker).harm) is (attacker.name not in HARMLESS)
