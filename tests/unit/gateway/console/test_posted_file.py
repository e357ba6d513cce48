"""A file that a browser sends: its digest is right however it arrives, the rest is refused, and it is bounded."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from comity.gateway.console import posted_file
from comity.gateway.console.posted_file import MAX_HEAD, PostedPart, posted_digest
from comity.gateway.http import on_error
from comity.trust.errors import ComityError, Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from support.examples import examples

BOUNDARY = b"----browser0123"
FIELD = b'Content-Disposition: form-data; name="file"; filename="a.bin"'
DELIMITER = b"\r\n--" + BOUNDARY
PIECES = st.sampled_from([b"\r\n--", b"\r\n", BOUNDARY[:-1], b"--" + BOUNDARY, b"\r\n\r\n", b"\0", b"x" * 70])
CONTENTS = (
    st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=12)
    .map(b"".join)
    .filter(lambda content: DELIMITER not in content)
)
"""Much like a form, without the line that ends the file: a browser chooses a boundary that the file does not have."""


def body(content: bytes, field: bytes = FIELD, end: bytes = b"--\r\n") -> bytes:
    head = b"--" + BOUNDARY + b"\r\n" + field + b"\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head + content + DELIMITER + end


def read(data: bytes, size: int = 1 << 16) -> str:
    part = PostedPart(BOUNDARY)
    for start in range(0, len(data), size):
        part.add(data[start : start + size])
    return part.digest()


@given(CONTENTS, st.integers(1, 90))
@settings(max_examples=examples(60))
def test_the_digest_is_that_of_the_content_however_it_is_cut(content: bytes, size: int) -> None:
    assert read(body(content), size) == hashlib.sha256(content).hexdigest()


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(max_examples=examples(60))
def test_a_body_that_is_no_form_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(Malformed) as refused:
        read(data, size)
    assert refused.value.code == "FORM"


@pytest.mark.parametrize(
    "data",
    [
        body(b"x", FIELD.replace(b"a.bin", b"")),
        body(b"x", FIELD.replace(b'"file"', b'"other"')),
        body(b"x", b'Content-Disposition: form-data; name="file"'),
        body(b"x", b"X: " + b"a" * MAX_HEAD),
        body(b"x")[:-4],
        body(b"x", end=b"x--\r\n"),
        body(b"x") + b"more",
        body(b"x", end=b"\r\n" + FIELD + b"\r\n\r\ny\r\n--" + BOUNDARY + b"--"),
        b"preamble\r\n" + body(b"x"),
        body(b"x").replace(b"\r\n", b"\n"),
        b"a" * MAX_HEAD * 2,
    ],
)
@pytest.mark.parametrize("size", [7, 1 << 16])
def test_a_form_that_is_not_that_of_the_page_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(Malformed) as refused:
        read(data, size)
    assert refused.value.code == "FORM"


def test_a_file_is_refused_as_soon_as_it_is_too_large_and_little_of_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posted_file, "MAX_FILE", 100_000)
    assert read(body(b"x" * 100_000)) == hashlib.sha256(b"x" * 100_000).hexdigest()
    part = PostedPart(BOUNDARY)
    part.add(body(b"")[: -len(DELIMITER + b"--\r\n")])
    given = 0
    with pytest.raises(Malformed) as refused:
        for _ in range(1_000):
            part.add(b"x" * 1_000)
            given += 1_000
            assert len(part._waiting) < len(BOUNDARY) + 8
    assert (refused.value.code, given) == ("BODY-TOO-LARGE", 100_000)


async def test_a_request_is_read_no_further_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posted_file, "MAX_FILE", 100_000)
    taken = 0

    async def sent() -> AsyncIterator[bytes]:
        nonlocal taken
        yield body(b"")[: -len(DELIMITER + b"--\r\n")]
        while taken < 10_000_000:
            taken += 1_000
            yield b"x" * 1_000

    async def post(request: Request) -> Response:
        messages, steps = sent(), list[None]()

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": await anext(messages), "more_body": True}

        streamed = Request({**request.scope}, receive)
        return PlainTextResponse(await posted_digest(streamed, lambda: steps.append(None)))

    app = Starlette(routes=[Route("/", post, methods=["POST"])], exception_handlers={ComityError: on_error})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as http:
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
        answer = await http.post("/", headers=kind)
        assert answer.headers["X-Error-Code"] == "BODY-TOO-LARGE"
        assert taken == 101_000
        for wrong in kinds():
            answer = await http.post("/", headers={"Content-Type": wrong})
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "FORM")


def kinds() -> Iterator[str]:
    yield from ("text/plain", "multipart/form-data", "multipart/form-data; boundary=", "application/octet-stream")
    yield from ("multipart/form-data; boundary=" + "a" * 71, "multipart/form-data; boundary=a b")
