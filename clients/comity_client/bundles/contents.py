"""What a bundle is: its index, the list of its contents, and where each byte is on its disks.

A bundle is a sequence of files, which a folder holds as they are, or several disks hold in parts:

    bundle.json                          the index; the same bytes on every disk
    contents                             the list of files, in order; the same bytes on every disk
    disk                                 the number of this disk, from 1, as text
    charter/<epoch>.body, .certificate   a charter, and the lines that certify it
    logs/<n>/<index>.lines               entries of log n of the index, from this entry on, one a line
    logs/<n>/checkpoint                  its newest checkpoint, with cosignatures
    misbehaviour/<n>                     a proof of misbehaviour, as JSON
    packs/<n>                            side objects, piece records and small files, one after the other
    blobs/<sha256>                       a large file of an artifact
    parity/<n>                           of a parity disk: parity of the data disks (`erasure`)

A line of `contents` is `SHA256 SIZE PATH` for a file, and `SHA256 SIZE +` for a member of the pack before it, with
`BLOB LAYOUT` after the `+` for piece records. Data disk d holds the bytes from (d-1) * `disk_bytes` on; a file that is
cut has its parts at `PATH.OFFSET`. Nothing here is trusted: the reader checks what a bundle says, as it checks
what a peer says.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT
from comity.rules.tree_proofs import Frontier
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, bare_digest, parse_json, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey
from comity.wire.limits import LOGS, OBJECT

from comity_client.bundles.erasure import ErasureCode

SCHEMA: Final = "comity.dev/bundle/v1"
INDEX: Final = "bundle.json"
CONTENTS: Final = "contents"
DISK: Final = "disk"
MAX_INDEX: Final = 32 * 1024 * 1024
MAX_CONTENTS: Final = 1024 * 1024 * 1024
MAX_ITEMS: Final = 4_000_000
"""Files and members of packs: about 200 bytes of memory each."""
MAX_BYTES: Final = 1 << 50
"""All files together: a pebibyte."""
MAX_LINE: Final = 256
MAX_EARLIER: Final = 64
PARITY_BYTES: Final = 256 * 1024 * 1024
"""The size of a parity file, but the last."""
_PATH: Final = re.compile(
    r"charter/\d{6}\.(?:body|certificate)|logs/\d{5}/(?:\d{12}\.lines|checkpoint)|misbehaviour/\d{5}|packs/\d{6}"
    r"|blobs/[0-9a-f]{64}",
    re.ASCII,
)
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@frozen
class CarriedLog:
    """A log of a bundle, which has its entries from `start.size` to before `end.size`. `start` and `end` are the right
    edges of its tree there."""

    log: str
    start: Frontier
    end: Frontier

    @property
    def origin(self) -> str:
        return self.log.partition("+")[0]

    @classmethod
    def from_json(cls, value: Json) -> CarriedLog:
        fields = Fields(value, "log of a bundle")
        log = cls(str(VerifierKey.parse(fields.text("log", most=4096))), _edge(fields, "start"), _edge(fields, "end"))
        fields.done()
        if log.start.size > log.end.size:
            raise Malformed("log of a bundle is malformed", why="it ends before it starts")
        return log

    def to_json(self) -> dict[str, Json]:
        edges = {"start": self.start, "end": self.end}
        value: dict[str, Json] = {"log": self.log}
        for side, at in edges.items():
            value[side] = {"size": at.size, "hashes": [item.hex() for item in at.hashes]}
        return value


@frozen
class BundleIndex:
    """The index of a bundle.

    Attributes:
        federation: id of the federation; empty if the node that was read belongs to none.
        node: origin of the node that was read.
        earlier: the bundles that this one continues, by the SHA-256 of their indexes.
        contents: SHA-256 of the list of contents.
        size: bytes of all files together.
        disk_bytes: bytes of each data disk but the last.
        code: how many data disks there are, and how many disks together.
        first_epoch, epochs: the first epoch that it carries, and how many.
        artifacts: artifacts of which it carries every file that earlier bundles do not.
    """

    federation: str
    node: str
    earlier: tuple[Digest, ...]
    contents: Digest
    size: int
    disk_bytes: int
    code: ErasureCode
    logs: tuple[CarriedLog, ...]
    first_epoch: int
    epochs: int
    artifacts: int

    def __post_init__(self) -> None:
        if self.size > self.code.data * self.disk_bytes:
            raise Malformed("index of a bundle is malformed", why="the disks do not have the size of the files")
        if len({log.log for log in self.logs}) != len(self.logs):
            raise Malformed("index of a bundle is malformed", why="it lists a log twice")

    @classmethod
    def parse(cls, data: bytes) -> BundleIndex:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_INDEX, what="index of a bundle"), "index of a bundle")
        fields.constant("schema", SCHEMA)
        federation = fields.text("federation", least=0, most=64)
        index = cls(
            federation=bare_digest(federation) if federation else "",
            node=fields.text("node", most=255),
            earlier=fields.digests("earlier", most=MAX_EARLIER),
            contents=fields.digest("contents"),
            size=fields.integer("size", most=MAX_BYTES),
            disk_bytes=fields.integer("disk_bytes", least=1, most=MAX_BYTES),
            code=ErasureCode(
                fields.integer("data_disks", least=1, most=10_000), fields.integer("disks", least=1, most=10_000)
            ),
            logs=tuple(CarriedLog.from_json(item) for item in fields.items("logs", most=LOGS)),
            first_epoch=fields.integer("first_epoch", most=999_999),
            epochs=fields.integer("epochs", most=100_000),
            artifacts=fields.integer("artifacts"),
        )
        fields.done()
        return index

    def encode(self) -> bytes:
        value: dict[str, Json] = {
            "schema": SCHEMA,
            "federation": self.federation,
            "node": self.node,
            "earlier": list(self.earlier),
            "contents": self.contents,
            "size": self.size,
            "disk_bytes": self.disk_bytes,
            "data_disks": self.code.data,
            "disks": self.code.total,
            "logs": [log.to_json() for log in self.logs],
            "first_epoch": self.first_epoch,
            "epochs": self.epochs,
            "artifacts": self.artifacts,
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @property
    def digest(self) -> Digest:
        return sha256(self.encode())


@frozen
class CarriedFile:
    """A file of a bundle, with the members of a pack."""

    path: str
    size: int
    sha256: Digest
    members: tuple[PackMember, ...] = ()

    def encode(self) -> bytes:
        """Its lines in the list of contents."""
        lines = [f"{self.sha256} {self.size} {self.path}\n", *(member.line() for member in self.members)]
        return "".join(lines).encode()


@frozen
class PackMember:
    """A member of a pack: an object or small file by its digest, or the piece records of `blob` in a layout."""

    sha256: Digest
    size: int
    blob: Digest | None = None
    layout: str = ""

    def line(self) -> str:
        records = f" {self.blob} {self.layout}" if self.blob else ""
        return f"{self.sha256} {self.size} +{records}\n"


def parse_contents(lines: Iterable[bytes]) -> Iterator[CarriedFile]:
    """The files of a list of contents, line by line. Raises Malformed: above a limit, for a path of another form, and
    where the members of a pack do not have its size."""
    current: CarriedFile | None = None
    members: list[PackMember] = []
    for number, line in enumerate(lines):
        if number >= MAX_ITEMS or len(line) > MAX_LINE:
            raise _malformed(f"more than {MAX_ITEMS} lines, or a line of more than {MAX_LINE} bytes")
        parsed = parse_contents_line(line)
        if isinstance(parsed, PackMember):
            if current is None or not current.path.startswith("packs/"):
                raise _malformed("a member without a pack")
            members.append(parsed)
            continue
        if current is not None:
            yield _complete(current, members)
        current, members = parsed, []
    if current is not None:
        yield _complete(current, members)


def parse_contents_line(line: bytes) -> CarriedFile | PackMember:
    """One line, with its line feed. Raises Malformed."""
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError as error:
        raise _malformed("a line is not ASCII") from error
    fields = text[:-1].split(" ")
    if not text.endswith("\n") or len(fields) not in (3, 5) or not _SIZE.fullmatch(fields[1]):
        raise _malformed(f"a line is not SHA256 SIZE PATH: {text[:80]!r}")
    digest, size, path = bare_digest(fields[0]), int(fields[1]), fields[2]
    if size > MAX_INTEGER:
        raise _malformed("a size is too large")
    if path == "+":
        return _member(digest, size, fields[3:])
    named = path.removeprefix("blobs/")
    if len(fields) != 3 or not _PATH.fullmatch(path) or (named != path and named != digest):
        raise _malformed(f"not a path of a bundle: {path[:80]!r}")
    return CarriedFile(path, size, digest)


def _member(digest: Digest, size: int, rest: Sequence[str]) -> PackMember:
    if size > OBJECT:
        raise _malformed("a member of a pack is too large")
    if not rest:
        return PackMember(digest, size)
    if rest[1] not in (FIXED_LAYOUT, TENSOR_LAYOUT):
        raise _malformed(f"no layout of pieces: {rest[1][:60]!r}")
    return PackMember(digest, size, bare_digest(rest[0]), rest[1])


def _complete(file: CarriedFile, members: list[PackMember]) -> CarriedFile:
    if file.path.startswith("packs/") and sum(member.size for member in members) != file.size:
        raise _malformed(f"the members of {file.path} do not have its size")
    return CarriedFile(file.path, file.size, file.sha256, tuple(members))


@frozen
class DiskPart:
    """The part of a file that one data disk holds: where it begins in the file and on the disk, from 0."""

    path: str
    disk: int
    in_file: int
    on_disk: int
    size: int


@dataclass(frozen=True)
class DiskLayout:
    """Where the bytes of a bundle are: the files in order, cut into data disks of `disk_bytes`."""

    files: Sequence[CarriedFile]
    disk_bytes: int
    code: ErasureCode
    _starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts, at, seen = [], 0, set[str]()
        for file in self.files:
            if file.path in seen:
                raise _malformed(f"{file.path} is listed twice")
            seen.add(file.path)
            starts.append(at)
            at += file.size
        object.__setattr__(self, "_starts", starts)

    @cached_property
    def size(self) -> int:
        return self._starts[-1] + self.files[-1].size if self.files else 0

    @property
    def parity_bytes(self) -> int:
        """Bytes of one parity disk; 0 if there is none."""
        return self.used(self.code.data) if self.code.total > self.code.data else 0

    def start(self, number: int) -> int:
        """Where a file begins in the sequence of all bytes."""
        return self._starts[number]

    def parts(self, number: int) -> list[DiskPart]:
        """The parts of a file, in order: one, unless it is cut. An empty file has one part."""
        file, start = self.files[number], self._starts[number]
        end, parts = start + file.size, []
        for disk in range(start // self.disk_bytes, max(start, end - 1) // self.disk_bytes + 1):
            begin, stop = max(start, disk * self.disk_bytes), min(end, (disk + 1) * self.disk_bytes)
            whole = stop - begin == file.size
            path = file.path if whole else f"{file.path}.{begin - start:016d}"
            last = min(disk, self.code.data - 1)  # an empty file at the very end
            parts.append(DiskPart(path, last, begin - start, begin - last * self.disk_bytes, stop - begin))
        return parts

    def files_of(self, disk: int, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The ranges of files under a range of a data disk: file, offset in it, and length."""
        at, end = disk * self.disk_bytes + offset, min(disk * self.disk_bytes + offset + length, self.size)
        number = bisect_right(self._starts, at) - 1
        while at < end:
            inside = at - self._starts[number]
            count = min(end - at, self.files[number].size - inside)
            if count > 0:
                yield number, inside, count
                at += count
            number += 1

    def used(self, disk: int) -> int:
        """Bytes of a data disk, or of a parity disk, which has as many as the longest data disk."""
        first = disk * self.disk_bytes if disk < self.code.data else 0
        return max(0, min(self.disk_bytes, self.size - first))


