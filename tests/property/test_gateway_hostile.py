"""Arbitrary bytes sent to the blob server: an answer or a closed connection, never a server error or a wrong byte."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.gateway.fileserver.http1 import SignedUrls, parse, parse_range
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.blob_site import BlobSite, blob_site, exchange
from support.examples import examples

URLS = SignedUrls(bytes(32), lambda: 1e9)
LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"HEAD /x HTTP/1.0",
        b"Host: a",
        b"Range: bytes=0-",
        b"Connection: close",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"",
    ]
)
HEADS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(LINES, st.binary(max_size=40)), max_size=8).map(b"\r\n".join),
)


@given(HEADS)
def test_a_head_is_a_request_or_a_refusal(head: bytes) -> None:
    try:
        request = parse(head)
    except (Malformed, Refused) as error:
        assert error.code in ("HTTP-REQUEST", "METHOD")
        return
    assert request.method in ("GET", "HEAD")
    assert request.target.isascii() and " " not in request.target
    # Python's own, lenient parser reads the same request.
    read = http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2] + b"\r\n\r\n"))
    assert request.range == read.get("range") or request.range is None or "\t" in request.range


@given(st.integers(0, 2**40), st.text(max_size=30), st.one_of(st.none(), st.just('"e"'), st.text(max_size=5)))
def test_a_span_is_within_the_file(size: int, wanted: str, condition: str | None) -> None:
    span = parse_range(size, f"bytes={wanted}", condition, '"e"')
    assert span is None or (span.offset >= 0 and span.length >= 0 and span.offset + span.length <= size)


@given(st.integers(1, 2**40), st.integers(0, 2**41), st.integers(0, 2**41))
def test_a_well_formed_range_gives_exactly_its_bytes(size: int, first: int, last: int) -> None:
    span = parse_range(size, f"bytes={first}-{last}", None, '"e"')
    expected = range(size)[first : last + 1] if first <= last else range(size)
    assert (range(span.offset, span.offset + span.length) if span else range(0)) == expected


@given(st.text(max_size=200))
def test_no_stranger_forges_a_url(target: str) -> None:
    try:
        URLS.check(target)
    except Refused as error:
        assert error.code == "URL-FORGED"
        return
    raise AssertionError(target)


@given(st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex())), st.text(max_size=60))
def test_every_signed_url_opens_its_blob(digest: Digest, name: str) -> None:
    try:
        url = URLS.sign(digest, seconds=5, name=name)
    except Malformed:
        return
    assert URLS.check(url) == digest


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BlobSite, int]]:
    folder: Path = tmp_path_factory.mktemp("blobs")
    site = blob_site(folder)
    with site.serving() as port:
        yield site, port


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADS, st.booleans())
def test_the_server_survives_any_bytes(served: tuple[BlobSite, int], sent: bytes, ended: bool) -> None:
    _, port = served
    answer = exchange(port, sent + (b"\r\n\r\n" if ended else b""))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2 * PIECE_SIZE), st.integers(0, 2 * PIECE_SIZE), st.integers(0, 2 * PIECE_SIZE - 1))
def test_a_flipped_byte_is_never_sent(tmp_path_factory: pytest.TempPathFactory, a: int, b: int, at: int) -> None:
    site = blob_site(tmp_path_factory.mktemp("flip"))
    digest, data = site.add(2 * PIECE_SIZE)
    first, last = min(a, b), max(a, b)
    site.flip(digest, at)
    out = bytearray()
    try:
        for chunk in site.verified.read(digest, first, last - first):
            out += chunk
    except ComityError as error:
        assert error.code == "BLOB-DAMAGED"
        assert site.damaged == [digest]
    assert data[first:last].startswith(out)
    assert not (first <= at < first + len(out))
