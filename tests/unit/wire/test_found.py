"""Several answers in few messages: what fits, what is not sent twice, and what a client refuses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound
from comity.v1 import artifact_pb2, types_pb2
from comity.wire import limits
from comity.wire.artifact import ArtifactService
from comity.wire.found import Found, FoundAnswer, FoundManifest, Lookup, in_few_messages, read_found
from comity.wire.held import SALT, Held, LineReference, reference_to
from comity.wire.messages import LocatedEntry
from comity.wire.rpc import rpc_of

NAME, SUBJECT, THIRD = Lookup.of_name("a/b"), Lookup.about(sha256(b"x")), Lookup.about(sha256(b"y"), [sha256(b"z")])
TOLD = Held(bytes(SALT))


def entry(line: bytes, *, attached: bool = False) -> LocatedEntry:
    return LocatedEntry("one.example/log", 1, line, attached=attached)


async def lines(*entries: LocatedEntry, error: Exception | None = None) -> AsyncGenerator[LocatedEntry, None]:
    for each in entries:
        yield each
    if error is not None:
        raise error


def manifest(data: bytes | None) -> FoundManifest:
    async def read() -> bytes:
        if data is None:
            raise NotFound("not here")
        return data

    made: Callable[[], Awaitable[bytes]] = read
    return FoundManifest(made)


async def sent(*found: FoundAnswer | FoundManifest, held: Held | None = TOLD) -> list[artifact_pb2.FoundAnswers]:
    async def each() -> AsyncIterator[FoundAnswer | FoundManifest]:
        for one in found:
            yield one

    return [message async for message in in_few_messages(each(), held)]


async def read(*messages: artifact_pb2.FoundAnswers) -> Found:
    async def each() -> AsyncIterator[artifact_pb2.FoundAnswers]:
        for message in messages:
            yield message

    return await read_found(each())


async def test_small_answers_and_the_manifest_are_one_message() -> None:
    messages = await sent(
        FoundAnswer(NAME, lines(entry(b"1"))), FoundAnswer(THIRD, lines(entry(b"2"))), manifest(b"of it")
    )
    assert len(messages) == 1
    assert await read(*messages) == Found({NAME: (entry(b"1"),), THIRD: (entry(b"2"),)}, b"of it")


async def test_a_line_of_an_earlier_answer_is_given_by_a_reference_even_if_it_came_along() -> None:
    key = entry(b"key", attached=True)
    found = await read(*await sent(FoundAnswer(NAME, lines(key)), FoundAnswer(SUBJECT, lines(key, entry(b"2")))))
    reference = LineReference(key.origin, 1, reference_to(bytes(SALT), sha256(b"key")))
    assert found.answers == {NAME: (entry(b"key"),), SUBJECT: (reference, entry(b"2"))}


async def test_who_has_a_line_that_came_along_gets_no_reference_to_it() -> None:
    held = Held(bytes(SALT), reference_to(bytes(SALT), sha256(b"key")))
    found = await read(*await sent(FoundAnswer(NAME, lines(entry(b"key", attached=True), entry(b"2"))), held=held))
    assert found.answers == {NAME: (entry(b"2"),)}


async def test_a_brief_answer_has_references_alone() -> None:
    held = Held(bytes(SALT), b"", brief=True)
    answers = [FoundAnswer(asked, lines(entry(b"1"))) for asked in (NAME, SUBJECT)]
    found = await read(*await sent(*answers, manifest(b"of it"), held=held))
    reference = LineReference("one.example/log", 1, reference_to(bytes(SALT), sha256(b"1")))
    assert found == Found({NAME: (reference,), SUBJECT: (reference,)})


async def test_an_answer_that_is_too_long_is_left_out_and_its_lines_are_not_taken_for_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FOUND_BYTES", 1_000)
    long = entry(b"x" * 900)
    answers = [FoundAnswer(NAME, lines(long, entry(b"y" * 200))), FoundAnswer(SUBJECT, lines(long))]
    assert (await read(*await sent(*answers))).answers == {SUBJECT: (long,)}


async def test_long_answers_are_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FOUND_BYTES", 1_000)
    answers = [FoundAnswer(asked, lines(entry(b"%d" % at * 800))) for at, asked in enumerate((NAME, SUBJECT, THIRD))]
    messages = await sent(*answers)
    assert [len(message.answers) for message in messages] == [2, 1]
    assert list((await read(*messages)).answers) == [NAME, SUBJECT, THIRD]


async def test_what_is_not_known_is_left_out_but_the_name_must_be_known() -> None:
    unknown = NotFound("nothing is known")
    found = await sent(
        FoundAnswer(NAME, lines(entry(b"1"))), FoundAnswer(SUBJECT, lines(error=unknown)), manifest(None)
    )
    assert await read(*found) == Found({NAME: (entry(b"1"),)})
    with pytest.raises(NotFound):
        await sent(FoundAnswer(NAME, lines(error=unknown)), FoundAnswer(SUBJECT, lines(entry(b"1"))))


async def test_a_client_reads_as_much_as_an_answer_may_have() -> None:
    answer = artifact_pb2.FoundAnswer(name="a/b")
    within = [artifact_pb2.FoundAnswer(name=f"a/{number}") for number in range(limits.FOUND)]
    assert len((await read(artifact_pb2.FoundAnswers(answers=within))).answers) == limits.FOUND
    located = types_pb2.Located(origin="one.example/log", index=1, line=b"1")
    for message in (
        artifact_pb2.FoundAnswers(answers=[*within, answer]),
        artifact_pb2.FoundAnswers(manifest=bytes(limits.FOUND_MANIFEST + 1)),
        artifact_pb2.FoundAnswers(answers=[artifact_pb2.FoundAnswer(entries=[located] * (limits.CLAIMS + 1))]),
        artifact_pb2.FoundAnswers(answers=[artifact_pb2.FoundAnswer(artifact=b"short")]),
    ):
        with pytest.raises(Malformed):
            await read(message)


async def test_the_first_answer_to_a_question_counts() -> None:
    messages = [await sent(FoundAnswer(NAME, lines(entry(each)))) for each in (b"1", b"2")]
    assert (await read(*(message for each in messages for message in each))).answers == {NAME: (entry(b"1"),)}


class _Asked:
    """The context of a call, and a service that finds nothing but a name."""

    def __init__(self) -> None:
        self.compression = list[grpc.Compression]()

    def set_compression(self, compression: grpc.Compression) -> None:
        self.compression.append(compression)

    def find(self, name: str, *_: object) -> AsyncGenerator[FoundAnswer, None]:
        async def found() -> AsyncGenerator[FoundAnswer, None]:
            yield FoundAnswer(Lookup.of_name(name), lines(entry(b"1")))

        return found()


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_is_compressed_for_an_asker_who_says_that_it_may_be(compressed: bool) -> None:
    request, asked = artifact_pb2.FindArtifactRequest(name="a/b", compressed=compressed), _Asked()
    serve: Any = rpc_of(ArtifactService.find).serve
    found = await read(*[message async for message in serve(asked, request, asked)])
    assert list(found.answers) == [NAME]
    assert asked.compression == [grpc.Compression.Gzip] * compressed
