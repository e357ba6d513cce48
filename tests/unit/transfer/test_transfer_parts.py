"""The parts of a transfer below its scheduler: wanted pieces, an answer, the partial file, the trailing hash."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mmap
import os
import resource
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from comity.hashing import FileHash
from comity.rules.pieces import chained_records
from comity.transfer.answers import PieceReader, Writing, _AsyncAnswer
from comity.transfer.fetch import FetchOptions, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import HeldPiece, PieceBuffers, WantedFile
from comity.transfer.receiver import FileHasher, NoObserver, PartialFile, TransferReceiver
from comity.transfer.sources import LocalSource, RangeStream
from comity.trust.artifact import PIECE_SIZE as CHAINED_PIECE
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace, Unavailable, Untrusted
from support.sources import PIECE_SIZE, MemorySource, wanted, weights


@pytest.mark.parametrize(
    "records",
    [
        [],
        [PieceRecord(9, bytes(32))],
        [PieceRecord(10, bytes(32)), PieceRecord(0, bytes(32))],
        [PieceRecord(11, bytes(32)), PieceRecord(-1, bytes(32))],
    ],
)
def test_records_that_do_not_tile_the_file_are_refused(records: list[PieceRecord]) -> None:
    with pytest.raises(Untrusted) as refusal:
        WantedFile(sha256(b""), 10, records)
    assert refusal.value.code == "PIECE-INDEX"


def test_a_piece_larger_than_a_buffer_is_refused() -> None:
    with pytest.raises(Untrusted):
        WantedFile(sha256(b""), 1 << 40, [PieceRecord(1 << 40, bytes(32))])


def test_as_many_streams_as_buffers_are_refused() -> None:
    with pytest.raises(ValueError):
        TransferLimits(streams=8, buffers=8)


async def chunks(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


async def filled(length: int, *parts: bytes) -> bytes:
    buffer = bytearray(length)
    answer = RangeStream(chunks(*parts), read_timeout=1.0)
    await answer.fill(memoryview(buffer), lambda count: None)
    await answer.end()
    return bytes(buffer)


async def test_an_answer_may_be_cut_anywhere() -> None:
    assert await filled(6, b"a", b"bcd", b"ef") == b"abcdef"


async def test_a_message_that_spans_pieces_fills_both() -> None:
    answer, first, second = RangeStream(chunks(b"abc", b"def"), read_timeout=1.0), bytearray(2), bytearray(4)
    await answer.fill(memoryview(first), lambda count: None)
    await answer.fill(memoryview(second), lambda count: None)
    assert bytes(first + second) == b"abcdef"


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((b"abc",), "WRONG-LENGTH"),
        ((b"abcdefg",), "WRONG-LENGTH"),
        ((b"abcdef", b"g"), "WRONG-LENGTH"),
        ((b"abc", b"", b"def"), "EMPTY-MESSAGE"),
    ],
)
async def test_an_answer_that_does_not_have_its_length_is_a_failure(parts: tuple[bytes, ...], code: str) -> None:
    with pytest.raises(Unavailable) as failure:
        await filled(6, *parts)
    assert failure.value.code == code


async def test_silence_is_a_failure() -> None:
    async def silent() -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    with pytest.raises(Unavailable) as failure:
        await RangeStream(silent(), read_timeout=0.01).fill(memoryview(bytearray(1)), lambda count: None)
    assert failure.value.code == "STALLED"


async def test_a_lost_connection_is_a_failure() -> None:
    async def lost() -> AsyncGenerator[bytes, None]:
        raise ConnectionResetError("reset by peer")
        yield b""

    with pytest.raises(Unavailable, match="reset by peer") as failure:
        await RangeStream(lost(), read_timeout=1.0).fill(memoryview(bytearray(1)), lambda count: None)
    assert failure.value.code == "CONNECTION"


def piece(data: bytes, number: int) -> memoryview:
    return memoryview(bytearray(data[number * PIECE_SIZE : (number + 1) * PIECE_SIZE]))


def test_only_a_right_piece_is_written(tmp_path: Path) -> None:
    data = weights(3)
    partial = PartialFile(tmp_path / "p", wanted(data))
    assert partial.candidate_pieces() == []
    wrong = piece(data, 1)
    wrong[5] ^= 1
    assert partial.write_piece(1, wrong) == hashlib.sha256(wrong).digest()
    assert partial.candidate_pieces() == []
    partial.write_piece(1, piece(data, 1))
    assert (tmp_path / "p").read_bytes() == bytes(PIECE_SIZE) + data[PIECE_SIZE : 2 * PIECE_SIZE]


LARGE = b"weights" * ((2 * CHAINED_PIECE + 5000) // 7)
"""Two pieces, and a part of a third that is no multiple of a page."""


def by_chain(data: bytes) -> WantedFile:
    whole = FileHash(len(data))
    whole.update(data)
    digest = sha256(data)
    assert whole.states is not None
    return WantedFile(digest, len(data), chained_records(len(data), whole.states, digest), chained=True)


def chained_piece(number: int, *, moved: int = 0) -> memoryview:
    """A piece of LARGE at the beginning of a page, or `moved` bytes after it."""
    data = LARGE[number * CHAINED_PIECE : (number + 1) * CHAINED_PIECE]
    view = memoryview(mmap.mmap(-1, CHAINED_PIECE + moved))[moved : moved + len(data)]
    view[:] = data
    return view


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The flags with which files are opened."""
    flags: list[int] = []
    real = os.open

    def noting(path: Any, how: int, mode: int = 0o777, **more: Any) -> int:
        flags.append(how)
        return real(path, how, mode, **more)

    monkeypatch.setattr(os, "open", noting)
    return flags


