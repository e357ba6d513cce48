"""Answers of an engine are bounded in bytes and seconds, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.kits.cases import MAX_ANSWER, KitCase, KitCases
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Unavailable
from comity.trust.evaluation import EvaluationCriteria, Threshold
from comity_client.kits.asking import CaseResult, CaseResults, KitResults, ask, ask_cases
from support.small_kit import CAPITAL, SUM, WRONG, cases_file

OK = b"HTTP/1.1 200 OK\r\n\r\n"


def cases(*chosen: Any) -> tuple[KitCase, ...]:
    return KitCases.parse(cases_file(*chosen)).cases


@contextlib.asynccontextmanager
async def serving(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> Any:
    """A server that reads a request and then does `answer`."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), b"0")
        try:
            await answer(head + await reader.readexactly(int(length)), writer)
        except ConnectionError:
            pass  # the caller has enough
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(asyncio.ensure_future(accept(reader, writer)))

    answers = list[asyncio.Task[None]]()
    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*answers)


async def test_cases_are_asked_in_turn_and_judged() -> None:
    requests = list[bytes]()

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        text = "Paris." if b"France" in request else "four"
        writer.write(OK + json.dumps({"choices": [{"message": {"content": text}}]}).encode())

    told = list[CaseResult]()
    async with serving(answer) as url:
        results = await ask_cases(url + "/", cases(CAPITAL, SUM, WRONG), on_result=told.append)
    assert [each.name for each in results.results] == ["capital", "sum", "poet"] == [each.name for each in told]
    assert (results.passed, [each.name for each in results.failed]) == (2, ["poet"])
    assert "does not contain" in results.failed[0].problems[0]
    assert requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert json.loads(requests[0].partition(b"\r\n\r\n")[2]) == CAPITAL["body"]


async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    written = 0

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(OK)
        while True:
            writer.write(b" " * 2**20)
            written += 2**20
            await writer.drain()

    async with serving(answer) as url:
        (result,) = (await ask_cases(url, cases(CAPITAL))).results
    assert "too large" in result.problems[0]
    assert written < 4 * MAX_ANSWER


async def test_an_answer_that_comes_byte_by_byte_ends_in_time() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.05)

    async with serving(answer) as url:
        with pytest.raises(Unavailable) as refused:
            await ask(url, "GET", "/", seconds=0.3)
    assert (refused.value.code, refused.value.why) == ("KIT-ANSWER", "no whole answer within 0 s")


async def test_a_server_that_says_nothing_and_one_that_is_not_there_are_failures() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n")

    async with serving(answer) as url:
        (result,) = (await ask_cases(url, cases(CAPITAL))).results
    assert "nonsense" in result.problems[0]
    assert not (await ask_cases(url, cases(CAPITAL))).results[0].passed


@pytest.mark.parametrize(
    ("passed", "count", "rate"), [(3, 3, "1"), (0, 3, "0"), (2, 3, "0.6666"), (9_999, 10_001, "0.9998"), (1, 10, "0.1")]
)
def test_the_share_of_passed_cases_is_never_rounded_up(passed: int, count: int, rate: str) -> None:
    results = [CaseResult(str(n), () if n < passed else ("wrong",), 0.0) for n in range(count)]
    assert CaseResults(tuple(results)).pass_rate == rate


SAMPLES = sha256(b"samples")
RESULTS = KitResults.of(
    sha256(b"kit"),
    SAMPLES,
    1_795_000_000,
    True,
    CaseResults((CaseResult("a", (), 0.25), CaseResult("b", ("at / is \x07" + "x" * 900,), 1.0))),
)
CRITERIA = EvaluationCriteria("questions", "1", (Threshold("pass_rate", ">=", "0.5"),), 2, "0" * 32, SAMPLES)


def test_results_are_read_as_they_were_written() -> None:
    assert KitResults.parse(RESULTS.encode()) == RESULTS
    assert (RESULTS.passed, RESULTS.pass_rate, RESULTS.cases[0].milliseconds) == (1, "0.5", 250)


def test_they_are_the_value_of_criteria_for_the_same_samples() -> None:
    assert RESULTS.value_for(CRITERIA) == RESULTS.value_for(replace(CRITERIA, dataset=None)) == "pass_rate=0.5"


@pytest.mark.parametrize("change", [{"dataset": sha256(b"others")}, {"samples": 3}])
def test_criteria_for_other_samples_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed) as refused:
        RESULTS.value_for(replace(CRITERIA, **change))  # type: ignore[arg-type]
    assert refused.value.code == "CRITERIA"


def test_damaged_results_are_refused() -> None:
    with pytest.raises(Malformed):
        KitResults.parse(RESULTS.encode()[:-1])
