"""What cases may say, and which answers pass."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comity.rules.kits.cases import MAX_ANSWER, Expectation, KitCase, KitCases, judge_answer
from comity.trust.encoding import Json, canonical
from comity.trust.errors import Malformed
from support.kits import some_cases

ALIVE, CAPITAL, NEAR = some_cases().cases


def judged(case: KitCase, answer: Any, status: int = 200) -> tuple[str, ...]:
    return judge_answer(case, status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def expecting(**what: Any) -> KitCase:
    return KitCase("one", "GET", "/", (Expectation(**{"at": "/x"} | what),))


def chat(text: object) -> object:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"seconds": 0.25}}


def test_cases_are_read_as_they_were_written() -> None:
    assert KitCases.parse(some_cases().encode()) == some_cases()


def test_an_answer_with_the_text_passes_without_regard_to_case() -> None:
    assert judged(CAPITAL, chat("The capital of France is PARIS.")) == ()
    (problem,) = judged(CAPITAL, chat("It is Lyon."))
    assert problem == 'at /choices/0/message/content is "It is Lyon.", which does not contain "Paris"'


@pytest.mark.parametrize("answer", [{}, [], {"choices": []}, {"choices": "Paris"}, {"choices": [{"message": None}]}, 1])
def test_an_answer_without_the_place_fails(answer: object) -> None:
    assert judged(CAPITAL, answer) == ("it has nothing at /choices/0/message/content",)


@pytest.mark.parametrize("found", [None, 7, ["Paris"], {"Paris": 1}])
def test_what_is_no_text_contains_nothing(found: object) -> None:
    assert len(judged(CAPITAL, chat(found))) == 1


@pytest.mark.parametrize("answer", [b"", b"Paris", b"\xff", b'{"x": NaN}', b'{"x":1,"x":1}', b"[" * 2000])
def test_what_is_no_strict_json_fails(answer: bytes) -> None:
    assert len(judged(expecting(equals=1), answer)) == 1


def test_an_answer_that_is_too_large_fails_before_it_is_parsed() -> None:
    (problem,) = judged(CAPITAL, b"[" * (MAX_ANSWER + 1))
    assert "too large" in problem


def test_another_status_fails_whatever_the_answer_says() -> None:
    assert judged(ALIVE, {"status": "ok"}, 503) == ("it answered 503, not 200",)
    assert judged(ALIVE, {"status": "ok"}) == ()


@pytest.mark.parametrize(
    ("expected", "found", "holds"),
    [
        ("ok", "ok", True),
        ("0.5", 0.5, True),
        (1, 1, True),
        (1, True, False),
        ([1], [True], False),
        (1, "1", False),
        ({"a": [1, "b"]}, {"a": [1, "b"]}, True),
        (False, False, True),
        (False, None, False),
    ],
)
def test_equal_values_have_one_type(expected: Any, found: object, holds: bool) -> None:
    assert (judged(expecting(equals=expected), {"x": found}) == ()) == holds


@pytest.mark.parametrize(
    ("vector", "holds"),
    [
        ([0.6, 0.8], True),
        ([6, 8], True),
        ([1e300, 1e300], False),
        ([0.61, 0.79], True),
        ([0.8, 0.6], False),
        ([-0.6, -0.8], False),
        ([0.6], False),
        ([0.6, 0.8, 0], False),
        ([0, 0], False),
        ([1e999, 1], False),
        (["0.6", True], False),
        ([None, 0.8], False),
        ("0.60.8", False),
        (7, False),
    ],
)
def test_a_vector_is_compared_by_its_direction(vector: object, holds: bool) -> None:
    assert (judged(NEAR, {"data": [{"embedding": vector}]}) == ()) == holds


def test_huge_numbers_do_not_pass_for_near_ones() -> None:
    case = expecting(close_to=("1e200", "0"), cosine="0.999")
    assert judged(case, {"x": [1e200, 1e200]}) != ()
    assert judged(case, {"x": [1e200, 0]}) == ()


def test_a_pointer_finds_members_with_slashes_and_tildes() -> None:
    assert judged(expecting(at="/a~1b/~0/1", equals=2), {"a/b": {"~": [1, 2]}}) == ()
    assert judged(expecting(at="/01", equals=2), [1, 2]) != ()
    assert judged(expecting(at="", equals=[1]), [1]) == ()


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"contains": "a", "equals": "a"},
        {"close_to": ("1",)},
        {"equals": 1, "cosine": "1"},
        {"close_to": ("0", "0.0"), "cosine": "1"},
        {"close_to": ("1e999",), "cosine": "1"},
    ],
)
def test_an_expectation_says_one_thing(what: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Expectation("/x", **what)


@pytest.mark.parametrize(("method", "body"), [("GET", {}), ("POST", None), ("POST", [1]), ("POST", "x")])
def test_post_has_a_body_and_get_has_none(method: str, body: Any) -> None:
    with pytest.raises(Malformed, match="POST has a body"):
        KitCase("one", method, "/", (Expectation("", equals=1),), body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", "x"),
        ("at", "/~2"),
        ("contains", ""),
        ("equals", None),
        ("close_to", ["NaN"]),
        ("close_to", ["0x1"]),
        ("close_to", []),
        ("cosine", "1.1"),
        ("cosine", "-0.5"),
    ],
)
def test_a_member_out_of_its_form_is_refused(name: str, value: Json) -> None:
    expectation: dict[str, Any] = {"at": "/x", "close_to": ["1"], "cosine": "0.9"}
    if name in ("contains", "equals"):
        expectation = {"at": "/x"}
    case: Json = {"name": "one", "method": "GET", "path": "/", "expect": [{**expectation, name: value}]}
    with pytest.raises(Malformed):
        KitCases.parse(canonical({"schema": "comity/kit-cases/v1", "cases": [case]}))


@pytest.mark.parametrize("path", ["", "v1", "/a b", "/\r\nHost: x", "http://x/"])
def test_a_path_that_would_change_the_request_is_refused(path: str) -> None:
    case: Json = {"name": "one", "method": "GET", "path": path, "expect": [{"at": "", "equals": 1}]}
    with pytest.raises(Malformed):
        KitCases.parse(canonical({"schema": "comity/kit-cases/v1", "cases": [case]}))


def test_two_cases_of_one_name_are_refused() -> None:
    with pytest.raises(Malformed, match="one name"):
        KitCases((ALIVE, ALIVE))
