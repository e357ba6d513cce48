"""A range that comes over several connections from a host that is far: in order, whatever a connection does."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import pytest
from comity.transfer import range_source as ranges
from comity.transfer.limits import CONNECTIONS
from comity.transfer.parallel_range import AHEAD, LEAST_BLOCK, BlockQueue, ConnectionRate, ParallelAnswer, WantedRange
from comity.transfer.range_client import PIPELINED, RangeClient
from comity.transfer.range_source import RangeSource
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.trust.keys import PrivateKey
from comity.wire.addresses import Address, RangeUrl
from comity.wire.blob import BlobLocation
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate
from support.range_hosts import Behaviour, answer, host
from support.seeded import seeded_bytes
from support.sources import source_key

MIB = 1 << 20
BYTES = seeded_bytes(24 * MIB, "parallel")
BLOB = sha256(BYTES)


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "FAR", 0.0)


@pytest.fixture(scope="module")
def identity() -> TlsIdentity:
    key = PrivateKey.generate("ecdsa-p256")
    return TlsIdentity(make_certificate(key), key)


def right(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, BYTES[offset : offset + length]))


def forbids(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def trusting(identity: TlsIdentity) -> Callable[[], ssl.SSLContext]:
    """As `ssl.create_default_context` of a machine that trusts the certificate of `identity` by whatever name."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(identity.certificate))
        return context

    return make


