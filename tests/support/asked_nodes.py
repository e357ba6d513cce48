"""A session whose nodes answer at once, from what a test gives them, and leave out what the asker has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Unavailable
from comity.wire.found import Found, FoundAnswer, Lookup, in_few_messages, read_found
from comity.wire.held import Held, Selected, in_messages, read_selected
from comity.wire.log import ProofSummary
from comity.wire.messages import LocatedEntry
from comity_client.ahead import AskedAhead
from comity_client.session import Answers

Question = Callable[[Any], Awaitable[Any]]


class AskedNodes:
    """Asks nodes that have the methods `claims` and `resolve`. `told` are the questions of a kind that says what is
    held: the node, and what it was told."""

    def __init__(self, *nodes: Any) -> None:
        self.nodes, self.ahead = nodes, AskedAhead()
        self.told: list[tuple[Any, Held]] = []

    async def ask(self, question: Question) -> Answers[Any]:
        return await self.ask_each(lambda node: question, self.nodes)

    async def ask_each(
        self, question: Callable[[Any], Question], nodes: Iterable[Any], *, enough: object = None
    ) -> Answers[Any]:
        found: dict[Any, Any] = {}
        failed: dict[Any, ComityError] = {}
        for node in tuple(nodes):
            try:
                found[node] = await question(node)(self.called(node))
            except ComityError as error:
                failed[node] = error
        return Answers(found, failed)

    def called(self, node: Any) -> Any:
        """What a question calls."""
        return _Called(self, node)

    def soonest(self, nodes: Iterable[Any], count: int) -> list[Any]:
        return list(nodes)[:count]


class _Called:
    """The calls of one node."""

    def __init__(self, session: AskedNodes, node: Any) -> None:
        self._session, self._node = session, node

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def claims_beside(self, held: Held, *asked: Any) -> tuple[Selected, ...]:
        self._session.told.append((self._node, held))
        return await selected(await self._node.claims(*asked), held)

    async def resolve_beside(self, held: Held, *asked: Any) -> tuple[Selected, ...]:
        self._session.told.append((self._node, held))
        return await selected(await self._node.resolve(*asked), held)

    async def asked_beside(self, held: Held, asked: Lookup) -> tuple[Selected, ...]:
        if asked.subject is not None:
            return await self.claims_beside(held, asked.subject, asked.named)
        return await self.resolve_beside(held, asked.name, asked.version, asked.publisher, asked.named)

    async def find_beside(self, held: Held, asked: Lookup) -> Found:
        """What a node answers that has the questions `likely`; another one is of the version before."""
        if getattr(self._node, "likely", None) is None:
            raise Unavailable("unknown call", code="UNIMPLEMENTED")
        self._session.told.append((self._node, held))
        questions = (replace(asked, version=None, publisher=None), *self._node.likely)
        return await read_found(in_few_messages(self._answers(questions), held))

    async def _answers(self, questions: Iterable[Lookup]) -> AsyncIterator[FoundAnswer]:
        for each in questions:
            by_name = (each.name, each.version, each.publisher, each.named)
            about = None if each.subject is None else (each.subject, each.named)
            entries = await (self._node.resolve(*by_name) if about is None else self._node.claims(*about))
            yield FoundAnswer(each, _each(entries))

    async def proofs_in_brief(self, line: Digest) -> tuple[ProofSummary, ...]:
        return tuple([ProofSummary.of(located) for located in await self._node.proofs(line)])


async def _each(entries: Iterable[LocatedEntry]) -> AsyncGenerator[LocatedEntry, None]:
    for entry in entries:
        yield entry


async def selected(entries: Sequence[LocatedEntry], held: Held | None) -> tuple[Selected, ...]:
    """What a client reads of this answer, if it is asked beside what is held."""
    messages = [message async for message in in_messages(_each(entries), held)]
    return tuple(entry for message in messages for entry in read_selected(message))
