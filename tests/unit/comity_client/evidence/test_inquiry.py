"""What the answers of nodes say together: whose statements were cut, and what members saw first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.policy import Policy
from comity.trust.statement import Entry, parse_entry
from comity.wire.messages import LocatedEntry
from comity_client.evidence.inquiry import Inquiry, ProvenAnswers, author_of, is_about, places_of
from comity_client.session import Answers
from support.asked_nodes import AskedNodes
from support.case import release
from support.world import identity

OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")
OWN = [release({f"{number}": b"x"}, by=OWNER, name=f"swiss-ai/tiny@v{number}")[1] for number in range(3)]
OTHER = [release({f"{number}": b"y"}, by=RIVAL, name=f"swiss-ai/tiny@v{number}")[1] for number in range(3)]


class Node:
    """A node of a member; hashed by itself, as those of a session."""

    def __init__(self, number: int, member: Digest | None = None) -> None:
        self.name = f"node-{number}"
        self.record = SimpleNamespace(log=f"log {number}")
        self.member = SimpleNamespace(id=member or sha256(b"member %d" % number))


def located(*entries: Entry, more: Iterable[Entry] = ()) -> tuple[LocatedEntry, ...]:
    marked = {entry.line for entry in more}
    return tuple(LocatedEntry("log", index, entry.line, entry.line in marked) for index, entry in enumerate(entries))


def proven(found: Mapping[Any, Iterable[LocatedEntry]]) -> Any:
    sources = {str(node.record.log): tuple(parse_entry(item.line) for item in items) for node, items in found.items()}
    return SimpleNamespace(sources=sources)


def cut(*answers: tuple[LocatedEntry, ...]) -> set[Digest]:
    found: Any = {Node(number): items for number, items in enumerate(answers)}
    return set(ProvenAnswers(Answers(found, {}), proven(found)).cut_authors())


def test_an_author_of_whom_a_node_has_more_is_cut() -> None:
    assert cut(located(*OWN)) == set()
    assert cut(located(*OWN, more=OWN[:1])) == {OWNER.id}
    assert cut(located(*OWN, *OTHER, more=OTHER)) == {RIVAL.id}
    assert cut() == cut(()) == set()


def test_a_node_that_gave_as_many_and_says_that_these_are_all_counts() -> None:
    assert cut(located(*OWN[:2], more=OWN[:2]), located(*OWN[:2])) == set()
    assert cut(located(*OWN[:2], more=OWN[:2]), located(*OWN)) == set()
    assert cut(located(*OWN, more=OWN), located(*OWN[:2])) == {OWNER.id}


MEMBERS = [sha256(b"seat %d" % number) for number in range(3)]
SEATS = {member: sha256(b"lineage " + member.encode()) for member in MEMBERS}
BODY: Any = SimpleNamespace(active=[SimpleNamespace(id=member, lineage=lineage) for member, lineage in SEATS.items()])
POLICY: Any = SimpleNamespace(pins=(BODY,))


def seen(
    answers: Sequence[tuple[Digest, Sequence[Entry]]], failed: Sequence[tuple[Digest, Exception]] = ()
) -> dict[Digest, Any]:
    found: Any = {Node(number, who): located(*said) for number, (who, said) in enumerate(answers)}
    wrong: Any = {Node(100 + number, who): error for number, (who, error) in enumerate(failed)}
    return ProvenAnswers(Answers(found, wrong), proven(found)).sightings(POLICY, author_of)


def test_a_member_saw_what_its_node_lists_first() -> None:
    assert seen([(MEMBERS[0], [OWN[0], OTHER[0]]), (MEMBERS[1], [OTHER[0], OWN[0]])]) == {
        SEATS[MEMBERS[0]]: OWNER.id,
        SEATS[MEMBERS[1]]: RIVAL.id,
    }
    assert seen([(MEMBERS[0], [])]) == {SEATS[MEMBERS[0]]: None}


def test_a_member_whose_nodes_disagree_saw_nothing() -> None:
    twice = [(MEMBERS[0], [OWN[0]]), (MEMBERS[0], [OTHER[0]])]
    assert seen(twice) == {SEATS[MEMBERS[0]]: None}
    assert seen([(MEMBERS[0], [OWN[0]]), (MEMBERS[0], [OWN[1]])]) == {SEATS[MEMBERS[0]]: OWNER.id}
    assert seen([(MEMBERS[0], [OWN[0]]), (MEMBERS[0], [])]) == {SEATS[MEMBERS[0]]: OWNER.id}


def test_a_node_of_no_member_counts_for_nothing() -> None:
    assert seen([(sha256(b"stranger"), [OWN[0]])], [(sha256(b"other stranger"), NotFound("none"))]) == {}


def test_a_node_that_knows_nothing_says_so_and_a_silent_one_says_nothing() -> None:
    failed = [(MEMBERS[0], NotFound("none")), (MEMBERS[1], Unavailable("silent"))]
    assert seen([], failed) == {SEATS[MEMBERS[0]]: None}


class Listing(Node):
    """A node that lists these entries about everything."""

    def __init__(self, number: int, *listed: Entry) -> None:
        super().__init__(number)
        self.listed = listed

    async def claims(self, *_: object) -> tuple[LocatedEntry, ...]:
        return located(*self.listed)


class Session(AskedNodes):
    """A session without pins."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.pins, self.records, self.reader = (), tuple[Entry, ...], EvidenceReader()


async def test_lines_are_gathered_by_log_and_place() -> None:
    session: Any = Session(Listing(1, OWN[0], OWN[1]), Listing(2, OWN[1]))
    given: list[Any] = []
    inquiry: Any = Inquiry(session, Policy())
    inquiry._prover = SimpleNamespace(prove=lambda lines, wanted: given.append(lines), proven=())
    said = await inquiry.ask(lambda node, held: node.claims_beside(held, ""))
    assert given == [{"here": [], "log 1": [OWN[0].line, OWN[1].line], "log 2": [OWN[1].line]}]
    assert places_of(said.located) == {
        OWN[0].line: {("log", 0)},
        OWN[1].line: {("log", 1), ("log", 0)},
    }


def test_a_statement_is_about_any_of_its_subjects() -> None:
    subject = OWN[0].statement.subject
    assert is_about(OWN[0], subject) and not is_about(OWN[0], sha256(b"x"))
    assert author_of(OWN[0]) == OWNER.id
