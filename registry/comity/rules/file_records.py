"""The records of a node's index of files, which others keep to ask nobody, and the statement that signs them.

A node numbers the records in the order in which it makes them and changes none, so that what is new follows what
somebody has. A record has some files of one artifact:

    whose     u8: 0 published by somebody to whom the charter binds a namespace, a member or a member's node; 1 others
    artifact  32 bytes: the digest
    name      u16 bytes: the length, and the name of the publication in UTF-8, which nobody has checked
    files     u16 files: the count, and the first 16 bytes of the SHA-256 of each

An artifact with many files has several records. It has further ones when it belongs to a member later. The *head* of so
many records is

    SHA-256("comity/file-index/v1\\n" || head of the records before || record)

beginning with 32 zero bytes; all that stands before the record has one length. A `file-index` statement of the node
names a head, and so signs every record up to there. Pure. Source: protocol, section 9.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Final

from comity.rules.signing import sign_content
from comity.trust.codec import JsonItems, JsonNumber, JsonRow, JsonText, JsonTime
from comity.trust.content import ByAuthor, Content, SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import Signer
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import FILE_INDEX

REFERENCE_BYTES: Final = 16
FILES_TOGETHER: Final = 1_024
"""Files of one record."""
MAX_NAME: Final = 512
MAX_RECORD: Final = 1 + 32 + 2 + MAX_NAME + 2 + FILES_TOGETHER * REFERENCE_BYTES
START: Final = bytes(32)
"""The head of no records."""
MEMBERS, OTHERS = 0, 1
"""Whose an artifact is: of publishers of the charter's namespaces, members and their nodes; or of others."""
MAX_LOGS: Final = 512
MAX_LOG_TEXTS: Final = 24_576
"""Characters of the names of all logs in a statement, whose line has a bound."""
_DOMAIN: Final = b"comity/file-index/v1\n"
_BEGIN: Final = struct.Struct(">B32sH")
_COUNT: Final = struct.Struct(">H")


@frozen
class FileRecord:
    """Files of an artifact. `files`: their references, joined. `name` is what a publication claims."""

    whose: int
    artifact: Digest
    name: str
    files: bytes

    @property
    def references(self) -> list[bytes]:
        files = self.files
        return [files[at : at + REFERENCE_BYTES] for at in range(0, len(files), REFERENCE_BYTES)]

    def encode(self) -> bytes:
        """Inverse of `read_records`, for one. A name that is too long is cut."""
        name = self.name.encode()[:MAX_NAME].decode(errors="ignore").encode()
        count = _COUNT.pack(len(self.files) // REFERENCE_BYTES)
        return _BEGIN.pack(self.whose, bytes.fromhex(self.artifact), len(name)) + name + count + self.files


def next_head(head: bytes, record: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + head + record).digest()


def read_records(data: bytes) -> Iterator[tuple[FileRecord, bytes]]:
    """The records that are whole in `data`, each with its bytes. Raises Malformed for what is no record, whatever
    follows it."""
    at, end = 0, len(data)
    while end - at >= _BEGIN.size + _COUNT.size:
        whose, artifact, length = _BEGIN.unpack_from(data, at)
        if whose > OTHERS or length > MAX_NAME:
            raise malformed("a record begins wrongly")
        middle = at + _BEGIN.size + length
        if middle + _COUNT.size > end:
            return
        (count,) = _COUNT.unpack_from(data, middle)
        if not 1 <= count <= FILES_TOGETHER:
            raise malformed(f"a record has 1 to {FILES_TOGETHER} files, not {count}")
        first = middle + _COUNT.size
        after = first + count * REFERENCE_BYTES
        if after > end:
            return
        name = data[at + _BEGIN.size : middle].decode(errors="replace")
        yield FileRecord(whose, Digest(artifact.hex()), name, data[first:after]), data[at:after]
        at = after


def malformed(why: str) -> Malformed:
    return Malformed("an index of files is malformed", why=why)


@frozen
class FileIndexState(Content):
    """A node says what its index of files has up to a record. In no log.

    Attributes:
        head: of these records.
        later: records that the index has after these.
        unread: entries and statements of the logs that had not been read: files of theirs may be missing.
        time: by the clock of the node.
        logs: how many entries of each log the node had, by the key of the log: of as many logs as there is room for,
            the longest ones first.
    """

    predicate: ClassVar = FILE_INDEX
    by: ByAuthor
    head: SubjectDigest
    records: int
    later: int
    unread: int
    time: Annotated[int, JsonTime()]
    logs: Annotated[
        tuple[tuple[str, int], ...],
        JsonItems(MAX_LOGS, of=JsonRow(JsonText(), JsonNumber())),
        "Each [the verifier key of a log, the entries of it that the node had].",
    ]

    @property
    def complete(self) -> bool:
        """Whether the node says that no file is missing."""
        return not (self.later or self.unread)

    def older_than(self, other: FileIndexState) -> bool:
        """Whether it has less of a log than another one, or is as old by the node's own clock."""
        before = dict(other.logs)
        return self.time < other.time or any(size < before.get(log, 0) for log, size in self.logs)


def listed_logs(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The logs for which there is room in a statement: the longest ones."""
    room, listed = MAX_LOG_TEXTS, list[tuple[str, int]]()
    for log, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0])):
        room -= len(log)
        if room < 0 or len(listed) == MAX_LOGS:
            break
        listed.append((log, size))
    return tuple(sorted(listed))


def sign_state(state: FileIndexState, online: Signer) -> bytes:
    """The line of a state."""
    return sign_content(state, online).line


def check_state(line: bytes, nodes: Iterable[NodeRecord]) -> tuple[FileIndexState, NodeRecord]:
    """A state, and which of these nodes signed it. Raises Malformed, and Untrusted if none did."""
    entry = parse_entry(line)
    state = FileIndexState.parse(entry.statement)
    for node in nodes:
        if signed_by_node(entry, node):
            return state, node
    why = f"its author is the node {state.by.id[:16]}, and the signature is of no node that is expected here"
    raise Untrusted("an index of files is not signed by its node", why=why, code="FILE-INDEX-SIGNER")
