"""Checked fields of messages. Each function returns the value of a field, and raises Malformed beyond a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.wire import limits

M = TypeVar("M")
V = TypeVar("V")


def read_digest(data: bytes) -> Digest:
    if len(data) != 32:
        raise Malformed("not a sha256 digest", why=f"expected 32 bytes, got {len(data)}")
    return Digest(data.hex())


def encode_digest(value: Digest) -> bytes:
    return bytes.fromhex(value)


def read_integer(value: int, what: str, *, least: int = 0, most: int = limits.INTEGER) -> int:
    if not least <= value <= most:
        raise Malformed(f"{what} out of range", why=f"{value} is not between {least} and {most}")
    return value


def read_text(value: str, what: str, limit: int) -> str:
    """Returns a printable string of at most `limit` bytes, without terminal controls or line breaks."""
    if len(value) > limit or len(value.encode("utf-8")) > limit:
        raise Malformed(f"{what} too long", why=f"at most {limit} bytes are allowed")
    if not value.isprintable():
        raise Malformed(f"{what} is not printable", why="it contains a control character or a line break")
    return value


def read_origin(value: str) -> str:
    """Returns the name of a log: 1 to 255 bytes without spaces or plus signs, as signed notes require."""
    if "+" in value or value.split() != [value]:
        raise Malformed("not an origin", why="the name of a log must not be empty, or contain spaces or plus signs")
    return read_text(value, "origin", limits.ORIGIN)


def read_log(value: str) -> str:
    """Returns the name of a log in a request: its origin, or its verifier key (`origin+id+key`)."""
    name, plus, key = value.partition("+")
    read_text(key, "key of a log", limits.LOG_KEY)
    return read_origin(name) + plus + key


def read_absolute_path(value: str) -> Path:
    """Returns a path on the node's machine."""
    path = Path(read_text(value, "path", limits.PATH))
    if not path.is_absolute():
        raise Malformed("not an absolute path", why="the node has another working directory")
    return path


def read_data(value: bytes, what: str, limit: int) -> bytes:
    if len(value) > limit:
        raise Malformed(f"{what} too large", why=f"{len(value)} bytes, at most {limit}")
    return value


def read_line(value: bytes) -> bytes:
    """Returns a log entry: one line, not empty."""
    if not value or b"\n" in value:
        raise Malformed("not a log line", why="an entry is one line, not empty, without line feed")
    return read_data(value, "line", limits.LINE)


def read_many(items: Sequence[M], what: str, limit: int, decode: Callable[[M], V]) -> tuple[V, ...]:
    """Returns all items of a repeated field. Checks the count first: 4 MiB can encode two million empty items."""
    if len(items) > limit:
        raise Malformed(f"too many {what}", why=f"{len(items)}, at most {limit}")
    return tuple(decode(item) for item in items)


def read_hash(value: bytes) -> bytes:
    return encode_digest(read_digest(value))
