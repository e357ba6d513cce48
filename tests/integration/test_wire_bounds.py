"""Hostile servers with the real client, and hostile clients with the real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import (
    ComityError,
    Conflict,
    Equivocation,
    Malformed,
    NotFound,
    OutOfSpace,
    PolicyNotMet,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.v1 import blob_pb2, log_pb2, node_pb2, types_pb2
from comity.wire import limits
from comity.wire.access import OpenAccess
from comity.wire.addresses import Address
from comity.wire.blob import encode_objects
from comity.wire.client import NodeClient
from comity.wire.errors import from_rpc
from comity.wire.node import NodeFacts
from comity.wire.server import make_server
from comity.wire.services import CALL_RULES
from comity.wire.throttle import Allowance, Throttle
from comity.wire.tls import to_pem
from support.wired import GENEROUS, ORIGIN, MemoryNode, identity, listening, pin, visited

NOWHERE = Digest("0" * 64)
Answer = Callable[[bytes, Any], AsyncIterator[bytes]]


@asynccontextmanager
async def lying(method: str, answer: Answer) -> AsyncIterator[NodeClient]:
    """A client of a server that answers one call with arbitrary bytes, without a guard in front of it."""
    own = identity()
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    service, name = method.split("/")
    handlers: dict[str, Any] = {name: grpc.unary_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"comity.v1.{service}", handlers),))
    port = server.add_secure_port("127.0.0.1:0", OpenAccess(own).credentials())
    await server.start()
    async with NodeClient.connect(Address("127.0.0.1", port), pin(own), timeout=5) as client:
        yield client
    await server.stop(0)


def repeating(message: bytes, times: int = 10**9) -> Answer:
    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(times):
            yield message

    return answer


async def test_entries_without_end_are_cut_off() -> None:
    batch = log_pb2.EntryBatch(start=0, lines=[b"x"] * 10).SerializeToString()
    async with lying("LogService/GetEntries", repeating(batch)) as client:
        with pytest.raises(Malformed):
            async for _ in client.entries(ORIGIN, 0, 10):
                pass


async def test_more_entries_than_asked_are_refused() -> None:
    batch = log_pb2.EntryBatch(start=5, lines=[b"x"] * 10).SerializeToString()
    async with lying("LogService/GetEntries", repeating(batch, 1)) as client:
        with pytest.raises(Malformed, match="out of order"):
            async for _ in client.entries(ORIGIN, 5, 14):
                pass


async def test_entries_at_other_indexes_are_refused() -> None:
    batch = log_pb2.EntryBatch(start=6, lines=[b"x"]).SerializeToString()
    async with lying("LogService/GetEntries", repeating(batch, 1)) as client:
        with pytest.raises(Malformed, match="out of order"):
            async for _ in client.entries(ORIGIN, 5, 14):
                pass


@pytest.mark.slow
async def test_claims_without_end_are_cut_off() -> None:
    located = types_pb2.Located(origin=ORIGIN, index=1, line=b"x").SerializeToString()
    async with lying("ArtifactService/GetClaims", repeating(located)) as client:
        with pytest.raises(Malformed) as caught:
            await client.claims(NOWHERE)
    assert caught.value.code == "UNBOUNDED"


async def test_claims_of_too_many_bytes_are_cut_off() -> None:
    located = types_pb2.Located(origin=ORIGIN, index=1, line=b"x" * limits.LINE).SerializeToString()
    async with lying("ArtifactService/GetClaims", repeating(located, limits.ANSWER // limits.LINE + 100)) as client:
        with pytest.raises(Malformed) as caught:
            await client.claims(NOWHERE)
    assert caught.value.code == "UNBOUNDED"


async def test_empty_chunks_without_end_are_cut_off() -> None:
    async with lying("BlobService/Read", repeating(b"")) as client:
        with pytest.raises(Malformed) as caught:
            async for _ in client.read(NOWHERE, 0, 10_000_000):
                pass
    assert caught.value.code == "UNBOUNDED"


async def test_more_bytes_than_asked_are_refused() -> None:
    async with lying("BlobService/Read", repeating(b"x" * 101, 1)) as client:
        with pytest.raises(Malformed, match="more bytes than requested"):
            async for _ in client.read(NOWHERE, 0, 100):
                pass


async def test_other_bytes_than_the_object_are_untrusted() -> None:
    chunk = blob_pb2.Chunk(data=b"not it").SerializeToString()
    async with lying("BlobService/GetObject", repeating(chunk, 1)) as client:
        with pytest.raises(Untrusted):
            await client.object(sha256(b"it"))


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param([(b"a", b"other bytes")], Untrusted, id="other bytes"),
        pytest.param([(b"c", b"c")], Malformed, id="not asked for"),
        pytest.param([(b"b", b"b"), (b"a", b"a")], Malformed, id="another order"),
        pytest.param([(b"a", b"a"), (b"a", b"a")], Malformed, id="twice"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
async def test_other_objects_than_asked_are_refused(
    sent: list[tuple[bytes, bytes]], error: type[Exception], together: bool
) -> None:
    objects = [(sha256(name), data) for name, data in sent]

    async def answer(request: bytes, context: object) -> AsyncIterator[bytes]:
        for some in [objects] if together else [[item] for item in objects]:
            yield encode_objects(some).SerializeToString()

    async with lying("BlobService/GetObjects", answer) as client:
        with pytest.raises(error):
            async for _ in client.objects([sha256(b"a"), sha256(b"b")]):
                pass


async def test_more_objects_in_a_message_than_a_call_may_ask_for_are_refused() -> None:
    many = encode_objects([(sha256(b"a"), b"a")] * (limits.OBJECTS + 2)).SerializeToString()
    async with lying("BlobService/GetObjects", repeating(many, 1)) as client:
        with pytest.raises(Malformed, match="too many objects"):
            await anext(client.objects([sha256(b"a")]))


async def test_a_message_that_decompresses_to_more_than_the_limit_is_refused() -> None:
    async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield bytes(8 * limits.MESSAGE)

    async with lying("LogService/GetEntries", answer) as client:
        with pytest.raises(Malformed) as caught:
            await anext(client.entries(ORIGIN, 0, 10))
    assert caught.value.code == "OVERSIZED"


async def test_a_status_of_other_blobs_is_refused() -> None:
    answer = blob_pb2.StatResponse(blobs=[blob_pb2.BlobStat(digest=bytes(32), have=True, size=1)]).SerializeToString()
    async with lying("BlobService/Stat", repeating(answer, 1)) as client:
        with pytest.raises(Malformed, match="other blobs"):
            await client.stat([sha256(b"mine")])


async def test_a_message_beyond_the_limit_is_refused() -> None:
    chunk = blob_pb2.Chunk(data=bytes(limits.MESSAGE + 1)).SerializeToString()
    async with lying("BlobService/GetObject", repeating(chunk, 1)) as client:
        with pytest.raises(Malformed) as caught:
            await client.object(NOWHERE)
    assert caught.value.code == "OVERSIZED"


@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_an_answer_that_is_no_message_is_malformed(garbage: bytes) -> None:
    async with lying("NodeService/GetNode", repeating(garbage, 1)) as client:
        with pytest.raises(Malformed):
            await client.node()
    async with lying("LogService/ListLogs", repeating(garbage, 1)) as client:
        with pytest.raises(Malformed):
            await client.logs()


async def test_each_client_has_a_connection_of_its_own() -> None:
    own, peers = identity(), set[str]()

    async def answer(request: bytes, context: Any) -> bytes:
        peers.add(context.peer())
        return log_pb2.GetCheckpointResponse().SerializeToString()

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"GetCheckpoint": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("comity.v1.LogService", handlers),))
    port = server.add_secure_port("127.0.0.1:0", OpenAccess(own).credentials())
    await server.start()
    clients = [NodeClient.connect(Address("127.0.0.1", port), pin(own)) for _ in range(3)]
    for client in clients:
        await client.checkpoint(ORIGIN)
    for client in clients:
        await client.close()
    await server.stop(0)
    assert len(peers) == 3


async def test_a_silent_server_times_out() -> None:
    async def silence(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    for method in ("NodeService/GetNode", "BlobService/Read"):
        async with lying(method, silence) as client:
            with pytest.raises(Unavailable) as caught:
                if method.startswith("Node"):
                    await client.with_timeout(0.2).node()
                else:
                    await anext(client.with_timeout(0.2).read(NOWHERE, 0, 10))
        assert caught.value.code == "DEADLINE"


async def test_a_server_that_stops_in_the_middle_times_out() -> None:
    async def half(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"x" * limits.MIN_CHUNK
        await asyncio.Event().wait()

    async with lying("BlobService/Read", half) as client:
        chunks = client.with_timeout(0.2).read(NOWHERE, 0, 1_000_000)
        assert len(await anext(chunks)) == limits.MIN_CHUNK
        with pytest.raises(Unavailable, match="does not answer"):
            await anext(chunks)


async def test_a_peers_error_text_cannot_control_a_terminal() -> None:
    async def curse(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.NOT_FOUND, "\x1b]0;owned\x07 \u202e\nsecond line")
        yield b""

    async with lying("NodeService/GetNode", curse) as client:
        with pytest.raises(ComityError) as caught:
            await client.node()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "kind", [ComityError, Malformed, Untrusted, PolicyNotMet, Unavailable, NotFound, Refused, OutOfSpace, Conflict]
)
async def test_an_error_arrives_unchanged(kind: type[ComityError]) -> None:
    raised = kind("what happened", why="why it did: ü", hint="do this", code="SOME-CODE")

    class Failing(MemoryNode):
        async def node(self) -> NodeFacts:
            raise raised

    async with visited(Failing().services()) as client:
        with pytest.raises(kind) as caught:
            await client.node()
    got = caught.value
    assert (type(got), got.what, got.why, got.hint, got.code) == (
        kind,
        raised.what,
        raised.why,
        raised.hint,
        raised.code,
    )


async def test_an_equivocation_arrives_without_its_proof() -> None:
    class Failing(MemoryNode):
        async def node(self) -> NodeFacts:
            raise Equivocation("two notes", proof=(b"a" * 100_000, b"b"))

    async with visited(Failing().services()) as client:
        with pytest.raises(Equivocation) as caught:
            await client.node()
    assert caught.value.proof == ()


async def test_an_error_of_any_length_fits_its_trailer() -> None:
    class Failing(MemoryNode):
        async def node(self) -> NodeFacts:
            raise NotFound("\N{SNOWMAN}" * 10_000, why="\N{SNOWMAN}" * 10_000, hint="\N{SNOWMAN}" * 10_000)

    async with visited(Failing().services()) as client:
        with pytest.raises(NotFound) as caught:
            await client.node()
    assert caught.value.code == "NOT-FOUND"


async def test_a_hint_of_another_node_is_marked_as_such() -> None:
    class Hostile(MemoryNode):
        async def node(self) -> NodeFacts:
            raise NotFound("nothing", hint="comity trust bind a/b@v1 evil")

    async with visited(Hostile().services()) as client:
        with pytest.raises(NotFound) as caught:
            await client.node()
    assert caught.value.by_node


async def test_an_internal_error_is_logged_by_the_node_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryNode):
        async def node(self) -> NodeFacts:
            raise RuntimeError("the password is swordfish")

    with caplog.at_level(logging.ERROR, "comity.wire.server"):
        async with visited(Failing().services()) as client:
            with pytest.raises(Unavailable) as caught:
                await client.node()
    assert caught.value.code == "PEER-FAULT"
    assert "swordfish" not in str(caught.value)
    assert "swordfish" in caplog.text


async def test_an_error_in_the_middle_of_a_stream_arrives() -> None:
    class Failing(MemoryNode):
        async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            yield b"x" * limits.MIN_CHUNK
            raise Untrusted("the blob is damaged here", code="QUARANTINED")

    async with visited(Failing().services()) as client:
        chunks = client.read(NOWHERE, 0, 1_000_000)
        assert len(await anext(chunks)) == limits.MIN_CHUNK
        with pytest.raises(Untrusted) as caught:
            await anext(chunks)
    assert caught.value.code == "QUARANTINED"


async def test_an_unimplemented_call_is_reported_as_such() -> None:
    async with visited(MemoryNode().services()) as client:
        call = single(client._calls.connection.channel, "NodeService/Delete")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
    assert from_rpc(caught.value).code == "UNIMPLEMENTED"


@asynccontextmanager
async def raw(node: MemoryNode, allowance: Allowance = GENEROUS) -> AsyncIterator[grpc.aio.Channel]:
    """A bare channel to a real server, for clients that break the protocol."""
    own = identity()
    options = [("grpc.ssl_target_name_override", pin(own).server_name), ("grpc.max_send_message_length", -1)]
    async with listening(OpenAccess(own), node.services(), allowance=allowance) as address:
        credentials = grpc.ssl_channel_credentials(to_pem(own.certificate))
        async with grpc.aio.secure_channel(address.target, credentials, options=options) as channel:
            yield channel


def single(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(f"/comity.v1.{method}")


def streaming(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.stream_unary(f"/comity.v1.{method}")


async def failure(call: Any) -> ComityError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


@pytest.mark.parametrize("timeout", [None, 3_700])
async def test_a_call_without_a_sensible_deadline_is_an_invalid_argument(timeout: float | None) -> None:
    async with raw(MemoryNode()) as channel:
        get_node = single(channel, "NodeService/GetNode")
        refused = await failure(get_node(b"", timeout=timeout))
        assert (type(refused), refused.code) == (Malformed, "DEADLINE-REQUIRED")


async def test_a_request_that_is_no_message_is_malformed() -> None:
    async with raw(MemoryNode()) as channel:
        stat = single(channel, "BlobService/Stat")
        assert isinstance(await failure(stat(b"\xff\xff", timeout=5)), Malformed)


async def test_a_request_beyond_the_limit_is_refused_and_the_node_continues() -> None:
    async with raw(MemoryNode()) as channel:
        stat = single(channel, "BlobService/Stat")
        assert (await failure(stat(bytes(limits.MESSAGE + 1), timeout=5))).code == "OVERSIZED"
        get_node = single(channel, "NodeService/GetNode")
        assert node_pb2.GetNodeResponse.FromString(await get_node(b"", timeout=5)).software == "comity/test"


async def test_too_many_items_in_one_message_are_refused() -> None:
    async with raw(MemoryNode()) as channel:
        stat = single(channel, "BlobService/Stat")
        assert "too many digests" in str(await failure(stat(b"\x0a\x00" * 20_000, timeout=20)))


async def test_a_request_above_the_declared_size_is_refused_before_it_is_parsed() -> None:
    async with raw(MemoryNode()) as channel:
        for call in ("BlobService/Stat", "NodeService/GetNode"):
            most = CALL_RULES[f"/comity.v1.{call}"].request_bytes
            refused = await failure(single(channel, call)(b"\xff" * (most + 1), timeout=20))
            assert refused.code == "BODY-TOO-LARGE"
            parsed = await failure(single(channel, call)(b"\xff" * most, timeout=20))
            assert "not a valid message" in str(parsed)


async def test_a_request_that_never_arrives_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CALL_TIMEOUT", 0.2)
    async with raw(MemoryNode()) as channel:
        call = streaming(channel, "NodeService/GetNode")(timeout=30)
        refused = await failure(call)
    assert (type(refused), refused.code) == (Unavailable, "DEADLINE")


async def test_a_call_without_a_message_is_malformed() -> None:
    async with raw(MemoryNode()) as channel:
        call = streaming(channel, "NodeService/GetNode")(timeout=30)
        await call.done_writing()
        assert isinstance(await failure(call), Malformed)


async def test_an_upload_without_a_header_is_malformed() -> None:
    async with raw(MemoryNode()) as channel:
        call = streaming(channel, "PublishService/Upload")(timeout=30)
        await call.write(b"\x12\x01x")
        await call.done_writing()
        assert isinstance(await failure(call), Malformed)


class Waiting(MemoryNode):
    """Holds every range open, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0
        self.changed = asyncio.Event()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self.open += 1
        self.changed.set()
        try:
            yield b"x" * limits.MIN_CHUNK
            await asyncio.Event().wait()
        finally:
            self.open -= 1
            self.changed.set()

    async def until_open(self, count: int) -> None:
        while self.open != count:
            self.changed.clear()
            await self.changed.wait()


