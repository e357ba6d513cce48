"""Tells peers what changes in this node's logs.

`NewsFeed` has, for each log, the newest checkpoint and this node's own cosignatures of it, each with the number of its
last change. A position is a number, so nothing is kept for a peer: what changed since a position is what has a larger
number, and a peer that reads slowly gets only the newest state of each log. Numbers begin again with each process; a
random value in the position shows which process made it. To a position that is not its own the node answers with
everything.

Cosignatures by others are not repeated to everybody, because each node tells its own; `cosignatures` answers a node
that lacks some.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from comity.ledger.ledger import Ledger
from comity.ledger.records import NewestHead
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.trust.tlog.note import NoteSignature
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.news import KnownCosignatures, LogNews, News

FEED: Final = "news"
"""The name of the loop."""
TIMING: Final = LoopTiming(interval=1.0, deadline=7 * 86_400.0)
MIN_PAUSE: Final = 0.2
"""Seconds between two looks at the ledger; changes between them are told together."""
PAUSE_TIMES: Final = 10.0
"""The pause after a look, as a multiple of its duration."""
PAGE_LOGS: Final = 128
PAGE_BYTES: Final = 512 * 1024

_PROCESS: Final = 8
"""Bytes of the random value of the process."""
_NUMBER: Final = 8


@dataclass(slots=True)
class _LogState:
    """The last known state of a log, and the numbers of the last changes of its parts."""

    head: NewestHead
    note_changed: int
    cosigned: int

    @property
    def changed(self) -> int:
        return max(self.note_changed, self.cosigned)


@frozen
class _Heads:
    """What one look at the ledger found."""

    heads: tuple[NewestHead, ...]
    misbehaviour: int


class NewsFeed:
    """Implements `NewsService`. Not thread-safe: call from the event loop.

    Args:
        own_keys: key ids of the cosigner keys of this node.
        charter: returns the digest of the newest body that the node follows, or None.
        is_told: whether the own cosignatures of a log, named by its verifier key, are told.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        own_keys: Collection[bytes],
        charter: Callable[[], Digest | None],
        is_told: Callable[[str], bool],
    ) -> None:
        self._ledger = ledger
        self._own_keys = tuple(own_keys)
        self._charter = charter
        self._is_told = is_told
        self._process = secrets.token_bytes(_PROCESS)
        self._number = 0
        self._logs: OrderedDict[str, _LogState] = OrderedDict()
        """In the order of their last changes."""
        self._misbehaviour = 0
        self._changed = asyncio.Event()
        """Set at the next change, and then replaced."""
        self._committed = asyncio.Event()
        self._ready = asyncio.Event()
        self._open: dict[str, deque[asyncio.Event]] = {}
        """For each caller, what ends its open calls, the oldest first."""
        self._closed = asyncio.Event()

    def begin(self, supervisor: Supervisor) -> Callable[[], None]:
        """Returns a function that makes the feed look at the ledger again, to be called in any thread."""
        loop = asyncio.get_running_loop()

        def look_again() -> None:
            _call_soon(loop, self._committed.set)

        self._ledger.tables.watch(look_again)
        supervisor.loop(FEED, self._follow_ledger, TIMING)
        return look_again

    def close(self) -> None:
        """End all calls, so that they do not delay the end of the node."""
        self._closed.set()
        self._ready.set()
        for calls in self._open.values():
            for ended in calls:
                ended.set()

    async def read(
        self, position: bytes, heartbeat: float, own_keys: Sequence[bytes] = ()
    ) -> AsyncGenerator[News, None]:
        """Pages of changes, and a page without changes after `heartbeat` seconds."""
        caller = CALLER.get(Caller("elsewhere"))
        await self._ready.wait()
        with self._opened(caller.name) as ended:
            while not ended.is_set():
                changed = self._changed
                news = await self.page(position, own_keys)
                yield news
                position = news.position
                if not news.more:
                    own_keys = ()
                    await _first_of(heartbeat, changed, ended)

    async def page(self, position: bytes, own_keys: Sequence[bytes] = ()) -> News:
        await self._ready.wait()
        since = self._number_of(position)
        added = await self._cosignatures_by(own_keys) if own_keys else {}
        logs, size, last, more = list[LogNews](), 0, self._number, False
        for name, state in self._changed_since(since):
            item = _item(name, state, since, added.get(name, ()))
            if len(logs) == PAGE_LOGS or (logs and size > PAGE_BYTES):
                last, more = self._logs[logs[-1].log].changed, True
                break
            size += len(item.note) + sum(len(line.signature) for line in item.cosignatures)
            logs.append(item)
        return News(
            self._process + last.to_bytes(_NUMBER, "big"), more, tuple(logs), self._misbehaviour, self._charter()
        )

    async def cosignatures(self, known: Sequence[KnownCosignatures]) -> AsyncGenerator[LogNews, None]:
        for item in known:
            if found := await self._ledger.run(_unknown_cosignatures, self._ledger.tables, item):
                yield found

    @contextmanager
    def _opened(self, caller: str) -> Iterator[asyncio.Event]:
        """Count a call of `caller`; the oldest one ends if it has too many. Yields what is set when this call ends."""
        ended = asyncio.Event()
        calls = self._open.setdefault(caller, deque())
        calls.append(ended)
        if len(calls) > limits.NEWS_CALLS:
            calls.popleft().set()
        if self._closed.is_set():
            ended.set()
        try:
            yield ended
        finally:
            if ended in calls:
                calls.remove(ended)
            if not calls and self._open.get(caller) is calls:
                del self._open[caller]

    def _number_of(self, position: bytes) -> int:
        """The number in a position of this process; 0 for any other one."""
        number = int.from_bytes(position[_PROCESS:], "big")
        known = len(position) == _PROCESS + _NUMBER and position.startswith(self._process)
        return number if known and number <= self._number else 0

    def _changed_since(self, since: int) -> list[tuple[str, _LogState]]:
        """The logs that changed after `since`, in the order of their last changes."""
        found = list[tuple[str, _LogState]]()
        for name, state in reversed(self._logs.items()):
            if state.changed <= since:
                break
            found.append((name, state))
        return found[::-1]

    async def _cosignatures_by(self, own_keys: Sequence[bytes]) -> Mapping[str, tuple[NoteSignature, ...]]:
        heads = await self._ledger.run(self._ledger.tables.cosignatures.newest_heads, own_keys)
        return {
            head.vkey: head.cosignatures
            for head in heads
            if head.vkey in self._logs and head.size == self._logs[head.vkey].head.size
        }

    async def _follow_ledger(self) -> None:
        clock = asyncio.get_running_loop().time
        self._committed.set()
        while True:
            await self._committed.wait()
            self._committed.clear()
            began = clock()
            self._note(await self._ledger.run(self._look))
            await asyncio.sleep(max(MIN_PAUSE, PAUSE_TIMES * (clock() - began)))

    def _look(self) -> _Heads:
        """Blocking."""
        tables = self._ledger.tables
        heads = tables.cosignatures.newest_heads(self._own_keys)
        told = (head if self._is_told(head.vkey) else replace(head, cosignatures=()) for head in heads)
        return _Heads(tuple(told), tables.misbehaviour.count())

    def _note(self, look: _Heads) -> None:
        """Number what has changed."""
        before = self._number
        for head in look.heads:
            self._note_head(head)
        if look.misbehaviour != self._misbehaviour:
            self._number += 1
            self._misbehaviour = look.misbehaviour
        self._ready.set()
        if self._number != before:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _note_head(self, head: NewestHead) -> None:
        state = self._logs.get(head.vkey)
        if state is not None and state.head == head:
            return
        self._number += 1
        if state is None:
            state = self._logs[head.vkey] = _LogState(head, self._number, 0)
        elif state.head.note != head.note:
            state.note_changed = self._number
        if head.cosignatures and (state.cosigned == 0 or state.head.cosignatures != head.cosignatures):
            state.cosigned = self._number
        state.head = head
        self._logs.move_to_end(head.vkey)


def _item(name: str, state: _LogState, since: int, added: Sequence[NoteSignature]) -> LogNews:
    head = state.head
    own = head.cosignatures if state.cosigned > since else ()
    return LogNews(name, head.note if state.note_changed > since else b"", head.size, (*own, *added))


def _unknown_cosignatures(ledger: Ledger, known: KnownCosignatures) -> LogNews | None:
    """Blocking."""
    try:
        note = ledger.cosignatures.all(known.log, known.size)
    except NotFound:
        return None
    origin = known.log.partition("+")[0]
    times = dict(known.known)
    lines = [
        line
        for line in note.signatures
        if line.name != origin and int.from_bytes(line.signature[:8], "big") > times.get(line.key_id, -1)
    ]
    return LogNews(known.log, size=known.size, cosignatures=tuple(lines)) if lines else None


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of `events` is set, or after `seconds`."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _call_soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Run `work` on the event loop, unless that has ended: a commit must not fail for it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(work)
