"""The real transfer with sources in memory: one honest source and a partial file are enough."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comity import hashing
from comity.hashing import INITIAL_STATE
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.links import SourceHealth
from comity.transfer.pieces import WantedFile
from comity.transfer.receiver import PartialFile
from comity.transfer.sources import BlobSource, LocalSource, SourceKey
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from support.sources import (
    PIECE_SIZE,
    QUICK,
    Dripping,
    Empty,
    Endless,
    Failing,
    Liar,
    MemorySource,
    Short,
    Silent,
    cut,
    named,
    wanted,
    weights,
)

DATA = weights(40)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "partial"


async def fetch(
    sources: list[BlobSource], into: Path, *, data: bytes = DATA, limits: TransferLimits = QUICK
) -> FetchResult:
    fetched = await fetch_file(wanted(data), sources, into, options=FetchOptions(limits=limits, jitter=lambda: 0.5))
    assert into.read_bytes() == data
    counted = sum(fetched.bytes_by_source.values()) + fetched.resumed + fetched.reused
    assert counted == len(data)
    assert len(asyncio.all_tasks()) == 1, "a task was left behind"
    return fetched


async def test_one_source_is_enough(into: Path) -> None:
    fetched = await fetch([MemorySource("a", DATA)], into, limits=TransferLimits(read_timeout=60.0))
    assert named(fetched.bytes_by_source) == {"a": len(DATA)}
    assert (fetched.refetched, named(fetched.dropped), named(fetched.faults)) == (0, {}, {})


async def test_several_sources_share_the_work(into: Path) -> None:
    sources = [MemorySource(name, DATA, pause=0.001) for name in "abc"]
    fetched = await fetch(list(sources), into)
    assert set(named(fetched.bytes_by_source)) == {"a", "b", "c"}


async def test_a_fast_source_is_asked_in_long_runs(into: Path) -> None:
    source = MemorySource("a", DATA)
    await fetch([source], into)
    assert max(length for _, length in source.asked) > 10 * PIECE_SIZE


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE, PIECE_SIZE + 1])
async def test_small_files_are_files_too(into: Path, size: int) -> None:
    data = DATA[:size]
    await fetch([MemorySource("a", data)], into, data=data)


async def test_progress_adds_up_to_the_size(into: Path) -> None:
    steps: list[int] = []
    await fetch_file(
        wanted(DATA), [MemorySource("a", DATA)], into, on_progress=steps.append, options=FetchOptions(limits=QUICK)
    )
    assert sum(steps) == len(DATA) and len(steps) == 40


async def test_a_lying_source_is_dropped_at_its_first_bad_piece_and_named(into: Path) -> None:
    liar = Liar("liar", DATA)
    fetched = await fetch([liar, MemorySource("honest", DATA)], into)
    assert named(fetched.bytes_by_source) == {"honest": len(DATA)}
    assert "wrong bytes" in named(fetched.dropped)["liar"]
    assert len(liar.asked) <= 2, "the second request was open already"
    assert liar.streams == 0


async def test_one_bad_piece_among_good_ones_is_detected(into: Path) -> None:
    fetched = await fetch([Liar("liar", DATA, pieces=range(10, 40)), MemorySource("honest", DATA, pause=0.001)], into)
    assert named(fetched.bytes_by_source)["liar"] >= PIECE_SIZE, "its correct pieces count"
    assert named(fetched.dropped)["liar"].startswith("wrong bytes: piece ")


async def test_six_lying_sources_cannot_outvote_an_honest_one(into: Path) -> None:
    liars = [Liar(f"liar-{number}", DATA) for number in range(6)]
    fetched = await fetch([*liars, MemorySource("honest", DATA)], into)
    assert len(named(fetched.dropped)) == 6


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (Short("x", DATA), "wrong length: the answer is too short"),
        (Endless("x", DATA), "wrong length: more bytes than requested"),
        (Empty("x", DATA), "empty message: the source sent a message without bytes"),
        (Silent("x", DATA), "timeout: no byte for 0.1 s"),
        (Failing("x", DATA, lambda: Unavailable("busy")), "busy"),
        (Failing("x", DATA, lambda: ConnectionResetError(104, "reset by peer")), "connection lost: reset by peer"),
    ],
)
async def test_a_faulty_source_is_named_with_its_reason_and_not_waited_for(
    into: Path, faulty: MemorySource, reason: str
) -> None:
    fetched = await fetch([faulty, MemorySource("honest", DATA, pause=0.005)], into)
    assert reason in named(fetched.faults)["x"]
    assert named(fetched.dropped) == {}, "it may recover"
    assert faulty.streams == 0


async def test_a_source_without_the_file_is_asked_once(into: Path) -> None:
    absent = Failing("absent", DATA, lambda: NotFound("not here"))
    fetched = await fetch([absent, MemorySource("honest", DATA, pause=0.001)], into)
    assert named(fetched.dropped) == {"absent": "not here"}
    assert len(absent.asked) <= 2


async def test_a_source_that_limits_its_calls_is_waited_for_and_not_at_fault(into: Path) -> None:
    def busy() -> Refused:
        error = Refused("too many calls", code="RATE")
        error.retry_after = 0.02
        return error

    fetched = await fetch([Failing("a", DATA, busy, times=5)], into, limits=TransferLimits(read_timeout=60.0))
    assert (into.read_bytes(), fetched.dropped, fetched.faults) == (DATA, {}, {})


async def test_a_source_that_becomes_silent_in_the_middle_is_replaced(into: Path) -> None:
    fetched = await fetch([Silent("dying", DATA, budget=len(DATA) // 3), MemorySource("b", DATA, pause=0.001)], into)
    assert named(fetched.bytes_by_source)["dying"] > 0


async def test_when_all_sources_are_down_for_a_while_the_transfer_waits(into: Path) -> None:
    sources = [Failing(name, DATA, lambda: Unavailable("restarting"), times=4) for name in "ab"]
    fetched = await fetch(list(sources), into)
    assert named(fetched.faults) == {"a": ("restarting",), "b": ("restarting",)}


async def test_the_last_source_is_never_dropped_for_silence(into: Path) -> None:
    class Hiccup(MemorySource):
        async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            if len(self.asked) % 2 == 0:
                self.asked.append((offset, length))
                await asyncio.Event().wait()
            async for part in super().read(digest, offset, length):
                yield part

    data = weights(3)
    await fetch([Hiccup("a", data)], into, data=data, limits=replace(QUICK, read_timeout=0.02))


async def test_without_any_bytes_the_transfer_ends_when_its_patience_does(into: Path) -> None:
    limits = replace(QUICK, patience=0.2, read_timeout=0.02)
    with pytest.raises(Unavailable, match="a: timeout") as failure:
        await fetch_file(wanted(DATA), [Silent("a", DATA)], into, options=FetchOptions(limits=limits))
    assert failure.value.code == "PATIENCE"


async def test_very_slow_sources_cannot_keep_an_honest_one_out(into: Path) -> None:
    data = weights(6)
    drips = [Dripping(f"drip-{number}", data, every=0.02) for number in range(12)]
    limits = replace(QUICK, read_timeout=0.2, patience=60.0)
    fetched = await fetch([*drips, MemorySource("honest", data)], into, data=data, limits=limits)
    assert named(fetched.bytes_by_source) == {"honest": len(data)}


async def test_the_last_source_may_correct_a_bad_piece(into: Path) -> None:
    fetched = await fetch([Liar("a", DATA, pieces=[5], times=1)], into)
    assert named(fetched.faults) == {"a": ("wrong bytes: piece 5 does not match its hash",)}
    assert named(fetched.dropped) == {}
    assert fetched.refetched >= PIECE_SIZE


async def test_an_only_source_that_lies_is_refused_by_name(into: Path) -> None:
    class Inventive(MemorySource):
        async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            yield len(self.asked).to_bytes(8, "big") + self.data[offset + 8 : offset + length]

    with pytest.raises(Untrusted, match="inventor") as refusal:
        await fetch_file(wanted(DATA), [Inventive("inventor", DATA)], into, options=FetchOptions(limits=QUICK))
    assert refusal.value.code == "BAD-PIECES"


async def test_the_same_bad_piece_from_all_sources_makes_the_index_doubtful(into: Path) -> None:
    records = cut(DATA)
    records[7] = PieceRecord(records[7].length, bytes(32))
    want = WantedFile(sha256(DATA), len(DATA), records)
    with pytest.raises(Untrusted) as refusal:
        await fetch_file(
            want, [MemorySource("a", DATA), MemorySource("b", DATA)], into, options=FetchOptions(limits=QUICK)
        )
    assert refusal.value.code == "PIECE-INDEX"
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert fetched.resumed >= 7 * PIECE_SIZE, "pieces verified under the wrong index are used under the right one"


async def test_pieces_that_do_not_form_the_file_leave_nothing_and_name_their_sources(into: Path) -> None:
    other = bytearray(DATA)
    other[0] ^= 1
    want = WantedFile(sha256(DATA), len(DATA), cut(bytes(other)))
    with pytest.raises(Untrusted, match=r"a: pieces 0-39") as refusal:
        await fetch_file(want, [MemorySource("a", bytes(other))], into, options=FetchOptions(limits=QUICK))
    assert refusal.value.code == "PIECE-INDEX"
    assert not into.exists()


@pytest.mark.parametrize(("error", "kind"), [(NotFound, NotFound), (Refused, Refused)])
async def test_a_transfer_fails_with_the_error_that_all_sources_give(
    into: Path, error: type[NotFound] | type[Refused], kind: type[Exception]
) -> None:
    sources: list[BlobSource] = [Failing(name, DATA, lambda: error("no")) for name in "ab"]
    with pytest.raises(kind, match="a: no; b: no"):
        await fetch_file(wanted(DATA), sources, into, options=FetchOptions(limits=QUICK))


async def test_a_transfer_without_a_source_says_so(into: Path) -> None:
    with pytest.raises(Unavailable, match="there is no source"):
        await fetch_file(wanted(DATA), [], into)


async def test_a_fault_of_this_program_is_not_blamed_on_a_source(into: Path) -> None:
    class Broken(MemorySource):
        async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            raise ZeroDivisionError
            yield b""

    with pytest.raises(ZeroDivisionError):
        await fetch_file(wanted(DATA), [Broken("a", DATA)], into, options=FetchOptions(limits=QUICK))


async def interrupted(source: MemorySource, into: Path, served: int) -> None:
    """A transfer that is cancelled when the source has served that many bytes."""
    task = asyncio.create_task(fetch_file(wanted(DATA), [source], into, options=FetchOptions(limits=QUICK)))
    while source.served < served:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1, "a task was left behind"
    assert source.streams == 0, "a stream was left open"


async def test_a_cancelled_transfer_continues_where_it_was(into: Path) -> None:
    first, second = MemorySource("a", DATA), MemorySource("a", DATA)
    await interrupted(first, into, len(DATA) // 2)
    fetched = await fetch([second], into)
    assert first.served + second.served <= len(DATA) + 4 * PIECE_SIZE, "only bytes in flight are fetched twice"
    assert fetched.resumed > 0


async def test_a_complete_partial_file_needs_no_source(into: Path) -> None:
    into.write_bytes(DATA)
    fetched = await fetch([], into)
    assert fetched.resumed == len(DATA)


async def test_bad_bytes_in_the_partial_file_are_fetched_again(into: Path) -> None:
    damaged = bytearray(DATA)
    damaged[9 * PIECE_SIZE] ^= 1
    into.write_bytes(damaged)
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert named(fetched.bytes_by_source) == {"a": PIECE_SIZE}


async def test_the_partial_file_of_another_file_is_used_as_far_as_it_agrees(into: Path) -> None:
    into.write_bytes(
        weights(3, seed=9) + DATA[3 * PIECE_SIZE - 100 : 3 * PIECE_SIZE] + DATA[3 * PIECE_SIZE :] + b"surplus"
    )
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert named(fetched.bytes_by_source) == {"a": 3 * PIECE_SIZE}


async def test_pieces_that_are_here_already_are_not_fetched(into: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.write_bytes(b"another header" + DATA[: 30 * PIECE_SIZE])
    places = {
        hashlib.sha256(DATA[at * PIECE_SIZE : (at + 1) * PIECE_SIZE]).digest(): at * PIECE_SIZE + 14 for at in range(30)
    }
    lies = tmp_path / "lies"
    lies.write_bytes(bytes(PIECE_SIZE))

    def find(record: PieceRecord) -> list[tuple[Path, int]]:
        return [(lies, 0), (older, places[record.sha256])] if record.sha256 in places else [(lies, 0)]

    source = MemorySource("a", DATA)
    fetched = await fetch_file(
        wanted(DATA), [source], into, local=LocalSource(find), options=FetchOptions(limits=QUICK)
    )
    assert into.read_bytes() == DATA
    assert (fetched.reused, named(fetched.bytes_by_source)) == (30 * PIECE_SIZE, {"a": len(DATA) - 30 * PIECE_SIZE})


async def test_a_full_disk_keeps_the_partial_file_for_the_next_attempt(into: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * PIECE_SIZE, before[1]))
    try:
        with pytest.raises(OutOfSpace, match="the partial file of"):
            await fetch_file(wanted(DATA), [MemorySource("a", DATA)], into, options=FetchOptions(limits=QUICK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert fetched.resumed >= 18 * PIECE_SIZE


async def test_bytes_written_after_a_transfer_was_cancelled_are_not_counted(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, disk_answers, write = threading.Event(), threading.Event(), PartialFile.write_piece
    counted: list[int] = []

    def slow_disk(self: PartialFile, piece: int, view: memoryview) -> bytes:
        written.set()
        disk_answers.wait()
        return write(self, piece, view)

    monkeypatch.setattr(PartialFile, "write_piece", slow_disk)
    want, sources = wanted(DATA), [MemorySource("a", DATA)]
    task = asyncio.create_task(
        fetch_file(want, sources, into, on_progress=counted.append, options=FetchOptions(limits=QUICK))
    )
    await asyncio.to_thread(written.wait)
    task.cancel()
    await asyncio.sleep(0)
    disk_answers.set()
    await asyncio.wait({task})
    await asyncio.get_running_loop().run_in_executor(None, int)
    await asyncio.sleep(0)
    assert task.cancelled()
    assert counted == []


async def test_no_source_is_read_further_than_there_are_buffers(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_answers, write = threading.Event(), PartialFile.write_piece

    def slow_disk(self: PartialFile, piece: int, view: memoryview) -> bytes:
        disk_answers.wait()
        return write(self, piece, view)

    monkeypatch.setattr(PartialFile, "write_piece", slow_disk)
    sources = [MemorySource(f"{number}", DATA) for number in range(12)]
    task = asyncio.create_task(fetch_file(wanted(DATA), sources, into, options=FetchOptions(limits=QUICK)))
    for _ in range(200):
        await asyncio.sleep(0.001)
    served = sum(source.served for source in sources)
    disk_answers.set()
    await task
    assert QUICK.streams * PIECE_SIZE <= served <= QUICK.buffers * PIECE_SIZE


async def test_two_transfers_share_their_state_of_the_sources(tmp_path: Path) -> None:
    health: dict[SourceKey, SourceHealth] = {}
    liar, honest = Liar("liar", DATA), MemorySource("honest", DATA)
    await fetch_file(wanted(DATA), [liar, honest], tmp_path / "1", options=FetchOptions(limits=QUICK, health=health))
    asked = len(liar.asked)
    fetched = await fetch_file(
        wanted(DATA), [liar, honest], tmp_path / "2", options=FetchOptions(limits=QUICK, health=health)
    )
    assert len(liar.asked) == asked
    assert "wrong bytes" in named(fetched.dropped)["liar"]


async def test_sources_that_lacked_one_file_are_not_asked_first_for_the_next(tmp_path: Path) -> None:
    """In a large federation most nodes have no copy: each small file would wait for an answer of every one of them."""
    health: dict[SourceKey, SourceHealth] = {}
    small = weights(1, seed=2)
    lacking = [Failing(f"{number}", DATA, lambda: NotFound("not here")) for number in range(20)]
    await fetch_file(
        wanted(DATA),
        [*lacking, MemorySource("honest", DATA)],
        tmp_path / "1",
        options=FetchOptions(limits=QUICK, health=health),
    )
    asked = [len(source.asked) for source in lacking]
    assert min(asked) > 0
    await fetch_file(
        wanted(small),
        [*lacking, MemorySource("honest", small)],
        tmp_path / "2",
        options=FetchOptions(limits=QUICK, health=health),
    )
    assert [len(source.asked) for source in lacking] == asked


async def test_two_files_at_a_time_from_the_same_sources(tmp_path: Path) -> None:
    other = weights(25, seed=1)

    class Both(MemorySource):
        async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            data = DATA if digest == sha256(DATA) else other
            async with asyncio.timeout(5):
                for at in range(offset, offset + length, self.message):
                    yield data[at : min(at + self.message, offset + length)]
                    await asyncio.sleep(0)

    sources = [Both("a", b""), Both("b", b"")]
    async with asyncio.TaskGroup() as both:
        both.create_task(fetch_file(wanted(DATA), sources, tmp_path / "1", options=FetchOptions(limits=QUICK)))
        both.create_task(fetch_file(wanted(other), sources, tmp_path / "2", options=FetchOptions(limits=QUICK)))
    assert (tmp_path / "1").read_bytes() == DATA
    assert (tmp_path / "2").read_bytes() == other


async def test_one_source_named_twice_is_a_mistake_of_the_caller(into: Path) -> None:
    with pytest.raises(ValueError):
        await fetch_file(wanted(DATA), [MemorySource("a", DATA), MemorySource("a", DATA)], into)


async def test_two_sources_of_one_name_are_shown_as_two(into: Path) -> None:
    liar, honest = Liar("liar", DATA), MemorySource("honest", DATA)
    absent = Failing("absent", DATA, lambda: NotFound("not here"))
    liar.name = honest.name = absent.name = "node"
    fetched = await fetch([liar, honest, absent], into)
    assert set(named(fetched.dropped)) == {"liar", "absent"}
    other = Failing("other", DATA, lambda: NotFound("not here"))
    other.name = "node"
    with pytest.raises(NotFound) as failed:
        await fetch_file(wanted(DATA), [absent, other], into.with_name("second"))
    assert f"node ({absent.key.short}): not here; node ({other.key.short}): not here" in str(failed.value)


def chained(data: bytes = DATA) -> WantedFile:
    """The same pieces with chained states instead of hashes."""
    if hashing.ENGINE is None:
        pytest.skip("needs libcrypto.so.3 (OpenSSL 3)")
    hashed, values = hashing.ENGINE(INITIAL_STATE, 0), []
    for at in range(0, len(data) - PIECE_SIZE, PIECE_SIZE):
        hashed.update(data[at : at + PIECE_SIZE])
        values.append(hashed.state())
    values.append(hashlib.sha256(data).digest())
    records = [PieceRecord(record.length, value) for record, value in zip(cut(data), values, strict=True)]
    return WantedFile(sha256(data), len(data), records, chained=True)


async def test_a_chain_proves_pieces_in_any_order_from_many_sources(into: Path) -> None:
    sources = [MemorySource("a", DATA, pause=0.001), MemorySource("b", DATA), Short("c", DATA)]
    fetched = await fetch_file(chained(), sources, into, options=FetchOptions(limits=QUICK, jitter=lambda: 0.5))
    assert into.read_bytes() == DATA
    assert not named(fetched.dropped)
    assert fetched.states == [record.sha256 for record in chained().records[:-1]]
    again = await fetch_file(chained(), [MemorySource("a", DATA)], into, options=FetchOptions(limits=QUICK))
    assert (again.resumed, named(again.bytes_by_source)) == (len(DATA), {})


@pytest.mark.parametrize(("want", "most"), [(wanted, 1), (chained, 2)])
async def test_a_fast_source_has_two_requests_where_pieces_may_come_in_any_order(
    into: Path, want: Callable[[bytes], WantedFile], most: int
) -> None:
    source = MemorySource("a", DATA)
    open_at_once: list[int] = []
    health = {source.key: SourceHealth(rate=1e12)}
    await fetch_file(
        want(DATA),
        [source],
        into,
        on_progress=lambda _: open_at_once.append(source.streams),
        options=FetchOptions(health=health),
    )
    assert max(open_at_once) == most
    assert into.read_bytes() == DATA


async def test_a_piece_that_does_not_match_a_chain_ends_its_use_and_accuses_no_source(into: Path) -> None:
    health: dict[SourceKey, SourceHealth] = {}
    liar = Liar("liar", DATA, pieces=[20])
    with pytest.raises(Untrusted, match="piece 20, from liar") as refusal:
        await fetch_file(chained(), [liar], into, options=FetchOptions(limits=QUICK, health=health))
    assert refusal.value.code == "PIECE-INDEX"
    assert all(found.bad_piece is None for found in health.values())
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert fetched.resumed >= 19 * PIECE_SIZE, "right pieces serve under the signed records"


async def test_wrong_bytes_that_a_false_chain_allows_do_not_survive_the_signed_records(into: Path) -> None:
    """The lying source also made the states after its own bytes, up to where they must meet the hash of the file."""
    liar = Liar("liar", DATA, pieces=[5])
    false = chained(liar.data)
    records = [*false.records[:-1], chained().records[-1]]
    with pytest.raises(Untrusted) as refusal:
        await fetch_file(replace(chained(), records=records), [liar], into, options=FetchOptions(limits=QUICK))
    assert refusal.value.code == "PIECE-INDEX"
    fetched = await fetch([MemorySource("a", DATA)], into)
    assert named(fetched.bytes_by_source)["a"] >= PIECE_SIZE
