"""Small files in batches, from sources in memory, honest and not: the real transfer runs against them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import pytest
from comity.transfer import batches, scheduler
from comity.transfer.batches import SmallFile, cut, fetch_batches
from comity.transfer.fetch import FetchOptions, FetchResult
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.wire import limits
from support.sources import source_key

QUICK = TransferLimits(read_timeout=0.2, patience=5.0, first_delay=0.01, max_delay=0.05)
PATIENT = TransferLimits(read_timeout=60.0)


def contents(count: int, size: int = 1_000) -> dict[Digest, bytes]:
    """That many files of different sizes around `size`, the same in every run."""
    made = random.Random(count)
    return {sha256(data): data for data in (made.randbytes(size + made.randrange(-9, 9)) for _ in range(count))}


FILES = contents(600)


class Node:
    """Has files, and gives those that are asked."""

    def __init__(self, name: str, files: Mapping[Digest, bytes] = FILES) -> None:
        self.name = name
        self.key = self.host = source_key(name)
        self.files = files
        self.calls: list[Sequence[Digest]] = []
        self.open = 0

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        self.calls.append(digests)
        self.open += 1
        try:
            async for found in self.answer(digests):
                yield found
                await asyncio.sleep(0)
        finally:
            self.open -= 1

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        for digest in digests:
            if digest in self.files:
                yield digest, self.files[digest]


class Omitting(Node):
    """Leaves out the last file of each call."""

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        async for found in super().answer(digests[:-1]):
            yield found


class Forging(Node):
    """Sends other bytes under the digests; the wire's check of them is left to the transfer."""

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        async for digest, data in super().answer(digests):
            yield digest, bytes(len(data))


class Cutting(Node):
    """Sends the last file without its end."""

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        async for digest, data in super().answer(digests):
            yield digest, data[:-1] if digest == digests[-1] else data


class Endless(Node):
    """Sends more files than asked, and does not stop."""

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        while True:
            async for found in super().answer(digests):
                yield found


