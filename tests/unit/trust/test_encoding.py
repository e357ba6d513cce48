"""Canonical JSON (RFC 8785), base64, digests and times."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from comity.trust import encoding
from comity.trust.encoding import (
    LAST_TIME,
    MAX_DEPTH,
    MAX_INTEGER,
    Json,
    b64decode,
    b64encode,
    canonical,
    format_moment,
    parse_canonical,
    parse_decimal,
    parse_json,
)
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples


def test_a_time_after_the_last_date_is_shown_as_a_number() -> None:
    assert format_moment(0.9, "%Y-%m-%d %H:%M:%S") == "1970-01-01 00:00:00"
    assert format_moment(LAST_TIME, "%Y-%m-%d %H:%M:%S") == "9999-12-31 23:59:59"
    assert format_moment(LAST_TIME + 1.5, "%Y") == f"second {LAST_TIME + 1}"


def nested(depth: int) -> Json:
    value: Json = []
    for _ in range(depth):
        value = [value]
    return value


def spread(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = {"a": value, "b": []}
    return value


def test_members_are_sorted_by_utf16_code_units() -> None:
    # The example of RFC 8785, section 3.2.3: in UTF-8 order U+1F600 would come after U+FB33.
    members: dict[str, Json] = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]
    text = canonical(members).decode()
    assert sorted(order, key=text.index) == order


def test_strings_take_the_shortest_escapes() -> None:
    # RFC 8785, section 3.2.2.2.
    assert canonical('\b\t\n\f\r"\\\x0f\x7f/€<') == b'"\\b\\t\\n\\f\\r\\"\\\\\\u000f\x7f/\xe2\x82\xac<"'


def test_there_is_no_white_space() -> None:
    assert canonical({"b": [1, -2, None], "a": {"c": True, "d": False}}) == (
        b'{"a":{"c":true,"d":false},"b":[1,-2,null]}'
    )


@pytest.mark.parametrize("value", [MAX_INTEGER, -MAX_INTEGER, 0])
def test_integers_are_exact_up_to_their_limit(value: int) -> None:
    assert parse_canonical(canonical(value), limit=100) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(MAX_INTEGER + 1, id="a big integer"),
        pytest.param(-MAX_INTEGER - 1, id="a big negative integer"),
        pytest.param(1.0, id="a fraction"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param({"\udfff": 1}, id="a lone surrogate in a member's name"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param({1, 2}, id="a set"),
        pytest.param(nested(MAX_DEPTH + 1), id="too deep"),
    ],
)
def test_values_outside_of_the_json_subset_are_not_written(value: Json) -> None:
    with pytest.raises(Malformed):
        canonical(value)


def test_the_deepest_document_reads_back() -> None:
    assert parse_canonical(canonical(nested(MAX_DEPTH)), limit=1000) == nested(MAX_DEPTH)


@pytest.mark.parametrize("leaf", [1, "x", None, [], {}])
@pytest.mark.parametrize("name", ["", "a", "\U0001f600"], ids=["lists", "objects", "objects that are sorted here"])
def test_every_value_counts_for_the_depth(name: str, leaf: Json) -> None:
    """One document is not refused by one reader and accepted by another."""
    value = leaf
    for _ in range(MAX_DEPTH):
        value = {name: value} if name else [value]
    written = json.dumps(value)
    assert parse_canonical(canonical(value), limit=1000) == value
    for data in (written, written.replace("x", "\\u0078"), json.dumps(value, ensure_ascii=False)):
        assert parse_json(data.encode(), limit=1000) == value
        for opened, closed in ("[", "]"), ('{"b":', "}"):
            with pytest.raises(Malformed, match="nested too deeply"):
                parse_json((opened + data + closed).encode(), limit=1000)
    for deeper in ([value], {"b": value}, {"\ufb33": value}):
        with pytest.raises(Malformed, match="nested too deeply"):
            canonical(deeper)


def test_lists_below_a_name_that_is_sorted_here_count_for_the_depth_too() -> None:
    deepest: Json = {"\U0001f600": nested(MAX_DEPTH - 1)}
    assert parse_canonical(canonical(deepest), limit=1000) == deepest
    with pytest.raises(Malformed, match="nested too deeply"):
        canonical({"\U0001f600": nested(MAX_DEPTH)})


@pytest.mark.parametrize("name", ["a", "\U0001f600"])
def test_integers_are_bounded_wherever_they_are(name: str) -> None:
    most = {name: [MAX_INTEGER, -MAX_INTEGER, 0]}
    assert parse_canonical(canonical(most), limit=1000) == most
    for number in (MAX_INTEGER + 1, -MAX_INTEGER - 1):
        with pytest.raises(Malformed, match="out of range"):
            canonical({name: [number]})
        with pytest.raises(Malformed, match="out of range"):
            parse_json(json.dumps({name: [number]}).encode(), limit=1000)


def test_what_the_standard_library_writes_canonically_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest takes less than half the time there."""
    monkeypatch.setattr(encoding, "_encode", None)
    every: Json = {"": [0, MAX_INTEGER, -MAX_INTEGER, True, None, "\U0001f600", (), {"\u00e9\ud7ff": {}}]}
    for deepest in (nested(MAX_DEPTH), spread(MAX_DEPTH), every):
        assert canonical(deepest).decode() == spelled(deepest)


def test_names_with_a_common_start_are_sorted_by_utf16_code_units() -> None:
    names = ["a\ufb33", "a\U0001f600", "a"]
    assert canonical(dict.fromkeys(names, 0)).decode() == '{"a":0,"a\U0001f600":0,"a\ufb33":0}'


