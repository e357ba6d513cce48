"""Transfers by HTTPS ranges under the node's own certificate; gRPC replaces them whenever they fail."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import resource
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from comity.content.blobs import FolderStore
from comity.content.secrets import read_keys
from comity.gateway.app import serve_gateway
from comity.hashing import FileHash
from comity.node.app import Companion
from comity.rules.pieces import CHAINED_LAYOUT, chained_records, encode_records
from comity.transfer import range_source as ranges
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import WantedFile
from comity.transfer.range_source import RangeSource, sources_with_blob
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.verifier import load_policy
from comity.wire.addresses import Address, RangeUrl
from comity.wire.blob import BlobLocation
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin, TlsIdentity, make_certificate
from comity_client.client import Client
from comity_client.home import Home
from support.federation import Founded, NodeHome, found, introduced, serving, until
from support.ports import free_port
from support.publisher import Publisher, Release, model, release, send
from support.range_hosts import Behaviour, answer, host
from support.seeded import seeded_bytes
from support.sources import MemorySource, cut, named, source_key
from support.weights import as_tensor

BYTES = 20 * 1024 * 1024
WEIGHTS = as_tensor(seeded_bytes(BYTES, "1"))
BLOB = sha256(WEIGHTS)


@dataclass(frozen=True)
class Scene:
    founded: Founded
    release: Release
    client: Client

    async def pull(self, into: Path) -> bytes:
        """As a client that asks for no cosigners, once the log's checkpoint covers the statement."""
        federation = into.parent / "federation.json"
        federation.write_bytes(self.founded.federation.encode())
        policy = into.parent / "policy.toml"
        policy.write_text(f'schema = "comity/policy/v1"\n[[pin]]\nfile = "{federation}"\n[cosigners]\nat_least = 0\n')

        async def pulled() -> bool:
            try:
                await asyncio.to_thread(self.client.pull, "tests/model@v1", to=into, policy=load_policy(policy))
            except Unavailable:
                return False
            return True

        await until(pulled, what="the pull")
        return (into / "weights.bin").read_bytes()


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@asynccontextmanager
async def scene(folder: Path, serve_gateway: Companion) -> AsyncIterator[Scene]:
    """Two founded nodes, the first of them running with an artifact and the host `beside` it, and a client."""
    founded = found(folder / "nodes", 2)
    for home in founded:
        home.set("gateway", http="", ranges=f"127.0.0.1:{free_port()}")
    what = release(Publisher.generate(), model(folder / "model", weights=BYTES), "tests/model@v1")
    client = Client(Home(folder / "home"), limits=TransferLimits(patience=30.0, read_timeout=1.0))
    client.pin(founded.federation.encode())
    first = founded.homes[0]
    async with serving(first, companion=serve_gateway):
        await introduced(first)
        async with first.client() as publisher:
            await send(publisher, what)
        yield Scene(founded, what, client)


def nodes_identity(home: NodeHome) -> TlsIdentity:
    return TlsIdentity(home.record.tls, read_keys(home.directory / "keys" / "tls.pem")[0])


def served(logged: list[dict[str, object]], door: str = "ranges") -> int:
    """Bytes that were sent by ranges."""
    return sum(int(str(line["sent"])) for line in logged if line["event"] == "blob served" and line["listener"] == door)


async def test_a_node_says_where_its_ranges_are_at_both_ports(tmp_path: Path, logged: list[dict[str, object]]) -> None:
    async with scene(tmp_path, serve_gateway) as made:
        first, second = made.founded.homes
        mutual = Address.parse(first.card.mutual[0])
        peer = NodeClient.connect(mutual, CertificatePin.of(first.record.tls), nodes_identity(second))
        async with first.client() as anybody, peer:
            for client in (anybody, peer):
                (location,) = await client.locations(BLOB)
                assert location.kind == "https-range"
                assert RangeUrl.parse(location.url).target.startswith(f"/blobs/{BLOB}?until=")
            with pytest.raises(NotFound):
                await anybody.locations(sha256(b"nowhere"))


@pytest.mark.slow
async def test_a_node_without_ranges_names_no_place(tmp_path: Path) -> None:
    @asynccontextmanager
    async def alone(*parts: object) -> AsyncIterator[str]:
        yield ""

    async with scene(tmp_path, alone) as made, made.founded.homes[0].client() as client:
        assert await client.locations(BLOB) == ()
        assert await made.pull(tmp_path / "got") == WEIGHTS


