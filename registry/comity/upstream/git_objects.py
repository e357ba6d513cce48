"""Reads what a git server answers: packet lines, packs, commits, trees and LFS pointers. Pure: bytes in, values out.

Every byte is untrusted. An object is known by the SHA-1 that is computed here from its bytes, so the commit that was
asked for names the trees and files that were received, or they are not found. Sizes are declared by the server and
checked before memory is spent: of all objects together, at most `MAX_INFLATED` bytes. The instructions of changes are
counted, because each may make as little as one byte. Sources: gitprotocol-v2, gitformat-pack, git object format, Git
LFS pointer specification v1.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.upstream.guarded import unusable
from comity.upstream.listed_files import MAX_TOTAL, ListedFile

MAX_PACKED: Final = 64 * 1024 * 1024
"""Bytes of a pack."""
MAX_INFLATED: Final = 128 * 1024 * 1024
"""Bytes of all objects of a pack."""
MAX_INSTRUCTIONS: Final = 4_000_000
"""Instructions of all changes of objects of a pack, half a microsecond or more each."""
MAX_OBJECTS: Final = 3 * MAX_FILES
MAX_POINTER: Final = 1024
MAX_PATH: Final = 1024
FLUSH: Final = 0
DELIMITER: Final = 1
COMMIT: Final = "commit"
TREE: Final = "tree"
BLOB: Final = "blob"
LINK_MODE: Final = "120000"
_FILE_MODES: Final = ("100644", "100755", "100664")
_FOLDER_MODES: Final = ("40000", "040000")
_KINDS: Final = {1: COMMIT, 2: TREE, 3: BLOB, 4: "tag"}
_OFFSET_DELTA: Final = 6
_NAMED_DELTA: Final = 7
_CHUNK: Final = 4096
_LENGTH: Final = re.compile(rb"[0-9a-f]{4}\Z")
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,14})\n\Z"
)
_POINTER_START: Final = b"version https://git-lfs.github.com/spec/"
_COMMIT_TREE: Final = re.compile(rb"tree ([0-9a-f]{40})\n")


def packet_lines(body: bytes) -> Iterator[bytes | int]:
    """The lines of an answer; `FLUSH` and `DELIMITER` for the packets that end a list or a part. Raises Malformed
    (UPSTREAM-ANSWER)."""
    position = 0
    while position < len(body):
        digits = body[position : position + 4]
        length = int(digits, 16) if _LENGTH.match(digits) else -1
        if length in (0, 1, 2):
            yield FLUSH if length == 0 else DELIMITER
            position += 4
            continue
        if length < 4 or position + length > len(body):
            raise unusable("a packet line has an invalid length, or is cut off")
        yield body[position + 4 : position + length]
        position += length


def packet(text: str) -> bytes:
    """A packet line with a final newline."""
    data = f"{text}\n".encode()
    return b"%04x%s" % (len(data) + 4, data)


@frozen
class GitObject:
    """An object: one of `COMMIT`, `TREE`, `BLOB` or a tag, and its bytes."""

    kind: str
    data: bytes

    @property
    def id(self) -> str:
        """The id that git computes, 40 hex digits."""
        return hashlib.sha1(
            b"%s %d\0" % (self.kind.encode(), len(self.data)) + self.data, usedforsecurity=False
        ).hexdigest()


@frozen
class _Delta:
    offset: int
    instructions: bytes


class PackReader:
    """Reads the objects of one pack that needs no object outside it."""

    def __init__(self, pack: bytes, most: int = MAX_INFLATED, instructions: int = MAX_INSTRUCTIONS) -> None:
        self._pack = pack
        self._left = most
        self._instructions_left = instructions
        self._by_id: dict[str, GitObject] = {}
        self._by_offset: dict[int, GitObject] = {}
        self._waiting: dict[int | str, list[_Delta]] = {}

    def objects(self) -> dict[str, GitObject]:
        """The objects by their ids. Raises Malformed (UPSTREAM-ANSWER)."""
        pack = self._pack
        if len(pack) < 32 or pack[:8] != b"PACK\0\0\0\x02":
            raise unusable("it sends no pack of version 2")
        if hashlib.sha1(pack[:-20], usedforsecurity=False).digest() != pack[-20:]:
            raise unusable("the pack does not have the SHA-1 at its end")
        count, position = int.from_bytes(pack[8:12], "big"), 12
        if count > MAX_OBJECTS:
            raise unusable(f"the pack has more than {MAX_OBJECTS} objects")
        for _ in range(count):
            position = self._read(position)
        if position != len(pack) - 20 or self._waiting:
            raise unusable("the pack has bytes after its objects, or changes of objects that it lacks")
        return self._by_id

    def _read(self, start: int) -> int:
        """Read the object at an offset; return where it ends."""
        kind, size, position = self._header(start)
        base: int | str | None = None
        if kind == _OFFSET_DELTA:
            distance, position = self._distance(position)
            base = start - distance
            if not 12 <= base < start:
                raise unusable("a change of an object names one outside the pack")
        elif kind == _NAMED_DELTA:
            base, position = self._pack[position : position + 20].hex(), position + 20
        elif kind not in _KINDS:
            raise unusable("the pack has an object of an unknown type")
        self._spend(size)
        data, position = self._inflate(position, size)
        if base is None:
            self._add(start, GitObject(_KINDS[kind], data))
        else:
            self._change(base, _Delta(start, data))
        return position

    def _change(self, base: int | str, delta: _Delta) -> None:
        """Make the changed object, or have it wait until its base is known."""
        found = self._by_offset.get(base) if isinstance(base, int) else self._by_id.get(base)
        if found is None:
            self._waiting.setdefault(base, []).append(delta)
        else:
            self._add(delta.offset, self._changed(found, delta))

    def _add(self, offset: int, item: GitObject) -> None:
        """Keep an object, and make those that waited for it."""
        added = [(offset, item)]
        while added:
            offset, item = added.pop()
            self._by_offset[offset] = self._by_id[item.id] = item
            for base in (offset, item.id):
                added += [(delta.offset, self._changed(item, delta)) for delta in self._waiting.pop(base, ())]

    def _changed(self, base: GitObject, delta: _Delta) -> GitObject:
        size = _delta_sizes(delta.instructions)[1]
        self._spend(size)
        data, instructions = apply_delta(base.data, delta.instructions, self._instructions_left)
        self._instructions_left -= instructions
        return GitObject(base.kind, data)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise unusable(f"the objects of the pack have more than {MAX_INFLATED} bytes")

    def _header(self, position: int) -> tuple[int, int, int]:
        """Type and size of an object, and where the rest begins."""
        byte = self._byte(position)
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            position += 1
            byte = self._byte(position)
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 46:
                raise unusable("an object of the pack has an invalid size")
        return kind, size, position + 1

    def _distance(self, position: int) -> tuple[int, int]:
        byte = self._byte(position)
        distance = byte & 0x7F
        while byte & 0x80:
            position += 1
            byte = self._byte(position)
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            if distance > MAX_PACKED:
                raise unusable("a change of an object names one outside the pack")
        return distance, position + 1

    def _byte(self, position: int) -> int:
        if position >= len(self._pack) - 20:
            raise unusable("the pack ends within an object")
        return self._pack[position]

    def _inflate(self, position: int, size: int) -> tuple[bytes, int]:
        """The inflated bytes, exactly `size` of them, and where the compressed ones end."""
        inflater, parts, received, chunk = zlib.decompressobj(), list[bytes](), 0, _CHUNK
        end = len(self._pack) - 20
        try:
            while not inflater.eof:
                given = self._pack[position : min(position + chunk, end)]
                part = inflater.decompress(given, size - received + 1)
                received += len(part)
                parts.append(part)
                if received > size or (not given and not part):
                    raise unusable("an object of the pack does not have the size that it declares")
                position += len(given) - len(inflater.unconsumed_tail) - len(inflater.unused_data)
                chunk = min(2 * chunk, 1 << 20)
        except zlib.error as error:
            raise unusable("an object of the pack is not compressed as declared") from error
        if received != size:
            raise unusable("an object of the pack does not have the size that it declares")
        return b"".join(parts), position


def _delta_sizes(delta: bytes) -> tuple[int, int, int]:
    """Sizes of the base and of the result, and where the instructions begin."""
    sizes, position = [], 0
    for _ in range(2):
        size = shift = 0
        while True:
            if position >= len(delta) or shift > 42:
                raise unusable("a change of an object is cut off")
            byte = delta[position]
            size |= (byte & 0x7F) << shift
            shift, position = shift + 7, position + 1
            if not byte & 0x80:
                break
        sizes.append(size)
    return sizes[0], sizes[1], position


def apply_delta(base: bytes, delta: bytes, most: int = MAX_INSTRUCTIONS) -> tuple[bytes, int]:
    """The changed object, and the number of instructions that made it. The caller has bounded the size that `delta`
    declares. Raises Malformed (UPSTREAM-ANSWER), also for more than `most` instructions."""
    base_size, size, position = _delta_sizes(delta)
    wrong = unusable("a change of an object does not fit its base")
    if base_size != len(base):
        raise wrong
    result, made = bytearray(), 0
    while position < len(delta):
        if made == most:
            raise unusable(f"the changes of objects in the pack have more than {MAX_INSTRUCTIONS} instructions")
        instruction, position, made = delta[position], position + 1, made + 1
        if instruction & 0x80:
            numbers = []
            for bits, count in ((instruction & 0x0F, 4), (instruction >> 4 & 0x07, 3)):
                number = 0
                for place in range(count):
                    if bits >> place & 1:
                        if position >= len(delta):
                            raise wrong
                        number |= delta[position] << 8 * place
                        position += 1
                numbers.append(number)
            start, length = numbers[0], numbers[1] or 0x10000
            part = base[start : start + length]
        else:
            length = instruction
            part, position = delta[position : position + length], position + length
        if not instruction or len(part) != length or len(result) + length > size:
            raise wrong
        result += part
    if len(result) != size:
        raise wrong
    return bytes(result), made


@frozen
class TreeEntry:
    """A file, a link or a submodule of a commit, with its mode and the id of its object."""

    path: str
    mode: str
    id: str

    @property
    def is_file(self) -> bool:
        return self.mode in _FILE_MODES


def commit_entries(objects: Mapping[str, GitObject], commit: str) -> Iterator[TreeEntry]:
    """Every entry of a commit but its folders. Raises Malformed (UPSTREAM-ANSWER) if the commit or a tree was not
    received, or for more than `MAX_FILES` entries or folders."""
    found = objects.get(commit)
    root = _COMMIT_TREE.match(found.data) if found is not None and found.kind == COMMIT else None
    if root is None:
        raise unusable(f"it did not send the commit {commit}")
    folders, seen = [("", root[1].decode())], 0
    while folders:
        above, tree = folders.pop()
        for entry in _tree_entries(objects, above, tree):
            seen += 1
            if seen > MAX_FILES:
                raise unusable(f"the commit has more than {MAX_FILES} files and folders")
            if entry.mode in _FOLDER_MODES:
                folders.append((f"{entry.path}/", entry.id))
            else:
                yield entry


def _tree_entries(objects: Mapping[str, GitObject], above: str, tree: str) -> Iterator[TreeEntry]:
    found = objects.get(tree)
    if found is None or found.kind != TREE:
        raise unusable(f"it did not send the folder {above[:120]!r} of the commit")
    data, position = found.data, 0
    while position < len(data):
        end = data.find(b"\0", position)
        mode, space, name = data[position:end].partition(b" ")
        if end < 0 or not space or end + 21 > len(data) or not name or b"/" in name:
            raise unusable(f"the folder {above[:120]!r} of the commit is malformed")
        try:
            path = above + name.decode("utf-8")
            entry = TreeEntry(path, mode.decode("ascii"), data[end + 1 : end + 21].hex())
        except UnicodeDecodeError as error:
            raise unusable(f"a name in the folder {above[:120]!r} is not UTF-8") from error
        if len(path) > MAX_PATH:
            raise unusable(f"a path has more than {MAX_PATH} characters")
        yield entry
        position = end + 21


def listed_blob(path: str, blob: GitObject) -> ListedFile:
    """A file whose bytes are those of the blob or, of an LFS pointer, those that it names. Raises Malformed
    (UPSTREAM-ANSWER) for a pointer of another form."""
    data = blob.data
    if len(data) > MAX_POINTER or not data.startswith(_POINTER_START):
        return ListedFile(path, len(data), blob.id, content=data)
    found = _POINTER.match(data)
    if found is None or int(found[2]) > MAX_TOTAL:
        raise unusable(f"{path[:120]!r} is an LFS pointer of another form than version 1 with a SHA-256 and a size")
    return ListedFile(path, int(found[2]), blob.id, Digest(found[1].decode()))
