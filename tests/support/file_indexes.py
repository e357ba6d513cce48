"""Indexes of files as nodes give them: records, heads, and signed states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from comity.rules.file_records import MEMBERS, START, FileIndexState, FileRecord, next_head, sign_state
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.wire.files import FileIndexPart, file_reference
from support.world import Node

TIME = 1_790_000_000


def record_of(manifest: bytes, name: str, whose: int = MEMBERS) -> bytes:
    """The record of an artifact."""
    parsed = Manifest.parse(manifest)
    files = b"".join(sorted({file_reference(entry.sha256) for entry in parsed.files}))
    return FileRecord(whose, parsed.digest, name, files).encode()


def head_of(records: Sequence[bytes]) -> bytes:
    head = START
    for record in records:
        head = next_head(head, record)
    return head


def state_of(
    node: Node, records: Sequence[bytes], *, later: int = 0, unread: int = 0, time: int = TIME, size: int = 1
) -> bytes:
    """What a node signs about these records, as of a size of its own log."""
    logs, head = ((str(node.record.log), size),), Digest(head_of(records).hex())
    state = FileIndexState(node.record.node, head, len(records), later, unread, time, logs)
    return sign_state(state, node.online)


def index_parts(
    records: Sequence[bytes], node: Node, after: int, head: bytes, *, together: int = 100
) -> Iterator[FileIndexPart]:
    """The answer to one call, of at most so many records."""
    if head_of(records[:after]) != head or after > len(records):
        raise NotFound("the index has other records", code="FILE-INDEX-REPLACED")
    given = records[: after + together]
    if given[after:]:
        yield FileIndexPart(b"".join(given[after:]))
    yield FileIndexPart(state=state_of(node, given, later=len(records) - len(given)))
