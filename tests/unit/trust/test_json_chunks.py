"""JSON documents that are read in chunks."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from comity.trust.encoding import MAX_DEPTH, Json, parse_json
from comity.trust.errors import Malformed
from comity.trust.json_chunks import JsonChunks
from hypothesis import given
from hypothesis import strategies as st

MOST = 4096
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('a"\\{}[],: \n\té😀', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('b"\\é', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def read(data: bytes, piece: int = 1, *, limit: int = MOST, most: int = MOST, count: int = 100) -> dict[str, Json]:
    """The members of an object; the one named `list` by its items."""
    document = JsonChunks((data[at : at + piece] for at in range(0, len(data), piece)), limit=limit, what="document")
    found: dict[str, Json] = {}
    for name in document.members():
        if name == "list":
            items = document.items(most=count, bytes_each=most)
            found[name] = [parse_json(item.data, limit=most) for item in items]
        else:
            found[name] = parse_json(document.value(most).data, limit=most)
    return found


@given(st.dictionaries(st.text('a"\\é', max_size=3), VALUES, max_size=4), st.lists(VALUES, max_size=3), st.data())
def test_reading_in_pieces_gives_the_same_as_reading_the_whole(
    members: dict[str, Any], items: list[Any], data: Any
) -> None:
    made = {**members, "list": items}
    indent, ascii_ = data.draw(st.sampled_from([None, 1, 4])), data.draw(st.booleans())
    text = json.dumps(made, indent=indent, ensure_ascii=ascii_).encode() + b"\n"
    assert read(text, data.draw(st.integers(1, 40))) == parse_json(text, limit=MOST) == made


@given(st.lists(st.sampled_from([*'{}[]",:\\ a1-.\n', '"list":', '"a":', "null", "\\u00e9", "é"]), max_size=14))
def test_the_same_texts_are_accepted_as_without_chunks(parts: list[str]) -> None:
    text = "".join(parts).encode()
    for data in (text, b'{"list":[' + text + b"]}", b'{"a":' + text + b"}", b'{"a":1,' + text):
        assert _outcome(read, data) == _outcome(_whole, data)


def _whole(data: bytes) -> Json:
    value = parse_json(data, limit=MOST)
    if not isinstance(value, dict) or not isinstance(value.get("list", []), list):
        raise Malformed("not such an object")
    return value


def _outcome(parse: Any, data: bytes) -> object:
    try:
        return parse(data)
    except Malformed:
        return None


def test_positions_are_those_in_the_whole() -> None:
    data = b' {"a" : [ 1,"\xc3\xa9]", {"b":[]} ] } '
    document = JsonChunks((data[at : at + 3] for at in range(0, len(data), 3)), limit=MOST, what="document")
    for _ in document.members():
        for item in document.items(most=3, bytes_each=MOST):
            assert data[item.position : item.position + len(item.data)] == item.data == item.data.strip()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b'{"list":[1,2,3]}', "more than 2 items", id="items"),
        pytest.param(b'{"list":["' + b"x" * 60 + b'"]}', "more than 50 bytes", id="a string"),
        pytest.param(b'{"list":[[' + b"1," * 30 + b"1]]}", "more than 50 bytes", id="a list"),
        pytest.param(b'{"a":' + b"1" * 60 + b"}", "more than 50 bytes", id="a number"),
        pytest.param(b'{"' + b"x" * 2000 + b'":1}', "more than 1024 bytes", id="a name"),
        pytest.param(b'{"a":' + b"[" * (MAX_DEPTH + 1), "nested", id="depth"),
        pytest.param(b'{"a":1,"a":2}', "another member", id="a second member of one name"),
        pytest.param(b'{"a":1', "ends early", id="no end"),
        pytest.param(b'{"a":"\\', "ends early", id="no end of a string"),
        pytest.param(b'{"a":1} x', "follows", id="more after the end"),
        pytest.param(b'{"a":1}' + b" " * 4000, "at most 3000 bytes", id="all together"),
        pytest.param(b" " * 4000, "at most 3000 bytes", id="white space"),
    ],
)
def test_a_document_above_a_limit_is_refused(data: bytes, why: str) -> None:
    for piece in (1, 7, len(data)):
        with pytest.raises(Malformed, match=why):
            read(data, piece, limit=3000, most=50, count=2)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        pytest.param(b'{"list":[1,2]}', {"count": 2}, id="items"),
        pytest.param(b'{"list":[]}', {"count": 0}, id="no item"),
        pytest.param(b'{"list":["' + b"x" * 48 + b'"]}', {"most": 50}, id="a string"),
        pytest.param(b'{"list":[[' + b"1," * 23 + b"11]]}", {"most": 50}, id="a list"),
        pytest.param(b'{"a":12345}', {"most": 5}, id="a number"),
        pytest.param(b'{"' + b"x" * 1022 + b'":1}', {}, id="a name"),
        pytest.param(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", {}, id="depth"),
        pytest.param(b'{"a":1}' + b" " * 93, {"limit": 100}, id="all together"),
    ],
)
def test_a_document_at_a_limit_is_read(data: bytes, limits: dict[str, int]) -> None:
    for piece in (1, 7, len(data)):
        assert read(data, piece, **limits) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b' {"a" 1}', "expected ':' at byte 6"),
        (b'{"a":1 ]', "expected '}' at byte 7"),
        (b'{"list": 5}', "expected '[' at byte 9"),
        (b'{"list": [1,2 }', "expected ']' at byte 14"),
        (b" [1]", "expected '{' at byte 1"),
    ],
)
def test_the_error_names_what_was_expected_and_the_position(data: bytes, why: str) -> None:
    for piece in (1, 3, len(data)):
        with pytest.raises(Malformed, match="document is not JSON") as refused:
            read(data, piece)
        assert refused.value.why == why


def test_no_more_is_read_than_one_value_needs() -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"list":["'
        for _ in range(100):
            yield b"x" * 10
        raise AssertionError("it reads on and on")

    with pytest.raises(Malformed, match="more than 50 bytes"):
        for _ in (document := JsonChunks(endless(), limit=MOST, what="document")).members():
            list(document.items(most=2, bytes_each=50))


def test_no_more_chunks_are_taken_than_the_limit_allows() -> None:
    taken = list[bytes]()

    def chunks() -> Iterator[bytes]:
        for chunk in (b'{"a":"', *[b"x" * 100] * 50):
            taken.append(chunk)
            yield chunk

    with pytest.raises(Malformed, match="at most 1000 bytes"):
        for _ in (document := JsonChunks(chunks(), limit=1000, what="document")).members():
            document.value(MOST)
    assert len(taken) == 11


def test_white_space_is_not_kept_in_memory() -> None:
    space = b" " * 2**16

    def chunks() -> Iterator[bytes]:
        yield from (b'{"a":', *[space] * 64, b"1}", *[space] * 64)

    document = JsonChunks(chunks(), limit=2**24, what="document")
    tracemalloc.start()
    try:
        assert [document.value(MOST).data for _ in document.members()] == [b"1"]
        assert tracemalloc.get_traced_memory()[1] < 8 * len(space)
    finally:
        tracemalloc.stop()
