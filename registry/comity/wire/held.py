"""What an asker has is not sent: the lines that it has, and the references that an answer has instead of them.

A reference to a line is the first 8 bytes of SHA-256(salt || SHA-256(line)). The salt is random and the asker's, so
that nobody can log a line that hides another one from it. Source: proto/comity/v1/artifact.proto, message Held.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Final, TypeAlias

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import artifact_pb2, types_pb2
from comity.wire import limits
from comity.wire.codec import ORIGIN, Items, MessageCodec, Read
from comity.wire.messages import LocatedEntry

REFERENCE: Final = 8
"""Bytes of a reference."""
SALT: Final = 16
"""Bytes of a salt."""


def reference_to(salt: bytes, line: Digest) -> bytes:
    """The reference to the line with this SHA-256."""
    return hashlib.sha256(salt + bytes.fromhex(line)).digest()[:REFERENCE]


def _read_salt(raw: bytes) -> bytes:
    if len(raw) != SALT:
        raise Malformed("not a salt", why=f"expected {SALT} bytes, got {len(raw)}")
    return raw


def _read_held(raw: bytes) -> bytes:
    return _read_joined(raw, limits.HELD)


def _read_joined(raw: bytes, most: int) -> bytes:
    if len(raw) % REFERENCE or len(raw) > most * REFERENCE:
        raise Malformed("not references", why=f"{len(raw)} bytes, expected at most {most} of {REFERENCE} bytes each")
    return raw


@frozen
class Held:
    """The lines that an asker has, as joined references. `brief`: it wants references instead of all lines."""

    salt: Annotated[bytes, Read(_read_salt)]
    lines: Annotated[bytes, Read(_read_held)] = b""
    brief: bool = False


@frozen
class LineReference:
    """One entry of one log without its line, with the marks of `LocatedEntry`."""

    origin: str
    index: int
    line: bytes
    more: bool = False
    others: bool = False


@frozen
class References:
    """Several entries without their lines, in order, as they are in a message; `origins` has each log once."""

    origins: Annotated[tuple[str, ...], Items(limits.REFERENCES, ORIGIN)]
    logs: Annotated[tuple[int, ...], Items(limits.REFERENCES)]
    indexes: Annotated[tuple[int, ...], Items(limits.REFERENCES)]
    lines: Annotated[bytes, Read(lambda raw: _read_joined(raw, limits.REFERENCES))]

    @classmethod
    def of(cls, entries: Sequence[LineReference]) -> References:
        numbers = {origin: at for at, origin in enumerate(dict.fromkeys(each.origin for each in entries))}
        return cls(
            tuple(numbers),
            tuple(numbers[each.origin] for each in entries),
            tuple(each.index for each in entries),
            b"".join(each.line for each in entries),
        )

    def check(self) -> None:
        """Raises Malformed if the parts do not fit together."""
        count = len(self.lines) // REFERENCE
        if not count or {len(self.logs), len(self.indexes)} != {count}:
            raise Malformed("not references", why=f"{len(self.logs)} logs, {len(self.indexes)} indexes, {count} lines")
        if max(self.logs) >= len(self.origins):
            raise Malformed("not references", why=f"a log has number {max(self.logs)} of {len(self.origins)}")


Selected: TypeAlias = LocatedEntry | LineReference
"""An entry of an answer that is a selection."""
HELD: Final = MessageCodec(Held, artifact_pb2.Held)
_ENTRY: Final = MessageCodec(LocatedEntry, types_pb2.Located)
_REFERENCES: Final = MessageCodec(References, types_pb2.References, References.check)


def split(joined: bytes) -> Iterator[bytes]:
    """The single ones of joined references."""
    return (joined[at : at + REFERENCE] for at in range(0, len(joined), REFERENCE))


def read_selected(message: types_pb2.Located) -> tuple[Selected, ...]:
    """The entries of one message. Raises Malformed."""
    if not message.HasField("references"):
        return (_ENTRY.decode(message),)
    found, more = _REFERENCES.decode(message.references), message.more
    places = zip(found.logs, found.indexes, split(found.lines), strict=True)
    *first, last = [LineReference(found.origins[log], index, line, more) for log, index, line in places]
    return (*first, replace(last, others=message.others))


def references_to(salt: bytes, entries: Iterable[LocatedEntry]) -> Iterator[bytes]:
    """A reference to the line of each entry."""
    return (reference_to(salt, entry.digest or sha256(entry.line)) for entry in entries)


async def in_messages(
    entries: AsyncIterable[LocatedEntry], held: Held | None, sent: Collection[bytes] = ()
) -> AsyncGenerator[types_pb2.Located, None]:
    """The messages of an answer to an asker who has some lines. References that follow each other are in one message,
    if they have the same mark `more`.

    Args:
        sent: references to lines that were sent to the asker, and may have no use for it: none of them is left out.
    """
    references, waiting = frozenset(split(held.lines)) if held else frozenset(), list[LineReference]()
    async for entry in entries:
        given = entry if held is None else _beside(held, references, sent, entry)
        if waiting and not (isinstance(given, LineReference) and _fits(given, waiting)):
            yield _packed(waiting)
            waiting = []
        if isinstance(given, LineReference):
            waiting.append(given)
        elif given is not None:
            yield _ENTRY.encode(given)
    if waiting:
        yield _packed(waiting)


def _beside(held: Held, references: frozenset[bytes], sent: Collection[bytes], entry: LocatedEntry) -> Selected | None:
    """The entry, a reference to it, or None if it is left out. A mark is never left out."""
    (reference,) = references_to(held.salt, (entry,))
    has = reference in references
    if has and entry.attached and not (entry.more or entry.others):
        return None
    if has or held.brief or reference in sent:
        return LineReference(entry.origin, entry.index, reference, entry.more, entry.others)
    return entry


def _fits(reference: LineReference, waiting: Sequence[LineReference]) -> bool:
    return len(waiting) < limits.REFERENCES and reference.more == waiting[0].more and not waiting[-1].others


def _packed(entries: Sequence[LineReference]) -> types_pb2.Located:
    packed = _REFERENCES.encode(References.of(entries))
    return types_pb2.Located(references=packed, more=entries[0].more, others=entries[-1].others)
