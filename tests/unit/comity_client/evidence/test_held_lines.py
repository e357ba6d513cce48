"""Nodes are asked for what is not here: two for lines, the others for references; what they prove is the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.statement import Entry, parse_entry
from comity.wire.found import Lookup
from comity.wire.held import SALT, Held, LineReference, Selected
from comity.wire.messages import LocatedEntry
from comity_client.evidence.held_lines import HeldLines, ask_all, ask_beside, pinned_entries
from comity_client.evidence.inquiry import Inquiry, ProvenAnswers
from comity_client.evidence.search import publisher_records
from hypothesis import given
from hypothesis import strategies as st
from support.asked_nodes import AskedNodes
from support.case import case, release
from support.world import identity

GOOD = case()
RIVAL = identity("Rival", "SG")
OTHERS = [release({f"{number}": b"y"}, by=RIVAL, name=f"swiss-ai/tiny@v{number}")[1] for number in range(3)]
KEYS = {entry.line for entry in GOOD.federation.identity_entries} | {node.line for node in GOOD.federation.nodes}
LINES = tuple(dict.fromkeys((*GOOD.claims, RIVAL.entry.line, *(entry.line for entry in OTHERS), *sorted(KEYS))))
ATTACHED = {line for line in LINES if parse_entry(line).statement.predicate in ("inception", "rotated", "node-record")}


class Node:
    """A node that lists these lines about everything."""

    def __init__(self, number: int, lines: Sequence[bytes], *, marked: Collection[bytes] = ()) -> None:
        self.name, self.lines, self.marked = f"node-{number}", lines, frozenset(marked)
        self.record = SimpleNamespace(log=f"log-{number}", origin=f"log-{number}")
        self.member = SimpleNamespace(id=f"member-{number}")
        self.failing: ComityError | None = None

    async def claims(self, *_: object) -> tuple[LocatedEntry, ...]:
        if self.failing is not None:
            raise self.failing
        return tuple(
            LocatedEntry(self.record.log, at, line, line in self.marked, attached=line in ATTACHED)
            for at, line in enumerate(self.lines)
        )


class OldNode(Node):
    """A node of the version before: it gives all lines to everybody."""

    async def claims_beside(self, held: Held, *asked: object) -> tuple[Selected, ...]:
        return await self.claims(*asked)


class Session(AskedNodes):
    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.reader, self.pins = EvidenceReader(), (GOOD.federation,)

    def records(self) -> tuple[Entry, ...]:
        return tuple(self.reader.entry(node.line) for node in GOOD.federation.nodes)

    def called(self, node: Any) -> Any:
        return node if isinstance(node, OldNode) else super().called(node)


def question(node: Any, held: Held) -> Any:
    return node.claims_beside(held, GOOD.artifact)


async def found_by(session: Session, *here: bytes) -> Any:
    held = HeldLines(bytes(SALT), map(parse_entry, here))
    return await ask_beside(session, lambda node: question, held)  # type: ignore[arg-type]


async def lines_by_node(*nodes: Node) -> dict[str, list[bytes]]:
    answers = await found_by(Session(*nodes))
    return {node.name: [item.line for item in items] for node, items in answers.found.items()}


async def test_two_nodes_give_lines_and_the_others_references() -> None:
    session = Session(*(Node(number, LINES) for number in range(5)))
    answers = await found_by(session, *GOOD.claims[:2])
    assert [held.brief for _, held in session.told] == [False, False, True, True, True]
    assert all(len(items) >= len(LINES) - 2 for items in answers.found.values()) and len(answers.found) == 5


async def test_a_single_question_is_asked_beside_what_is_pinned() -> None:
    session: Any = Session(*(Node(number, LINES) for number in range(4)))
    answers = await ask_all(session, Lookup.about(GOOD.artifact))
    assert [held.brief for _, held in session.told] == [False, False, True, True]
    lines = {item.line for items in answers.found.values() for item in items}
    assert lines == set(LINES) - KEYS, "what is pinned is not sent"
    assert {entry.line for entry in pinned_entries(session)} == KEYS


async def test_the_keys_of_a_publisher_are_known_where_they_are_pinned() -> None:
    session: Any = Session(Node(0, LINES))
    session.pins = (SimpleNamespace(identity_entries=(RIVAL.entry,)),)
    found = await publisher_records(session, OTHERS[:1])
    assert session.told and list(found[RIVAL.id].inceptions) == [RIVAL.id]


async def test_a_line_that_both_left_out_is_found_by_its_reference() -> None:
    hidden = OTHERS[0].line
    less = [line for line in LINES if line != hidden]
    session = Session(Node(0, less), Node(1, less), Node(2, LINES), Node(3, less))
    answers = await found_by(session)
    assert [hidden in [item.line for item in items] for items in answers.found.values()] == [False, False, True, False]
    assert [(node.name, held.brief) for node, held in session.told][4:] == [("node-2", False)], "asked once more"
    assert not answers.failed


async def test_two_others_take_the_place_of_those_that_do_not_answer() -> None:
    nodes = [Node(number, LINES) for number in range(6)]
    for node in nodes[:2]:
        node.failing = Unavailable("silent")
    session = Session(*nodes)
    answers = await found_by(session)
    assert [node.name for node in answers.found] == ["node-2", "node-3", "node-4", "node-5"]
    assert [node.name for node in answers.failed] == ["node-0", "node-1"]
    assert [node.name for node, held in session.told if not held.brief] == ["node-0", "node-1", "node-2", "node-3"]


async def test_a_reference_to_no_line_is_a_false_answer_of_its_node_alone() -> None:
    class Liar(Node):
        async def claims_beside(self, held: Held, *_: object) -> tuple[Selected, ...]:
            return (LineReference(self.record.log, 0, b"no line!"),)

    class Lying(Session):
        def called(self, node: Any) -> Any:
            return node if isinstance(node, Liar) else super().called(node)

    for liars in ({0}, {2}, {0, 1, 3}):
        nodes = [Liar(number, ()) if number in liars else Node(number, LINES) for number in range(4)]
        answers = await found_by(Lying(*nodes))
        assert {node.name for node in answers.failed} == {f"node-{number}" for number in liars}
        assert all(isinstance(error, Malformed) for error in answers.failed.values())
        assert all([item.line for item in items] == list(LINES) for items in answers.found.values())


async def test_answers_of_a_node_of_the_version_before_count() -> None:
    nodes = [OldNode(0, LINES), Node(1, LINES), OldNode(2, LINES), Node(3, LINES)]
    assert set(map(tuple, (await lines_by_node(*nodes)).values())) == {LINES}


NUMBERS = {line: at for at, line in enumerate(LINES)}
parts = st.lists(st.integers(0, len(LINES) - 1), unique=True)
answered = st.lists(st.tuples(parts, st.sets(st.integers(0, len(LINES) - 1), max_size=3)), min_size=1, max_size=4)


def essence(said: ProvenAnswers) -> tuple[Any, ...]:
    """What decides: by node the proven statements, notes, whose statements were cut, keys of authors, nodes, and of
    statements the places and marks."""
    statements = {
        name: [NUMBERS[entry.line] for entry in entries if entry.line not in ATTACHED]
        for name, entries in said.proven.sources.items()
        if name != "here"
    }
    keys = {who: [NUMBERS[key.line] for key in said.proven.keys_of(who)] for who in said.proven.inceptions}
    places = {(e.origin, e.index, NUMBERS[e.line], e.more) for e in said.located if e.line not in ATTACHED}
    bound = {node.record.name for node in said.proven.bound}
    return statements, said.proven.notes(), said.cut_authors(), keys, bound, places, said.limited


@given(histories=answered)
async def test_what_is_proven_does_not_depend_on_what_was_sent(histories: list[tuple[list[int], set[int]]]) -> None:
    """Nodes with any lines and any marks: those that leave out what is here, and those that repeat it."""

    async def asked(*kinds: type[Node]) -> list[tuple[Any, ...]]:
        """What an inquiry makes of two equal questions."""
        session: Any = Session(
            *(
                kinds[at % len(kinds)](at, [LINES[n] for n in lines], marked=[LINES[n] for n in marked])
                for at, (lines, marked) in enumerate(histories)
            )
        )
        inquiry = Inquiry(session, GOOD.policy)
        return [essence(await inquiry.ask(question)) for _ in range(2)]

    old = await asked(OldNode)
    assert await asked(Node) == await asked(Node, OldNode) == await asked(OldNode, Node) == old


async def test_a_mark_counts_where_only_keys_that_are_here_carry_it() -> None:
    """An author may fill an answer with its own keys, so that it has no room for what it says of their loss."""
    own = GOOD.federation.identity_entries[0]
    for kind in (Node, OldNode):
        session: Any = Session(kind(0, [own.line], marked=[own.line]), kind(1, [own.line]))
        said = await Inquiry(session, GOOD.policy).ask(question)
        assert said.cut_authors() == {own.statement.subject}
