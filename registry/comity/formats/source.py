"""Bounded access to one untrusted file: what an inspection reads, unpacks and follows at most.

The bounds are counts of bytes, members, levels and steps, and not seconds: two machines give the same answer about a
file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import BinaryIO, Final

from comity.trust.errors import Malformed
from comity.trust.evidence import Inspection
from comity.trust.frozen import frozen

BUDGET: Final = 128 * 1024 * 1024
"""Largest number of bytes that an inspection reads of one file."""


IN_MEMORY: Final = 256 * 1024
"""Bytes of a file that is read once and kept while it is inspected."""
MAX_UNPACKED: Final = 64 * 1024 * 1024
"""Bytes that one inspection unpacks, of all streams and members together; and packed bytes that it takes for them."""
MAX_MEMBERS: Final = 4_096
"""Members of archives and streams that one inspection opens."""
MAX_DEPTH: Final = 4
"""Archives and streams within one another that an inspection follows."""
MAX_STEPS: Final = 4_000_000
"""Steps of one inspection: an opcode, a field, an item, a value, a read. Each one takes two to five microseconds."""
STEP_BYTES: Final = 256
"""Bytes that are read, or searched, in the time of one step."""


class NotInspected(Malformed):
    """More would have to be read, unpacked or followed than one inspection does."""


@dataclass(slots=True)
class Work:
    """What is left of one inspection, of a file and all that is in it. Not thread-safe."""

    unpacked: int = MAX_UNPACKED
    packed: int = MAX_UNPACKED
    members: int = MAX_MEMBERS
    steps: int = MAX_STEPS

    def unpack(self, length: int) -> None:
        """Count bytes that were unpacked. Raises NotInspected."""
        self.unpacked -= length
        if self.unpacked < 0:
            raise NotInspected(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB")

    def take_packed(self, length: int) -> None:
        """Count bytes of a compressed stream. Raises NotInspected."""
        self.packed -= length
        if self.packed < 0:
            raise NotInspected(f"more than {MAX_UNPACKED >> 20} MiB of compressed bytes")

    def count_member(self) -> None:
        """Raises NotInspected."""
        self.members -= 1
        if self.members < 0:
            raise NotInspected(f"more than {MAX_MEMBERS} members")

    def step(self, count: int = 1) -> None:
        """Count steps. Raises NotInspected."""
        self.steps -= count
        if self.steps < 0:
            raise NotInspected("it takes more steps than one inspection makes")

    def search(self, length: int) -> None:
        """Count the steps of searching `length` bytes. Raises NotInspected."""
        self.step(1 + length // STEP_BYTES)


class BudgetExceeded(Malformed):
    """A read would exceed the budget of a `BoundedFile`."""


class BoundedFile:
    """A file of `size` bytes, read at absolute offsets, at most `budget` bytes in all. The caller closes the file.

    `truncated` means that the real file continues after these bytes. `work` is shared by all that is in the file.
    """

    def __init__(self, file: BinaryIO, size: int, budget: int = BUDGET) -> None:
        self.work = Work()
        self._read: Callable[[int, int], bytes] = _reader(file, size)
        self._budgets = [[budget]]
        self.size = size
        self.truncated = False

    def read_at(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer at the end of the file. Raises Malformed if the offset is outside
        the file, BudgetExceeded if the budget is exhausted, NotInspected; OSError if the file does."""
        if not 0 <= offset <= self.size:
            raise Malformed("offset outside the file", why=f"byte {offset} of {self.size}")
        length = max(0, min(length, self.size - offset))
        if any(length > budget[0] for budget in self._budgets):
            raise BudgetExceeded("too large to inspect", why="the read limit of one inspection is reached")
        for budget in self._budgets:
            budget[0] -= length
        self.work.search(length)
        return self._read(offset, length)

    def read_exactly(self, offset: int, length: int) -> bytes:
        """As `read_at`, but raises Malformed for fewer bytes."""
        data = self.read_at(offset, length)
        if len(data) != length:
            raise Malformed("truncated", why=f"{length} bytes at {offset} of {self.size}")
        return data

    def slice_from(self, offset: int, budget: int) -> BoundedFile:
        """The bytes from `offset` on as a separate source; its reads count against `budget` and this one's budget."""
        return self.part(offset, max(0, self.size - offset), budget)

    def part(self, offset: int, length: int, budget: int = BUDGET) -> BoundedFile:
        """The `length` bytes from `offset` on as a separate source. Raises Malformed if they are not in the file."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Malformed("truncated", why=f"{length} bytes at {offset} of {self.size}")
        bounded = BoundedFile.of(b"", self.work, truncated=self.truncated and offset + length == self.size)
        bounded._read = lambda at, count: self._read(offset + at, count)
        bounded._budgets = [*self._budgets, [budget]]
        bounded.size = length
        return bounded

    @classmethod
    def of(cls, data: bytes | bytearray, work: Work, *, truncated: bool = False) -> BoundedFile:
        """A source of bytes in memory."""
        bounded, view = cls.__new__(cls), memoryview(data)
        bounded.work = work
        bounded._read, bounded._budgets = (lambda offset, length: bytes(view[offset : offset + length])), [[BUDGET]]
        bounded.size, bounded.truncated = len(data), truncated
        return bounded


class RangeFile(RawIOBase):
    """A seekable file of `size` bytes whose bytes are read by ranges, as tarfile and BufferedReader need it.

    Args:
        read_range: the bytes from an offset on, of at most a length; never asked beyond `size`.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        self._read_range = read_range
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """As of other files; RawIOBase would allocate what is asked for, and not what is there."""
        left = max(0, self._size - self._position)
        data = self._read_range(self._position, left if size < 0 else min(size, left)) if left else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._position)
        if length <= 0:  # an empty file is not stored as a blob
            return 0
        data = self._read_range(self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _reader(file: BinaryIO, size: int) -> Callable[[int, int], bytes]:
    """Reads at offsets; a small file is read once, because every reading asks for a part of it."""
    if size > IN_MEMORY:
        return lambda offset, length: _read(file, offset, length)
    data = _read(file, 0, size)
    return lambda offset, length: data[offset : offset + length]


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


@frozen
class InspectedFile:
    """One file, or one member of an archive, that is inspected under a name.

    Attributes:
        inspect: inspects what is inside, with all readings.
    """

    source: BoundedFile
    path: str
    inspect: Callable[[InspectedFile], Inspection]
    depth: int = 0

    @property
    def work(self) -> Work:
        return self.source.work

    def inside(self, source: BoundedFile, path: str) -> Inspection:
        """The inspection of a part of this file. Raises NotInspected."""
        if self.depth >= MAX_DEPTH:
            raise NotInspected(f"more than {MAX_DEPTH} archives within one another")
        self.work.count_member()
        return self.inspect(InspectedFile(source, path, self.inspect, self.depth + 1))


class Cursor:
    """Reads a source from `position` to `end`, at least `window` bytes at a time. Raises Malformed beyond `end`."""

    def __init__(self, source: BoundedFile, position: int, end: int, window: int = 128 * 1024) -> None:
        self._source = source
        self.step = source.work.step
        self._end = end
        self._min_window = window
        self._window_start = position
        self._window = b""
        self.position = position

    def take(self, length: int) -> bytes:
        start = self.position - self._window_start
        if start + length > len(self._window) or start < 0:
            self._fill(length)
            start = 0
        self._advance(length)
        return self._window[start : start + length]

    def line(self, limit: int) -> bytes | None:
        """The bytes before the next line feed, which is skipped; None if the next `limit` bytes have no line feed and
        more follow. Raises Malformed if the rest has none."""
        length = 0
        while (stop := self._line_feed()) < 0:
            if self._window_start + len(self._window) >= self._end:
                raise Malformed("truncated", why=f"no line feed after byte {self.position}")
            if length >= limit:
                return None
            length = min(limit, max(self._min_window, length * 8))
            self._fill(min(length, self._end - self.position))
        start = self.position - self._window_start
        self._advance(stop + 1 - start)
        return self._window[start:stop]

    def _line_feed(self) -> int:
        """The index of the next line feed in the window; -1 if there is none."""
        start = self.position - self._window_start
        return self._window.find(b"\n", start) if 0 <= start < len(self._window) else -1

    def rest(self, limit: int) -> bytes:
        """At most `limit` bytes of what follows, which are not skipped."""
        return self._source.read_at(self.position, min(limit, self._end - self.position))

    def skip(self, length: int) -> None:
        self._advance(length)

    def skip_to_zero(self, limit: int) -> bool:
        """Skip what precedes the next zero byte, and the byte; False if the next `limit` bytes have none."""
        for _ in range(2):
            start = self.position - self._window_start
            if 0 <= start < len(self._window) and (found := self._window.find(b"\0", start, start + limit)) >= 0:
                self._advance(found + 1 - start)
                return True
            self._fill(min(limit, self._end - self.position))
        return False

    def skip_strings(self, count: int) -> None:
        """Skip `count` strings, each after its length in 8 bytes. Fast, for vocabularies of hundreds of thousands."""
        unpack = struct.Struct("<Q").unpack_from
        while count > 0:
            at, end = self.position - self._window_start, len(self._window)
            while count > 0 and 0 <= at <= end - 8:
                at += 8 + unpack(self._window, at)[0]
                count -= 1
            self.skip(self._window_start + at - self.position)
            if count > 0:
                self.skip(self.uint(8))
                count -= 1

    def uint(self, width: int) -> int:
        """A little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def _fill(self, length: int) -> None:
        wanted = min(max(length, self._min_window), self._end - self.position)
        if length > wanted:
            raise Malformed("truncated", why=f"{length} bytes at {self.position}, and {max(wanted, 0)} are left")
        self._window = self._source.read_exactly(self.position, wanted)
        self._window_start = self.position

    def _advance(self, length: int) -> None:
        if length < 0 or self.position + length > self._end:
            raise Malformed("truncated", why=f"{length} bytes at {self.position} exceed the end at {self._end}")
        self.position += length
