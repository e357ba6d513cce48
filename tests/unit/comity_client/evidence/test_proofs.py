"""Proofs and documents from nodes: which are kept, which contradict what was seen, and how many nodes are asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from comity.rules.collected import CollectedEvidence, missing_consistency
from comity.rules.collector import Collector
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable, Untrusted
from comity.trust.evidence import Evidence, EvidenceReader, InclusionEvidence
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES
from comity.wire.log import LocatedProof
from comity_client.events import MisbehaviourFound, Note
from comity_client.evidence import proofs as module
from comity_client.evidence.proofs import complete, fetch_object
from support.asked_nodes import AskedNodes
from support.case import CARD, LICENCE_TEXT, case

GOOD = case()


class Node:
    """A node that has these proofs and objects, and signs as `author`; `asked` are the lines that it was asked
    about."""

    def __init__(
        self, proofs: tuple[InclusionEvidence, ...], objects: dict[Digest, bytes], author: object = "nobody"
    ) -> None:
        self.have, self.objects, self.asked, self.name = proofs, objects, list[Digest](), "node"
        self.record = SimpleNamespace(node=author)

    async def proofs(self, line: Digest) -> tuple[LocatedProof, ...]:
        self.asked.append(line)
        found = tuple(LocatedProof("log", proof.data) for proof in self.have if proof.line == line)
        if not found:
            raise NotFound("no proof")
        return found

    async def object(self, digest: Digest) -> bytes:
        if digest not in self.objects:
            raise NotFound("no object")
        return self.objects[digest]


class Session(AskedNodes):
    """Asks these nodes one after the other."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.reader = EvidenceReader()

    async def answers(
        self, question: Callable[[Node], Awaitable[Any]], *, first: Collection[Node] = ()
    ) -> AsyncGenerator[Any, None]:
        for node in sorted(self.nodes, key=lambda node: node not in first):
            try:
                yield await question(node)
            except NotFound:
                continue

    async def first(self, question: Callable[[Node], Awaitable[Any]], what: str) -> Any:
        async for found in self.answers(question):
            return found
        raise Unavailable(what, code="UNREACHABLE")


COLLECTOR = Collector(GOOD.artifact, GOOD.policy)
COLLECTOR.carried(map(parse_entry, GOOD.claims))
COLLECTED = CollectedEvidence.of(COLLECTOR, EvidenceReader())
HOLDS = {entry.digest for entry in COLLECTED.entries_to_prove() if entry.statement.predicate in HOLD_PREDICATES}


@pytest.fixture(autouse=True, name="seen")
def _seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """The errors with which the checkpoint of a log contradicts those that were seen, by origin."""
    wrong: dict[str, Exception] = {}

    async def reconcile(seen_logs: object, key: Any, note: object, proofs: object) -> None:
        if key.name in wrong:
            raise wrong[key.name]

    monkeypatch.setattr(module, "reconcile_checkpoint", reconcile)
    monkeypatch.setattr(module, "consistency_proofs", lambda session: session.consistency)
    return wrong


async def collected(*nodes: Node, known: tuple[InclusionEvidence, ...] = ()) -> tuple[Any, list[Any]]:
    events: list[Any] = []
    session: Any = Session(*nodes)
    session.consistency = None
    session.first = _document
    unused: Any = None
    before = Evidence(None, None, proofs=known)
    evidence, alarms = await complete(session, unused, COLLECTED, before, events.append)
    assert evidence.objects == GOOD.objects
    return SimpleNamespace(proofs=list(evidence.proofs), alarms=alarms), events


async def _document(question: Callable[[Node], Awaitable[Any]], what: str) -> Any:
    return await question(Node((), dict(GOOD.objects)))


async def test_each_line_is_proven_by_what_a_node_has() -> None:
    found, events = await collected(Node(GOOD.proofs, {}))
    assert {kept.proof for kept in found.proofs} == set(GOOD.proofs) and found.alarms == [] and events == []


async def test_existing_proofs_count_and_invalid_ones_are_dropped() -> None:
    found, _ = await collected(known=GOOD.proofs)
    assert {kept.proof for kept in found.proofs} == set(GOOD.proofs)
    broken = tuple(InclusionEvidence(proof.line, proof.data[:-30]) for proof in GOOD.proofs)
    found, _ = await collected(Node(broken, {}))
    assert found.proofs == []
    swapped = tuple(InclusionEvidence(proof.line, GOOD.proofs[-1].data) for proof in GOOD.proofs[:-1])
    found, _ = await collected(Node(swapped, {}))
    assert found.proofs == []


async def test_of_a_copy_the_first_valid_proof_is_enough() -> None:
    first, second = Node(GOOD.proofs, {}), Node(GOOD.proofs, {})
    await collected(first, second)
    assert HOLDS and set(first.asked) >= HOLDS and not HOLDS & set(second.asked)
    assert set(second.asked) == set(first.asked) - HOLDS
    liar = Node(tuple(InclusionEvidence(proof.line, b"x") for proof in GOOD.proofs), {})
    found, _ = await collected(liar, second)
    assert len(found.proofs) == len(GOOD.proofs)  # an invalid one is not


async def test_of_a_copy_its_own_node_is_asked_first() -> None:
    holds = [entry for entry in COLLECTED.entries_to_prove() if entry.digest in HOLDS]
    nodes = [Node(GOOD.proofs, {}), *(Node(GOOD.proofs, {}, entry.statement.by) for entry in holds)]
    await collected(*nodes)
    assert [HOLDS.intersection(node.asked) for node in nodes] == [set(), *({entry.digest} for entry in holds)]
    silent = [Node((), {}, entry.statement.by) for entry in holds]
    found, _ = await collected(nodes[0], *silent)
    assert len(found.proofs) == len(GOOD.proofs), "another one has it too"


@pytest.mark.parametrize(
    ("error", "kept", "alarms", "event"),
    [
        (Untrusted("two roots", code="EQUIVOCATION"), False, True, MisbehaviourFound),
        (Untrusted("another key", code="NOTE-SIGNATURE"), True, False, None),
        (Unavailable("no proof that it grew"), True, False, Note),
    ],
)
async def test_a_contradiction_to_what_was_seen_is_an_alarm(
    seen: dict[str, Exception], error: Exception, kept: bool, alarms: bool, event: type | None
) -> None:
    origin = GOOD.federation.nodes[0].record.origin
    seen[origin] = error
    found, events = await collected(Node(GOOD.proofs, {}))
    of_log = [each for each in found.proofs if each.origin == origin]
    assert bool(of_log) == kept and bool(found.alarms) == alarms
    assert {type(each) for each in events} == ({event} if event else set())
    assert len(found.proofs) >= len(GOOD.proofs) - 2


async def test_documents_are_those_that_a_node_has() -> None:
    session: Any = Session(Node((), {sha256(CARD): CARD}), Node((), {}))
    events: list[Any] = []
    items: Any = [SimpleNamespace(digest=sha256(data)) for data in (CARD, LICENCE_TEXT)]
    assert await module._documents(session, items, events.append) == {sha256(CARD): CARD}
    assert [type(event) for event in events] == [Note]
    with pytest.raises(Unavailable):
        await fetch_object(session, sha256(LICENCE_TEXT))


async def test_without_rotations_no_consistency_is_asked_for() -> None:
    asked: list[Any] = []
    session: Any = Session()
    session.consistency = lambda *given: asked.append(given)
    missing = missing_consistency(COLLECTED.claims.publications, (), session.reader)
    assert await module._consistency(session, missing) == {} and asked == []
