"""A JSON object that comes in chunks: its members one by one, and the items of its long lists one by one.

Memory is that of one value, one chunk and the names of the members, of which the caller refuses each that it does not
know. This module finds where a value ends, and nothing else: the caller parses each value with `parse_json`, by all
rules of that function. A text is accepted if and only if it is one JSON object whose values are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from comity.trust.encoding import MAX_DEPTH, parse_json
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""Up to the closing quotation mark, or to a backslash whose next byte is missing."""
_OUTSIDE: Final = re.compile(rb'[^"\[\]{}]*+')
_SCALAR: Final = re.compile(rb'[^,:"\[\]{} \t\n\r]*+')
_QUOTE, _COMMA = b'",'
_OPENING = b"[{"
MAX_NAME: Final = 1024
"""Bytes of a member's name with its quotation marks."""


@frozen
class JsonSlice:
    """The bytes of one value, not parsed yet, and their position in the whole."""

    position: int
    data: bytes


class JsonChunks:
    """Reads one JSON object. After each name of `members` the caller takes the value: by `value`, or by `items` to its
    end.

    Args:
        chunks: the bytes, in pieces of any size.
        limit: maximum bytes of the whole.
        what: the document's name, for errors.

    Every method raises Malformed, and what `chunks` raises.
    """

    def __init__(self, chunks: Iterable[bytes], *, limit: int, what: str) -> None:
        self._chunks = iter(chunks)
        self._limit, self._what = limit, what
        self._buffer, self._at = bytearray(), 0
        self._dropped = 0
        """Bytes before the buffer."""

    def members(self) -> Iterator[str]:
        """The names of the members, each once, up to the end of the text."""
        self._expect(b"{")
        names = set[str]()
        more = not self._closes(b"}")
        while more:
            name = parse_json(self.value(MAX_NAME).data, limit=MAX_NAME, what=self._what)
            if not isinstance(name, str) or name in names:
                raise self._malformed("expected the name of another member")
            names.add(name)
            self._expect(b":")
            yield name
            more = self._goes_on(b"}")
        self._end()

    def items(self, *, most: int, bytes_each: int) -> Iterator[JsonSlice]:
        """The items of a list: at most `most`, each of at most `bytes_each` bytes."""
        self._expect(b"[")
        count, more = 0, not self._closes(b"]")
        while more:
            count += 1
            if count > most:
                raise self._malformed(f"a list has more than {most} items")
            yield self.value(bytes_each)
            more = self._goes_on(b"]")

    def value(self, most: int) -> JsonSlice:
        """The next value, of at most `most` bytes. It is not valid JSON before `parse_json` has accepted it."""
        first = self._next()
        self._drop()
        if first == _QUOTE:
            self._pass_string(most)
        elif first in _OPENING:
            self._pass_nested(most)
        else:
            self._pass(_SCALAR, most)
        if self._at > most:
            raise self._too_large(most)
        found = JsonSlice(self._dropped, bytes(memoryview(self._buffer)[: self._at]))
        self._drop()
        return found

    def _pass_string(self, most: int) -> None:
        self._at += 1
        while self._pass(_STRING, most) != _QUOTE:
            self._fill()
        self._at += 1

    def _pass_nested(self, most: int) -> None:
        depth = 0
        while True:
            byte = self._pass(_OUTSIDE, most)
            if byte == _QUOTE:
                self._pass_string(most)
                continue
            self._at += 1
            depth += 1 if byte in _OPENING else -1
            if depth > MAX_DEPTH:
                raise self._malformed(f"nested deeper than {MAX_DEPTH}")
            if depth == 0:
                return

    def _pass(self, pattern: re.Pattern[bytes], most: int) -> int:
        """Go on past all that matches, in a value of at most `most` bytes, and return the byte after it."""
        while not self._advance(pattern):
            if len(self._buffer) > most:
                raise self._too_large(most)
            self._fill()
        return self._buffer[self._at]

    def _next(self) -> int:
        """The next byte that is no white space."""
        while not self._advance(_SPACE):
            self._drop()
            self._fill()
        return self._buffer[self._at]

    def _advance(self, pattern: re.Pattern[bytes]) -> bool:
        """Go on past what matches in the buffer. Returns whether the buffer has a byte after it."""
        match = pattern.match(self._buffer, self._at)
        self._at = match.end() if match is not None else self._at
        return self._at < len(self._buffer)

    def _expect(self, byte: bytes) -> None:
        if self._next() != byte[0]:
            raise self._malformed(f"expected {byte.decode()!r} at byte {self._dropped + self._at}")
        self._at += 1

    def _closes(self, byte: bytes) -> bool:
        """Whether the next byte is this one, which is then passed."""
        found = self._next() == byte[0]
        self._at += found
        return found

    def _goes_on(self, closing: bytes) -> bool:
        """Whether a comma follows; otherwise `closing` must follow."""
        if self._next() == _COMMA:
            self._at += 1
            return True
        self._expect(closing)
        return False

    def _end(self) -> None:
        while not self._advance(_SPACE):
            self._drop()
            if not self._take_chunk():
                return
        raise self._malformed("something follows its end")

    def _fill(self) -> None:
        if not self._take_chunk():
            raise self._malformed("it ends early")

    def _take_chunk(self) -> bool:
        """Whether there was another chunk, which is now in the buffer."""
        chunk = next(self._chunks, None)
        self._buffer += chunk or b""
        if self._dropped + len(self._buffer) > self._limit:
            raise Malformed(f"{self._what} too large", why=f"at most {self._limit} bytes are allowed")
        return chunk is not None

    def _drop(self) -> None:
        """Forget the bytes that were read."""
        self._dropped += self._at
        del self._buffer[: self._at]
        self._at = 0

    def _malformed(self, why: str) -> Malformed:
        return Malformed(f"{self._what} is not JSON", why=why)

    def _too_large(self, most: int) -> Malformed:
        return Malformed(f"{self._what} is malformed", why=f"a value has more than {most} bytes")
