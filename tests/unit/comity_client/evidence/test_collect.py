"""What nodes say about an artifact, together: proven lines alone count, and what nobody answers is missing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from comity.rules.collector import Collector
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.statement import Entry
from comity.wire.messages import LocatedEntry
from comity_client.evidence.collect import collect, collect_more
from comity_client.evidence.inquiry import Inquiry
from support.asked_nodes import AskedNodes
from support.case import advisory, case, release
from support.world import identity

GOOD = case()
OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")


class Node:
    """A node that has these lines about the artifact, and others about a name; or fails."""

    def __init__(self, number: int, lines: Sequence[bytes], *, named: Sequence[bytes] = (), more: bool = False) -> None:
        self.name, self.lines, self.named, self.more = f"node-{number}", lines, named, more
        self.record = SimpleNamespace(log=f"log-{number}", origin=f"log-{number}")
        self.member = SimpleNamespace(id=f"member-{number}")
        self.failing: ComityError | None = None
        self.asked: list[str] = []

    async def claims(self, digest: Digest, named: Sequence[Digest]) -> tuple[LocatedEntry, ...]:
        self.asked.append(digest)
        return self._answer(self.lines if digest == GOOD.artifact else ())

    async def resolve(self, name: str, version: str, _: object, named: object) -> tuple[LocatedEntry, ...]:
        self.asked.append(name)
        return self._answer(self.named)

    def _answer(self, lines: Sequence[bytes]) -> tuple[LocatedEntry, ...]:
        if self.failing is not None:
            raise self.failing
        if not lines:
            raise NotFound("nothing is known")
        return tuple(LocatedEntry(self.record.log, index, line, self.more) for index, line in enumerate(lines))


class Session(AskedNodes):
    """Asks all nodes; its pinned federation is that of the case."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.reader, self.pins = EvidenceReader(), (GOOD.federation,)

    def records(self) -> tuple[Entry, ...]:
        return tuple(self.reader.entry(node.line) for node in GOOD.federation.nodes)


OF_MEMBERS = {entry.line for entry in GOOD.federation.identity_entries}
"""What the pinned charter proves of its members' keys; it counts whether a node repeats it or not."""
WHOLE = OF_MEMBERS.union(GOOD.claims)


def forge(line: bytes) -> bytes:
    """The line with another signature."""
    at = line.index(b'"sig":"') + len(b'"sig":"')
    return line[:at] + b"AAAA" + line[at + 4 :]


async def gathered(*nodes: Node, carried: Sequence[bytes] = (), publisher: Digest | None = None) -> Any:
    session: Any = Session(*nodes)
    inquiry = Inquiry(session, GOOD.policy)
    found = await collect(inquiry, Collector(GOOD.artifact, GOOD.policy, publisher))
    return await collect_more(inquiry, found, carried)


async def test_what_one_node_has_is_enough() -> None:
    found = await gathered(Node(1, GOOD.claims))
    assert set(found.lines) == WHOLE and found.artifact == GOOD.artifact
    assert len(found.claims.publications) == 1 and found.notes == () and found.bounds == ()
    assert found.places[GOOD.publication.line] == {("log-1", GOOD.claims.index(GOOD.publication.line))}


async def test_parts_of_several_nodes_are_put_together() -> None:
    half = len(GOOD.claims) // 2
    found = await gathered(Node(1, GOOD.claims[:half]), Node(2, GOOD.claims[half - 1 :]))
    assert set(found.lines) == WHOLE
    assert len(found.places[GOOD.claims[half - 1]]) == 2


async def test_lines_that_are_not_proven_are_left_out_with_a_note() -> None:
    forged = forge(release(by=OWNER, name="swiss-ai/tiny@v7")[1].line)
    found = await gathered(Node(1, (*GOOD.claims, forged, b"no line")), Node(2, GOOD.claims))
    assert forged not in found.lines and set(found.lines) == WHOLE
    assert len(found.notes) == 1 and "unproven" in found.notes[0]


async def test_statements_about_other_subjects_are_left_out() -> None:
    other = release({"other": b"bytes"}, by=OWNER, name="swiss-ai/other@v1")[1].line
    assert other not in (await gathered(Node(1, (*GOOD.claims, other)))).lines


async def test_a_node_that_fails_is_left_out() -> None:
    broken = Node(1, GOOD.claims)
    broken.failing = Unavailable("silent")
    assert set((await gathered(broken, Node(2, GOOD.claims))).lines) == WHOLE
    with pytest.raises(Unavailable):
        await gathered(broken)
    with pytest.raises(NotFound, match=r"no statement about sha256:"):
        await gathered(Node(1, ()), Node(2, ()))
    with pytest.raises(Unavailable) as raised:
        await gathered(broken, Node(2, ()))
    assert raised.value.code == "UNREACHABLE"
    with pytest.raises(Unavailable) as alone:
        await gathered()
    assert alone.value.code == "NO-NODES"


async def test_rivals_of_the_name_are_asked_for() -> None:
    rival = release({"other": b"bytes"}, by=RIVAL)[1].line
    node = Node(1, GOOD.claims, named=(RIVAL.entry.line, rival))
    found = await gathered(node, publisher=OWNER.id)
    assert {RIVAL.entry.line, rival} <= set(found.lines) and "swiss-ai/tiny" in node.asked


async def test_lines_of_an_earlier_copy_count_if_they_are_proven() -> None:
    said = advisory(GOOD)
    found = await gathered(Node(1, GOOD.claims), carried=said)
    assert set(said) <= set(found.lines)
    broken = forge(said[1])
    found = await gathered(Node(1, GOOD.claims), carried=(said[0], broken))
    assert broken not in found.lines and any("the existing pack" in note for note in found.notes)


async def test_an_author_who_says_more_is_marked_where_no_node_has_it_all() -> None:
    assert OWNER.id in (await gathered(Node(1, GOOD.claims, more=True))).cut
    assert OWNER.id not in (await gathered(Node(1, GOOD.claims, more=True), Node(2, GOOD.claims))).cut


async def test_the_claims_have_the_nodes_that_the_charters_bind() -> None:
    found = await gathered(Node(1, GOOD.claims))
    assert {node.record.origin for node in found.bound} == {node.record.origin for node in GOOD.federation.nodes}
    assert sha256(b"x") not in {entry.digest for entry in found.entries_to_prove()}
