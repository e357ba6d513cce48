"""Turns with a log: one member at a time, and no member delays the others, however slowly or often it sends."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.replication.log_turns import (
    MAX_REMEMBERED,
    STALL_SECONDS,
    TAKEOVER_TURNS,
    TURN_SECONDS,
    LogTurns,
)
from comity.node.replication.mirror import LogMirror
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, OutOfSpace, Unavailable
from support.context import node_context

A, B, C = (sha256(name.encode()) for name in "abc")
LOG = "log"


def ended(turns: LogTurns, member: Digest, now: float) -> bool:
    """Whether `member` interrupts the member that has the turn; it has the next turn then."""
    assert turns.begin(LOG, member, now) is None
    return turns._turns[LOG].preempted


def test_a_log_has_one_turn_at_a_time() -> None:
    turns = LogTurns(5)
    turn = turns.begin(LOG, A, 0)
    assert turn is not None
    assert turns.begin(LOG, A, 1) is None and turns.begin(LOG, B, 1) is None
    turns.finish(turn, 2)
    assert turns.begin(LOG, B, 2) is not None


def test_a_member_that_failed_pauses_longer_each_time_and_others_do_not() -> None:
    turns, now = LogTurns(5), 0.0
    for rest in (10, 20, 40):
        turn = turns.begin(LOG, A, now)
        assert turn is not None
        turns.finish(turn, now, failed=True)
        assert turns.begin(LOG, A, now + rest - 1) is None
        now += rest


def test_a_slow_member_gives_way_to_an_untried_one_and_then_to_a_faster_one() -> None:
    turns, told = LogTurns(5), list[str]()
    slow = turns.begin(LOG, A, 0)
    assert slow is not None
    slow.end = lambda: told.append("ended")
    slow.received = 1_000_000
    assert not ended(turns, B, TURN_SECONDS - 1)
    assert ended(turns, B, TURN_SECONDS) and told == ["ended"]
    turns.finish(slow, TURN_SECONDS)
    assert turns.begin(LOG, A, TURN_SECONDS + 1) is None, (
        "an interrupted member pauses, so that the other one has a turn"
    )
    quick = turns.begin(LOG, B, TURN_SECONDS + 1)
    assert quick is not None
    quick.received = 100_000_000
    turns.step_stored(quick)
    assert not ended(turns, A, TURN_SECONDS + 61), "known to be slower"
    turns.finish(quick, TURN_SECONDS + 61)


def test_no_member_keeps_a_log_forever_at_any_rate() -> None:
    turns = LogTurns(5)
    for member, at in ((A, 0.0), (B, 1.0)):
        turn = turns.begin(LOG, member, at)
        assert turn is not None
        turn.received = 1_000_000 if member == A else 1_000
        turns.finish(turn, at + 1)
    turn = turns.begin(LOG, A, 10)
    assert turn is not None
    turn.received = 10**9
    assert not ended(turns, B, 9 + TAKEOVER_TURNS * TURN_SECONDS)
    assert ended(turns, B, 10 + TAKEOVER_TURNS * TURN_SECONDS)


def test_a_slow_but_honest_member_gets_longer_turns_until_a_step_is_kept() -> None:
    turns, now, lengths = LogTurns(5), 0.0, list[float]()
    for member, other in ((A, B), (B, A), (A, B)):
        turn = turns.begin(LOG, member, now)
        assert turn is not None
        begun = now
        while not ended(turns, other, now):
            now += 1
        lengths.append(now - begun)
        turns.finish(turn, now)
        now += 1
    assert lengths[0] == STALL_SECONDS
    assert lengths[1] > TAKEOVER_TURNS * 2 * lengths[0] and lengths[2] > 2 * lengths[1]


@pytest.mark.parametrize("bytes_a_second", [0, 1, 1_000])
def test_a_member_that_stalls_gives_way_to_another_within_seconds(bytes_a_second: int) -> None:
    """In an earlier version it kept the log for 20 s, and then for 40."""
    turns = LogTurns(5)
    good = turns.begin(LOG, B, 0)
    assert good is not None
    good.add(1_000_000)
    turns.finish(good, 1)
    stalled = turns.begin(LOG, A, 10)
    assert stalled is not None
    stalled.add(int(bytes_a_second * STALL_SECONDS))
    assert not ended(turns, B, 10 + STALL_SECONDS - 0.1)
    assert ended(turns, B, 10 + STALL_SECONDS)


def test_the_state_about_members_and_logs_is_bounded() -> None:
    turns = LogTurns(5)
    for number in range(MAX_REMEMBERED + 10):
        turn = turns.begin(f"log {number}", A, 0)
        assert turn is not None
        turns.finish(turn, 0)
    assert len(turns._progress) == MAX_REMEMBERED


class _Waiting:
    """A quota that answers when the test tells it to."""

    def __init__(self, error: ComityError | None = None) -> None:
        self.answers = asyncio.Event()
        self.error = error

    async def require(self, *_: object) -> None:
        await self.answers.wait()
        if self.error:
            raise self.error


def mirror(quotas: Any) -> Any:
    nothing: Any = None
    return LogMirror(
        node_context(ledger=nothing, pools=nothing, membership=nothing), 5, nothing, nothing, quotas, nothing, nothing
    )


def link(member: Digest) -> Any:
    return SimpleNamespace(
        peer_key=SimpleNamespace(member=member), name="", more_connections=lambda count: nullcontext([None] * count)
    )


HEAD: Any = SimpleNamespace(log=LOG, key=None, origin="", checkpoint=SimpleNamespace(size=1))


async def test_two_peers_never_advance_one_log_at_the_same_time() -> None:
    quotas, at_once = _Waiting(), list[int]()
    followed = mirror(quotas)
    under_way = 0

    async def step(*_: object) -> bool:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return True

    followed._step = step
    both = [asyncio.create_task(followed._catch_up(link(member), HEAD, 1)) for member in (A, B)]
    await asyncio.sleep(0)
    quotas.answers.set()
    await asyncio.gather(*both)
    assert at_once == [1]


@pytest.mark.parametrize(("error", "rests"), [(OutOfSpace("full"), False), (Unavailable("gone"), True)])
async def test_a_failure_of_this_machine_counts_against_no_peer(error: ComityError, rests: bool) -> None:
    quotas = _Waiting(error)
    quotas.answers.set()
    followed = mirror(quotas)
    for _ in range(2):
        with pytest.raises(type(error)):
            await followed._catch_up(link(A), HEAD, 1)
        if rests:
            await followed._catch_up(link(A), HEAD, 1)
            return


async def test_an_interrupted_turn_ends_and_is_no_failure() -> None:
    quotas = _Waiting()
    followed = mirror(quotas)
    task = asyncio.create_task(followed._catch_up(link(A), HEAD, 1))
    await asyncio.sleep(0)
    holder = followed._turns._turns[LOG]
    holder.preempted = True
    holder.end()
    await task
    assert LOG not in followed._turns._turns
