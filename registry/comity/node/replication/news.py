"""Reads what a peer tells of its logs, and keeps what is not processed yet.

`NewsReader` follows a peer with one long call, from the last position. A peer that allows no such call is asked for one
page at a time, and a peer of an older version for all its heads. `PeerNews` keeps the newest state of each log that the
peer has told, until `Peers` has processed it: its size depends on the logs that are mirrored here, not on what the peer
sends. Nothing in it is trusted: notes and cosignatures are verified when they are processed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Generic, Protocol, TypeVar

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.trust.tlog.note import NoteSignature
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.log import LogHead
from comity.wire.news import LogNews, News

ANSWER_TIMEOUT: Final = 10.0
"""Seconds that a peer may take for an answer, or for a message after its heartbeat is due."""
HEARTBEAT_ROUNDS: Final = 3
"""Rounds between two heartbeats."""
COMPLETE_SECONDS: Final = 60.0
"""Seconds in which a peer must have told everything once."""
CALL_SECONDS: Final = limits.LONGEST_CALL - 100.0
"""Seconds after which a call is ended and made again."""
OLD_SECONDS: Final = 600.0
"""Seconds for which a peer of an older version is not asked for news again."""
MAX_LINES: Final = 8
"""Cosignatures kept for one log: a peer's own, and with the first answer those by this node."""
MESSAGES_PER_SECOND: Final = 10.0
BYTES_PER_SECOND: Final = 512.0 * 1024
BURST_SECONDS: Final = 30.0
"""A peer may send what these seconds allow at once; then it is read only at these rates."""


@frozen
class PendingNews:
    """What a peer told of one log, and is not processed yet.

    Attributes:
        note: the newest checkpoint; empty if only cosignatures are new. A peer of an older version sends it with all
            cosignatures.
        size: of the checkpoint that `cosignatures` sign.
        retry_at: seconds of the event loop's clock before which it is not processed again.
        error: why it was not processed.
        invalid: whether the log did not sign what the peer told before: then nothing more of it is looked at before
            `retry_at`.
    """

    log: str
    note: bytes
    size: int = 0
    cosignatures: tuple[NoteSignature, ...] = ()
    retry_at: float = 0.0
    error: str = ""
    invalid: bool = False

    @property
    def origin(self) -> str:
        return self.log.partition("+")[0]


class PeerNews:
    """What one peer told. Not thread-safe: call from the event loop."""

    def __init__(self) -> None:
        self.position = b""
        self.answered = False
        """Whether the peer has told everything once."""
        self.charter: Digest | None = None
        """The newest charter body that the peer follows; None if it does not say."""
        self.misbehaviour: int | None = None
        """Number of misbehaviour proofs that the peer keeps; None if it does not say."""
        self.fetched_misbehaviour: int | None = None
        """The number at the last fetch of the proofs."""
        self.fetch_at = 0.0
        """The proofs are not fetched before this time of the event loop's clock."""
        self.old_until = 0.0
        """Until then, by the event loop's clock, the peer is of an older version."""
        self.begun = 0
        """How often everything was asked for again."""
        self._waiting: dict[str, PendingNews] = {}
        self._heads: dict[str, Digest] = {}
        """Digests of the last heads of a peer of an older version."""

    def begin_again(self) -> None:
        """Ask for everything again, because more logs are mirrored here: also for proofs about them."""
        self.position = b""
        self.fetched_misbehaviour = None
        self.begun += 1
        self._heads.clear()

    def take(self, news: News, is_mirrored: Callable[[str], bool]) -> None:
        """Keep the news of mirrored logs; the newest state of a log replaces an earlier one."""
        for item in news.logs:
            if is_mirrored(item.log):
                self._waiting[item.log] = self._merged(item)
        self.position, self.charter, self.misbehaviour = news.position, news.charter, news.misbehaviour
        self.answered = self.answered or not news.more

    def take_heads(self, heads: Iterable[LogHead], is_mirrored: Callable[[str], bool]) -> None:
        """Keep the heads that have changed since the last call."""
        before, self._heads = self._heads, {}
        for head in heads:
            if not head.note or not is_mirrored(head.vkey):
                continue
            digest = self._heads[head.vkey] = sha256(head.note)
            if before.get(head.vkey) != digest:
                self._waiting[head.vkey] = PendingNews(head.vkey, head.note)
        self._waiting = {log: item for log, item in self._waiting.items() if log in self._heads}
        self.position, self.charter, self.misbehaviour = b"", None, None
        self.answered = True

    def due(self, now: float, first: str) -> list[PendingNews]:
        """What is to be processed now, the log `first` before the others."""
        found = [item for item in self._waiting.values() if item.retry_at <= now]
        return sorted(found, key=lambda item: item.log != first)

    def get(self, log: str) -> PendingNews | None:
        return self._waiting.get(log)

    def settle(self, item: PendingNews) -> None:
        """`item` is processed. No effect if the peer has told more meanwhile."""
        if self._waiting.get(item.log) is item:
            del self._waiting[item.log]

    def postpone(self, item: PendingNews, until: float, error: str, *, invalid: bool = False) -> None:
        """`item` is to be processed again. No effect if the peer has told more meanwhile, unless it is invalid."""
        waiting = self._waiting.get(item.log)
        if waiting is item or (invalid and waiting is not None):
            self._waiting[item.log] = replace(waiting, retry_at=until, error=error, invalid=invalid)

    def log_grew(self, log: str) -> bool:
        """The stored log has grown: process at once what waits for it. Returns whether something does."""
        item = self._waiting.get(log)
        if item is not None:
            self._waiting[log] = replace(item, retry_at=0.0)
        return item is not None

    @property
    def settled(self) -> bool:
        """Whether everything that the peer told is processed."""
        return not self._waiting

    @property
    def error(self) -> str:
        """Why something was not processed; empty if nothing failed."""
        return next((item.error for item in self._waiting.values() if item.error), "")

    def _merged(self, item: LogNews) -> PendingNews:
        lines = item.cosignatures[:MAX_LINES]
        before = self._waiting.get(item.log)
        if before is not None and before.invalid:
            return replace(before, note=item.note or before.note, size=item.size, cosignatures=lines)
        if item.note or before is None:
            return PendingNews(item.log, item.note, item.size, lines)
        return replace(before, size=item.size, cosignatures=lines, retry_at=0.0)