def test_pieces_by_chained_records_are_written_past_the_page_cache(tmp_path: Path, opened: list[int]) -> None:
    partial = PartialFile(tmp_path / "p", by_chain(LARGE))
    partial.candidate_pieces()
    for number in (2, 0, 1):
        partial.write_piece(number, chained_piece(number))
    assert any(how & os.O_DIRECT for how in opened)
    assert (tmp_path / "p").read_bytes() == LARGE
    assert partial.candidate_pieces() == [0, 1, 2]


def test_memory_that_does_not_begin_at_a_page_is_written_through_the_cache(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "p", by_chain(LARGE))
    partial.candidate_pieces()
    for number in range(3):
        partial.write_piece(number, chained_piece(number, moved=16))
    assert (tmp_path / "p").read_bytes() == LARGE


def test_a_file_system_without_direct_writes_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = os.open, list[int]()

    def refusing(path: Any, how: int, mode: int = 0o777, **more: Any) -> int:
        if how & os.O_DIRECT:
            refused.append(how)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, how, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    partial = PartialFile(tmp_path / "p", by_chain(LARGE))
    partial.candidate_pieces()
    for number in range(3):
        partial.write_piece(number, chained_piece(number))
    assert (tmp_path / "p").read_bytes() == LARGE
    assert len(refused) == 1


def test_pieces_by_plain_records_stay_in_the_page_cache(tmp_path: Path, opened: list[int]) -> None:
    """The whole-file hash reads some of them back, and readers follow a file that arrives."""
    data = weights(2)
    partial = PartialFile(tmp_path / "p", wanted(data))
    partial.candidate_pieces()
    partial.write_piece(0, piece(data, 0))
    assert not any(how & os.O_DIRECT for how in opened)


def by_tensors(data: bytes) -> WantedFile:
    """Pieces that begin within a block, as when a header is a piece of its own."""
    cuts = [data[:1426], *(data[at : at + CHAINED_PIECE] for at in range(1426, len(data), CHAINED_PIECE))]
    signed = [PieceRecord(len(cut), hashlib.sha256(cut).digest()) for cut in cuts]
    return WantedFile(sha256(data), len(data), signed)


