"""Every call of comity.v1, over real channels, from the client's value to the service's implementation and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Unavailable
from comity.v1 import blob_pb2
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.blob import decode_objects, serve_objects
from comity.wire.charter import JoinRequest
from comity.wire.fields import encode_digest
from comity.wire.log import ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter
from comity.wire.publish import InlineObject, UploadHeader
from comity.wire.rpc import Context
from support.wired import ORIGIN, MemoryNode, met

NOWHERE = Digest("0" * 64)


async def test_a_node_introduces_itself() -> None:
    node = MemoryNode()
    async with met(node) as client:
        assert await client.node() == node.facts


async def test_a_charter_larger_than_a_message_arrives_whole() -> None:
    node = MemoryNode()
    async with met(node) as client:
        assert await client.charter() == node.epoch
        assert await client.charter(3) == node.epoch
        with pytest.raises(NotFound):
            await client.charter(4)


async def test_epochs_arrive_in_order_each_whole() -> None:
    node = MemoryNode()
    async with met(node) as client:
        epochs = await client.epochs(1)
        assert [charter.epoch for charter in epochs] == [1, 2, 3]
        assert epochs[-1] == node.epoch
        assert await client.epochs(3) == (node.epoch,)
        with pytest.raises(NotFound):
            await client.epochs(4)


async def test_an_answer_of_epochs_ends_where_the_bound_is_and_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "EPOCHS", 2)
    async with met(MemoryNode()) as client:
        assert [charter.epoch for charter in await client.epochs()] == [0, 1]
        assert [charter.epoch for charter in await client.epochs(2)] == [2, 3]


async def test_epochs_with_a_gap_are_malformed() -> None:
    class Gapped(MemoryNode):
        async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
            for number in (start, start + 2):
                yield Charter(number, b"{}", ())

    async with met(Gapped()) as client:
        with pytest.raises(Malformed):
            await client.epochs()


async def test_statements_about_the_charter_are_asked_for_by_its_body() -> None:
    async with met(MemoryNode()) as client:
        assert await client.next_epoch_entries() == (LocatedEntry(ORIGIN, 0, b"about None"),)
        assert await client.next_epoch_entries(NOWHERE) == (LocatedEntry(ORIGIN, 0, f"about {NOWHERE}".encode()),)


async def test_a_request_to_join_is_noted_and_listed() -> None:
    async with met(MemoryNode()) as client:
        receipt = await client.ask([b"inception", b"record"])
        assert (receipt.member, receipt.waiting) == (sha256(b"inception"), 1)
        assert await client.asks() == (JoinRequest(receipt.member, 7, (b"inception", b"record")),)


async def test_a_card_out_of_bounds_is_refused_before_the_node_is_asked() -> None:
    node = MemoryNode()
    async with met(node) as client:
        for card in ([], [b"line"] * 33, [b"x" * 60_000] * 5):
            with pytest.raises(Malformed):
                await client.ask(card)
    assert node.waiting == []


async def test_entries_arrive_in_order_and_end_with_the_log() -> None:
    node = MemoryNode()
    async with met(node) as client:
        batches = [batch async for batch in client.entries(ORIGIN, 10, 5_000)]
    assert [line for batch in batches for line in batch.lines] == node.lines[10:]
    assert [batch.start for batch in batches] == [10, 110, 210]


async def test_entries_of_an_unknown_log_are_not_found() -> None:
    async with met(MemoryNode()) as client:
        with pytest.raises(NotFound) as caught:
            async for _ in client.entries("elsewhere.example/log", 0, 1):
                pass
    assert (caught.value.code, caught.value.why) == ("UNKNOWN-LOG", "elsewhere.example/log")


async def test_batches_of_large_lines_stay_within_a_megabyte() -> None:
    node = MemoryNode()
    node.lines = [bytes([65 + n % 26]) * limits.LINE for n in range(90)]
    async with met(node) as client:
        batches = [batch async for batch in client.entries(ORIGIN, 0, 90)]
    assert [line for batch in batches for line in batch.lines] == node.lines
    assert max(sum(map(len, batch.lines)) for batch in batches) <= limits.CHUNK


async def test_questions_about_a_log_reach_it() -> None:
    async with met(MemoryNode()) as client:
        (head,) = await client.logs()
        assert (head.origin, head.note) == (ORIGIN, b"a note\n")
        assert await client.checkpoint(ORIGIN) == b"example.org/log None"
        assert await client.checkpoint(ORIGIN, 0) == b"example.org/log 0"
        assert await client.checkpoint(ORIGIN, up_to=9) == b"example.org/log up to 9"
        with pytest.raises(Malformed):
            await client.checkpoint(ORIGIN, 0, up_to=9)
        assert await client.inclusion(ORIGIN, 1, 2) == (b"\x01" * 32, b"\x02" * 32)
        assert await client.consistency(ORIGIN, 1, 2) == (b"\x01" * 32,)
        (proof,) = await client.proofs(NOWHERE)
        assert (proof.origin, proof.proof) == (ORIGIN, NOWHERE.encode())
        assert await client.misbehaviour() == (
            ShownMisbehaviour("split-view", "evil.example/log", (b"one note", b"another")),
        )


async def test_ranges_outside_a_tree_are_refused_before_the_log_is_asked() -> None:
    async with met(MemoryNode()) as client:
        with pytest.raises(Malformed):
            await client.inclusion(ORIGIN, 2, 2)
        with pytest.raises(Malformed):
            await client.consistency(ORIGIN, 3, 2)
        with pytest.raises(Malformed):
            await client.consistency(ORIGIN, 0, 2)


async def test_names_and_claims_are_found() -> None:
    node = MemoryNode()
    async with met(node) as client:
        assert await client.resolve("a/b", "1") == (LocatedEntry(ORIGIN, 7, b"a/b@1"),)
        assert await client.resolve("a/b") == (LocatedEntry(ORIGIN, 7, b"a/b@None"),)
        (only,) = await client.resolve("a/b", "1", sha256(b"publisher"))
        assert only.line == f"a/b@1 {sha256(b'publisher')}".encode()
        assert [located.line for located in await client.claims(NOWHERE)] == node.lines
        page = await client.search("word", "c", 9)
    assert (page.found, page.next_cursor) == ((LocatedEntry(ORIGIN, 9, b"word"),), "cnext")


async def test_objects_and_records_arrive_whole() -> None:
    node = MemoryNode()
    held = node.keep(bytes(range(256)) * 10_000)
    async with met(node) as client:
        assert await client.object(held) == node.blobs[held]
        assert await client.records(held, "fixed-4MiB/1") == node.blobs[held]
        with pytest.raises(Malformed):
            await client.records(held, "fixed-4MiB/1", 36)
        with pytest.raises(NotFound):
            await client.object(NOWHERE)


async def test_small_objects_arrive_with_one_call_in_the_order_asked() -> None:
    node = MemoryNode()
    small = [node.keep(b"object %d" % number) for number in range(5)]
    large = node.keep(bytes(limits.SMALL_OBJECT + 1))
    async with met(node) as client:
        found = [item async for item in client.objects([small[4], NOWHERE, large, *small[:4]])]
        assert found == [(digest, node.blobs[digest]) for digest in (small[4], *small[:4])]
        for wrong in ([small[0], small[0]], [sha256(b"%d" % number) for number in range(limits.OBJECTS + 1)]):
            with pytest.raises(Malformed):
                await anext(client.objects(wrong))


async def test_small_objects_share_messages_only_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    node = MemoryNode()
    held = [node.keep(bytes([number]) * 100) for number in range(5)]
    monkeypatch.setattr(limits, "CHUNK", 250)
    compressed = list[object]()
    context = cast(Context, SimpleNamespace(set_compression=compressed.append))
    for together, sizes in ((False, [1, 1, 1, 1, 1]), (True, [2, 2, 1])):
        request = blob_pb2.GetObjectsRequest(digests=map(encode_digest, held), together=together)
        answer = [decode_objects(message) async for message in serve_objects(node, request, context)]
        assert [len(objects) for objects in answer] == sizes
        assert [digest for objects in answer for digest, _ in objects] == held
        assert compressed == together * [grpc.Compression.Gzip]


async def test_an_answer_of_small_objects_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    node = MemoryNode()
    held = [node.keep(bytes([number]) * 100) for number in range(4)]
    monkeypatch.setattr(limits, "OBJECTS_BYTES", 250)
    async with met(node) as client:
        assert [digest async for digest, _ in client.objects(held)] == held[:2]


async def test_an_empty_object_arrives_empty() -> None:
    node = MemoryNode()
    empty = node.keep(b"")
    async with met(node) as client:
        assert await client.object(empty) == b""


async def test_stat_answers_in_the_order_asked() -> None:
    node = MemoryNode()
    held = node.keep(b"twelve bytes")
    async with met(node) as client:
        missing, found = await client.stat([NOWHERE, held])
    assert (missing.have, found.have, found.size) == (False, True, 12)


async def test_a_location_keeps_its_secret_out_of_its_repr() -> None:
    async with met(MemoryNode()) as client:
        (location,) = await client.locations(NOWHERE)
    assert location.url.endswith("?secret")
    assert "secret" not in repr(location)


@pytest.mark.parametrize(("offset", "length"), [(0, 3_000_000), (1, 1), (999_999, 2_000_000), (2_999_999, 50)])
async def test_a_range_is_read_as_bare_bytes(offset: int, length: int) -> None:
    node = MemoryNode()
    data = bytes(n * 31 % 251 for n in range(3_000_000))
    held = node.keep(data)
    async with met(node) as client:
        got = b"".join([chunk async for chunk in client.read(held, offset, length)])
    assert got == data[offset : offset + length]


async def test_a_range_outside_the_bounds_is_refused() -> None:
    node = MemoryNode()
    held = node.keep(b"x")
    async with met(node) as client:
        for length in (0, limits.READ + 1):
            with pytest.raises(Malformed):
                async for _ in client.read(held, 0, length):
                    pass


async def test_a_line_is_logged_once_its_objects_are_here() -> None:
    node = MemoryNode()
    data = b"weights " * 400_000
    digest = sha256(data)
    line = digest.encode()

    async def chunks(start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, limits.CHUNK):
            yield data[at : min(at + limits.CHUNK, end)]

    async with met(node) as client:
        waiting = await client.submit([line])
        assert [(missing.digest, missing.received) for missing in waiting.missing] == [(digest, 0)]
        half = len(data) // 2
        first = UploadHeader(waiting.submission, digest, len(data), 0)
        assert await client.upload(first, chunks(0, half)) == half
        with pytest.raises(Conflict) as caught:
            await client.upload(first, chunks(0, half))
        assert caught.value.code == "OFFSET"
        rest = UploadHeader(waiting.submission, digest, len(data), half)
        assert await client.upload(rest, chunks(half, len(data))) == len(data)
        (receipt,) = (await client.submit([line])).receipts
    assert (receipt.index, receipt.line_digest) == (300, sha256(line))
    assert all(caller.operator for caller in node.publishers)


async def test_an_upload_that_is_refused_sends_no_byte_and_says_why() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        sent += 1
        yield b"x" * 100_000

    header = UploadHeader(NOWHERE, NOWHERE, 10_000_000, 5)
    async with met(MemoryNode()) as client:
        for _ in range(50):
            with pytest.raises(Conflict):
                await client.upload(header, chunks())
    assert sent == 0


async def test_an_upload_that_ends_early_is_an_error_of_ours() -> None:
    class Full(MemoryNode):
        async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
            async for _ in chunks:
                raise OutOfSpace("the disk is full")
            return 0

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 100_000

    async with met(Full()) as client:
        for _ in range(20):
            with pytest.raises((OutOfSpace, Unavailable)):
                await client.upload(UploadHeader(NOWHERE, NOWHERE, 100_000_000, 0), chunks())


async def test_small_objects_travel_with_their_lines() -> None:
    node = MemoryNode()
    inline = InlineObject(sha256(b"card"), b"card")
    async with met(node) as client:
        assert len((await client.submit([inline.digest.encode()], [inline])).receipts) == 1


async def test_more_bytes_than_the_header_promised_are_refused() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"12345"

    async with met(MemoryNode()) as client:
        with pytest.raises(Malformed, match="the data does not match its header"):
            await client.upload(UploadHeader(NOWHERE, NOWHERE, 4, 0), chunks())


async def test_a_fault_in_the_source_of_an_upload_reaches_its_caller() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"12345"
        raise NotFound("the file has gone")

    async with met(MemoryNode()) as client:
        with pytest.raises(NotFound, match="the file has gone"):
            await client.upload(UploadHeader(NOWHERE, NOWHERE, 40, 0), chunks())


async def test_an_operator_adopts_files_and_reads_the_status() -> None:
    node = MemoryNode()
    async with met(node) as client:
        assert await client.adopt(Path("/data/model"), NOWHERE, 5) is False
        assert await client.status() == node.state
        with pytest.raises(Malformed, match="absolute"):
            await client.adopt(Path("model"), NOWHERE, 5)
    assert node.adopted == [Path("/data/model")]


async def batches_of(*batches: Sequence[InlineObject]) -> AsyncIterator[Sequence[InlineObject]]:
    for batch in batches:
        yield batch


def inline(data: bytes) -> InlineObject:
    return InlineObject(sha256(data), data)


async def test_small_objects_are_uploaded_with_one_call() -> None:
    node = MemoryNode()
    async with met(node) as client:
        sent = batches_of([inline(b"a"), inline(b"bc")], [inline(b"")])
        assert await client.upload_objects(NOWHERE, sent, size=3) == 3
    assert {b"a", b"bc", b""} <= set(node.blobs.values())


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([[]], id="no object"),
        pytest.param([[inline(b"a"), inline(b"a")]], id="twice in a message"),
        pytest.param([[inline(b"a")], [inline(b"a")]], id="twice in two messages"),
        pytest.param([[inline(bytes(limits.SMALL_OBJECT + 1))]], id="too large"),
        pytest.param([[inline(bytes([n]) * limits.SMALL_OBJECT) for n in range(5)]], id="too many bytes in a message"),
        pytest.param([[inline(b"%d" % n)] for n in range(limits.MISSING + 1)], id="too many objects"),
    ],
)
async def test_uploads_of_objects_beyond_the_bounds_are_refused(batches: list[list[InlineObject]]) -> None:
    node = MemoryNode()
    async with met(node) as client:
        with pytest.raises((Malformed, Unavailable)):
            await client.upload_objects(NOWHERE, batches_of(*batches), size=1)
