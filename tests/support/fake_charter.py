"""The charter service of a fake node: it serves the lines of its logs, and judges nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.statement import parse_entry
from comity.wire.access import Caller
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter
from support.fakes import FakeNode

ABOUT_CHARTERS = ("draft", "intent", "ratified", "consented", "left", "inception", "rotated", "adopted")


@dataclass
class FakeCharter:
    """Give it to `FakeNode.governance`."""

    node: FakeNode
    held: list[Charter] = field(default_factory=list)
    waiting: dict[Digest, JoinRequest] = field(default_factory=dict)
    forgets: tuple[str, ...] = ()
    """Predicates that this node leaves out."""

    moved_on: bool = False
    """Whether it follows a later charter: then it shows statements about this one to those that name it."""

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        found = [charter for charter in self.held if charter.epoch >= start]
        if not found or found[0].epoch != start:
            raise NotFound("no such epoch here")
        for charter in found:
            yield charter

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        for origin, log in self.node.logs_held.items() if prev or not self.moved_on else ():
            for index, line in enumerate(log.lines):
                predicate = parse_entry(line).statement.predicate
                if predicate in ABOUT_CHARTERS and predicate not in self.forgets:
                    yield LocatedEntry(origin, index, line)

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        member = parse_entry(lines[0]).statement.subject
        self.waiting.setdefault(member, JoinRequest(member, 7, tuple(lines)))
        return AskReceipt(member, 7, len(self.waiting))

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        for request in self.waiting.values():
            yield request