@pytest.mark.parametrize("past_cache", [True, False])
async def test_pieces_that_begin_at_no_block_are_written_past_the_page_cache_while_that_is_wanted(
    tmp_path: Path, opened: list[int], past_cache: bool
) -> None:
    want, buffers = by_tensors(LARGE), PieceBuffers(2, CHAINED_PIECE, aligned=True)
    partial = PartialFile(tmp_path / "p", want, lambda: past_cache)
    partial.candidate_pieces()
    for number in (2, 0, 1, 3):
        buffer = await buffers.take()
        offset, length = want.span(number)
        buffers.view(buffer, want, number)[:] = LARGE[offset : offset + length]
        partial.write_piece(number, buffers.view(buffer, want, number))
        buffers.give(buffer)
    assert any(how & os.O_DIRECT for how in opened) == past_cache
    assert (tmp_path / "p").read_bytes() == LARGE
    assert partial.candidate_pieces() == [0, 1, 2, 3]


async def test_a_file_written_past_the_page_cache_is_hashed_from_its_aligned_buffers(tmp_path: Path) -> None:
    want, asked = by_tensors(LARGE), list[int]()

    def sometimes() -> bool:
        asked.append(1)
        return len(asked) % 2 == 0

    source, limits = MemorySource("a", LARGE), TransferLimits(streams=1, buffers=3)
    await fetch_file(want, [source], tmp_path / "p", options=FetchOptions(limits=limits, past_cache=sometimes))
    assert (tmp_path / "p").read_bytes() == LARGE
    assert len(asked) == len(want.records)


def test_a_direct_write_to_a_full_disk_is_reported_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    partial = PartialFile(tmp_path / "p", by_chain(LARGE))
    partial.candidate_pieces()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutOfSpace):
        partial.write_piece(0, chained_piece(0))


def test_holes_are_not_claimed(tmp_path: Path) -> None:
    data = weights(9)
    partial = PartialFile(tmp_path / "p", wanted(data))
    partial.candidate_pieces()
    for number in (2, 3, 8):
        partial.write_piece(number, piece(data, number))
    assert partial.candidate_pieces() == [2, 3, 8]


def test_claimed_progress_counts_only_after_hashing(tmp_path: Path) -> None:
    data = weights(3)
    partial = PartialFile(tmp_path / "p", wanted(data))
    (tmp_path / "p").write_bytes(data[:PIECE_SIZE] + bytes(PIECE_SIZE) + data[2 * PIECE_SIZE : -1])
    claimed = partial.candidate_pieces()
    views = [memoryview(bytearray(len(piece(data, number)))) for number in range(3)]
    assert [number for number in claimed if partial.has_piece(number, views[number])] == [0]


def test_bytes_beyond_the_file_are_neither_claimed_nor_kept(tmp_path: Path) -> None:
    data = weights(2)
    partial = PartialFile(tmp_path / "p", wanted(data))
    (tmp_path / "p").write_bytes(data + bytes(5 * PIECE_SIZE))
    assert partial.candidate_pieces() == [0, 1]
    partial.seal()
    assert (tmp_path / "p").read_bytes() == data


def test_a_link_instead_of_the_partial_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "p").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as failure:
        PartialFile(tmp_path / "p", wanted(weights(1))).candidate_pieces()
    assert failure.value.code == "DISK"


def test_a_partial_file_that_a_crash_left_read_only_is_written_again(tmp_path: Path) -> None:
    """It is made read-only before it is renamed to its place. Root may write to it in any case, so the test reads its
    mode.
    """
    (tmp_path / "p").write_bytes(b"")
    (tmp_path / "p").chmod(0o444)
    PartialFile(tmp_path / "p", wanted(weights(1))).candidate_pieces()
    assert (tmp_path / "p").stat().st_mode & 0o200


def test_a_file_that_the_disk_cannot_take_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "p", wanted(weights(1)))
    partial.candidate_pieces()
    partial.require_space(PIECE_SIZE)
    with pytest.raises(OutOfSpace, match="bytes are missing"):
        partial.require_space(1 << 62)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond one and a half pieces: a simulated full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_SIZE * 3 // 2, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    data = weights(3)
    partial = PartialFile(tmp_path / "p", wanted(data))
    partial.candidate_pieces()
    partial.write_piece(0, piece(data, 0))
    with pytest.raises(OutOfSpace):
        partial.write_piece(1, piece(data, 1))


