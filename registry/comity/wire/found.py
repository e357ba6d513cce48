"""Several questions about one artifact, answered together (`FindArtifact`).

Source: proto/comity/v1/artifact.proto, messages FindArtifactRequest and FoundAnswer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Annotated, Final, Self

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import At, Exact, Items, MessageCodec
from comity.wire.fields import read_data
from comity.wire.held import Held, Selected, in_messages, read_selected, references_to
from comity.wire.messages import LocatedEntry


@frozen
class Lookup:
    """A question whose answer is a selection: `Resolve` of a name, or `GetClaims` of `subject` if there is one."""

    name: Annotated[str, Exact(limits.NAME)] = ""
    version: Annotated[str | None, Exact(limits.NAME)] = None
    publisher: Digest | None = None
    subject: Annotated[Digest | None, At("artifact")] = None
    named: Annotated[tuple[Digest, ...], Items(limits.NAMED)] = ()

    @classmethod
    def of_name(
        cls,
        name: str,
        version: str | None = None,
        publisher: Digest | None = None,
        named: Iterable[Digest] = (),
    ) -> Self:
        return cls(name, version, publisher, None, tuple(dict.fromkeys(named)))

    @classmethod
    def about(cls, subject: Digest, named: Iterable[Digest] = ()) -> Self:
        return cls(subject=subject, named=tuple(dict.fromkeys(named)))


@frozen
class FoundAnswer:
    """A question, and the lines of its answer, which are read as they are sent."""

    asked: Lookup
    entries: AsyncGenerator[LocatedEntry, None]


@frozen
class FoundManifest:
    """The manifest of the artifact. `read` returns its bytes, or raises NotFound."""

    read: Callable[[], Awaitable[bytes]]


@frozen
class Found:
    """What a node answered: the questions, each with its first answer, and a manifest, which may be of anything."""

    answers: Mapping[Lookup, tuple[Selected, ...]]
    manifest: bytes = b""


ASKED: Final = MessageCodec(Lookup, artifact_pb2.FoundAnswer)


async def encode_found(answer: FoundAnswer, held: Held | None, sent: set[bytes]) -> artifact_pb2.FoundAnswer | None:
    """The message of an answer; None if it is too long. Raises what reading it raises.

    Args:
        sent: references to lines that the asker got with answers before; those of this one are added.
    """
    message, size, lines = ASKED.encode(answer.asked), 0, list[bytes]()
    async with aclosing(answer.entries) as entries:
        async for part in in_messages(_noted(entries, held, lines), held, sent):
            size += part.ByteSize()
            if size > limits.FOUND_BYTES:
                return None
            message.entries.append(part)
    sent.update(lines)
    return message


async def in_few_messages(
    found: AsyncIterable[FoundAnswer | FoundManifest], held: Held | None
) -> AsyncGenerator[artifact_pb2.FoundAnswers, None]:
    """The answers that there are and that fit, without what the asker has or got with an earlier one. Many small
    messages would need many packets, of which a new connection may have few under way. Raises NotFound if there is no
    answer to the first question."""
    message, sent, first = artifact_pb2.FoundAnswers(), set[bytes](), True
    async for each in found:
        try:
            if isinstance(each, FoundManifest):
                message.manifest = b"" if held is not None and held.brief else await each.read()
            elif (answer := await encode_found(each, held, sent)) is not None:
                if message.ByteSize() + answer.ByteSize() > 2 * limits.FOUND_BYTES:
                    yield message
                    message = artifact_pb2.FoundAnswers()
                message.answers.append(answer)
        except NotFound:
            if first:
                raise
        first = False
    yield message


async def read_found(messages: AsyncIterable[artifact_pb2.FoundAnswers]) -> Found:
    """Raises Malformed."""
    answers, manifest = dict[Lookup, tuple[Selected, ...]](), b""
    async for message in messages:
        manifest = manifest or read_data(message.manifest, "manifest", limits.FOUND_MANIFEST)
        for answer in message.answers:
            if len(answers) >= limits.FOUND or len(answer.entries) > limits.CLAIMS:
                raise Malformed("the answer is too long", why="the node sent more than asked", code="UNBOUNDED")
            entries = [entry for part in answer.entries for entry in read_selected(part)]
            answers.setdefault(ASKED.decode(answer), tuple(entries))
    return Found(answers, manifest)


async def _noted(
    entries: AsyncIterable[LocatedEntry], held: Held | None, lines: list[bytes]
) -> AsyncGenerator[LocatedEntry, None]:
    """The entries. References to their lines are added to `lines`, unless the asker gets references alone."""
    async for entry in entries:
        if held is not None and not held.brief:
            lines += references_to(held.salt, (entry,))
        yield entry
