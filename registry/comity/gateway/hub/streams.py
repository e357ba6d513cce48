"""Bodies of answers: verified bytes of a file that is here, or of one that is still coming in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Scope, Send

from comity.gateway.blobs.ranges import Span
from comity.gateway.bounds import CutOff
from comity.gateway.hub.snapshot import Claim
from comity.gateway.places import Places
from comity.gateway.running import Running
from comity.node.importing.passage import Passage
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.manifest import FileEntry
from comity.trust.upstream.observed import Observed

AHEAD: Final = 2
"""Parts of at most 256 KiB that a thread reads while those before are being sent."""
BODIES: Final = 64
"""Bodies of files that are sent at once: each has up to two times `AHEAD` parts in memory, 1 MiB."""
FIRST: Final = 8.0
"""Seconds to the first byte of a file that comes from elsewhere: stock clients wait for ten."""


class Stream(StreamingResponse):
    """A body of which the first part is there. What goes wrong later cuts the connection, and `parts` ends with it."""

    def __init__(
        self, first: bytes, parts: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], media: str
    ) -> None:
        self._parts = parts
        super().__init__(_after(first, parts), status, headers, media)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._parts):
            await super().stream_response(send)


async def placed(places: Places, scope: Scope, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """`parts`, sent from one of `places`. Raises Unavailable (NODE-BUSY) before the first one."""
    async with aclosing(parts), places.taken(scope) as progress:
        async for part in parts:
            yield part
            progress()


async def stored(running: Running, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
    """A range of a blob that is here: one window is sent while the next is read and verified."""
    parts = running.blobs.checked.read(digest, offset, length)
    ready = await running.core.pools.files(_window, parts)
    ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    try:
        while ready:
            for part in ready:
                yield part
            ready = await ahead
            ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    finally:
        ahead.add_done_callback(_ended)  # `parts` ends with its last reader


async def coming(running: Running, claim: Claim, entry: FileEntry, span: Span) -> AsyncGenerator[bytes, None]:
    """A range of a file that is fetched meanwhile, and from the store once it is whole. Raises Unavailable."""
    sent = 0
    try:
        async with aclosing(_brought(running, claim, entry, span)) as parts:
            async with asyncio.timeout(FIRST):
                part = await anext(parts, b"")
            while part:
                yield part
                sent += len(part)
                part = await anext(parts, b"")
    except TimeoutError as error:
        why = f"no verified byte of it came within {FIRST:g} s"
        raise Unavailable(f"{entry.path[:200]} is on its way", why=why, code="ON-ITS-WAY") from error
    except ComityError as error:  # no fault of who asks, and it may pass
        if type(error) is Unavailable:
            raise
        raise Unavailable(f"{entry.path[:200]} is not here now", why=str(error), code="NOT-HERE") from error
    if sent < span.length:
        async with aclosing(stored(running, entry.sha256, span.offset + sent, span.length - sent)) as rest:
            async for part in rest:
                yield part


async def _brought(running: Running, claim: Claim, entry: FileEntry, span: Span) -> AsyncGenerator[bytes, None]:
    """From the peers, else with what is being mirrored from its upstream, or may be mirrored again."""
    if isinstance(claim, Passage):
        passage = claim
    else:
        try:
            async with aclosing(running.replication.cold.read(claim, entry, span.offset, span.length)) as parts:
                async for part in parts:
                    yield part
            return
        except NotFound:  # before the first byte: no peer has it
            if not isinstance(claim, Observed) or not running.passages.allows(claim.upstream.repository):
                raise
            passage = await running.passages.again(claim)
    async with aclosing(passage.read(entry, span.offset, span.length, running.core.pools)) as parts:
        async for part in parts:
            yield part


async def _after(first: bytes, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    try:
        async for part in parts:
            yield part
    except ComityError as error:
        raise CutOff(str(error)) from error


def _window(parts: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(parts, AHEAD))


def _ended(ahead: asyncio.Future[list[bytes]]) -> None:
    """The client has gone, or was told: nobody else asks what became of the last window."""
    if not ahead.cancelled():
        ahead.exception()
