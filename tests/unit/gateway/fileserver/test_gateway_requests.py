"""How the blob server parses requests, and the ranges that they ask for."""

from __future__ import annotations

import pytest
from comity.gateway.fileserver.http1 import ByteRange, file_response, parse, parse_range
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Refused

ETAG = '"abc"'


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def test_a_plain_request_is_read() -> None:
    request = parse(head("GET /blobs/x?y HTTP/1.1", "Host: a", "Range: bytes=0-1", 'if-range:  "abc" '))
    assert (request.method, request.target) == ("GET", "/blobs/x?y")
    assert (request.range, request.if_range, request.keep_alive) == ("bytes=0-1", ETAG, True)


@pytest.mark.parametrize(
    ("line", "connection", "kept"),
    [
        ("GET / HTTP/1.1", "", True),
        ("GET / HTTP/1.1", "close", False),
        ("GET / HTTP/1.1", "Keep-Alive, CLOSE", False),
        ("GET / HTTP/1.0", "", False),
        ("GET / HTTP/1.0", "Keep-Alive", True),
    ],
)
def test_keep_alive_follows_the_version_and_the_header(line: str, connection: str, kept: bool) -> None:
    fields = [f"Connection: {connection}"] if connection else []
    assert parse(head(line, "Host: a", *fields)).keep_alive is kept


@pytest.mark.parametrize(
    "lines",
    [
        ("",),
        ("GET /",),
        ("GET  / HTTP/1.1", "Host: a"),
        ("get / HTTP/1.1", "Host: a"),
        ("GET / HTTP/2.0", "Host: a"),
        ("GET / HTTP/1.1 ", "Host: a"),
        ("GET /\x00 HTTP/1.1", "Host: a"),
        ("GET /ü HTTP/1.1", "Host: a"),
        ("GET http://a/ HTTP/1.1", "Host: a"),
        ("GET * HTTP/1.1", "Host: a"),
        ("GET / HTTP/1.1",),
        ("GET / HTTP/1.1", "Host:"),
        ("GET / HTTP/1.1", "Host: a", "Host: b"),
        ("GET / HTTP/1.1", "Host : a"),
        ("GET / HTTP/1.1", "Host: a", " folded: b"),
        ("GET / HTTP/1.1", "Host: a", "no colon"),
        ("GET / HTTP/1.1", "Host: a\nRange: bytes=0-1"),
        ("GET / HTTP/1.1", "Host: a\rb"),
        ("GET / HTTP/1.1", "Host: a\x00"),
        ("GET / HTTP/1.1", "Host: a", "Content-Length: 1"),
        ("GET / HTTP/1.1", "Host: a", "Content-Length: 0", "Content-Length: 1"),
        ("GET / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"),
        ("GET / HTTP/1.1", "Host: a", "Range: bytes=0-1", "Range: bytes=2-3"),
        ("GET / HTTP/1.1", "Host: a", *(f"x{n}: y" for n in range(64))),
        ("GET /" + "a" * 2048 + " HTTP/1.1", "Host: a"),
    ],
)
def test_an_ambiguous_request_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Malformed) as refused:
        parse(head(*lines))
    assert refused.value.code == "HTTP-REQUEST"


@pytest.mark.parametrize("after", ["\x01", ""])
def test_a_long_run_of_spaces_in_a_field_costs_no_more_than_to_read_it(after: str) -> None:
    """A pattern that tries each way to divide it would take hours, while it holds the interpreter lock."""
    spaces = " \t" * 7_000
    lines = ("GET / HTTP/1.1", "Host: a", f"If-Range:{spaces}x{spaces}y{spaces}{after}")
    if after:
        with pytest.raises(Malformed):
            parse(head(*lines))
    else:
        assert parse(head(*lines)).if_range == f"x{spaces}y"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH"])
def test_blobs_are_only_read(method: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(head(f"{method} / HTTP/1.1", "Host: a"))
    assert refused.value.code == "METHOD"


def part(offset: int, length: int) -> ByteRange:
    return ByteRange(offset, length, partial=True)


@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        ("bytes=0-0", part(0, 1)),
        ("bytes=0-99", part(0, 100)),
        ("bytes=0-1000", part(0, 100)),
        ("bytes=99-", part(99, 1)),
        ("bytes=-1", part(99, 1)),
        ("bytes=-1000", part(0, 100)),
        ("Bytes= 5-6 ", part(5, 2)),
        ("bytes=100-", None),
        ("bytes=100-200", None),
        ("bytes=-0", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(wanted: str, span: ByteRange | None) -> None:
    assert parse_range(100, wanted, None, ETAG) == span
    assert parse_range(100, wanted, ETAG, ETAG) == span


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=1-2,3-4",
        "items=0-1",
        "bytes=0-1;",
        "bytes=١-٢",
    ],
)
def test_an_invalid_range_is_ignored(wanted: str) -> None:
    assert parse_range(100, wanted, None, ETAG) == ByteRange(0, 100, partial=False)


@pytest.mark.parametrize("condition", ['"abd"', 'W/"abc"', "abc", "Wed, 25 Nov 2026 02:27:00 GMT", ""])
def test_only_the_very_tag_keeps_a_conditional_range(condition: str) -> None:
    assert parse_range(100, "bytes=0-0", condition, ETAG) == ByteRange(0, 100, partial=False)


@pytest.mark.parametrize("wanted", [None, "bytes=0-0", "bytes=0-", "bytes=-5"])
def test_an_empty_file_is_sent_whole_whatever_range_is_asked(wanted: str | None) -> None:
    assert parse_range(0, wanted, None, ETAG) == ByteRange(0, 0, partial=False)


@pytest.mark.parametrize(
    ("field", "known"),
    [
        (None, False),
        ("", False),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"other", {ETAG}', True),
        ("*", True),
        ('"other"', False),
        (ETAG.strip('"'), False),
    ],
)
def test_a_file_that_the_client_has_is_not_sent_again(field: str | None, known: bool) -> None:
    fields = {"Host": "node", "Range": "bytes=0-0"} | ({} if field is None else {"If-None-Match": field})
    head = "\r\n".join(["GET /blobs/x HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())])
    digest = sha256(b"")
    request = parse(head.replace(ETAG, f'"{digest}"').replace("abc", digest).encode())
    response = file_response(request, digest, 100)
    assert (response.status, response.span.length) == ((304, 0) if known else (206, 1))
    assert f'ETag: "{digest}"'.encode() in response.head
    assert (f"Docker-Content-Digest: sha256:{digest}".encode() in response.head) == (response.status == 206)