class Stalling(Node):
    """Sends the first half of a call, and nothing more."""

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        async for found in super().answer(digests[: len(digests) // 2]):
            yield found
        await asyncio.Event().wait()


class Failing(Node):
    """Raises `error()` at the start of the first `times` calls."""

    def __init__(self, name: str, error: Callable[[], ComityError], times: int = 1_000_000) -> None:
        super().__init__(name)
        self.error = error
        self.times = times

    async def answer(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        self.times -= 1
        if self.times >= 0:
            raise self.error()
        async for found in super().answer(digests):
            yield found


def busy() -> Refused:
    error = Refused("too many calls", code="RATE")
    error.retry_after = 0.02
    return error


class Kept:
    """What arrived: `files`, and the source that each file is counted for."""

    def __init__(self) -> None:
        self.files: dict[Digest, bytes] = {}
        self.sources: dict[Digest, str] = {}

    def arrived(self, files: Sequence[SmallFile], source: str) -> None:
        assert self.sources.keys().isdisjoint(file.digest for file in files), "counted once"
        self.sources |= {file.digest: source for file in files}


async def fetch(
    sources: Sequence[Node], kept: Kept, files: Mapping[Digest, bytes] = FILES, *, transfer: TransferLimits = QUICK
) -> FetchResult:
    wanted = [SmallFile(digest, len(data)) for digest, data in files.items()]
    return await fetch_batches(
        wanted, sources, kept.files.update, on_kept=kept.arrived, options=FetchOptions(limits=transfer)
    )


def test_batches_are_for_one_call_and_one_piece_each() -> None:
    few = [SmallFile(sha256(b"%d" % number), limits.SMALL_OBJECT) for number in range(4)]
    assert cut(few) == [few]
    many = [SmallFile(sha256(b"%d" % number), 11_000) for number in range(2_500)]
    large = [SmallFile(sha256(b"%d" % number), limits.SMALL_OBJECT) for number in range(900)]
    for files in (many, large):
        made = cut(files)
        assert [file for batch in made for file in batch] == files
        assert max(map(len, made)) <= limits.OBJECTS
        assert max(sum(file.size for file in batch) for batch in made) <= PIECE_SIZE
    assert len(cut(many)) == 10


async def test_a_few_small_files_are_one_call_to_one_source() -> None:
    kept, nodes, files = Kept(), [Node("a"), Node("b")], dict(list(FILES.items())[:4])
    fetched = await fetch(nodes, kept, files)
    assert (kept.files, len(nodes[0].calls) + len(nodes[1].calls)) == (files, 1)
    assert sum(fetched.bytes_by_source.values()) == sum(map(len, files.values()))


async def test_several_sources_share_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 30_000)
    monkeypatch.setattr(scheduler, "SOONER", 0.0)  # a machine that is busy for a moment doubles no request
    kept, nodes = Kept(), [Node("a"), Node("b"), Node("c")]
    fetched = await fetch(nodes, kept, transfer=PATIENT)  # a machine that is busy for a moment replaces no source
    assert kept.files == FILES
    assert kept.sources.keys() == FILES.keys()
    assert set(kept.sources.values()) == {"a", "b", "c"}
    assert (fetched.dropped, fetched.refetched) == ({}, 0)
    assert sum(len(node.calls) for node in nodes) == len(cut([SmallFile(d, len(data)) for d, data in FILES.items()]))


@pytest.mark.parametrize("liar", [Omitting, Forging, Cutting, Endless])
async def test_a_lying_source_costs_a_batch_and_is_dropped(liar: type[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 30_000)
    kept, false, honest = Kept(), liar("liar"), Node("honest")
    fetched = await fetch([false, honest], kept)
    assert kept.files == FILES
    assert ("liar" in kept.sources.values()) == (liar is Endless), "which sends what was asked first"
    assert {source.value for source in fetched.dropped} == {"liar"}
    assert len(false.calls) <= 2, "a source has at most two requests"
    assert false.open == 0


async def test_a_source_that_stalls_is_replaced_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 30_000)
    kept, slow = Kept(), Stalling("slow")
    fetched = await fetch([slow, Node("honest")], kept)
    assert (kept.files, set(kept.sources.values())) == (FILES, {"honest"})
    assert fetched.dropped == {}, "it may be the last one"
    assert slow.open == 0


async def test_what_one_source_lacks_another_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 30_000)
    half = dict(list(FILES.items())[:300])
    kept = Kept()
    await fetch([Node("half", half), Node("honest")], kept)
    assert kept.files == FILES


@pytest.mark.parametrize("error", [busy, lambda: Unavailable("not now")], ids=["rate", "failure"])
async def test_a_source_that_cannot_answer_now_is_asked_again(error: Callable[[], ComityError]) -> None:
    kept = Kept()
    fetched = await fetch([Failing("a", error, times=3)], kept)
    assert (kept.files, fetched.dropped) == (FILES, {})
    assert bool(fetched.faults) == (error is not busy)


@pytest.mark.parametrize(
    ("sources", "error"),
    [
        pytest.param([], Unavailable, id="none"),
        pytest.param([Node("a", {}), Node("b", {})], NotFound, id="nobody has them"),
        pytest.param([Failing("a", lambda: Refused("no"))], Refused, id="refused"),
        pytest.param([Failing("a", lambda: Untrusted("other bytes", code="DIGEST"))], Unavailable, id="other bytes"),
        pytest.param([Failing("a", lambda: Unavailable("old", code="UNIMPLEMENTED"))], NotFound, id="an older version"),
    ],
)
async def test_where_no_source_gives_them_the_transfer_fails_at_once(
    sources: Sequence[Node], error: type[ComityError]
) -> None:
    with pytest.raises(error):
        await fetch(sources, Kept())


async def test_what_arrived_before_a_failure_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST", 30_000)
    kept, half = Kept(), dict(list(FILES.items())[:300])
    with pytest.raises(NotFound):
        await fetch([Node("half", half)], kept)
    assert kept.files
    assert kept.files.items() <= FILES.items()
    assert kept.sources.keys() == kept.files.keys()


async def test_a_fault_of_this_machine_is_not_blamed_on_a_source() -> None:
    def full(files: Mapping[Digest, bytes]) -> None:
        raise OutOfSpace("the disk is full")

    wanted = [SmallFile(digest, len(data)) for digest, data in FILES.items()]
    with pytest.raises(OutOfSpace):
        await fetch_batches(wanted, [Node("a")], full, options=FetchOptions(limits=QUICK))