class Counted:
    """Answers by `behaviour`, and counts requests by connection."""

    def __init__(self, behaviour: Behaviour = right) -> None:
        self.by_connection: Counter[ssl.SSLSocket] = Counter()
        self.spans: list[tuple[int, int]] = []
        self._behaviour = behaviour
        self._lock = threading.Lock()

    def __call__(self, wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        with self._lock:
            self.by_connection[wrapped] += 1
            self.spans.append((offset, length))
        self._behaviour(wrapped, offset, length)


@asynccontextmanager
async def source_of(identity: TlsIdentity, behaviour: Behaviour) -> AsyncIterator[RangeSource]:
    """A source of a host that answers by `behaviour`; no thread and no connection of it is left after the block."""
    with host(identity, behaviour) as there:

        async def locate(digest: str) -> Sequence[BlobLocation]:
            return (BlobLocation("https-range", there.url),)

        source = RangeSource(source_key("node"), "node", CertificatePin.of(identity.certificate), locate)
        assert await source.find(BLOB)
        try:
            yield source
        finally:
            source.close()
            source._threads.shutdown(wait=True)
            assert not source._idle and not source._parallel


async def read(source: RangeSource, offset: int, length: int, *, step: int = MIB, timeout: float = 3.0) -> bytes:
    got = bytearray(length)
    arrived: list[int] = []
    async with source.open(BLOB, offset, length, timeout) as stream:
        for at in range(0, length, step):
            part = memoryview(got)[at : at + step]
            await stream.run(partial(stream.fill, part, arrived.append))
            assert sum(arrived) == at + len(part)
    return bytes(got)


@pytest.mark.parametrize(("offset", "length", "step"), [(0, 24 * MIB, 4 * MIB), (5, 3 * MIB + 1, 70_001), (9, MIB, 7)])
async def test_the_bytes_come_in_order_over_several_connections(
    identity: TlsIdentity, offset: int, length: int, step: int
) -> None:
    counted = Counted()
    async with source_of(identity, counted) as source:
        steps = {"step": step} if length < 1000 * step else {}
        assert await read(source, offset, length, **steps) == BYTES[offset : offset + length]
    assert 1 < len(counted.by_connection) <= CONNECTIONS
    spans = sorted(counted.spans)
    assert [at for at, _ in spans[1:]] == [at + size for at, size in spans[:-1]], "no byte is requested twice"
    assert (spans[0][0], sum(size for _, size in spans)) == (offset, length)


async def test_later_requests_reuse_the_connections(identity: TlsIdentity) -> None:
    counted = Counted()
    async with source_of(identity, counted) as source:
        for offset in range(0, 24 * MIB, 4 * MIB):
            assert await read(source, offset, 4 * MIB) == BYTES[offset : offset + 4 * MIB]
    assert len(counted.by_connection) <= CONNECTIONS


async def test_a_range_that_begins_while_another_ends_gets_its_connections(identity: TlsIdentity) -> None:
    """The first one has all connections until the second has its own first answer; then they bring the second."""
    begun, read_whole = threading.Event(), threading.Event()
    of_second: set[ssl.SSLSocket] = set()

    def waits(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if 0 < offset < 4 * MIB:
            assert begun.wait(30)
        elif offset > 4 * MIB:
            assert read_whole.wait(30)
        if offset >= 4 * MIB:
            of_second.add(wrapped)
        right(wrapped, offset, length)

    counted = Counted(waits)
    async with source_of(identity, counted) as source, source.open(BLOB, 0, 4 * MIB, 30.0) as first:
        async with source.open(BLOB, 4 * MIB, 16 * MIB, 30.0) as second:
            begun.set()
            got = bytearray(20 * MIB)
            await first.run(partial(first.fill, memoryview(got)[: 4 * MIB], lambda count: None))
            read_whole.set()
            await second.run(partial(second.fill, memoryview(got)[4 * MIB :], lambda count: None))
        assert bytes(got) == BYTES[: 20 * MIB]
    assert len(counted.by_connection) <= CONNECTIONS + 1
    assert len(of_second) > 1


class Counting:
    """Permits every connection, and counts those that have not been settled."""

    def __init__(self) -> None:
        self.taken = self.most = 0

    def connecting(self, address: Address) -> Address:
        self.taken += 1
        self.most = max(self.most, self.taken)
        return address

    def served(self) -> None:
        self.taken -= 1


@pytest.mark.parametrize(("behaviour", "most"), [(right, CONNECTIONS - 1), (forbids, 1)])
async def test_one_connection_is_made_until_the_server_is_known(
    identity: TlsIdentity, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, most: int
) -> None:
    """A bucket shows a certificate of its own, so that only its answer tells that it is no stranger."""
    monkeypatch.setattr(ssl, "create_default_context", trusting(identity))
    counting, threads = Counting(), ThreadPoolExecutor(8)
    with host(identity, behaviour) as there:
        url = RangeUrl.parse(there.url)
        clients = [RangeClient(url.address, None, counting) for _ in range(CONNECTIONS)]
        range_ = ParallelAnswer(
            WantedRange(url, 0, 8 * MIB, 3.0), clients, threads, ConnectionRate(), lambda client: client.close()
        )
        got = bytearray(8 * MIB)
        try:
            await range_.ask()
            await range_.run(partial(range_.fill, memoryview(got), lambda count: None))
            assert bytes(got) == BYTES[: 8 * MIB]
        except Refused:
            assert behaviour is forbids
        finally:
            range_.end()
            threads.shutdown()
    assert 1 <= counting.most <= most
    assert there.asked == 1 or counting.taken == 0


async def test_a_short_range_comes_over_one_connection(identity: TlsIdentity) -> None:
    counted = Counted()
    async with source_of(identity, counted) as source:
        assert await read(source, 0, MIB - 1) == BYTES[: MIB - 1]
    assert len(counted.by_connection) == 1


async def test_what_a_broken_connection_did_not_bring_comes_over_another(identity: TlsIdentity) -> None:
    broken: set[int] = set()

    def breaks_once(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if offset > 0 and not broken:
            broken.add(offset)
            wrapped.sendall(answer(offset, BYTES[offset : offset + length])[: length // 2])
            raise OSError
        right(wrapped, offset, length)

    counted = Counted(breaks_once)
    async with source_of(identity, counted) as source:
        assert await read(source, 0, 8 * MIB) == BYTES[: 8 * MIB]
    assert broken
    asked = Counter(offset for offset, _ in counted.spans)
    assert sum(size for _, size in counted.spans) <= 8 * MIB + 2 * MIB, "only what was missing is requested again"
    assert max(asked.values()) <= 2


async def test_a_host_that_falls_silent_is_given_up(identity: TlsIdentity) -> None:
    def silent_later(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if offset >= MIB:
            wrapped.recv(1)
        else:
            right(wrapped, offset, length)

    async with source_of(identity, silent_later) as source:
        with pytest.raises(Unavailable) as failed:
            await read(source, 0, 8 * MIB, timeout=0.3)
        assert failed.value.code == "CONNECTION"


async def test_a_link_that_breaks_often_brings_all(identity: TlsIdentity) -> None:
    counted = Counted(right)

    def breaks_often(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if len(counted.spans) % 5 == 4:
            wrapped.sendall(answer(offset, BYTES[offset : offset + length])[: length // 2])
            raise OSError
        right(wrapped, offset, length)

    counted._behaviour = breaks_often
    async with source_of(identity, counted) as source:
        assert await read(source, 0, len(BYTES)) == BYTES
    assert len(counted.by_connection) > 2 * CONNECTIONS


@pytest.mark.parametrize(
    ("status", "raised", "code"),
    [
        ("403 Forbidden", Unavailable, "URL-EXPIRED"),
        ("404 Not Found", Unavailable, "NOT-FOUND"),
        ("503 x", Unavailable, "HTTP"),
    ],
)
async def test_an_answer_that_changes_ends_the_range(
    identity: TlsIdentity, status: str, raised: type[ComityError], code: str
) -> None:
    """An expired location is temporary: the next request gets a new one."""

    def changes(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if offset >= MIB:
            wrapped.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            right(wrapped, offset, length)

    async with source_of(identity, changes) as source:
        with pytest.raises(raised) as failed:
            await read(source, 0, 8 * MIB)
        assert failed.value.code == code and not isinstance(failed.value, Refused)


async def test_a_reader_that_waits_bounds_what_is_in_memory(identity: TlsIdentity) -> None:
    counted = Counted()
    async with source_of(identity, counted) as source, source.open(BLOB, 0, len(BYTES), 3.0) as stream:
        before = -1
        while before != (before := len(counted.spans)):
            await asyncio.sleep(0.2)
        assert AHEAD - MIB <= sum(size for _, size in counted.spans) <= AHEAD
        got = bytearray(len(BYTES))
        await stream.run(partial(stream.fill, memoryview(got), lambda count: None))
        assert bytes(got) == BYTES


async def test_a_reader_that_waited_and_gave_up_leaves_no_connection(identity: TlsIdentity) -> None:
    counted = Counted()
    async with source_of(identity, counted) as source:
        async with source.open(BLOB, 0, len(BYTES), 3.0) as stream:
            before = -1
            while before != (before := len(counted.spans)):
                await asyncio.sleep(0.2)
            clients = stream._clients  # type: ignore[attr-defined]
            assert len(clients) == CONNECTIONS and all(client.connected for client in clients)
        assert not any(client.connected for client in clients)


def range_over(
    clients: Sequence[RangeClient], threads: ThreadPoolExecutor, given: Callable[[RangeClient], None] = lambda _: None
) -> ParallelAnswer:
    url = RangeUrl.parse("https://127.0.0.1:1/blob")
    return ParallelAnswer(WantedRange(url, 0, MIB, 30.0), clients, threads, ConnectionRate(), given)


async def test_connections_beyond_the_limit_or_to_another_address_are_not_taken() -> None:
    here, elsewhere = Address("127.0.0.1", 1), Address("127.0.0.1", 2)
    with ThreadPoolExecutor(1) as threads:
        few = range_over([RangeClient(here, None)], threads)
        many = range_over([RangeClient(here, None)] * CONNECTIONS, threads)
        assert not few.add(RangeClient(here, None)), "it has not begun"
        few._open = many._open = True
        assert not few.add(RangeClient(elsewhere, None))
        assert not many.add(RangeClient(here, None))
        few.end()
        assert not few.add(RangeClient(here, None))


@pytest.mark.parametrize(("quiet", "again"), [(0.0, True), (60.0, False)])
def test_nothing_is_requested_again_of_a_host_that_says_nothing(quiet: float, again: bool) -> None:
    with ThreadPoolExecutor(1) as threads:
        made = range_over([], threads)
        made._newest = time.monotonic() - quiet
        assert made._repeat([], Unavailable("silent", code="CONNECTION")) == again


def test_a_connection_that_ends_after_a_whole_range_is_given_back() -> None:
    client, given = RangeClient(Address("127.0.0.1", 1), None), list[RangeClient]()
    with ThreadPoolExecutor(1) as threads:
        made = range_over([client], threads, given.append)
        made._left = 0
        made._free.remove(client)  # a thread has it
        made.end()
        made._rest(client)
    assert given == [client]


def test_blocks_that_must_come_again_come_before_others_in_their_order() -> None:
    queue = BlockQueue(0, 4 * LEAST_BLOCK, ConnectionRate(1.0))
    first, second = queue.take(), queue.take()
    assert first is not None and second is not None
    queue.put_back([first, second])
    third = [queue.take(), queue.take(), queue.take()]
    assert third[:2] == [first, second] and third[2] is not None and third[2].offset == 2 * LEAST_BLOCK


async def test_giving_up_closes_all_connections(identity: TlsIdentity) -> None:
    ended: list[int] = []

    def waits(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        if offset == 0:
            right(wrapped, offset, length)
        elif not wrapped.recv(1):
            ended.append(offset)
            raise OSError

    async with source_of(identity, waits) as source:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await read(source, 0, 8 * MIB)
        async with asyncio.timeout(10):
            while len(ended) < CONNECTIONS - 1:
                await asyncio.sleep(0.01)


async def test_an_error_of_the_first_answer_is_raised_before_a_byte_is_read(identity: TlsIdentity) -> None:
    async with source_of(identity, forbids) as source:
        with pytest.raises(Refused) as refused:
            await read(source, 0, 8 * MIB)
        assert refused.value.code == "URL-EXPIRED"


async def test_a_host_that_drips_over_ever_new_connections_is_given_up(identity: TlsIdentity) -> None:
    def drips(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        wrapped.sendall(answer(offset, BYTES[offset : offset + length])[:500])
        wrapped.recv(1)

    async with source_of(identity, drips) as source:
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await read(source, 0, 8 * MIB, timeout=0.3)


def test_a_block_is_long_enough_to_request_another_one_beside_it() -> None:
    assert LEAST_BLOCK >= PIPELINED