@pytest.mark.slow
async def test_a_pull_takes_bytes_over_https_and_no_url_is_logged(
    tmp_path: Path, logged: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with scene(tmp_path, serve_gateway) as made:
        assert await made.pull(tmp_path / "got") == WEIGHTS
    assert served(logged) > 0
    everything = repr(logged) + caplog.text
    assert "mac=" not in everything and "until=" not in everything
    ours = [line for line in logged if line["event"] == "blob served"]
    assert {line["blob"] for line in ours} == {BLOB[:12]}


def copied(logged: list[dict[str, object]]) -> list[dict[str, Any]]:
    """The copies of weights that were made; those of the configurations are not counted."""
    return [line for line in logged if line["event"] == "fetched" and line["path"] == "weights.bin"]


def came_over_https(copy: dict[str, Any]) -> bool:
    return any(name.endswith("over https") for name in copy["sources"])


@pytest.mark.slow
async def test_a_peer_copies_over_https(tmp_path: Path, logged: list[dict[str, object]]) -> None:
    """A busy machine may bring a whole file the other way before it has asked where the ranges are: then the next."""

    async def copies(count: int) -> None:
        await until(lambda: len(copied(logged)) == count, what=f"copy {count}")

    async with scene(tmp_path, serve_gateway) as made:
        first, second = made.founded.homes
        async with serving(second), second.client() as client, first.client() as publisher:
            await copies(1)
            (stat,) = await client.stat([BLOB])
            assert stat.have
            for count in range(2, 10):
                if came_over_https(copied(logged)[-1]):
                    break
                folder = model(tmp_path / f"model {count}", weights=BYTES, seed=count)
                await send(publisher, release(Publisher.generate(), folder, f"tests/model-{count}@v1"))
                await copies(count)
    assert served(logged) > 0
    over_https = [line for line in logged if line["event"] == "blob served"]
    assert {line["peer"] for line in over_https} == {made.founded.homes[1].name}
    assert came_over_https(copied(logged)[-1])


def lies(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, bytes(length)))


def says_nothing(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.recv(1)


def drips(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, WEIGHTS[offset : offset + length])[:500])
    wrapped.recv(1)


def breaks_off(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, WEIGHTS[offset : offset + length])[: length // 2])
    raise OSError


def sends_another_range(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset + 1, WEIGHTS[offset : offset + length]))


def sends_more(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, WEIGHTS[offset : offset + length] + b"more"))