@pytest.mark.parametrize(
    ("text", "strict", "whole", "as_text"),
    [
        ("12", 12, 12, 12),
        ("12.0", None, 12, "12.0"),
        ("-0.00", None, 0, "-0.00"),
        ("12.5", None, None, "12.5"),
        ("12.50", None, None, "12.50"),
        ("1e2", None, None, "1e2"),
        ("1.0e2", None, None, "1.0e2"),
        ("9007199254740992.0", None, None, "9007199254740992.0"),
        ("9007199254740992", None, None, None),
        ("NaN", None, None, None),
        ("-Infinity", None, None, None),
    ],
)
def test_fractions_are_read_as_the_caller_says(
    text: str, strict: int | None, whole: int | None, as_text: str | int | None
) -> None:
    readers: tuple[tuple[dict[str, Any], Json], ...] = (
        ({}, strict),
        ({"whole_fractions": True}, whole),
        ({"text_fractions": True}, as_text),
    )
    for options, expected in readers:
        if expected is not None:
            assert parse_json(text.encode(), limit=100, **options) == expected
            continue
        with pytest.raises(Malformed):
            parse_json(text.encode(), limit=100, **options)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"1.5",
        b"1e2",
        b"NaN",
        b"-Infinity",
        b"9007199254740993",
        b"1" * 5000,
        b'{"a":1,"a":1}',
        b'"\xff"',
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"[" * 10_000,
        b"[" * 100 + b"]" * 100,
        b'"\x01"',
        b"'a'",
        b"{}x",
    ],
)
def test_ambiguous_json_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(data, limit=20_000)


def test_a_document_is_measured_before_it_is_parsed() -> None:
    assert parse_json(b"[]   ", limit=5) == []
    with pytest.raises(Malformed, match="too large"):
        parse_json(b"[]    ", limit=5)


@pytest.mark.parametrize(
    "data", [b' {"a":1}', b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":"\\u0061"}', b'{"a":"\\/"}', b"-0", b'{"a":1}\n']
)
def test_a_second_spelling_is_not_canonical(data: bytes) -> None:
    parse_json(data, limit=100)
    with pytest.raises(Malformed, match="not in canonical form"):
        parse_canonical(data, limit=100)


def test_base64_reads_back() -> None:
    for size in range(5):
        data = bytes(range(250, 250 + size))
        assert b64decode(b64encode(data), size=size) == data


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "QQ==QQ==", "Q-==", "QQ==é", 5, None, b"QQ=="]
)
def test_a_second_spelling_of_base64_is_refused(text: object) -> None:
    with pytest.raises(Malformed):
        b64decode(text)


def test_base64_of_another_length_is_refused() -> None:
    with pytest.raises(Malformed, match="expected 2 bytes"):
        b64decode("QQ==", size=2)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("9223372036854775807", 2**63 - 1)])
def test_a_number_has_one_spelling(text: str, value: int) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize(
    "text", ["", "01", "+1", "-1", " 1", "1\n", "٣", "²", "1_0", "9223372036854775808", "9" * 5000]
)
def test_other_spellings_of_a_number_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_decimal(text)


def spelled(value: Json) -> str:
    """RFC 8785, implemented step by step."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: [int.from_bytes(pair) for pair in units(name)])
        return "{" + ",".join(f"{spelled(name)}:{spelled(value[name])}" for name in names) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def units(text: str) -> Iterator[bytes]:
    data = text.encode("utf-16-be")
    return (data[at : at + 2] for at in range(0, len(data), 2))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["\ue000", "\U0001f600", "é"])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts, inner),
    max_leaves=12,
)


@given(values)
@settings(max_examples=examples(150))
def test_every_value_is_encoded_as_rfc_8785_says(value: Json) -> None:
    assert canonical(value).decode("utf-8") == spelled(value)
    parsed = parse_canonical(canonical(value), limit=10_000)
    assert canonical(parsed) == canonical(value)
    assert parse_json(json.dumps(value).encode(), limit=10_000) == parsed


@given(
    st.recursive(
        st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner)
    )
)
@settings(max_examples=examples(80))
def test_a_lone_surrogate_is_refused_at_any_position_and_nothing_else_is(value: Json) -> None:
    text = json.dumps(value)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        with pytest.raises(Malformed):
            parse_json(text.encode(), limit=10_000)
    else:
        assert parse_json(text.encode(), limit=10_000) == value


@pytest.mark.parametrize("text", [b'"\\ud800"', b'{"\\udfff":1}', b'[["a\\ud800b"]]'])
def test_surrogates_are_refused_in_names_too(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(text, limit=100)


@given(st.binary(max_size=40), st.data())
@settings(max_examples=examples(150))
def test_base64_has_one_spelling(data: bytes, drawn: st.DataObject) -> None:
    text = base64.b64encode(data).decode()
    assert b64decode(text) == data
    at = drawn.draw(st.integers(0, len(text)))
    other = text[:at] + drawn.draw(st.text("AQgw=+/_-\n é", max_size=2)) + text[at + drawn.draw(st.integers(0, 2)) :]
    try:
        found = b64decode(other)
    except Malformed:
        return
    assert base64.b64encode(found).decode() == other


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "QQ==\n", "QQ==QQ==", "=", "====", "Q Q=", "QQ-_", "Q", "é==="])
def test_other_spellings_of_base64_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        b64decode(text)