class ReadingRate:
    """Limits how fast a peer's messages are read: gRPC then stops the peer from sending."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._free_at = clock() - BURST_SECONDS

    def delay(self, size: int) -> float:
        """Seconds to wait after a message of `size` bytes."""
        now = self._clock()
        cost = max(1 / MESSAGES_PER_SECOND, size / BYTES_PER_SECOND)
        self._free_at = max(self._free_at, now - BURST_SECONDS) + cost
        return max(0.0, self._free_at - now)


class Told(Protocol):
    """A peer: what it told, and calls to it."""

    @property
    def news(self) -> PeerNews: ...

    @property
    def client(self) -> NodeClient: ...


P = TypeVar("P", bound=Told)


class NewsReader(Generic[P]):
    """Reads from one peer. `step` returns when a call has ended, and is called again after a pause.

    Args:
        heartbeat: seconds after which a peer sends a message if nothing has changed.
        own_keys: key ids of this node's cosigner keys.
        is_mirrored: whether a log is mirrored here, or this node's own.
        taken: called after each answer, when it is in `link.news`, with the client that got it.
    """

    def __init__(
        self,
        heartbeat: float,
        own_keys: Sequence[bytes],
        is_mirrored: Callable[[str], bool],
        taken: Callable[[P, NodeClient], None],
    ) -> None:
        self._heartbeat = max(1, min(60, round(heartbeat)))
        self._own_keys = tuple(own_keys)
        self._is_mirrored = is_mirrored
        self._taken = taken

    async def step(self, link: P) -> None:
        """Raises the errors of the call."""
        now, client = asyncio.get_running_loop().time(), link.client
        if now < link.news.old_until:
            await self._read_heads(link, client)
            return
        try:
            await self._follow(link, client)
        except Refused:
            await self._read_pages(link, client)
        except Unavailable as error:
            if error.code != "UNIMPLEMENTED":
                raise
            await self._read_heads(link, client)
            link.news.old_until = now + OLD_SECONDS

    async def _follow(self, link: P, client: NodeClient) -> None:
        clock = asyncio.get_running_loop().time
        news, began, ends = link.news, link.news.begun, clock() + CALL_SECONDS
        rate = ReadingRate(clock)
        calls = client.with_timeout(self._heartbeat + ANSWER_TIMEOUT).news
        async with aclosing(calls.read(news.position, self._heartbeat, self._wanted_keys(link))) as messages:
            message = await _first(messages)
            while message is not None and news.begun == began and clock() < ends:
                self._take(link, message, client)
                if not news.answered and clock() > ends - CALL_SECONDS + COMPLETE_SECONDS:
                    raise _endless()
                await asyncio.sleep(rate.delay(_size(message)))
                message = await anext(messages, None)

    async def _read_pages(self, link: P, client: NodeClient) -> None:
        clock = asyncio.get_running_loop().time
        more, ends = True, clock() + COMPLETE_SECONDS
        while more:
            message = await client.news.page(link.news.position, self._wanted_keys(link))
            if message.more and (message.position == link.news.position or clock() > ends):
                raise _endless()
            self._take(link, message, client)
            more = message.more
            await asyncio.sleep(_size(message) / BYTES_PER_SECOND if more else 0)

    async def _read_heads(self, link: P, client: NodeClient) -> None:
        link.news.take_heads(await client.logs(), self._is_mirrored)
        self._taken(link, client)

    def _take(self, link: P, message: News, client: NodeClient) -> None:
        link.news.take(message, self._is_mirrored)
        self._taken(link, client)

    def _wanted_keys(self, link: P) -> tuple[bytes, ...]:
        """The keys of which cosignatures are asked for: only until the peer has told everything once."""
        return () if link.news.answered and link.news.position else self._own_keys


def _endless() -> Malformed:
    return Malformed("news do not end", why=f"more follows after {COMPLETE_SECONDS:g} s", code="UNBOUNDED")


async def _first(messages: AsyncGenerator[News, None]) -> News | None:
    """The first message, for which a peer has no heartbeat to wait for."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await anext(messages, None)
    except TimeoutError as error:
        why = f"no message in {ANSWER_TIMEOUT:g} s"
        raise Unavailable("the node does not answer", why=why, code="DEADLINE") from error


def _size(news: News) -> int:
    """About the bytes of a message."""
    lines = sum(len(line.signature) + len(line.name) for item in news.logs for line in item.cosignatures)
    return lines + sum(len(item.log) + len(item.note) for item in news.logs)