def test_the_partial_file_is_readable_for_its_owner_only(tmp_path: Path) -> None:
    PartialFile(tmp_path / "p", wanted(weights(1))).candidate_pieces()
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 4, 3, 2]])
async def test_the_trailing_hash_is_in_file_order_for_any_order_of_arrival(tmp_path: Path, order: list[int]) -> None:
    data = weights(5)
    want = wanted(data)
    partial, buffers = PartialFile(tmp_path / "p", want), PieceBuffers(3, PIECE_SIZE)
    partial.candidate_pieces()
    trail = FileHasher(want, partial, ahead=1)
    hashing = asyncio.create_task(trail.digest(None))
    for number in order:
        buffer = await buffers.take()
        view = memoryview(buffer)[: want.records[number].length]
        view[:] = piece(data, number)
        partial.write_piece(number, view)
        trail.add(HeldPiece(number, view, buffer, buffers))
    assert await hashing == want.digest


async def test_a_piece_that_is_gone_from_the_partial_file_is_a_fault_of_the_disk_and_not_of_the_pieces(
    tmp_path: Path,
) -> None:
    data = weights(3)
    want = wanted(data)
    partial, buffers = PartialFile(tmp_path / "p", want), PieceBuffers(3, PIECE_SIZE)
    partial.candidate_pieces()
    trail = FileHasher(want, partial, ahead=1)
    for number in (2, 1, 0):
        buffer = await buffers.take()
        view = memoryview(buffer)[: want.records[number].length]
        view[:] = piece(data, number)
        partial.write_piece(number, view)
        trail.add(HeldPiece(number, view, buffer, buffers))
    os.truncate(tmp_path / "p", PIECE_SIZE)
    with pytest.raises(Unavailable) as failure:
        await trail.digest(None)
    assert failure.value.code == "DISK"


def test_local_copies_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"..abcd..")
    (tmp_path / "cut").write_bytes(b"..ab")
    places = [(tmp_path / "gone", 0), (tmp_path / "cut", 2), (tmp_path, 0), (tmp_path / "good", 2)]
    view = memoryview(bytearray(4))
    local = LocalSource(lambda record: places)
    assert [bytes(view) for _ in local.copies(PieceRecord(4, bytes(32)), view)] == [b"abcd"]


async def test_the_number_of_buffers_is_bounded() -> None:
    buffers = PieceBuffers(2, 8)
    first = await buffers.take()
    await buffers.take()
    third = asyncio.ensure_future(buffers.take())
    await asyncio.sleep(0)
    assert not third.done()
    buffers.give(first)
    assert await third is first


def test_the_disk_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=os.strerror(2)):
        PartialFile(tmp_path / "no" / "p", wanted(weights(1))).candidate_pieces()


async def test_a_request_cancelled_while_an_earlier_piece_is_checked_releases_its_buffer(tmp_path: Path) -> None:
    """Otherwise a transfer with many preempted requests would run out of buffers."""
    data = weights(3)
    want, limits = wanted(data), TransferLimits(streams=1, buffers=2)
    receiver = TransferReceiver(want, tmp_path / "p", limits, lambda count: None, NoObserver(), None)
    checks: list[asyncio.Future[bytes]] = []

    def start_check(held: HeldPiece, writing: Writing) -> asyncio.Future[bytes]:
        checks.append(asyncio.get_running_loop().create_future())
        return checks[0]

    received = list[int]()
    answer = _AsyncAnswer(receiver, RangeStream(chunks(data), read_timeout=1.0), received.append)
    reader = PieceReader(receiver, answer, start_check)
    await reader.read(0)
    second = asyncio.create_task(reader.read(1))
    while sum(received) < 2 * PIECE_SIZE:
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    checks[0].cancel()
    assert await asyncio.wait_for(receiver.buffers.take(), 5)
