"""Asking several nodes: which are asked first, how many at a time, and how long each is waited for.

A node that needs an answer from its peers and a client that needs one from any node ask in the same way:

(1) a few at a time; the next one is asked when one has answered without success, or takes longer than it usually needs
(2) what a node usually needs is estimated from its answers, as TCP estimates round trips (RFC 6298). The estimate has
    a bound: no node is waited for longer because it is always slow
(3) a node that took longer, or could not be reached, is late: for a time, which doubles, it is asked after the others.
    A doubling is taken back when it has answered in time for as long as it was late: one that is fast and slow in turn
    is late nearly always
(4) those that were not asked for the longest time come first, and nodes that share a turn, such as those of a member,
    are one in this order: no node can make itself the first of all questions, and none can push another to the end
(5) only time is remembered, not what was answered: whether an answer is useful depends on the question, and a node must
    not lose its place by a question that others invented

A call that takes longer goes on, and counts if its answer comes first. Its caller limits it in time. Where a node
limits the rate of calls, that is no failure: it says when to ask again (`patiently`).

    grows with                        bound                       at the bound
    nodes remembered                  MAX_REMEMBERED              those that were not asked for longest are forgotten
    calls of a question               `places`, and late ones     the next node waits for a place
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from comity.trust.errors import ComityError, NotFound, OutOfSpace, Refused, Unavailable
from comity.trust.frozen import frozen

P = TypeVar("P")
T = TypeVar("T")
Item = TypeVar("Item")
Question: TypeAlias = Callable[[P], Coroutine[Any, Any, T]]

FIRST_PATIENCE: Final = 1.0
"""Seconds that a node without an estimate is waited for before another is asked too."""
LEAST_PATIENCE: Final = 0.25
MOST_PATIENCE: Final = 3.0
DEVIATIONS: Final = 4.0
"""How many deviations above the mean an answer is expected at the latest."""
FIRST_REST: Final = 10.0
LONGEST_REST: Final = 640.0
"""Seconds for which a node is late at first, and at most; they double each time."""
MAX_REMEMBERED: Final = 4_096
PLACES: Final = 2
"""Nodes that are asked at a time, where any of them can give the answer."""
MANY_PLACES: Final = 32
"""Nodes that are asked at a time, where the answer of each counts."""
PAUSE: Final = 0.5
"""Seconds to wait where the node does not say how long: one of an older version."""
PATIENCE: Final = 120.0
"""Seconds that one question may wait in all."""
_BUSY: Final = frozenset({"RATE", "TOO-MANY-CALLS"})
SAYS_NOTHING: Final = frozenset({"UNIMPLEMENTED", "BUSY"})
"""Codes of Unavailable that are no sign of a slow node: it does not know the call, or this side has too many."""


@dataclass(slots=True)
class _Pace:
    """What is known of a node: its usual seconds, how much they vary, and until when it is late.

    Attributes:
        rest: for how many seconds it is late the next time.
    """

    mean: float | None = None
    deviation: float = 0.0
    rest: float = FIRST_REST
    late_until: float = -math.inf

    @property
    def patience(self) -> float | None:
        """Seconds; None without an estimate."""
        if self.mean is None:
            return None
        return min(MOST_PATIENCE, max(LEAST_PATIENCE, self.mean + DEVIATIONS * self.deviation))

    def learn(self, seconds: float) -> None:
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2
        else:
            self.deviation = 0.75 * self.deviation + 0.25 * abs(self.mean - seconds)
            self.mean = 0.875 * self.mean + 0.125 * seconds


class AnswerTimes(Generic[P]):
    """What each node usually needs for an answer, and which are late. Not thread-safe.

    Args:
        clock: monotonic seconds.
        turn_of: nodes with the same value share a turn.
        first_patience: seconds that a node without an estimate is waited for before another is asked too.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        turn_of: Callable[[P], Hashable] = lambda node: node,
        first_patience: float = FIRST_PATIENCE,
    ) -> None:
        self._clock = clock
        self._turn_of = turn_of
        self._first_patience = first_patience
        self._paces: OrderedDict[P, _Pace] = OrderedDict()
        self._asked: OrderedDict[Hashable, int] = OrderedDict()
        """By node and by turn, the number of the last question."""
        self._number = 0

    def patience(self, node: P) -> float:
        """Seconds after which another node is asked too."""
        known = self._paces.get(node)
        usual = known.patience if known else None
        return self._first_patience if usual is None else usual

    def is_late(self, node: P) -> bool:
        """Whether a node is asked after the others now."""
        known = self._paces.get(node)
        return known is not None and self._clock() < known.late_until

    def asked(self, node: P) -> None:
        """A node is asked now."""
        self._number += 1
        for each in (("node", node), ("turn", self._turn_of(node))):
            self._asked[each] = self._number
            self._asked.move_to_end(each)
        while len(self._asked) > 2 * MAX_REMEMBERED:
            self._asked.popitem(last=False)

    def answered(self, node: P, seconds: float) -> None:
        """A node has answered after so many seconds, whatever it said."""
        pace, now = self._pace(node), self._clock()
        in_time = seconds <= self.patience(node)
        pace.learn(seconds)
        if in_time and pace.rest > FIRST_REST and now >= pace.late_until + pace.rest / 2:
            pace.rest, pace.late_until = pace.rest / 2, now

    def was_late(self, node: P, seconds: float) -> None:
        """A node has not answered within so many seconds, or cannot be reached."""
        pace, now = self._pace(node), self._clock()
        if seconds >= self.patience(node):
            pace.learn(seconds)  # it needs at least these: one that is always a little slower is waited for in the end
        if now >= pace.late_until:  # else several questions of one moment would count as several times
            pace.late_until, pace.rest = now + pace.rest, min(LONGEST_REST, 2 * pace.rest)

    def in_order(self, nodes: Iterable[P], down: Callable[[P], bool] = lambda node: False) -> list[P]:
        """The nodes in the order in which they are to be asked. `down`: whether one is known not to answer."""
        oldest_first = sorted(nodes, key=lambda node: self._asked.get(("node", node), 0))
        of_turn = dict[Hashable, int]()
        ranks = dict[P, tuple[bool, int, int]]()
        for node in oldest_first:
            turn = self._turn_of(node)
            of_turn[turn] = place = of_turn.get(turn, -1) + 1
            ranks[node] = down(node) or self.is_late(node), place, self._asked.get(("turn", turn), 0)
        return sorted(oldest_first, key=ranks.__getitem__)

    def _pace(self, node: P) -> _Pace:
        pace = self._paces.setdefault(node, _Pace())
        self._paces.move_to_end(node)
        if len(self._paces) > MAX_REMEMBERED:
            self._paces.popitem(last=False)
        return pace