def redirects(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")


def forbids(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def babbles(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(b"HTTP/1.1 206 ok\r\n" + b"x: y\r\n" * 200 + b"\r\n")


def mumbles(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(b"220 mail.example ESMTP\r\n")


def source_at(urls: list[str], identity: TlsIdentity, *, first: Sequence[BlobLocation] = ()) -> RangeSource:
    """A source whose node names one of `urls` each time, after the locations `first`."""

    async def locate(digest: Digest) -> tuple[BlobLocation, ...]:
        return (BlobLocation("unknown", "x"), *first, BlobLocation("https-range", urls.pop(0))) if urls else ()

    return RangeSource(source_key("node"), "node", CertificatePin.of(identity.certificate), locate)


async def read(source: RangeSource, offset: int, length: int) -> bytes:
    async with aclosing(source.read(BLOB, offset, length)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture(scope="module")
def identity() -> TlsIdentity:
    key = PrivateKey.generate("ecdsa-p256")
    return TlsIdentity(make_certificate(key), key)


@pytest.fixture(params=["near", "far"])
def distance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a host that is far a range comes over several connections."""
    if request.param == "far":
        monkeypatch.setattr(ranges, "FAR", 0.0)


def right(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
    wrapped.sendall(answer(offset, WEIGHTS[offset : offset + length]))


async def fetch(folder: Path, *second: RangeSource) -> FetchResult:
    """A transfer that has the node's streams and a second way to it."""
    for source in second:
        assert await source.find(BLOB)
    streams = MemorySource("node", WEIGHTS, message=ranges.CHUNK)
    want = WantedFile(BLOB, BYTES, cut(WEIGHTS, PIECE_SIZE))
    limits = TransferLimits(read_timeout=0.5, patience=20.0, first_delay=0.05, max_delay=0.1)
    fetched = await fetch_file(want, [streams, *second], folder / "got", options=FetchOptions(limits=limits))
    for source in second:
        source.close()
    assert (folder / "got").read_bytes() == WEIGHTS
    assert named(fetched.bytes_by_host) == {"node": BYTES}
    return fetched


@pytest.mark.usefixtures("distance")
@pytest.mark.parametrize(
    "behaviour",
    [lies, says_nothing, drips, breaks_off, sends_another_range, sends_more, redirects, forbids, babbles, mumbles],
)
async def test_whatever_is_wrong_with_the_ranges_the_file_is_right(
    tmp_path: Path, identity: TlsIdentity, behaviour: Behaviour
) -> None:
    with host(identity, behaviour) as there:
        fetched = await fetch(tmp_path, source_at([there.url] * 2, identity))
    assert there.asked > 0
    dropping = (lies, sends_another_range, sends_more, redirects, forbids)
    assert set(named(fetched.faults)) <= {"memory node"}
    assert ("memory node" in named(fetched.dropped)) == (behaviour in dropping)


@pytest.mark.usefixtures("distance")
async def test_right_ranges_are_used(tmp_path: Path, identity: TlsIdentity) -> None:
    with host(identity, right) as there:
        fetched = await fetch(tmp_path, source_at([there.url], identity))
    assert named(fetched.bytes_by_source)["memory node"] >= PIECE_SIZE
    assert not named(fetched.faults)


@pytest.mark.usefixtures("distance")
@pytest.mark.parametrize("line", [b"HTTP/1.1 206 OK\r\nConnection: close", b"HTTP/1.0 206 OK"])
async def test_a_server_that_closes_the_connection_after_each_answer_brings_a_file(
    tmp_path: Path, identity: TlsIdentity, line: bytes
) -> None:
    """One such server ended every copy for which it was asked, whatever other sources there were."""

    def closes(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        sent = answer(offset, WEIGHTS[offset : offset + length])
        wrapped.sendall(line + sent[sent.index(b"\r\n") :])
        raise OSError

    fetched = await over_https(tmp_path, identity, closes)
    assert (tmp_path / "got").read_bytes() == WEIGHTS
    assert not fetched.dropped


@pytest.mark.usefixtures("distance")
async def test_another_certificate_is_sent_nothing(tmp_path: Path, identity: TlsIdentity) -> None:
    key = PrivateKey.generate("ecdsa-p256")
    with host(TlsIdentity(make_certificate(key), key), right) as stranger:
        fetched = await fetch(tmp_path, source_at([stranger.url], identity))
    assert stranger.asked == 0
    assert "is not the node that was pinned" in named(fetched.dropped)["memory node"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "file:///etc/passwd", "https://u:p@h/", "?"])
async def test_a_place_that_is_none_is_no_source(identity: TlsIdentity, url: str) -> None:
    source = source_at([url], identity)
    assert not await source.find(BLOB)
    source.close()


@pytest.mark.usefixtures("distance")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/plain", "https://127.0.0.1:1/closed", "https://127.0.0.1:{}/silent"]
)
async def test_a_bucket_that_is_not_reached_leaves_the_ranges_of_the_node(
    tmp_path: Path, identity: TlsIdentity, url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, host(identity, right) as there:
        bucket = BlobLocation("s3-presigned", url.format(silent.getsockname()[1]))
        source = source_at([there.url], identity, first=[bucket])
        fetched = await fetch(tmp_path, source)
    assert named(fetched.bytes_by_source)["memory node"] >= PIECE_SIZE
    assert not named(fetched.dropped)


async def test_an_expired_location_is_asked_for_anew_once(identity: TlsIdentity) -> None:
    with host(identity, forbids) as old, host(identity, right) as new:
        source = source_at([old.url, new.url, old.url, old.url], identity)
        assert await source.find(BLOB)
        assert await read(source, 5, 100) == WEIGHTS[5:105]
        assert (old.asked, new.asked) == (1, 1)
        assert await source.find(BLOB)
        with pytest.raises(Refused) as refused:
            await read(source, 5, 100)
        assert refused.value.code == "URL-EXPIRED"
        source.close()


async def test_one_connection_serves_many_ranges_and_is_made_again_where_it_was_lost(identity: TlsIdentity) -> None:
    connections: set[ssl.SSLSocket] = set()

    def once_then_gone(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        connections.add(wrapped)
        right(wrapped, offset, length)
        if offset == 20:
            raise OSError

    with host(identity, once_then_gone) as there:
        source = source_at([there.url], identity)
        assert await source.find(BLOB)
        for offset in (0, 10, 20, 30):
            assert await read(source, offset, 10) == WEIGHTS[offset : offset + 10]
        assert len(connections) == 2
        source.close()


async def test_giving_up_frees_the_connection_and_its_thread(identity: TlsIdentity) -> None:
    with host(identity, says_nothing) as there:
        source = source_at([there.url], identity)
        assert await source.find(BLOB)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await read(source, 0, 100)
        source.close()
        source._threads.shutdown(wait=True)


async def test_a_node_that_does_not_say_where_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "LOCATE_TIMEOUT", 0.05)
    asked = []

    async def locate(digest: Digest) -> tuple[BlobLocation, ...]:
        asked.append(digest)
        await asyncio.Event().wait()
        return ()

    key = PrivateKey.generate("ecdsa-p256")
    source = RangeSource(source_key("node"), "node", CertificatePin.of(make_certificate(key)), locate)
    assert await sources_with_blob([source], BLOB, BYTES) == []
    assert await sources_with_blob([source], BLOB, BYTES) == []
    assert len(asked) == 1
    source.close()


async def test_a_small_file_is_not_worth_a_second_way(identity: TlsIdentity) -> None:
    source = source_at(["https://h/"], identity)
    assert await sources_with_blob([source], BLOB, ranges.MIN_RANGE_SIZE - 1) == []
    assert await sources_with_blob([source], BLOB, ranges.MIN_RANGE_SIZE) == [source]
    source.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///x",
        "http://h/x",
        "https://h:0/x",
        "https://h:99999/x",
        "https://h/a b",
        "https://h/\r\nX: y",
        "https://u@h/x",
        "https://h/x#y",
        "https://[::1/x",
        "https://h/ü",
        "https://-h/x",
    ],
)
def test_a_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(Malformed):
        RangeUrl.parse(url)


def test_the_secret_of_a_url_is_in_no_repr() -> None:
    url = RangeUrl.parse("https://[2001:db8::1]:7/blobs/x?mac=secret")
    assert (str(url.address), url.target) == ("[2001:db8::1]:7", "/blobs/x?mac=secret")
    assert "secret" not in repr(url) and not re.search("mac", str(url))


async def test_nobody_there_is_unavailable_without_the_url(identity: TlsIdentity) -> None:
    source = source_at([f"https://127.0.0.1:{free_port()}/blobs/x?mac=secret"], identity)
    assert await source.find(BLOB)
    with pytest.raises(Unavailable) as refused:
        await read(source, 0, 10)
    assert "secret" not in str(refused.value)
    source.close()


@pytest.mark.slow
async def test_a_holder_whose_copy_rots_refuses_it_and_fetches_it_anew(tmp_path: Path) -> None:
    async with scene(tmp_path, serve_gateway) as made:
        second = made.founded.homes[1]
        async with serving(second, companion=serve_gateway), second.client() as client:

            async def there() -> bool:
                (stat,) = await client.stat([BLOB])
                return stat.have

            await until(there, what="the copy")
            path = FolderStore(second.config().storage.blobs).path(BLOB)
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.write(b"rot")
            source = RangeSource(source_key("second"), "second", CertificatePin.of(second.record.tls), client.locations)
            with closing(source):
                assert await source.find(BLOB)
                with pytest.raises(Unavailable):
                    await read(source, 0, 10)
                await until(there, what="another copy")
                assert await read(source, 0, 10) == WEIGHTS[:10]


@pytest.mark.slow
async def test_no_flipped_bit_is_served_and_each_is_repaired_while_readers_go_on(tmp_path: Path) -> None:
    rng = random.Random(11)
    async with scene(tmp_path, serve_gateway) as made:
        second = made.founded.homes[1]
        async with serving(second, companion=serve_gateway), second.client() as client:
            pin, ended = CertificatePin.of(second.record.tls), asyncio.Event()
            quarantine = second.config().storage.blobs / "quarantine"
            served = refused = 0

            async def go_on_reading() -> None:
                nonlocal served, refused
                while not ended.is_set():  # a source that failed once is not asked again: the reader makes another
                    with closing(RangeSource(source_key("second"), "second", pin, client.locations)) as source:
                        while await source.find(BLOB) and not ended.is_set():
                            offset = rng.randrange(BYTES - 4096)
                            try:
                                assert await read(source, offset, 4096) == WEIGHTS[offset : offset + 4096]
                                served += 1
                            except ComityError:
                                refused += 1
                                break
                            await asyncio.sleep(0.01)
                    await asyncio.sleep(0.3)

            async def there() -> bool:
                (stat,) = await client.stat([BLOB])
                return stat.have

            def found_are(number: int) -> bool:
                return len(list(quarantine.glob("*.reason"))) == number

            await until(there, what="the copy")
            readers = [asyncio.create_task(go_on_reading()) for _ in range(3)]
            for turn in range(1, 4):
                flip(FolderStore(second.config().storage.blobs).path(BLOB), rng.randrange(BYTES))
                await until(partial(found_are, turn), what="the flip to be found")
                await until(there, what="the repair")
            ended.set()
            await asyncio.gather(*readers)
            assert served and refused


def flip(file: Path, offset: int) -> None:
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 4]))


