"""Bodies of uploads as they arrive: in any parts, packed or not, cut anywhere, or made to exhaust the reader."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import struct
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.tlog import mirror
from comity.gateway.tlog.mirror import MAX_OVERLAP, MirrorRoutes, RequestBody
from comity.rules.witness import MAX_PROOF_HASHES, MirrorUpload, Package
from comity.trust.errors import Malformed, Untrusted
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request
from support.outside import OutsideLog

LOG = OutsideLog("outside.example/log").grow(300)
UPLOAD = LOG.upload(0, 300)
"""Two packages, of 256 and of 44 entries."""


class Arriving(Request):
    """A request whose body arrives in these parts; an exception among them is raised there."""

    def __init__(self, parts: Iterable[bytes | Exception], coding: str = "") -> None:
        headers = [(b"content-encoding", coding.encode())] if coding else []
        super().__init__({"type": "http", "headers": headers})
        self.parts = parts

    async def stream(self) -> Any:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


async def read(parts: Iterable[bytes | Exception], coding: str = "") -> tuple[MirrorUpload, list[list[bytes]]]:
    """The head, and the entries of each package that is complete."""
    body = RequestBody(Arriving(parts, coding))
    upload, found = await body.upload(), []
    for package in upload.packages():
        if (received := await body.package(package)) is None:
            break
        entries, hashes = received
        package.verify([], entries, hashes, 300, LOG.tree.root(300))
        found.append(entries)
    return upload, found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(UPLOAD)), max_size=12), st.booleans())
async def test_a_body_is_the_same_in_whatever_parts_it_arrives(at: list[int], packed: bool) -> None:
    data = gzip.compress(UPLOAD, mtime=0) if packed else UPLOAD
    upload, found = await read(cut(data, [place for place in at if place <= len(data)]), "GZIP " if packed else "")
    assert (upload.origin, upload.start, upload.end) == (LOG.origin, 0, 300)
    assert found == [LOG.entries[:256], LOG.entries[256:300]]


async def test_a_body_that_ends_early_has_the_packages_before_its_end() -> None:
    first = len(MirrorUpload(LOG.origin, 0, 300).encode()) + len(LOG.package(Package(0, 0, 256), 300))
    for length, complete in ((first - 1, 0), (first, 1), (first + 500, 1), (len(UPLOAD) - 1, 1), (len(UPLOAD), 2)):
        assert len((await read([UPLOAD[:length]]))[1]) == complete
    for gone in (ClientDisconnect(), Malformed("too large"), TimeoutError()):
        assert len((await read([UPLOAD[: first + 10], gone]))[1]) == 1
    packed = gzip.compress(UPLOAD, mtime=0)
    assert len((await read([packed[:-60], b"\xff" * 60], "gzip"))[1]) == 1


@pytest.mark.parametrize("length", range(0, len(MirrorUpload(LOG.origin, 0, 300).encode()), 5))
async def test_a_body_that_ends_in_its_head_is_refused(length: int) -> None:
    with pytest.raises(Malformed) as raised:
        await read([UPLOAD[:length]])
    assert raised.value.code == "ADD-ENTRIES"


async def test_an_origin_that_is_no_text_is_refused() -> None:
    with pytest.raises(Malformed, match="not UTF-8"):
        await read([struct.pack(">H", 1) + b"\xff" + bytes(18)])


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "x" * 200])
async def test_another_encoding_is_refused(coding: str) -> None:
    with pytest.raises(Malformed) as raised:
        await read([UPLOAD], coding)
    assert raised.value.code == "ENCODING" and len(str(raised.value)) < 120


@pytest.mark.parametrize(("count", "refused"), [(MAX_PROOF_HASHES, False), (MAX_PROOF_HASHES + 1, True)])
async def test_a_proof_has_at_most_so_many_hashes(count: int, refused: bool) -> None:
    body = RequestBody(Arriving([struct.pack(">H", 1) + b"x" + bytes([count]) + bytes(32 * count)]))
    if refused:
        with pytest.raises(Untrusted) as raised:
            await body.package(Package(0, 0, 1))
        assert raised.value.code == "SUBTREE"
    else:
        assert await body.package(Package(0, 0, 1)) == ([b"x"], [bytes(32)] * count)


async def test_a_packed_body_is_unpacked_only_as_it_is_read() -> None:
    """A bomb costs what is read of it."""
    taken = list[int]()

    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield bomb[number * size : (number + 1) * size]

    bomb = gzip.compress(bytes(50_000_000), 1, mtime=0)
    size = -(-len(bomb) // 100)
    unpacked = mirror._unpacked(parts())
    pieces = [await anext(unpacked) for _ in range(5)]
    assert max(map(len, pieces)) <= 64 * 1024 and len(taken) == 1


@pytest.mark.parametrize(
    ("start", "end", "fits"),
    [
        (10_000, 12_000, True),
        (10_000, 9_000, True),
        (10_000, 8_999, False),
        (10_001, 12_000, False),
        (10_000 - MAX_OVERLAP, 12_000, True),
        (10_000 - MAX_OVERLAP - 1, 12_000, False),
    ],
)
def test_an_upload_continues_where_the_log_ends(start: int, end: int, fits: bool) -> None:
    state: Any = SimpleNamespace(size=9_000, staged=10_000)
    upload: Any = SimpleNamespace(start=start, end=end)
    assert MirrorRoutes._fits(upload, state) is fits


async def test_a_part_after_the_deadline_counts_as_the_end() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def now() -> bytes:
        return b"x"

    clock = asyncio.get_running_loop().time()
    assert await mirror._until_deadline(clock, never()) is None
    assert await mirror._until_deadline(clock + 60, now()) == b"x"
