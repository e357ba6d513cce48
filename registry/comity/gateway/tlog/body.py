"""The body of an upload, read in parts while it comes: never more in memory than a package and a part of the next."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from comity.trust.errors import Malformed, Untrusted
from comity.trust.tlog.merkle import HASH_SIZE
from comity.trust.tlog.mirror import MAX_HASHES, Package, Upload

_CHUNK: Final = 64 * 1024


class Body:
    """Reads `request`, unpacked where gzip packed it.

    A body that ends early, breaks off or grows too large has ended: what comes after the last whole part is dropped, as
    tlog-mirror wants it. Raises Malformed (ENCODING) for another packing.
    """

    def __init__(self, request: Request) -> None:
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise Malformed("a packing that is not known here", why=f"{coding[:40]!r}", code="ENCODING")
        stream = _whole(request.stream())
        self._parts = _unpacked(stream) if coding == "gzip" else stream
        self._held = bytearray()

    async def upload(self) -> Upload:
        """The head. Raises Malformed, also where the body ends in it."""
        head = await self._prefixed()
        numbers = await self._exactly(16)
        ticket = await self._prefixed()
        if head is None or numbers is None or ticket is None:
            raise Malformed("not an upload", why="the body ends in its head", code="ADD-ENTRIES")
        start, end = struct.unpack(">QQ", numbers)
        try:
            return Upload(head.decode("utf-8"), start, end, ticket)
        except UnicodeDecodeError as error:
            raise Malformed("not an upload", why="the origin is not UTF-8", code="ADD-ENTRIES") from error

    async def package(self, package: Package) -> tuple[list[bytes], list[bytes]] | None:
        """The entries and hashes of the next package; None where the body has ended before its end.

        Raises Untrusted (SUBTREE) for more hashes than a proof has.
        """
        entries: list[bytes] = []
        while len(entries) < package.end - package.start:
            if (entry := await self._prefixed()) is None:
                return None
            entries.append(entry)
        if (count := await self._exactly(1)) is None:
            return None
        if count[0] > MAX_HASHES:
            raise Untrusted("bad subtree proof", why=f"{count[0]} hashes, at most {MAX_HASHES}", code="SUBTREE")
        if (hashes := await self._exactly(count[0] * HASH_SIZE)) is None:
            return None
        return entries, [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]

    async def _prefixed(self) -> bytes | None:
        length = await self._exactly(2)
        return None if length is None else await self._exactly(int.from_bytes(length, "big"))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._held) < size:
            part = await anext(self._parts, None)
            if part is None:
                return None
            self._held += part
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


async def _whole(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`parts` up to where the client left, stalled, or sent too much."""
    try:
        async for part in parts:
            yield part
    except (ClientDisconnect, Malformed, TimeoutError):
        return


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What gzip packed, in small parts; broken packing ends it."""
    unpacker = zlib.decompressobj(wbits=31)
    async for part in parts:
        while part and not unpacker.eof:
            try:
                yield unpacker.decompress(part, _CHUNK)
            except zlib.error:
                return
            part = unpacker.unconsumed_tail
