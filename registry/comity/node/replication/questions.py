"""The one way in which a node asks its peers for what any of them may have (I16).

Everything that is not one peer's own (its news, the log that it is catching up, the audit of its copy) is asked here:
which files a peer has, piece records, side objects, entries of a damaged log, cosignatures. `comity.wire.asking` has
the rules; a turn belongs to a member, whose nodes count as one, and peers that are not reachable come last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from comity.node.replication.link import CopySource
from comity.trust.errors import ComityError
from comity.wire import asking
from comity.wire.asking import PLACES, AnswerTimes, Asked

T = TypeVar("T")
Item = TypeVar("Item")


class PeerQuestions:
    """Remembers how fast each peer answers. Not thread-safe: call from the event loop.

    Args:
        sources: returns the current peers, and bundles that are being loaded.

    In each method, `among` are the peers that are asked; by default all that have an address. A question may raise
    TimeoutError; it is to limit its call in time.
    """

    def __init__(self, sources: Callable[[], Iterable[CopySource]]) -> None:
        self._sources = sources
        self._times = AnswerTimes[CopySource](
            lambda: asyncio.get_running_loop().time(), lambda source: source.peer_key.member
        )

    @property
    def reachable(self) -> list[CopySource]:
        """The peers that answer."""
        return [source for source in self._sources() if source.state.reachable]

    async def first(
        self,
        question: Callable[[CopySource], Coroutine[Any, Any, T]],
        otherwise: ComityError,
        among: Iterable[CopySource] | None = None,
    ) -> T:
        """The first good answer. Raises `otherwise` if there is no peer; else the error that says most."""
        return await asking.first(self._times, self._in_order(among), question, otherwise)

    def answers(
        self, question: Callable[[CopySource], Coroutine[Any, Any, T]], among: Iterable[CopySource] | None = None
    ) -> AsyncGenerator[tuple[CopySource, T | ComityError], None]:
        """What the peers answer, as it comes, until the caller closes the generator."""
        return asking.outcomes(self._times, self._in_order(among), question)

    async def everyone(
        self,
        question: Callable[[CopySource], Coroutine[Any, Any, T]],
        seconds: float,
        *,
        enough: Callable[[Mapping[CopySource, T]], bool] = bool,
        among: Iterable[CopySource] | None = None,
    ) -> Asked[CopySource, T]:
        """Ask all; late ones are waited for, at most `seconds`, only until what was found is `enough`."""
        return await asking.everyone(self._times, self._in_order(among), question, seconds=seconds, enough=enough)

    async def two(
        self, question: Callable[[CopySource], Coroutine[Any, Any, T]], seconds: float, among: Iterable[CopySource]
    ) -> Asked[CopySource, T]:
        """Ask two of some peers, other ones each time."""
        chosen = self._in_order(among)[:PLACES]
        return await asking.everyone(self._times, chosen, question, seconds=seconds)

    async def share(
        self,
        items: Iterable[Item],
        take: Callable[[Iterable[Item]], list[Item]],
        work: Callable[[CopySource, list[Item]], Coroutine[Any, Any, Collection[Item]]],
    ) -> dict[Item, ComityError]:
        """Have each item done by any peer. Returns those that none did, with the last error about each."""
        return await asking.share(self._times, self._in_order(None), items, take, work)

    def _in_order(self, among: Iterable[CopySource] | None) -> list[CopySource]:
        asked = [source for source in (self._sources() if among is None else among) if source.address]
        return self._times.in_order(asked, lambda source: not source.state.reachable)
