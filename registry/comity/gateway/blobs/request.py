"""The head of an HTTP/1.1 request, as a stranger sends it: parsed strictly, or refused.

Narrower than RFC 9112 on purpose: no bodies, no folded lines, no bare CR or LF, no empty line before the request line;
what is not needed here is not read, and what could be read in two ways by two servers is refused. The connection ends
with whatever is refused, so that nobody can hide a second request in a first one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from comity.trust.errors import Malformed, Refused

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request line and its fields together; stock clients send under 2 KiB."""
MAX_FIELDS: Final = 64
END: Final = b"\r\n\r\n"

_LINE: Final = re.compile(rb"(?P<method>[A-Z]{1,16}) (?P<target>[!-~]{1,2048}) HTTP/1\.(?P<minor>[01])")
_FIELD: Final = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*(?P<value>[\t -~\x80-\xff]*?)[ \t]*")
_ONCE: Final = frozenset({"host", "range", "if-range", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Request:
    """What this server reads of a request. `target` is a path with its query, as it was sent."""

    method: Literal["GET", "HEAD"]
    target: str
    range: str | None
    if_range: str | None
    keep_alive: bool


def parse(head: bytes) -> Request:
    """Parse a head up to, and without, its empty line.

    Raises Malformed (HTTP-REQUEST) for anything but a plain request without a body, and Refused (METHOD).
    """
    line, *rest = head.split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _malformed("not a request line of HTTP/1.0 or 1.1")
    fields = _fields(rest)
    if "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise _malformed("it announces a body, and nothing here takes one")
    if found["minor"] == b"1" and not fields.get("host"):
        raise _malformed("it names no host")
    if not found["target"].startswith(b"/"):
        raise _malformed("its target is not a path")
    method = found["method"].decode("ascii")
    if method not in ("GET", "HEAD"):
        raise Refused("blobs are only read", why=f"{method} is not offered", code="METHOD")
    tokens = {token.strip().lower() for token in fields.get("connection", "").split(",")}
    return Request(
        method=cast(Literal["GET", "HEAD"], method),
        target=found["target"].decode("ascii"),
        range=fields.get("range"),
        if_range=fields.get("if-range"),
        keep_alive="close" not in tokens and (found["minor"] == b"1" or "keep-alive" in tokens),
    )


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise _malformed(f"more than {MAX_FIELDS} header fields")
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _malformed("a header field is not one line of name, colon and value")
        name, value = found["name"].decode("ascii").lower(), found["value"].decode("latin-1")
        if name in fields and name in _ONCE:
            raise _malformed(f"{name} is there twice")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _malformed(why: str) -> Malformed:
    return Malformed("not a request", why=why, code="HTTP-REQUEST")
