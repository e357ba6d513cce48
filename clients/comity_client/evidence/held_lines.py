"""Asks nodes for selections of statements, without the lines that are here already.

(1) two nodes, those that will probably answer first, give what is not here; at the same time all others give only
    references, so that what these two leave out is noticed
(2) a node whose references nobody explains is asked again for what is not here then; if neither of the two answered,
    two others take their place first

A node of an earlier version gives all lines to each question, which is as good an answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final, TypeAlias

from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, Malformed
from comity.trust.statement import Entry
from comity.wire.client import NodeClient
from comity.wire.found import Lookup
from comity.wire.held import SALT, Held, LineReference, Selected, reference_to
from comity.wire.limits import HELD
from comity.wire.messages import LocatedEntry

from comity_client.session import Answers, RemoteNode, Session
from comity_client.session import Question as NodeQuestion

Question: TypeAlias = Callable[[NodeClient, Held], Awaitable[tuple[Selected, ...]]]
"""A call of a node that says which lines are here."""
IN_FULL: Final = 2
"""Nodes that give what is not here, while the others give references."""


class HeldLines:
    """The lines that are here, by reference.

    Args:
        salt: random bytes of the session.
        entries: those of which nodes are told, as many as a question may name; those that most answers have come first.
        others: those of which nodes are not told, but to which they may refer.
    """

    def __init__(self, salt: bytes, entries: Iterable[Entry], others: Iterable[Entry] = ()) -> None:
        self._salt = salt
        self._lines = {reference_to(salt, entry.digest): entry.line for entry in islice(entries, HELD)}
        self._told = tuple(self._lines)
        self._lines |= {reference_to(salt, entry.digest): entry.line for entry in others}

    def add(self, answer: Iterable[Selected]) -> None:
        """Add the lines of an answer. Nodes are not told of them."""
        for item in answer:
            if isinstance(item, LocatedEntry):
                self._lines.setdefault(reference_to(self._salt, sha256(item.line)), item.line)

    def message(self, *, brief: bool = False, answer: Iterable[Selected] = ()) -> Held:
        """What a node is told. `answer`: what it gave before; of its lines it is told too."""
        named = (item.line for item in answer if isinstance(item, LineReference) and item.line in self._lines)
        return Held(self._salt, b"".join(islice(dict.fromkeys((*self._told, *named)), HELD)), brief)

    def explains(self, answer: Iterable[Selected]) -> bool:
        """Whether every line to which an answer refers is here."""
        return all(isinstance(item, LocatedEntry) or item.line in self._lines for item in answer)

    def in_full(self, answer: Iterable[Selected]) -> tuple[LocatedEntry, ...]:
        """The answer with all lines. Raises Malformed (UNKNOWN-LINE) for a reference to a line that is not here."""
        return tuple(item if isinstance(item, LocatedEntry) else self._entry(item) for item in answer)

    def _entry(self, item: LineReference) -> LocatedEntry:
        line = self._lines.get(item.line)
        if line is None:
            why = f"no line here has the reference {item.line.hex()}"
            raise Malformed("the answer refers to an unknown line", why=why, code="UNKNOWN-LINE")
        return LocatedEntry(item.origin, item.index, line, item.more, item.others)


def pinned_entries(session: Session) -> tuple[Entry, ...]:
    """What the pins of a session prove about keys and nodes: nobody needs to send it."""
    keys = (entry for federation in session.pins for entry in federation.identity_entries)
    return (*session.records(), *keys)


async def ask_all(session: Session, asked: Lookup) -> Answers[tuple[LocatedEntry, ...]]:
    """Ask all nodes one question, as `Session.ask` does. What comes along with statements and is pinned
    (`pinned_entries`) may be missing from the answers."""

    async def ask(client: NodeClient, held: Held) -> tuple[Selected, ...]:
        return await client.asked_beside(held, asked)

    held = HeldLines(secrets.token_bytes(SALT), pinned_entries(session))
    return await ask_beside(session, lambda node: ask, held)


async def ask_beside(
    session: Session,
    question: Callable[[RemoteNode], Question],
    held: HeldLines,
    ahead: Mapping[RemoteNode, tuple[Selected, ...]] = MappingProxyType({}),
) -> Answers[tuple[LocatedEntry, ...]]:
    """Ask all nodes, as `Session.ask` does, each its own question, and return their answers with all lines.

    Args:
        ahead: what nodes answered before they were asked; they are asked only for what is not here then.
    """
    found, waiting = dict[RemoteNode, tuple[LocatedEntry, ...]](), dict(ahead)
    failed, left = dict[RemoteNode, ComityError](), [node for node in session.nodes if node not in ahead]
    for answer in ahead.values():
        held.add(answer)
    _settle(held, waiting, found)
    full = frozenset(found) or frozenset(session.soonest(session.nodes, IN_FULL))
    while True:
        messages = {node: held.message(brief=node not in full) for node in left}
        count = len(waiting) if full & found.keys() else IN_FULL
        again = {node: held.message(answer=waiting[node]) for node in session.soonest(waiting, count)}
        if not (messages := messages | again):
            break
        left, full = [], full | again.keys()
        answers = await _ask_each(session, question, held, messages, begun=bool(found))
        for answer in answers.found.values():
            held.add(answer)
        failed |= answers.failed
        waiting = {node: answer for node, answer in waiting.items() if node not in messages}
        waiting.update(answers.found)
        _settle(held, waiting, found)
    return Answers({node: found[node] for node in session.nodes if node in found}, failed)


def _settle(
    held: HeldLines,
    waiting: dict[RemoteNode, tuple[Selected, ...]],
    found: dict[RemoteNode, tuple[LocatedEntry, ...]],
) -> None:
    """Move the answers whose lines are all here from `waiting` to `found`."""
    for node in [node for node, answer in waiting.items() if held.explains(answer)]:
        found[node] = held.in_full(waiting.pop(node))


async def _ask_each(
    session: Session,
    question: Callable[[RemoteNode], Question],
    held: HeldLines,
    messages: Mapping[RemoteNode, Held],
    *,
    begun: bool,
) -> Answers[tuple[Selected, ...]]:
    """`begun`: other nodes have answered, so that slow ones are not waited for."""

    def asked(node: RemoteNode) -> NodeQuestion[tuple[Selected, ...]]:
        async def ask(client: NodeClient) -> tuple[Selected, ...]:
            answer = await question(node)(client, messages[node])
            return answer if messages[node].brief else held.in_full(answer)

        return ask

    return await session.ask_each(asked, messages, enough=lambda answers: begun or bool(answers))
