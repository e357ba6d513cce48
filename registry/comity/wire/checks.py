"""Single fields as they come off the wire: accepted within a bound, or refused with Malformed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.wire import limits

M = TypeVar("M")
V = TypeVar("V")


def digest(data: bytes) -> Digest:
    if len(data) != 32:
        raise Malformed("not a sha256 digest", why=f"expected 32 bytes, got {len(data)}")
    return Digest(data.hex())


def digest_bytes(value: Digest) -> bytes:
    return bytes.fromhex(value)


def integer(value: int, what: str, *, least: int = 0, most: int = limits.INTEGER) -> int:
    if not least <= value <= most:
        raise Malformed(f"{what} out of range", why=f"{value} is not between {least} and {most}")
    return value


def text(value: str, what: str, limit: int) -> str:
    """A string of at most `limit` bytes that prints: nothing in it can steer a terminal or break a line."""
    if len(value) > limit or len(value.encode("utf-8")) > limit:
        raise Malformed(f"{what} too long", why=f"at most {limit} bytes are read")
    if not value.isprintable():
        raise Malformed(f"{what} does not print", why="it holds a control character or a line break")
    return value


def origin(value: str) -> str:
    """The name of a log, 1 to 255 bytes without spaces or plus signs, as signed notes demand it."""
    if not value or "+" in value or any(character.isspace() for character in value):
        raise Malformed("not an origin", why="a log's name is not empty and has no spaces or plus signs")
    return text(value, "origin", limits.ORIGIN)


def log(value: str) -> str:
    """What a caller names a log by: its origin, or its verifier key (`origin+id+key`) where an origin has several."""
    name, plus, key = value.partition("+")
    text(key, "key of a log", limits.LOG_KEY)
    return origin(name) + plus + key


def data(value: bytes, what: str, limit: int) -> bytes:
    if len(value) > limit:
        raise Malformed(f"{what} too large", why=f"{len(value)} bytes, at most {limit} are read")
    return value


def line(value: bytes) -> bytes:
    """A log entry: not empty, on one line."""
    if not value or b"\n" in value:
        raise Malformed("not a log line", why="an entry is one line, without its line feed")
    return data(value, "line", limits.LINE)


def many(items: Sequence[M], what: str, limit: int, decode: Callable[[M], V]) -> tuple[V, ...]:
    """All of a repeated field. The count is checked first: a 4 MiB message can spell two million empty items."""
    if len(items) > limit:
        raise Malformed(f"too many {what}", why=f"{len(items)}, at most {limit} are read")
    return tuple(decode(item) for item in items)


def hashes(items: Sequence[bytes], limit: int) -> tuple[bytes, ...]:
    return many(items, "hashes", limit, lambda item: digest_bytes(digest(item)))