def parity_files(used: int, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
    """The files of a parity disk that covers `used` bytes, from `start` to before `end`: path, offset and size. One at
    a time, because `used` is what a stranger's disk claims."""
    stop = used if end is None else min(end, used)
    first = start // PARITY_BYTES * PARITY_BYTES if start < stop else stop
    for at in range(first, stop, PARITY_BYTES):
        yield f"parity/{at // PARITY_BYTES:06d}", at, min(PARITY_BYTES, used - at)


def disk_folder(number: int) -> str:
    """The name of the folder of a disk, from 0, in a bundle of several."""
    return f"disk-{number + 1:02d}"


def parse_disk(data: bytes, code: ErasureCode) -> int:
    """The number of a disk, from 0, in its file `disk`. Raises Malformed."""
    text = data.decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= code.total):
        raise Malformed("not a disk of this bundle", why=f"{DISK} says {text[:20]!r}, of {code.total}", code="BUNDLE")
    return int(text) - 1


def encode_misbehaviour_proof(kind: str, origin: str, parts: Sequence[bytes]) -> bytes:
    return json.dumps({"kind": kind, "origin": origin, "parts": [part.hex() for part in parts]}).encode()


def parse_misbehaviour_proof(data: bytes) -> tuple[str, str, tuple[bytes, ...]]:
    """Kind, origin and parts. Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_INDEX, what="proof in a bundle"), "proof in a bundle")
    kind, origin = fields.text("kind", most=64), fields.text("origin", most=255)
    parts = []
    for item in fields.items("parts", most=16):
        try:
            parts.append(bytes.fromhex(item if isinstance(item, str) else "-"))
        except ValueError as error:
            raise fields.error("a part is not hexadecimal") from error
    fields.done()
    return kind, origin, tuple(parts)


def _edge(fields: Fields, name: str) -> Frontier:
    inner = fields.object(name)
    size = inner.integer("size")
    edge = Frontier(size, tuple(bytes.fromhex(item) for item in inner.digests("hashes", most=63)))
    inner.done()
    return edge


def _malformed(why: str) -> Malformed:
    return Malformed("the contents of this bundle are malformed", why=why, code="BUNDLE")
