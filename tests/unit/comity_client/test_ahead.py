"""What is asked ahead is given once, with its error, and ends with its session."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from comity.trust.errors import NotFound
from comity_client.ahead import AskedAhead
from comity_client.session import Session


class Asked:
    """A question that counts how often it is asked, and answers when it may."""

    def __init__(self, error: Exception | None = None) -> None:
        self.times, self.error, self.may, self.ended = 0, error, asyncio.Event(), 0

    async def __call__(self) -> int:
        self.times += 1
        number = self.times
        try:
            await self.may.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return number


async def test_an_answer_that_was_asked_for_ahead_is_given_once() -> None:
    ahead, asked = AskedAhead(), Asked()
    asked.may.set()
    for _ in range(2):
        ahead.begin("it", asked)
    assert await ahead.take("it", asked) == 1 and asked.times == 1
    assert await ahead.take("it", asked) == 2, "asked again"
    assert await ahead.take("other", asked) == 3, "never begun"


async def test_what_was_not_asked_for_is_not_given() -> None:
    ahead, asked = AskedAhead(), Asked()
    asked.may.set()
    assert await ahead.given("it") is None
    ahead.begin("it", asked)
    assert await ahead.given("it") == 1
    assert await ahead.given("it") is None and asked.times == 1


async def test_a_question_runs_before_it_is_needed() -> None:
    ahead, first, second = AskedAhead(), Asked(), Asked()
    ahead.begin("first", first)
    ahead.begin("second", second)
    await asyncio.sleep(0)
    assert (first.times, second.times) == (1, 1)
    first.may.set()
    second.may.set()
    assert await ahead.take("second", second) == await ahead.take("first", first) == 1


async def test_an_error_is_raised_where_the_answer_is_taken() -> None:
    ahead, asked = AskedAhead(), Asked(NotFound("nothing"))
    asked.may.set()
    ahead.begin("it", asked)
    with pytest.raises(NotFound):
        await ahead.take("it", asked)


async def test_what_nobody_took_ends_with_the_session() -> None:
    ahead, waiting, failing = AskedAhead(), Asked(), Asked(NotFound("nothing"))
    failing.may.set()
    ahead.begin("waiting", waiting)
    ahead.begin("failing", failing)
    await asyncio.sleep(0)
    await ahead.close()
    assert (waiting.ended, failing.ended) == (1, 1)
    waiting.may.set()
    assert await ahead.take("waiting", waiting) == 2


async def test_an_error_of_this_program_that_nobody_took_is_raised_when_all_has_ended() -> None:
    ahead, failing, waiting = AskedAhead(), Asked(KeyError("a mistake")), Asked()
    failing.may.set()
    ahead.begin("failing", failing)
    ahead.begin("waiting", waiting)
    await asyncio.sleep(0)
    with pytest.raises(KeyError, match="a mistake"):
        await ahead.close()
    assert (waiting.ended, failing.ended) == (1, 1)
    await ahead.close()


async def test_a_session_closes_its_connections_before_such_an_error_is_raised() -> None:
    class Closed:
        times = 0

        async def close(self) -> None:
            self.times += 1

    session, node, failing = Session(()), Closed(), Asked(KeyError("a mistake"))
    session.nodes = (cast(Any, node),)
    failing.may.set()
    session.ahead.begin("failing", failing)
    await asyncio.sleep(0)
    with pytest.raises(KeyError, match="a mistake"):
        await session.close()
    assert node.times == 1