async def test_concurrent_calls_are_bounded_and_a_cancelled_call_frees_its_slot() -> None:
    node = Waiting()
    async with visited(node.services(), allowance=Allowance(at_once=2)) as client:
        first, second = client.read(NOWHERE, 0, 10**6), client.read(NOWHERE, 0, 10**6)
        await anext(first)
        await anext(second)
        with pytest.raises(Refused) as caught:
            await client.node()
        assert caught.value.code == "TOO-MANY-CALLS"
        await first.aclose()
        await node.until_open(1)
        await client.node()
        await second.aclose()
        await node.until_open(0)


async def test_calls_beyond_the_rate_are_refused() -> None:
    async with visited(MemoryNode().services(), allowance=Allowance(calls_per_second=0.001, burst=3)) as client:
        for _ in range(3):
            await client.node()
        with pytest.raises(Refused) as caught:
            await client.node()
    assert caught.value.code == "RATE"
    assert caught.value.hint.startswith("try again in ")


async def test_the_deadline_of_the_caller_ends_the_work_of_the_node() -> None:
    node = Waiting()
    async with visited(node.services()) as client:
        reading = client.with_timeout(0.3).read(NOWHERE, 0, limits.MIN_CHUNK)
        await anext(reading)
        with pytest.raises(Unavailable):
            await anext(reading)
        await node.until_open(0)


async def test_the_health_service_of_grpcio_has_a_deadline_of_its_own_behind_the_guard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = pytest.importorskip("grpc_health.v1.health")
    health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
    health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    own = identity()
    rule = OpenAccess(own)
    server = make_server(rule, MemoryNode().services(), Throttle(GENEROUS))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", rule.credentials())
    await server.start()
    options = [("grpc.ssl_target_name_override", pin(own).server_name)]
    credentials = grpc.ssl_channel_credentials(to_pem(own.certificate))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="")
        assert (await stub.Check(request, timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(request, timeout=5)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await failure(stub.Check(request, timeout=3_700))).code == "DEADLINE-REQUIRED"
        monkeypatch.setattr(limits, "DEFAULT_DEADLINE", 0.2)
        endless = stub.Watch(request)
        assert (await endless.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await failure(endless.read())).code == "DEADLINE"
    await server.stop(0)