async def over_https(
    folder: Path, identity: TlsIdentity, behaviour: Behaviour, want: WantedFile | None = None
) -> FetchResult:
    """A transfer that has ranges only."""
    with host(identity, behaviour) as there:
        source = source_at([there.url], identity)
        assert await source.find(BLOB)
        limits = TransferLimits(read_timeout=0.5, patience=5.0, first_delay=0.05, max_delay=0.1)
        try:
            plain = WantedFile(BLOB, BYTES, cut(WEIGHTS, PIECE_SIZE))
            return await fetch_file(want or plain, [source], folder / "got", options=FetchOptions(limits=limits))
        finally:
            source.close()
            source._threads.shutdown(wait=True)


def chained() -> WantedFile:
    hashed = FileHash(BYTES)
    hashed.update(bytearray(WEIGHTS))
    if hashed.states is None:
        pytest.skip("needs libcrypto.so.3 (OpenSSL 3)")
    return WantedFile(BLOB, BYTES, chained_records(BYTES, hashed.states, BLOB), chained=True)


@pytest.mark.usefixtures("distance")
async def test_ranges_alone_bring_a_file_by_plain_and_by_chained_records(tmp_path: Path, identity: TlsIdentity) -> None:
    for want in (None, chained()):
        fetched = await over_https(tmp_path, identity, right, want)
        assert (tmp_path / "got").read_bytes() == WEIGHTS
        assert fetched.states == [record.sha256 for record in chained().records[:-1]]
        (tmp_path / "got").unlink()


