"""The answers to the requests of a transfer: how the bytes of a range get into buffers, piece by piece, or the end of a
piece that another request brings from its start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Final, Protocol, TypeAlias

from comity.transfer.links import RangeRequest
from comity.transfer.pieces import HeldPiece, WantedFile
from comity.transfer.receiver import PieceReceiver
from comity.transfer.scheduler import LEAST_SHARE, Schedule
from comity.transfer.sources import BlobSource, BlockingSource, BlockingStream, RangeStream

POLL: Final = 0.02
"""Seconds between two looks at how far the request that brings the start of a piece is."""
QUIET: Final = 1.0
"""Seconds without a byte after which that request is not waited for."""
Writing: TypeAlias = Callable[[], bytes]
"""A blocking function that writes a received piece if it is right, and returns its hash."""
Check: TypeAlias = "asyncio.Future[bytes]"
"""A piece that a thread writes; its result is the hash."""


class PieceAnswer(Protocol):
    """The bytes that a source sends for one request, in order. Raises errors of the source."""

    async def receive(self, held: HeldPiece) -> Writing:
        """Receive the next piece."""
        ...

    async def fill(self, view: memoryview) -> None:
        """Receive the next bytes into `view`."""
        ...

    async def end(self) -> None:
        """Raise Unavailable (WRONG-LENGTH) if more bytes follow."""
        ...


class _AsyncAnswer:
    """An answer over the event loop. The thread that writes a piece hashes it too."""

    def __init__(self, receiver: PieceReceiver, chunks: RangeStream, arrived: Callable[[int], None]) -> None:
        self._receiver = receiver
        self._chunks = chunks
        self._arrived = arrived

    async def receive(self, held: HeldPiece) -> Writing:
        await self.fill(held.view)
        return partial(self._receiver.write, held)

    async def fill(self, view: memoryview) -> None:
        await self._chunks.fill(view, self._arrived)

    async def end(self) -> None:
        await self._chunks.end()


class _BlockingAnswer:
    """An answer by blocking calls. Its thread receives a piece and hashes it while it is in the cache."""

    def __init__(self, receiver: PieceReceiver, stream: BlockingStream, arrived: Callable[[int], None]) -> None:
        self._receiver = receiver
        self._stream = stream
        self._arrived = arrived

    async def receive(self, held: HeldPiece) -> Writing:
        found = await self._stream.run(partial(self._receiver.receive, held, self._stream, self._arrived))
        return partial(self._receiver.write_hashed, held, found)

    async def fill(self, view: memoryview) -> None:
        await self._stream.run(partial(self._stream.fill, view, self._arrived))

    async def end(self) -> None:
        """Nothing to do: the range is as long as was announced."""


@asynccontextmanager
async def request_range(
    want: WantedFile,
    source: BlobSource,
    receiver: PieceReceiver,
    span: tuple[int, int],
    timeout: float,
    arrived: Callable[[int], None],
) -> AsyncIterator[PieceAnswer]:
    """Request the (offset, length) `span` of the file. `arrived` is called where the bytes arrive: on the event loop,
    or in the one thread of the request."""
    offset, length = span
    if isinstance(source, BlockingSource):
        async with source.open(want.digest, offset, length, timeout) as stream:
            yield _BlockingAnswer(receiver, stream, arrived)
    else:
        async with aclosing(source.read(want.digest, offset, length)) as chunks:
            yield _AsyncAnswer(receiver, RangeStream(chunks, read_timeout=timeout), arrived)


class PieceReader:
    """Receives the pieces of one request, one after the other. A thread writes a piece while the next one arrives.

    Attributes:
        receiving: the piece that arrives now.
    """

    def __init__(
        self, receiver: PieceReceiver, answer: PieceAnswer, start_check: Callable[[HeldPiece, Writing], Check]
    ) -> None:
        self._receiver = receiver
        self._answer = answer
        self._start_check = start_check
        self._checking: Check | None = None
        self.receiving: HeldPiece | None = None

    async def read(self, piece: int) -> None:
        """Receive the next piece, and have it checked. Raises errors of the source."""
        held = self.receiving = await self._receiver.hold(piece)
        try:
            writing = await self._answer.receive(held)
            await self.settle()
        except BaseException:
            held.release()
            raise
        finally:
            self.receiving = None
        self._checking = self._start_check(held, writing)

    async def settle(self) -> None:
        """Wait until the last piece was checked."""
        if self._checking and not self._checking.done():
            await asyncio.wait({self._checking})

    async def end(self) -> None:
        """Raise Unavailable (WRONG-LENGTH) if more bytes follow."""
        await self._answer.end()


class EndReader:
    """Receives the end of the piece of `request` while another request brings its start; and what is missing, if that
    one does not get there, or the whole piece, if the two do not match. Rule (3) of the scheduler.

    Args:
        open_range: requests a range, by its offset and length, from the source of `request`.
        head_in: where the piece is that another request receives now.
    """

    def __init__(
        self,
        request: RangeRequest,
        want: WantedFile,
        schedule: Schedule,
        receiver: PieceReceiver,
        open_range: Callable[[int, int], AbstractAsyncContextManager[PieceAnswer]],
        head_in: Callable[[RangeRequest], HeldPiece | None],
    ) -> None:
        self._request = request
        self._want = want
        self._schedule = schedule
        self._receiver = receiver
        self._open_range = open_range
        self._head_in = head_in
        self._taken = False
        self._borrowed_from: RangeRequest | None = None

    async def read(
        self,
        start_check: Callable[[HeldPiece, Writing], Check],
        start_joined: Callable[[RangeRequest, HeldPiece, Writing], Check],
    ) -> None:
        """Return when the piece is checked. Raises errors of the source.

        Args:
            start_check: has the piece written if it is right, and takes it.
            start_joined: the same for a piece whose start came by another request; takes it only if it is right.
        """
        piece, request = self._request.first, self._request
        held = await self._receiver.hold(piece)
        try:
            low = len(held.view)
            while low:
                await self._fill(held.view[request.skip : low], self._want.offsets[piece] + request.skip)
                low = request.skip
                if low and await self._join(held, start_joined):
                    return
        except BaseException:
            if not self._taken:
                held.release()
            raise
        await asyncio.wait({start_check(held, partial(self._receiver.write, held))})

    async def _fill(self, view: memoryview, offset: int) -> None:
        async with self._open_range(offset, len(view)) as answer:
            await answer.fill(view)
            await answer.end()

    async def _join(self, held: HeldPiece, start_joined: Callable[[RangeRequest, HeldPiece, Writing], Check]) -> bool:
        """Whether what arrived and the start that another request brings are the piece. If not, `skip` becomes the
        first byte that is missing now."""
        request, head = self._request, self._borrowed_from
        if head is None:
            head = await self._wait_for_head(held)
        if head is None:
            request.skip = self._borrow(held, request.skip - 1)
            return False
        check = start_joined(head, held, partial(self._receiver.write, held))
        try:
            await asyncio.wait({check})
        finally:
            if not check.done():
                await asyncio.wait({check})  # its thread uses the buffer
            right = self._want.records[held.number].sha256
            self._taken = check.done() and not check.exception() and check.result() == right
        if not self._taken:
            request.skip, self._borrowed_from = 0, None
        return self._taken

    async def _wait_for_head(self, held: HeldPiece) -> RangeRequest | None:
        """The other request, when all that this one skips has arrived there and is copied; None if that takes long."""
        now = asyncio.get_running_loop().time
        until, arrived, progressed = now() + self._schedule.patience(self._request), 0, now()
        while (head := self._schedule.head_of(self._request)) is not None and now() < min(until, progressed + QUIET):
            if self._head_in(head) is not None and head.arrived(held.number) >= self._request.skip:
                self._borrow(held, self._request.skip)
                return head
            if head.arrived(held.number) > arrived:
                arrived, progressed = head.arrived(held.number), now()
            await asyncio.sleep(POLL)
        return None

    def _borrow(self, held: HeldPiece, most: int) -> int:
        """Copy the start of the piece from the other request, which may end before it has all. Returns the number of
        bytes; 0 if they are not worth a try."""
        head = self._schedule.head_of(self._request)
        source = None if head is None else self._head_in(head)
        if head is None or source is None or head.arrived(held.number) < LEAST_SHARE:
            return 0
        count = min(head.arrived(held.number), most)
        held.view[:count] = source.view[:count]
        self._borrowed_from = head
        return count
