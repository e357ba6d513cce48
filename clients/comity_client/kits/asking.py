"""Asks an engine: single requests, and all cases of a kit in turn. Each answer is bounded in bytes and seconds.

Engines are programs of strangers: an answer may be huge, or come a byte at a time, or never. What the samples of a kit
gave is a file that `comity evaluation report` takes:

    {"at":1795000000,"cases":[{"milliseconds":450,"name":"capital","problems":[]},…],"dataset":"<SHA-256 of
     samples.json>","isolated":true,"kit":"<SHA-256 of kit.json>","schema":"comity/kit-results/v1"}

Its metric is `pass_rate`, the share of cases whose answers were as expected. The criteria that were announced name the
data set by its digest, so results of other samples are not taken for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Annotated, ClassVar, Final
from urllib.parse import urlsplit

from comity.rules.kits.cases import MAX_ANSWER, MAX_CASES, KitCase, judge_answer
from comity.trust.codec import JsonItems, JsonObject, JsonText
from comity.trust.encoding import Digest, canonical, parse_canonical, printable
from comity.trust.errors import Malformed, Unavailable
from comity.trust.evaluation import EvaluationCriteria
from comity.trust.frozen import frozen

CASE_SECONDS: Final = 300.0
"""Seconds that one answer may take, from the first to the last byte."""
PASS_RATE: Final = "pass_rate"
MAX_RESULTS: Final = 16 * 1024 * 1024
MAX_PROBLEMS: Final = 10
MAX_PROBLEM: Final = 500
_PLACES: Final = Decimal("0.0001")


@frozen
class EngineAnswer:
    """Status of HTTP and body: at most one byte more than `MAX_ANSWER`, which tells that it is too large."""

    status: int
    body: bytes


@frozen
class CaseResult:
    """A case that was asked, why its answer does not pass, and how long it took."""

    name: str
    problems: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.problems


@frozen
class CaseResults:
    """All cases of a file, in its order."""

    results: tuple[CaseResult, ...]

    @property
    def passed(self) -> int:
        return sum(each.passed for each in self.results)

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        return tuple(each for each in self.results if not each.passed)

    @property
    def pass_rate(self) -> str:
        return share(self.passed, len(self.results))


def share(passed: int, count: int) -> str:
    """The share of passed cases as a decimal text, rounded down, so that 1 means all."""
    return f"{(Decimal(passed) / count).quantize(_PLACES, ROUND_FLOOR).normalize():f}"


@frozen
class MeasuredCase(JsonObject):
    """A case, and why its answer did not pass; `milliseconds` that it took."""

    name: str
    problems: Annotated[tuple[str, ...], JsonItems(MAX_PROBLEMS, of=JsonText(MAX_PROBLEM))]
    milliseconds: int

    @classmethod
    def of(cls, result: CaseResult) -> MeasuredCase:
        problems = tuple(printable(problem)[:MAX_PROBLEM] for problem in result.problems[:MAX_PROBLEMS])
        return cls(result.name, problems, int(result.seconds * 1000))


@frozen
class KitResults(JsonObject):
    """Results of the samples of a kit.

    Attributes:
        kit: SHA-256 of `kit.json`.
        dataset: SHA-256 of `samples.json`.
        at: when they were complete, in POSIX seconds.
        isolated: whether the engine had no network.
    """

    constants: ClassVar = {"schema": "comity/kit-results/v1"}
    kit: Digest
    dataset: Digest
    at: int
    isolated: bool
    cases: Annotated[tuple[MeasuredCase, ...], JsonItems(MAX_CASES, 1)]

    @classmethod
    def of(cls, kit: Digest, dataset: Digest, at: int, isolated: bool, results: CaseResults) -> KitResults:
        return cls(kit, dataset, at, isolated, tuple(map(MeasuredCase.of, results.results)))

    @property
    def passed(self) -> int:
        return sum(not case.problems for case in self.cases)

    @property
    def pass_rate(self) -> str:
        return share(self.passed, len(self.cases))

    def encode(self) -> bytes:
        return canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> KitResults:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_RESULTS, what="results of a kit"))

    def value_for(self, criteria: EvaluationCriteria) -> str:
        """The value `pass_rate=…` for a report by these criteria. Raises Malformed (CRITERIA) if they name another data
        set or another number of samples."""
        if criteria.dataset is not None and criteria.dataset != self.dataset:
            raise _refused("the criteria name another data set than the samples that were asked")
        if criteria.samples != len(self.cases):
            raise _refused(f"the criteria name {criteria.samples} samples, and {len(self.cases)} were asked")
        return f"{PASS_RATE}={self.pass_rate}"


def _refused(why: str) -> Malformed:
    return Malformed("the results are not those of the criteria", why=why, code="CRITERIA")


async def ask_cases(
    base_url: str,
    cases: Sequence[KitCase],
    *,
    seconds: float = CASE_SECONDS,
    on_result: Callable[[CaseResult], None] = lambda _: None,
) -> CaseResults:
    """Ask every case, one after the other, and judge the answers. Raises nothing: a case without answer has failed.

    Args:
        base_url: of the engine, without the paths that the cases name.
        seconds: that one case may take.
    """
    results = []
    for case in cases:
        began = time.monotonic()
        try:
            answer = await ask(base_url, case.method, case.path, _body(case), seconds=seconds)
            problems = judge_answer(case, answer.status, answer.body)
        except Unavailable as error:
            problems = (error.why,)
        results.append(CaseResult(case.name, problems, time.monotonic() - began))
        on_result(results[-1])
    return CaseResults(tuple(results))


async def ask(
    base_url: str, method: str, path: str, body: bytes | None = None, *, seconds: float = CASE_SECONDS
) -> EngineAnswer:
    """One request. Raises Unavailable (KIT-ANSWER) if no whole answer came in time."""
    return await asyncio.to_thread(_ask, base_url, method, path, body, seconds)


def _body(case: KitCase) -> bytes | None:
    return None if case.body is None else json.dumps(case.body, ensure_ascii=False).encode()


def _ask(base_url: str, method: str, path: str, body: bytes | None, seconds: float) -> EngineAnswer:
    parts = urlsplit(base_url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
    late = threading.Event()
    limit = threading.Timer(seconds, lambda: None)
    try:
        connection.connect()
        limit = threading.Timer(seconds, _end, (connection.sock, late))
        limit.start()
        connection.request(method, parts.path.rstrip("/") + path, body, headers)
        with connection.getresponse() as response:
            answer = EngineAnswer(response.status, response.read(MAX_ANSWER + 1))
        if late.is_set():  # an answer without a length ends with its connection
            raise TimeoutError
        return answer
    except (OSError, http.client.HTTPException) as error:
        timed_out = late.is_set() or isinstance(error, TimeoutError)
        why = f"no whole answer within {seconds:.0f} s" if timed_out else f"{type(error).__name__}: {error}"[:200]
        raise Unavailable("the engine did not answer", why=why, code="KIT-ANSWER") from error
    finally:
        limit.cancel()
        connection.close()


def _end(opened: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _connection(scheme: str, host: str, port: int | None, seconds: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=seconds)
