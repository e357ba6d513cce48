"""Space for copies: what one member promises, reuses or lets wait costs only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.replication.copy_admission import AdmissionLimits
from comity.node.replication.copy_charges import SHARE, ChargedTo, CopyCharges, Received
from comity.node.threads import Pools
from comity.node.uploads import Want, missing_files
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace, Unavailable
from support.copy_charges import made_charges
from support.logs import LogKeys

KIB = 1 << 10
SPACE = 4_096 * KIB
"""Of four members: each has a part of 512 KiB, and one alone 512 + 1024."""
LIMITS = AdmissionLimits(stop=0, step=16 * KIB, in_flight=8 * KIB, horizon=60.0)
OWN = LogKeys.generate("own.example/log")
MEMBERS = {"hostile": "Hostile", "honest": "Honest", "third": "Third", "own": "Own"}


class Disk(FolderStore):
    """A disk on which only this store writes; `others` are bytes of others."""

    others = 0

    def free_bytes(self) -> int | None:
        used = sum(path.stat().st_size for path in self.partial_path(sha256(b"")).parent.iterdir() if path.is_file())
        return max(0, SPACE - self.others - used)


def artifact(name: str, size: int) -> Manifest:
    return Manifest.of([FileEntry("w", size, sha256(name.encode()))])


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1_000.0
        self.ledger = Ledger.open(folder, lambda: 0)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.store = Disk(folder / "blobs")
        self.pools = Pools()
        self.charges = self.made()

    def made(self) -> CopyCharges:
        return made_charges(
            self.ledger,
            self.store,
            self.pools,
            limits=LIMITS,
            members=MEMBERS,
            own_log=OWN.vkey,
            now=lambda: self.now,
        )

    async def begin(self) -> None:
        basis = sha256(b"basis")
        await self.charges.load(basis)
        await self.charges.count_done(basis)

    @asynccontextmanager
    async def copying(self, member: str, name: str, size: int) -> AsyncIterator[Received]:
        what = artifact(name, size)
        missing = missing_files(self.store, what)
        async with self.charges.admitted(what.digest, ChargedTo("", (member,)), name, what, missing) as received:
            yield received

    async def copy(self, member: str, name: str, size: int, *, by: int | None = None) -> None:
        """A whole copy: its bytes arrive, or are found in other files here, and are written."""
        async with self.copying(member, name, size) as received:
            want = Want(sha256(name.encode()), size, "w")
            written = 0
            while written < size:
                count = min(by or size, size - written)
                with self.store.partial_path(want.digest).open("ab") as file:
                    file.write(b"x" * count)
                written += count
                received(count)
                await asyncio.sleep(0)

    def use(self, member: str) -> tuple[int, int]:
        """Bytes stored for, and promised to, copies of a member."""
        found = {space.member: space for space in self.charges.spaces()}[member]
        return found.stored, found.promised

    async def later(self, seconds: float) -> None:
        self.now += seconds
        await self.charges.look()
        await asyncio.sleep(0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.pools.close()
    made.ledger.close()


async def test_a_claim_of_all_free_space_promises_nothing_and_delays_no_other(bench: Bench) -> None:
    await bench.begin()
    with pytest.raises(OutOfSpace) as refused:
        async with bench.copying("hostile", "as large as the disk", SPACE):
            raise AssertionError("it was admitted")
    assert refused.value.code == SHARE
    await bench.copy("honest", "model", 512 * KIB)
    assert bench.use("hostile") == (0, 0)


async def test_many_promises_leave_each_other_member_its_part(bench: Bench) -> None:
    await bench.begin()
    async with AsyncExitStack() as held:
        for number in range(64):
            try:
                await held.enter_async_context(bench.copying("hostile", f"promised {number}", 100 * KIB))
            except OutOfSpace as refused:
                assert refused.code == "OUT-OF-SPACE", "what is only promised does not make it wait for good"
        assert sum(bench.use("hostile")) <= (512 + 1_024) * KIB
        for member in ("honest", "third", "own"):
            await bench.copy(member, f"model of {member}", 512 * KIB)


async def test_a_large_copy_takes_the_promise_of_one_that_receives_nothing(bench: Bench) -> None:
    await bench.begin()
    ended: list[OutOfSpace] = []

    async def dribble() -> None:
        try:
            async with bench.copying("hostile", "promised", 1_500 * KIB) as received:
                received(2)
                await asyncio.Event().wait()
        except OutOfSpace as error:
            ended.append(error)

    stalled = asyncio.create_task(dribble())
    while not bench.use("hostile")[1]:
        await asyncio.sleep(0)
    with pytest.raises(OutOfSpace):
        await bench.copy("honest", "large", 1_400 * KIB)
    await bench.later(10.0)
    assert bench.use("hostile")[1] <= LIMITS.step + 12
    await bench.copy("honest", "large", 1_400 * KIB)
    await bench.later(60.0)
    await stalled
    assert [error.code for error in ended] == ["COPY-SPACE"]
    assert bench.use("hostile") == (0, 0)


async def test_a_member_that_was_silent_gets_short_promises_only(bench: Bench) -> None:
    await bench.begin()
    for number in range(3):
        stalled = asyncio.create_task(stall(bench, f"promised {number}"))
        while not bench.use("hostile")[1]:
            await asyncio.sleep(0)
        for _ in range(8):
            await bench.later(10.0)
        await stalled
    async with bench.copying("hostile", "once more", 1_000 * KIB) as received:
        assert bench.use("hostile")[1] == LIMITS.step
        received(4 * KIB)
        received(8 * KIB)
        assert bench.use("hostile")[1] == LIMITS.step, "it keeps a step ahead of what arrives"


async def stall(bench: Bench, name: str) -> None:
    try:
        async with bench.copying("hostile", name, 1_000 * KIB):
            await asyncio.Event().wait()
    except OutOfSpace as error:
        assert error.code == "COPY-SPACE"


async def test_copies_of_reused_pieces_are_charged_like_received_ones(bench: Bench) -> None:
    """201 bytes that were sent once made a node write 314 MB."""
    await bench.begin()
    written = 0
    for number in range(100):
        try:
            await bench.copy("hostile", f"made of pieces that are here {number}", 100 * KIB)
            written += 100 * KIB
        except OutOfSpace as refused:
            assert refused.code == SHARE
    assert written <= (512 + 1_024) * KIB
    for member in ("honest", "third"):
        await bench.copy(member, f"model of {member}", 512 * KIB)
    bench.charges = bench.made()
    await bench.begin()
    assert bench.use("hostile") == (written, 0), "a restart knows it"


async def test_a_copy_that_failed_is_charged_for_what_of_it_is_on_the_disk(bench: Bench) -> None:
    await bench.begin()
    with pytest.raises(Unavailable):
        async with bench.copying("hostile", "broken", 100 * KIB):
            bench.store.partial_path(sha256(b"broken")).write_bytes(b"x" * 12 * KIB)
            raise Unavailable("the source is gone")
    assert bench.use("hostile") == (12 * KIB, 0)
    copying = asyncio.create_task(stall(bench, "cancelled"))
    while not bench.use("hostile")[1]:
        await asyncio.sleep(0)
    copying.cancel()
    await asyncio.gather(copying, return_exceptions=True)
    assert bench.use("hostile") == (12 * KIB, 0)


async def test_what_waits_for_its_member_s_room_is_taken_when_there_is_some(bench: Bench) -> None:
    await bench.begin()
    for number in range(15):
        await bench.copy("honest", f"model {number}", 100 * KIB)
    large = artifact("next", 300 * KIB)
    with pytest.raises(OutOfSpace) as refused:
        await bench.copy("honest", "next", 300 * KIB)
    assert refused.value.code == SHARE
    (example,) = await bench.charges.examples(9)
    assert (example.artifact, example.code, bench.charges.waiting) == (large.digest, SHARE, 1)
    assert any("Honest publishes wait for room" in text for text in bench.charges.warnings())
    assert await bench.charges.take_fitting() == []
    for number in range(4):
        bench.store.partial_path(sha256(b"model %d" % number)).unlink()
    await bench.charges.withdrawn([artifact(f"model {number}", 100 * KIB).digest for number in range(4)])
    await bench.charges.look()
    assert await bench.charges.take_fitting() == [large.digest]
    await bench.copy("honest", "next", 300 * KIB)


async def test_an_artifact_of_several_members_is_charged_to_the_one_with_most_room(bench: Bench) -> None:
    await bench.begin()
    for number in range(15):
        await bench.copy("hostile", f"junk {number}", 100 * KIB)
    what = artifact("claimed by both", 400 * KIB)
    charge = ChargedTo("", ("hostile", "honest"))
    async with bench.charges.admitted(what.digest, charge, "name", what, missing_files(bench.store, what)):
        assert bench.use("honest") == (0, 400 * KIB)


async def test_a_file_that_is_here_costs_nothing(bench: Bench) -> None:
    await bench.begin()
    bench.store.put(sha256(b"weights"), b"weights")
    shared = Manifest.of([FileEntry("w", 7, sha256(b"weights")), FileEntry("v", 5, sha256(b"notes"))])
    missing = missing_files(bench.store, shared)
    async with bench.charges.admitted(shared.digest, ChargedTo("", ("honest",)), "name", shared, missing):
        assert bench.use("honest") == (0, 5)
    assert bench.use("honest") == (5, 0)
