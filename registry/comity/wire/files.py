"""Which artifacts have files whose digests begin with some bits, and which files such pieces (`FindFiles`), and the
index that says it (`ReadFileIndex`).

A *reference* is the first 16 bytes of the SHA-256 of a file, or of a piece of a weight file. Source:
proto/comity/v1/artifact.proto, messages FindFilesRequest, FoundFiles, ReadFileIndexRequest and FileIndexPart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from comity.rules.file_records import REFERENCE_BYTES
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_LINE
from comity.v1 import artifact_pb2
from comity.wire import limits
from comity.wire.codec import Data, Items, MessageCodec, Number

PAIR_BYTES: Final = REFERENCE_BYTES + 32
MOST_BITS: Final = 32


def file_reference(file: Digest) -> bytes:
    return bytes.fromhex(file)[:REFERENCE_BYTES]


@frozen
class FilePrefixes:
    """The first `bits` bits of digests of files, or of pieces, as numbers, in ascending order."""

    bits: Annotated[int, Number(most=MOST_BITS)]
    prefixes: Annotated[tuple[int, ...], Items(limits.FILE_PREFIXES)] = ()
    pieces: bool = False

    def check(self) -> None:
        """Raises Malformed."""
        ordered = all(left < right for left, right in zip(self.prefixes, self.prefixes[1:], strict=False))
        if not ordered or any(prefix >> self.bits for prefix in self.prefixes):
            raise Malformed("prefixes are malformed", why=f"each has {self.bits} bits, and is greater than the last")

    def bounds(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Each prefix, and the first and the last reference with it."""
        rest = 8 * REFERENCE_BYTES - self.bits
        for prefix in self.prefixes:
            first = prefix << rest
            last = first + (1 << rest) - 1
            yield prefix, first.to_bytes(REFERENCE_BYTES, "big"), last.to_bytes(REFERENCE_BYTES, "big")


FILE_PREFIXES: Final = MessageCodec(FilePrefixes, artifact_pb2.FindFilesRequest, FilePrefixes.check)


def prefix_of(reference: bytes, bits: int) -> int:
    return int.from_bytes(reference, "big") >> (8 * len(reference) - bits)


FILES: Final = Data(limits.FILES_PART * PAIR_BYTES)


@frozen
class FoundFiles:
    """Part of an answer. `indexed`: files that the node knows; `unread`: statements that it has not read yet; `cut`:
    prefixes of which it knows more files than it says. `of_members` and `of_others`: references and artifacts, joined;
    those of publishers to whom the charter binds a namespace, members and their nodes, and those of others. In answers
    about pieces, these stand for files, and files for artifacts."""

    indexed: int
    unread: int
    of_members: Annotated[bytes, FILES] = b""
    of_others: Annotated[bytes, FILES] = b""
    cut: Annotated[tuple[int, ...], Items(limits.FILE_PREFIXES)] = ()


def file_pair(reference: bytes, artifact: Digest) -> bytes:
    return reference + bytes.fromhex(artifact)


def file_pairs(joined: bytes) -> Iterator[tuple[bytes, Digest]]:
    """References of files, each with an artifact that has it. Raises Malformed."""
    if len(joined) % PAIR_BYTES:
        raise Malformed("an answer is malformed", why=f"files of {PAIR_BYTES} bytes, joined, have not {len(joined)}")
    for start in range(0, len(joined), PAIR_BYTES):
        middle = start + REFERENCE_BYTES
        yield joined[start:middle], Digest(joined[middle : start + PAIR_BYTES].hex())


@frozen
class FileIndexPart:
    """Part of an index: whole records (`comity.rules.file_records`), and in the last part of an answer the line of the
    state of all records up to there."""

    records: Annotated[bytes, Data(limits.INDEX_PART)] = b""
    state: Annotated[bytes, Data(MAX_LINE)] = b""
