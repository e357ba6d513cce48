"""Which addresses of nodes a new federation file has: the last ones that are known, and never none in place of some."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.charter.federation import FederationNode
from comity.trust.evidence import EvidenceReader
from comity.trust.node_records import Addresses
from comity.trust.statement import Entry
from comity.wire.messages import LocatedEntry
from comity_client.charter.joining import addressed_nodes, extended_federation
from support.asked_nodes import AskedNodes
from support.world import Node, found, node, seat

FIRST, SECOND = (node(seat(code)) for code in ("CH", "ES"))
OLD = sign_content(Addresses.of(SECOND.record, ["old.example:1"], ["old.example:2"]), SECOND.online).line
NEW = sign_content(Addresses.of(SECOND.record, ["new.example:1"], ["new.example:2"], OLD), SECOND.online).line


def at(of: Node, mutual: tuple[str, ...] = (), open_: tuple[str, ...] = ()) -> FederationNode:
    return FederationNode(of.record, of.entry.line, mutual, open_)


class Listing:
    """A node that has these lines about everything."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines

    async def claims(self, *_: object) -> tuple[LocatedEntry, ...]:
        return tuple(LocatedEntry(SECOND.record.origin, at, line) for at, line in enumerate(self.lines))


class Session(AskedNodes):
    """One node with these lines, asked by somebody who pins nothing."""

    def __init__(self, *lines: bytes) -> None:
        super().__init__(Listing(lines))
        self.reader, self.pins, self.records = EvidenceReader(), (), tuple[Entry, ...]


@pytest.mark.parametrize("lines", [(OLD, NEW), (NEW, OLD)])
async def test_a_node_without_an_address_gets_the_newest_that_it_announced(lines: tuple[bytes, ...]) -> None:
    session: Any = Session(*lines)
    assert await addressed_nodes(session, [at(SECOND)]) == [at(SECOND, ("new.example:1",), ("new.example:2",))]


async def test_a_node_of_which_nobody_knows_an_address_stays_as_it_is() -> None:
    session: Any = Session()
    assert await addressed_nodes(session, [at(SECOND)]) == [at(SECOND)]


def test_addresses_that_are_known_are_not_replaced_by_none() -> None:
    federation = found([FIRST, SECOND])
    unchanged: Any = SimpleNamespace(tally=SimpleNamespace(epochs=()))
    (before,) = (each for each in federation.nodes if each.record == SECOND.record)
    same = extended_federation(federation, unchanged, [at(SECOND)])
    assert before in same.nodes
    moved = at(SECOND, (), ("new.example:2",))
    assert moved in extended_federation(federation, unchanged, [moved]).nodes
