"""The headers of weight files at nodes: the first pieces of a file, each hashed against the piece index of a signed
statement, as many as the header needs. The rest of the file is not fetched.
"""

from __future__ import annotations

import io
from contextlib import aclosing
from typing import Final

from comity.formats.tensors import TensorTable, tensor_reader
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.wire.client import NodeClient

from comity_client.pull.fetch import Layouts
from comity_client.session import Question, Session

HEAD_BYTES: Final = 32 * 1024 * 1024
"""Maximum bytes of a header that are fetched."""


@frozen
class WeightHeader:
    """The tensors of a file, and the pieces of the file."""

    pieces: WantedFile
    table: TensorTable


async def fetch_header(session: Session, layouts: Layouts, entry: FileEntry) -> WeightHeader | None:
    """Fetch the header of a file; None if it is unreadable. Fetches twice as many pieces while the header is cut."""
    read = tensor_reader(entry.path)
    if read is None:
        return None
    try:
        want = await _wanted_file(layouts, entry)
        pieces = 1
        while True:
            head = await session.first(_pieces(want, pieces), f"no node serves the start of {entry.path}")
            try:
                return WeightHeader(want, read(io.BytesIO(head), entry.size))
            except Malformed:
                if pieces >= len(want.records) or len(head) >= HEAD_BYTES:
                    return None
            pieces = min(2 * pieces, len(want.records))
    except ComityError:
        return None


async def _wanted_file(layouts: Layouts, entry: FileEntry) -> WantedFile:
    async with aclosing(layouts.layouts_of(entry)) as layouts_of:
        async for want in layouts_of:
            return want
    raise Unavailable(f"{entry.path} cannot be fetched in pieces", why="no statement names a piece index")


def _pieces(want: WantedFile, count: int) -> Question[bytes]:
    """The first `count` pieces of a blob, each with its hash."""
    end = want.offsets[count]

    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, want.digest, end)
        for number in range(count):
            offset, length = want.span(number)
            if bytes.fromhex(sha256(data[offset : offset + length])) != want.records[number].sha256:
                raise Untrusted("wrong bytes", why=f"hash of piece {number} does not match", code="BAD-PIECE")
        return data

    return ask


async def _bytes(node: NodeClient, digest: Digest, length: int) -> bytes:
    async with aclosing(node.read(digest, 0, length)) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    if len(data) != length:
        raise NotFound("incomplete", why=f"received {len(data)} of {length} bytes")
    return data
