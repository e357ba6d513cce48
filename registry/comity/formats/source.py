"""Reading a stranger's file at will, and never more of it than was agreed on before."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, Final

from comity.trust.errors import Malformed

BUDGET: Final = 40 * 1024 * 1024
"""Bytes that are read of one file at most, whatever it says of itself."""


class Exhausted(Malformed):
    """A look would have to read more than was agreed on."""


class Source:
    """A file of `size` bytes, read at absolute offsets, `budget` bytes in all. It is not closed here.

    `cut` says that the real thing goes on behind these bytes.
    """

    def __init__(self, file: BinaryIO, size: int, budget: int = BUDGET) -> None:
        self._read: Callable[[int, int], bytes] = lambda offset, length: _read(file, offset, length)
        self._purses = [[budget]]
        self.size = size
        self.cut = False

    def at(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`: fewer where the file ends. Raises Malformed for an offset that is no
        place in it and once the budget is spent; OSError where the file does."""
        if not 0 <= offset <= self.size:
            raise Malformed("not a place in the file", why=f"byte {offset} of {self.size}")
        length = max(0, min(length, self.size - offset))
        if any(length > purse[0] for purse in self._purses):
            raise Exhausted("too much to look through", why="a look at one file reads no more of it")
        for purse in self._purses:
            purse[0] -= length
        return self._read(offset, length)

    def exactly(self, offset: int, length: int) -> bytes:
        """As `at`, and Malformed for fewer bytes."""
        data = self.at(offset, length)
        if len(data) != length:
            raise Malformed("cut short", why=f"{length} bytes at {offset} of {self.size}")
        return data

    def rest(self, offset: int, budget: int) -> Source:
        """The bytes from `offset` on as a source of their own, `budget` of them at the expense of this one."""
        made = Source.of(b"", cut=self.cut)
        made._read = lambda at, length: self._read(offset + at, length)
        made._purses = [*self._purses, [budget]]
        made.size = max(0, self.size - offset)
        return made

    @classmethod
    def of(cls, data: bytes, *, cut: bool = False) -> Source:
        """Bytes that are here already."""
        made = cls.__new__(cls)
        made._read, made._purses = (lambda offset, length: data[offset : offset + length]), [[BUDGET]]
        made.size, made.cut = len(data), cut
        return made


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


class Cursor:
    """Goes through a source from one offset to `end`, `window` bytes at a time at least. Raises Malformed beyond it."""

    def __init__(self, source: Source, position: int, end: int, window: int = 128 * 1024) -> None:
        self._source = source
        self._end = end
        self._least = window
        self._from = position
        self._window = b""
        self.position = position

    def take(self, length: int) -> bytes:
        start = self.position - self._from
        if start + length > len(self._window) or start < 0:
            self._fill(length)
            start = 0
        self._advance(length)
        return self._window[start : start + length]

    def line(self, limit: int) -> bytes | None:
        """The bytes before the next line feed, which is stepped over; None where the first `limit` bytes hold none and
        more follow. Raises Malformed where the rest has none."""
        length = 0
        while (stop := self._line_feed()) < 0:
            if self._from + len(self._window) >= self._end:
                raise Malformed("cut short", why=f"no line feed after byte {self.position}")
            if length >= limit:
                return None
            length = min(limit, max(self._least, length * 8))
            self._fill(min(length, self._end - self.position))
        start = self.position - self._from
        self._advance(stop + 1 - start)
        return self._window[start:stop]

    def _line_feed(self) -> int:
        """Where in the window the next line feed is; -1 for nowhere."""
        start = self.position - self._from
        return self._window.find(b"\n", start) if 0 <= start < len(self._window) else -1

    def skip(self, length: int) -> None:
        self._advance(length)

    def skip_strings(self, count: int) -> None:
        """Step over `count` strings, each behind its length in 8 bytes. A vocabulary has hundreds of thousands."""
        unpack = struct.Struct("<Q").unpack_from
        while count > 0:
            at, end = self.position - self._from, len(self._window)
            while count > 0 and 0 <= at <= end - 8:
                at += 8 + unpack(self._window, at)[0]
                count -= 1
            self.skip(self._from + at - self.position)
            if count > 0:
                self.skip(self.uint(8))
                count -= 1

    def uint(self, width: int) -> int:
        """A little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def _fill(self, length: int) -> None:
        wanted = min(max(length, self._least), self._end - self.position)
        if length > wanted:
            raise Malformed("cut short", why=f"{length} bytes at {self.position}, and {max(wanted, 0)} are left")
        self._window = self._source.exactly(self.position, wanted)
        self._from = self.position

    def _advance(self, length: int) -> None:
        if length < 0 or self.position + length > self._end:
            raise Malformed("cut short", why=f"{length} bytes at {self.position}, which go beyond {self._end}")
        self.position += length
