"""Requests to the engine of a kit, with what their answers must have: `selftest.json` and `samples.json`.

    {"cases": [{"name": "capital", "method": "POST", "path": "/v1/chat/completions", "body": {…},
                "expect": [{"at": "/choices/0/message/content", "contains": "Paris"}]}],
     "schema": "comity/kit-cases/v1"}

A case passes if the engine answers 200 with JSON in which every expectation holds. Answers are data of a program: they
are bounded and read strictly. JSON here has no fractions, so a fraction that is expected is written as its text, and
one of an answer is read as its text. Pure. Source: docs/kits.md; RFC 6901 (JSON Pointer).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final

from comity.rules.kits.description import MAX_TEXT, ROUTE
from comity.trust.codec import ABSENT, JsonAny, JsonItems, JsonObject, JsonRead, JsonText, JsonWord
from comity.trust.encoding import Json, canonical, parse_canonical, parse_json
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

CASES_SCHEMA: Final = "comity/kit-cases/v1"
MAX_CASES_FILE: Final = 32 * 1024 * 1024
MAX_CASES: Final = 10_000
MAX_EXPECTATIONS: Final = 100
MAX_DIMENSIONS: Final = 16_384
MAX_POINTER: Final = 1024
MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read."""
ANSWERED: Final = 200
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*\Z")
_INDEX: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,25})?(?:[eE][+\-]?[0-9]{1,3})?\Z")
_COSINE: Final = re.compile(r"(?:0\.[0-9]{1,15}|1)\Z")
_SHOWN: Final = 80


def _text_of(form: re.Pattern[str], what: str, most: int, least: int = 1) -> JsonRead:
    def read(text: str) -> str:
        if not form.match(text):
            raise Malformed("case is malformed", why=f"{text[:60]!r} is no {what}")
        return text

    return JsonRead(read, form, most=most, least=least)


@frozen
class Expectation(JsonObject):
    """What an answer must have at a place. Exactly one of `contains`, `equals` and `close_to` is given.

    Attributes:
        at: a JSON pointer.
        contains: is in the text there, without regard to case.
        equals: is there; not null.
        close_to: a vector, whose cosine with the numbers there is at least `cosine`.
    """

    at: Annotated[str, _text_of(_POINTER, "JSON pointer", MAX_POINTER, 0)]
    contains: Annotated[str | None, JsonText(lines=True), ABSENT] = None
    equals: Annotated[Json, JsonAny(), ABSENT] = None
    close_to: Annotated[
        tuple[str, ...] | None, JsonItems(MAX_DIMENSIONS, 1, of=_text_of(_DECIMAL, "number", 50)), ABSENT
    ] = None
    cosine: Annotated[str | None, _text_of(_COSINE, "number from 0 to 1", 17), ABSENT] = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.contains, self.equals, self.close_to)) != 1:
            raise _malformed("an expectation has exactly one of contains, equals, close_to")
        if (self.cosine is None) != (self.close_to is None):
            raise _malformed("close_to and cosine are given together")
        if self.close_to and not _length(list(map(float, self.close_to))):
            raise _malformed("close_to has no direction: all its numbers are zero, or one is too large")

    def problem(self, answer: Json) -> str:
        """Why an answer does not have it; empty if it has."""
        try:
            found = _at(answer, self.at)
        except LookupError:
            return f"it has nothing at {self.at}"
        if self.contains is not None:
            holds = isinstance(found, str) and self.contains.casefold() in found.casefold()
            return "" if holds else f"at {self.at} is {_shown(found)}, which does not contain {_shown(self.contains)}"
        if self.close_to is not None:
            return self._distance(found)
        same = canonical(found) == canonical(self.equals)
        return "" if same else f"at {self.at} is {_shown(found)}, not {_shown(self.equals)}"

    def _distance(self, found: Json) -> str:
        assert self.close_to is not None and self.cosine is not None
        if isinstance(found, str) or not isinstance(found, Sequence) or len(found) != len(self.close_to):
            return f"at {self.at} is no list of {len(self.close_to)} numbers"
        vector, expected = [_number(each) for each in found], [float(each) for each in self.close_to]
        length, whole = _length(vector), _length(expected)
        if not length:
            return f"at {self.at} is no vector of finite numbers with a direction"
        cosine = sum(a / length * (b / whole) for a, b in zip(vector, expected, strict=True))
        if cosine >= float(self.cosine):
            return ""
        return f"the vector at {self.at} has the cosine {cosine:.6f}, less than {self.cosine}"


@frozen
class KitCase(JsonObject):
    """A request, and what its answer must have. `body` is absent for GET."""

    name: Annotated[str, JsonText(MAX_TEXT)]
    method: Annotated[str, JsonWord(("GET", "POST"))]
    path: Annotated[str, ROUTE]
    expect: Annotated[tuple[Expectation, ...], JsonItems(MAX_EXPECTATIONS, 1)]
    body: Annotated[Json, JsonAny(), ABSENT] = None

    def __post_init__(self) -> None:
        if not isinstance(self.body, Mapping) if self.method == "POST" else self.body is not None:
            raise _malformed(f"case {self.name!r}: POST has a body, which is an object, and GET has none")


@frozen
class KitCases(JsonObject):
    """Requests with what their answers must have. Each has its own name."""

    constants: ClassVar = {"schema": CASES_SCHEMA}
    cases: Annotated[tuple[KitCase, ...], JsonItems(MAX_CASES, 1)]

    def __post_init__(self) -> None:
        if len({case.name for case in self.cases}) != len(self.cases):
            raise _malformed("two cases have one name")

    def encode(self) -> bytes:
        """The file."""
        return canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> KitCases:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_CASES_FILE, what="cases"))


def judge_answer(case: KitCase, status: int, body: bytes) -> tuple[str, ...]:
    """Why an answer does not pass; empty if it passes.

    Args:
        status: of HTTP.
        body: what the engine sent, as it was.
    """
    if status != ANSWERED:
        return (f"it answered {status}, not {ANSWERED}",)
    try:
        answer = parse_json(body, limit=MAX_ANSWER, what="answer", text_fractions=True)
    except Malformed as error:
        return (str(error),)
    return tuple(problem for each in case.expect if (problem := each.problem(answer)))


def _at(answer: Json, pointer: str) -> Json:
    """What a JSON pointer leads to. Raises LookupError."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(answer, Mapping):
            answer = answer[name]
        elif isinstance(answer, Sequence) and not isinstance(answer, str) and _INDEX.match(name):
            answer = answer[int(name)]
        else:
            raise LookupError(name)
    return answer


def _number(value: Json) -> float:
    """NaN for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return math.nan
    return float(value) if isinstance(value, int) or _DECIMAL.match(value) else math.nan


def _length(vector: Sequence[float]) -> float:
    """Zero for a vector without a finite length that is not zero."""
    length = math.hypot(*vector)
    return length if math.isfinite(length) else 0.0


def _shown(value: Json) -> str:
    """The beginning of a value, on one line."""
    text = canonical(value).decode(errors="replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _malformed(why: str) -> Malformed:
    return Malformed("cases are malformed", why=why)
