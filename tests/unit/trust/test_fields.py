"""Members of a JSON object: each has a type and bounds, and none is left over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comity.trust.encoding import MAX_INTEGER, MAX_TEXT, Fields, format_time, read_time, sha256
from comity.trust.errors import Malformed

DIGEST = sha256(b"x")
Reader = Callable[[Fields], Any]

READERS: dict[str, tuple[Reader, list[Any], list[Any]]] = {
    "take": (lambda fields: fields.take("m"), [None, False, 1, "", [], {}], []),
    "text": (
        lambda fields: fields.text("m"),
        ["x", "é\u3000日", "x" * MAX_TEXT],
        ["", "x" * (MAX_TEXT + 1), "a\nb", "a\tb", "\x00", "\x9b", "\u2028", "\u2029", None, 1, ["x"], {"x": 1}],
    ),
    "a text of two to four characters": (
        lambda fields: fields.text("m", least=2, most=4),
        ["xx", "xxxx"],
        ["x", "xxxxx"],
    ),
    "a text of lines": (
        lambda fields: fields.text("m", least=0, lines=True),
        ["", "a\n\tb"],
        ["a\rb", "a\x0bb", "a\u2028b", "\x1b[2J"],
    ),
    "choice": (
        lambda fields: fields.choice("m", ("one", "two")),
        ["one", "two"],
        ["three", "One", "", 1, None, ["one"]],
    ),
    "integer": (
        lambda fields: fields.integer("m"),
        [0, 1, MAX_INTEGER],
        [-1, MAX_INTEGER + 1, True, False, "1", None, [1]],
    ),
    "an integer from two to four": (lambda fields: fields.integer("m", least=2, most=4), [2, 3, 4], [1, 5]),
    "boolean": (lambda fields: fields.boolean("m"), [True, False], [0, 1, "true", None]),
    "digest": (
        lambda fields: fields.digest("m"),
        [DIGEST],
        [DIGEST.upper(), f"sha256:{DIGEST}", DIGEST[:-1], f"{DIGEST}0", f"{DIGEST}\n", "", None, 5, [DIGEST]],
    ),
    "digest or none": (lambda fields: fields.digest_or_none("m"), [None, DIGEST], ["", 0, False, [], DIGEST[:-1]]),
    "items": (
        lambda fields: fields.items("m", most=2),
        [[], [None], ["x", 1]],
        ["", "xy", {}, {"x": 1}, None, [1, 2, 3]],
    ),
    "one or two items": (lambda fields: fields.items("m", least=1, most=2), [[1], [1, 2]], [[], [1, 2, 3]]),
    "constant": (lambda fields: fields.constant("m", "v1"), ["v1"], ["v2", "", None, 1, ["v1"]]),
}
CASES = [(name, value) for name, (_, good, _) in READERS.items() for value in good]
REFUSED = [(name, value) for name, (_, _, bad) in READERS.items() for value in bad]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_member_is_read_once(name: str, value: Any) -> None:
    fields = Fields({"m": value}, "document")
    assert fields.has("m")
    found = READERS[name][0](fields)
    assert found == (None if name == "constant" else value)
    assert not fields.has("m")
    fields.done()
    with pytest.raises(Malformed, match="document is malformed: member 'm' is missing"):
        READERS[name][0](fields)


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_member_of_another_type_or_beyond_its_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Malformed):
        READERS[name][0](Fields({"m": value}, "document"))


def test_a_list_of_digests_is_bounded_and_holds_digests_only() -> None:
    def read(value: Any) -> tuple[str, ...]:
        return Fields({"m": value}, "document").digests("m", least=1, most=2)

    assert read([DIGEST]) == (DIGEST,)
    assert read([DIGEST, DIGEST]) == (DIGEST, DIGEST)
    for value in ([], [DIGEST] * 3, [DIGEST, None], DIGEST, None):
        with pytest.raises(Malformed):
            read(value)
    assert Fields({"m": []}, "document").digests("m", most=2) == ()


def test_an_object_in_a_document_is_named_after_both() -> None:
    inner = Fields({"m": {"n": 1}}, "document").object("m")
    with pytest.raises(Malformed, match=r"document\.m is malformed: member 'n' must be true or false"):
        inner.boolean("n")
    others: list[Any] = [[], "x", 1, None]
    for value in others:
        with pytest.raises(Malformed, match=r"document\.m is malformed: expected a JSON object"):
            Fields({"m": value}, "document").object("m")
        with pytest.raises(Malformed, match="document is malformed: expected a JSON object"):
            Fields(value, "document")


def test_a_member_that_was_not_read_is_refused_and_the_caller_keeps_its_object() -> None:
    value = {"b": 1, "a" * 99: 2, "m": 3}
    fields = Fields(value, "document")
    fields.take("m")
    with pytest.raises(Malformed, match=f"unknown member '{'a' * 60}'$"):
        fields.done()
    assert len(value) == 3


@pytest.mark.parametrize("time", [-30_610_224_000, 0, 951_782_400, 1_800_000_000, 253_402_300_799])
def test_a_time_reads_back(time: int) -> None:
    assert read_time(Fields({"at": format_time(time)}, "document"), "at") == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-25",
        "2026-11-25T15:04:05",
        "2026-11-25T15:04:05z",
        "2026-11-25 15:04:05Z",
        "2026-11-25T15:04:05.0Z",
        "2026-11-25T15:04:05+00:00",
        "2026-1-25T15:04:05Z",
        "2026-11-25T5:4:5Z",
        "0999-11-25T15:04:05Z",
        "2026-02-30T15:04:05Z",
        "2026-13-01T15:04:05Z",
        "2026-11-25T24:00:00Z",
        "2026-11-25T15:04:62Z",
        "٢٠٢٦-11-25T15:04:05Z",
        " 2026-11-25T15:04:05Z",
    ],
)
def test_another_form_of_a_time_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_time(Fields({"at": text}, "document"), "at")