@dataclass(slots=True, eq=False)
class _AskedNode(Generic[P]):
    """A call that runs: since when, and whether it is waited for; not, if it takes longer than its node usually needs,
    or if its node was late before."""

    node: P
    since: float
    awaited: bool


class _Question(Generic[P, T]):
    """The calls of one question. Each node is waited for at least `least` seconds."""

    def __init__(self, times: AnswerTimes[P], least: float = 0.0) -> None:
        self._times = times
        self._least = least
        self._clock = asyncio.get_running_loop().time
        self._tasks: dict[asyncio.Task[T], _AskedNode[P]] = {}

    @property
    def running(self) -> list[P]:
        return [call.node for call in self._tasks.values()]

    @property
    def awaited(self) -> list[P]:
        return [call.node for call in self._tasks.values() if call.awaited]

    def start(self, node: P, work: Coroutine[Any, Any, T], *, awaited: bool = True) -> None:
        self._times.asked(node)
        self._tasks[asyncio.create_task(work)] = _AskedNode(node, self._clock(), awaited)

    async def next(self, seconds: float = math.inf) -> list[tuple[P, T | ComityError]]:
        """Wait until a call has ended, a call takes longer than usual, or so many seconds are over. Returns what has
        ended. Raises OutOfSpace of this machine, and what is no ComityError."""
        now = self._clock()
        seconds = min([seconds, *(self._ends(call) - now for call in self._tasks.values() if call.awaited)])
        timeout = None if seconds == math.inf else max(0.0, seconds)
        done, _ = await asyncio.wait(self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        ended = [self._ended(task) for task in done]
        for call in self._tasks.values():
            if call.awaited and self._clock() >= self._ends(call):
                self._was_late(call)
        return ended

    async def close(self) -> None:
        """End the calls that still run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _ends(self, call: _AskedNode[P]) -> float:
        return call.since + max(self._least, self._times.patience(call.node))

    def _ended(self, task: asyncio.Task[T]) -> tuple[P, T | ComityError]:
        call = self._tasks.pop(task)
        seconds = self._clock() - call.since
        try:
            outcome: T | ComityError = task.result()
        except TimeoutError:
            outcome = Unavailable("no answer in time", why=f"timed out after {seconds:.1f} s", code="SLOW")
        except ComityError as error:
            if isinstance(error, OutOfSpace) and not error.by_node:
                raise
            outcome = error
        if not isinstance(outcome, Unavailable) or isinstance(outcome, NotFound):
            self._times.answered(call.node, seconds)
        elif outcome.code not in SAYS_NOTHING:
            self._was_late(call)
        return call.node, outcome

    def _was_late(self, call: _AskedNode[P]) -> None:
        call.awaited = False
        self._times.was_late(call.node, self._clock() - call.since)


@asynccontextmanager
async def _closing(calls: _Question[P, T]) -> AsyncIterator[_Question[P, T]]:
    try:
        yield calls
    finally:
        await calls.close()


async def outcomes(
    times: AnswerTimes[P], nodes: Iterable[P], question: Question[P, T], *, places: int = PLACES
) -> AsyncGenerator[tuple[P, T | ComityError], None]:
    """Ask the nodes in their order, and yield what they answer, as it comes. The caller closes the generator when it
    has enough."""
    left, calls = deque(nodes), _Question[P, T](times)
    async with _closing(calls):
        while left or calls.running:
            while left and len(calls.awaited) < places:
                node = left.popleft()
                calls.start(node, question(node))
            for outcome in await calls.next():
                yield outcome


async def first(
    times: AnswerTimes[P],
    nodes: Iterable[P],
    question: Question[P, T],
    otherwise: ComityError,
    *,
    places: int = PLACES,
) -> T:
    """The first good answer. Raises `otherwise` if there is no node; else what a node raised, and of several errors
    the one that says most: that an answer does not verify, that one failed, that a node does not have it."""
    failures = list[ComityError]()
    async with aclosing(outcomes(times, nodes, question, places=places)) as answers:
        async for _, outcome in answers:
            if not isinstance(outcome, ComityError):
                return outcome
            failures.append(outcome)
    raise min(
        failures, key=lambda error: (isinstance(error, Unavailable), isinstance(error, NotFound)), default=otherwise
    )


@frozen
class Asked(Generic[P, T]):
    """The answers of the nodes that answered in time, and why the others did not."""

    found: Mapping[P, T]
    failed: Mapping[P, ComityError]


async def everyone(
    times: AnswerTimes[P],
    nodes: Iterable[P],
    question: Question[P, T],
    *,
    seconds: float,
    grace: float = 0.0,
    enough: Callable[[Mapping[P, T]], bool] = bool,
) -> Asked[P, T]:
    """Ask all nodes at once.

    Returns when all have answered, or after `seconds`. Once what was found is `enough`, it waits neither for nodes that
    were late before nor for those that take longer than they usually need, but `grace` seconds for the latter.
    """
    left, calls, clock = deque(nodes), _Question[P, T](times, grace), asyncio.get_running_loop().time
    found, failed = dict[P, T](), dict[P, ComityError]()
    fresh = {node for node in left if not times.is_late(node)}
    ends, until = clock() + seconds, math.inf
    async with _closing(calls):
        while left or calls.running:
            while left and len(calls.awaited) < MANY_PLACES:
                node = left.popleft()
                calls.start(node, question(node), awaited=node in fresh)
            now = clock()
            if until == math.inf and enough(found):
                until = now + grace
            in_time = calls.awaited or (now < until and not fresh.isdisjoint(calls.running))
            if now >= ends or (until < math.inf and not left and not in_time):
                break
            for node, outcome in await calls.next(min(ends, until if until > now else ends) - now):
                if isinstance(outcome, ComityError):
                    failed[node] = outcome
                else:
                    found[node] = outcome
        for node in (*calls.running, *left):
            failed[node] = Unavailable("no answer in time", why="other nodes answered earlier", code="SLOW")
    return Asked(found, failed)


async def share(
    times: AnswerTimes[P],
    nodes: Iterable[P],
    items: Iterable[Item],
    take: Callable[[Iterable[Item]], list[Item]],
    work: Callable[[P, list[Item]], Coroutine[Any, Any, Collection[Item]]],
    *,
    places: int = PLACES,
) -> dict[Item, ComityError]:
    """Have each item done by any of the nodes: different ones by different nodes, and what is left by two.

    Args:
        take: the items of the next call, from those that may be asked for, in their order.
        work: returns the items that the node did.

    Returns the items that no node did, each with the last error about it.
    """
    free, calls, given = deque(nodes), _Question[P, Collection[Item]](times), dict[P, list[Item]]()
    items_left = _ItemsLeft[P, Item](items)
    async with _closing(calls):
        while items_left.any:
            while len(calls.awaited) < places:
                asked = {item for node in calls.awaited for item in given[node]}
                chosen = next(((node, found) for node in free if (found := take(items_left.of(node, asked)))), None)
                if chosen is None:
                    break
                node, given[node] = chosen
                free.remove(node)
                calls.start(node, work(node, given[node]))
            if not calls.running:
                break
            for node, outcome in await calls.next():
                items_left.ended(node, given.pop(node), outcome)
                if not isinstance(outcome, Unavailable) or isinstance(outcome, NotFound):
                    free.appendleft(node)
    return items_left.failures


class _ItemsLeft(Generic[P, Item]):
    """The items that no node has done, and which nodes failed to."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._left = dict.fromkeys(items)
        self._failed_at: dict[P, set[Item]] = {}
        self._errors: dict[Item, ComityError] = {}

    @property
    def any(self) -> bool:
        return bool(self._left)

    @property
    def failures(self) -> dict[Item, ComityError]:
        none_has_it = NotFound("no node has it", why="none that can be asked", code="NO-HOLDER")
        return {item: self._errors.get(item, none_has_it) for item in self._left}

    def of(self, node: P, asked: Collection[Item]) -> Iterable[Item]:
        """What a node may be asked for: items that no other one is being asked for, or else those that are."""
        failed = self._failed_at.get(node, set())
        mine = [item for item in self._left if item not in failed]
        return [item for item in mine if item not in asked] or mine

    def ended(self, node: P, items: Iterable[Item], outcome: Collection[Item] | ComityError) -> None:
        done = frozenset[Item]() if isinstance(outcome, ComityError) else frozenset(outcome)
        for item in done:
            self._left.pop(item, None)
        missed = [item for item in items if item not in done]
        self._failed_at.setdefault(node, set()).update(missed)
        if isinstance(outcome, ComityError):
            self._errors |= dict.fromkeys(missed, outcome)


def pause_of(error: ComityError) -> float | None:
    """Seconds to wait before the same call is made again, if a node refused it only because there are too many; else
    None."""
    if not isinstance(error, Refused) or error.code not in _BUSY:
        return None
    return error.retry_after or PAUSE


async def patiently(call: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Make a call, again after a pause while the node limits the rate of calls.

    Args:
        patience: seconds to wait in all. A node that names a longer time has failed: raises its refusal.
    """
    while True:
        try:
            return await call()
        except Refused as error:
            pause = pause_of(error)
            if pause is None or pause > patience:
                raise
            patience -= pause
            await asyncio.sleep(pause)