@pytest.mark.usefixtures("distance")
async def test_a_disk_that_fills_up_while_a_thread_writes_is_this_machines_fault(
    tmp_path: Path, identity: TlsIdentity
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_SIZE * 5 // 2, before[1]))
    try:
        with pytest.raises(OutOfSpace):
            await over_https(tmp_path, identity, right)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (await over_https(tmp_path, identity, right)).resumed >= PIECE_SIZE


async def test_a_range_that_ends_early_is_asked_for_again(tmp_path: Path, identity: TlsIdentity) -> None:
    asked: list[int] = []

    def early(wrapped: ssl.SSLSocket, offset: int, length: int) -> None:
        asked.append(offset)
        if len(asked) > 2:
            return right(wrapped, offset, length)
        return breaks_off(wrapped, offset, length)

    fetched = await over_https(tmp_path, identity, early)
    assert (tmp_path / "got").read_bytes() == WEIGHTS
    assert "the connection" in str(named(fetched.faults)["memory node"])


@pytest.mark.usefixtures("distance")
async def test_a_cancelled_transfer_leaves_no_thread_that_still_writes(tmp_path: Path, identity: TlsIdentity) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await over_https(tmp_path, identity, drips)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("range")]


@pytest.mark.usefixtures("distance")
async def test_a_lying_range_host_is_refused_by_plain_and_ends_a_chain(tmp_path: Path, identity: TlsIdentity) -> None:
    for want, code in ((None, {"BAD-PIECES", "PIECE-INDEX"}), (chained(), {"PIECE-INDEX"})):
        with pytest.raises(Untrusted) as refused:
            await over_https(tmp_path, identity, lies, want)
        assert refused.value.code in code
        assert not any((tmp_path / "got").read_bytes()), "no wrong byte was written"


@pytest.mark.slow
async def test_the_node_of_a_publisher_and_a_mirror_give_the_same_chained_records(tmp_path: Path) -> None:
    expected = encode_records(chained().records)
    async with scene(tmp_path, serve_gateway) as made:
        second = made.founded.homes[1]
        async with serving(second), second.client() as mirror, made.founded.homes[0].client() as writer:

            async def there() -> bool:
                (stat,) = await mirror.stat([BLOB])
                return stat.have

            await until(there, what="the copy")
            for client in (writer, mirror):
                assert await client.records(BLOB, CHAINED_LAYOUT) == expected
