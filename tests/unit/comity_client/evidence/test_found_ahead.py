"""Answers that came with another one: nobody is asked for them again, and what they prove is the same."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.statement import Entry, parse_entry
from comity.wire.found import Found, Lookup
from comity.wire.held import Held, LineReference
from comity.wire.messages import LocatedEntry
from comity_client.evidence.inquiry import Inquiry, ProvenAnswers
from hypothesis import given
from hypothesis import strategies as st
from support.asked_nodes import AskedNodes
from support.case import case, release
from support.world import identity

GOOD = case()
RIVAL = identity("Rival", "SG")
OTHERS = [release({f"{number}": b"y"}, by=RIVAL, name=f"swiss-ai/tiny@v{number}")[1] for number in range(3)]
LINES = tuple(dict.fromkeys((*GOOD.claims, RIVAL.entry.line, *(entry.line for entry in OTHERS))))
ATTACHED = {line for line in LINES if parse_entry(line).statement.predicate in ("inception", "rotated", "node-record")}
NAME, ABOUT = Lookup.of_name("swiss-ai/tiny"), Lookup.about(GOOD.artifact)


class Node:
    """A node that lists some lines under the name, and others about the artifact."""

    likely: tuple[Lookup, ...] | None = None

    def __init__(self, number: int, named: Sequence[bytes] = LINES, about: Sequence[bytes] = LINES) -> None:
        self.name, self.named, self.about = f"node-{number}", named, about
        self.record = SimpleNamespace(log=f"log-{number}", origin=f"log-{number}")
        self.member = SimpleNamespace(id=f"member-{number}")
        self.failing: ComityError | None = None

    async def resolve(self, *_: object) -> tuple[LocatedEntry, ...]:
        return self._entries(self.named)

    async def claims(self, *_: object) -> tuple[LocatedEntry, ...]:
        return self._entries(self.about)

    def _entries(self, lines: Sequence[bytes]) -> tuple[LocatedEntry, ...]:
        if self.failing is not None:
            raise self.failing
        return tuple(
            LocatedEntry(self.record.log, at, line, attached=line in ATTACHED) for at, line in enumerate(lines)
        )


class Finding(Node):
    """A node that answers both questions at once."""

    likely = (ABOUT,)


class Session(AskedNodes):
    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.reader, self.pins = EvidenceReader(), (GOOD.federation,)

    def records(self) -> tuple[Entry, ...]:
        return tuple(self.reader.entry(node.line) for node in GOOD.federation.nodes)


async def answered(session: Any) -> tuple[ProvenAnswers, ProvenAnswers]:
    inquiry = Inquiry(session, GOOD.policy)
    return await inquiry.find(NAME, "v1"), await inquiry.ask_for(ABOUT)


def essence(said: ProvenAnswers) -> tuple[Any, ...]:
    """What decides: by node the proven statements, the keys, and the places of statements."""
    sources = {
        name: [entry.line for entry in entries if entry.line not in ATTACHED]
        for name, entries in said.proven.sources.items()
        if name != "here"
    }
    keys = {who: [key.line for key in said.proven.keys_of(who)] for who in said.proven.inceptions}
    places = {(each.origin, each.index, each.line) for each in said.located if each.line not in ATTACHED}
    return sources, keys, places, said.cut_authors()


parts = st.lists(st.sampled_from(LINES), unique=True)


@given(nodes=st.lists(st.tuples(parts, parts), min_size=1, max_size=4))
async def test_what_is_proven_does_not_depend_on_what_came_ahead(nodes: list[tuple[list[bytes], list[bytes]]]) -> None:
    async def asked(*kinds: type[Node]) -> list[tuple[Any, ...]]:
        made = (kinds[at % len(kinds)](at, *lines) for at, lines in enumerate(nodes))
        return [essence(each) for each in await answered(Session(*made))]

    old = await asked(Node)
    assert await asked(Finding) == await asked(Finding, Node) == await asked(Node, Finding) == old


async def test_nodes_that_agree_are_asked_once() -> None:
    session = Session(*(Finding(number) for number in range(4)))
    named, about = await answered(session)
    assert [held.brief for _, held in session.told] == [False, False, True, True]
    assert len(named.answers.found) == len(about.answers.found) == 4


async def test_a_node_that_has_more_is_asked_for_it() -> None:
    less = [line for line in LINES if line != OTHERS[0].line]
    session = Session(*(Finding(number, less, LINES if number == 3 else less) for number in range(4)))
    _, about = await answered(session)
    assert [(node.name, held.brief) for node, held in session.told][4:] == [("node-3", False)]
    assert OTHERS[0].line in {each.line for each in about.located}


async def test_a_node_of_the_version_before_is_asked_by_each_question() -> None:
    session = Session(Finding(0), Finding(1), Node(2))
    _, about = await answered(session)
    assert [node.name for node, _ in session.told] == ["node-0", "node-1", "node-2", "node-2"]
    assert len(about.answers.found) == 3


async def test_a_node_that_knows_nothing_or_fails_is_asked_again() -> None:
    for error in (NotFound("none"), Unavailable("silent")):
        failing = Finding(2)
        failing.failing = error
        session = Session(Finding(0), Finding(1), failing)
        named, about = await answered(session)
        assert list(named.answers.failed.values()) == list(about.answers.failed.values()) == [error]


class Lying(Session):
    """`liars` refer to no line in what they were not asked for yet."""

    def __init__(self, liars: Sequence[int], count: int) -> None:
        super().__init__(*(Finding(number) for number in range(count)))
        self.liars = [self.nodes[number] for number in liars]

    def called(self, node: Any) -> Any:
        called = super().called(node)
        if node in self.liars:
            honest = called.find_beside

            async def find(held: Held, asked: Lookup) -> Found:
                found = await honest(held, asked)
                return Found({**found.answers, ABOUT: (LineReference(node.record.log, 0, b"no line!"),)})

            called.find_beside = find
        return called


async def test_references_to_no_line_have_their_node_asked_and_hide_nothing() -> None:
    for liars in ([0], [3], [0, 1, 2, 3]):
        session = Lying(liars, 4)
        _, about = await answered(session)
        assert {node.name for node, _ in session.told[4:]} == {f"node-{number}" for number in liars}
        for items in about.answers.found.values():
            assert [each.line for each in items if each.line not in ATTACHED] == [x for x in LINES if x not in ATTACHED]
        assert len(about.answers.found) == 4


async def test_an_answer_that_came_ahead_is_used_once() -> None:
    session: Any = Session(Finding(0), Finding(1))
    inquiry = Inquiry(session, GOOD.policy)
    await inquiry.find(NAME, "v1")
    await inquiry.ask_for(ABOUT)
    assert len(session.told) == 2
    await inquiry.ask_for(ABOUT)
    assert len(session.told) == 4


async def test_a_manifest_that_came_along_is_known_by_its_hash() -> None:
    class Giving(Session):
        def called(self, node: Any) -> Any:
            called = super().called(node)
            honest = called.find_beside

            async def find(held: Held, asked: Lookup) -> Found:
                return Found((await honest(held, asked)).answers, b"manifest")

            called.find_beside = find
            return called

    async def never() -> bytes:
        raise AssertionError("it is here")

    session: Any = Giving(Finding(0), Finding(1))
    await answered(session)
    assert await session.ahead.take(sha256(b"manifest"), never) == b"manifest"
    await session.ahead.close()
