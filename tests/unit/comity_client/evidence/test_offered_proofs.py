"""Of many nodes' proofs the best are fetched, whatever nodes say of theirs, and few others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comity.rules.collected import CollectedEvidence, best_proofs
from comity.rules.collector import Collector
from comity.trust.errors import NotFound
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.key_validity import prove_entry
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import SignedNote
from comity.trust.tlog.proof import TlogProof
from comity.wire.log import LocatedProof, ProofSummary
from comity_client.evidence.offered_proofs import FEW, IN_FULL, offered_proofs, proofs_of
from hypothesis import given
from hypothesis import strategies as st
from support.asked_nodes import AskedNodes
from support.case import case

GOOD = case()
COLLECTOR = Collector(GOOD.artifact, GOOD.policy)
COLLECTOR.carried(map(parse_entry, GOOD.claims))
BOUND = CollectedEvidence.of(COLLECTOR, EvidenceReader()).bound
ENTRY = GOOD.publication
WHOLE = TlogProof.parse(next(proof.data for proof in GOOD.proofs if proof.line == ENTRY.digest))
OWN, *COSIGNED = WHOLE.checkpoint.signatures


def proof(*cosigned: int) -> bytes:
    """The proof of the publication with some of its cosignatures."""
    some = [COSIGNED[at] for at in sorted(set(cosigned))]
    return replace(WHOLE, checkpoint=SignedNote(WHOLE.checkpoint.text, (OWN, *some))).encode()


class Node:
    """A node with one proof of the publication; `asked` counts how often it gave it."""

    def __init__(self, number: int, data: bytes) -> None:
        self.name, self.data, self.asked = f"node-{number}", data, 0

    async def proofs(self, line: str) -> tuple[LocatedProof, ...]:
        self.asked += 1
        return self._given()

    async def in_brief(self) -> tuple[LocatedProof | ProofSummary, ...]:
        return tuple(map(ProofSummary.of, self._given()))

    def _given(self) -> tuple[LocatedProof, ...]:
        if not self.data:
            raise NotFound("no proof")
        return (LocatedProof(WHOLE.checkpoint.text.partition("\n")[0], self.data),)


class Liar(Node):
    """It says that everybody cosigned a large tree, and gives another proof, or none."""

    async def in_brief(self) -> tuple[LocatedProof | ProofSummary, ...]:
        ids = tuple(signature.key_id for signature in WHOLE.checkpoint.signatures)
        return (ProofSummary(WHOLE.checkpoint.text.partition("\n")[0], 1 << 40, ids),)


class OldNode(Node):
    """A node of the version before gives its proof to everybody."""

    async def in_brief(self) -> tuple[LocatedProof | ProofSummary, ...]:
        return await self.proofs(ENTRY.digest)


class Session(AskedNodes):
    def __init__(self, *nodes: Node) -> None:
        super().__init__(*nodes)
        self.reader = EvidenceReader()

    def called(self, node: Any) -> Any:
        return Called(node)


class Called:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def proofs(self, line: str) -> tuple[LocatedProof, ...]:
        return await self._node.proofs(line)

    async def proofs_in_brief(self, line: str) -> tuple[LocatedProof | ProofSummary, ...]:
        return await self._node.in_brief()


def worth(proofs: Sequence[InclusionEvidence]) -> dict[str, int]:
    """By log, how many members cosigned the best of these proofs."""
    reader = EvidenceReader()
    kept = [each.proof for each in best_proofs(ENTRY, proofs, BOUND, reader)]
    return {
        each.log: len({c.member.lineage for c in each.cosigners}) for each in prove_entry(ENTRY, kept, BOUND, reader)[0]
    }


async def offered(*nodes: Node) -> dict[str, int]:
    session: Any = Session(*nodes)
    return worth(await offered_proofs(session, ENTRY, BOUND))


COSIGNERS = st.sets(st.integers(0, len(COSIGNED) - 1))


@given(
    kinds=st.lists(st.sampled_from([Node, Node, OldNode, Liar]), min_size=1, max_size=9),
    cosigned=st.lists(COSIGNERS, min_size=9, max_size=9),
)
async def test_the_best_proof_of_any_node_is_among_them(kinds: list[type[Node]], cosigned: list[set[int]]) -> None:
    nodes = [kind(at, proof(*cosigned[at])) for at, kind in enumerate(kinds)]
    every = proofs_of(ENTRY, (LocatedProof("log", node.data) for node in nodes))
    assert await offered(*nodes) == worth(every)
    assert all(node.asked <= 1 for node in nodes)


async def test_equal_proofs_are_fetched_from_two_nodes() -> None:
    nodes = [Node(number, proof(0, 1)) for number in range(FEW + 4)]
    await offered(*nodes)
    assert [node.asked for node in nodes] == [1] * IN_FULL + [0] * (FEW + 2)


async def test_of_few_nodes_all_are_asked() -> None:
    nodes = [Node(number, proof(0)) for number in range(FEW)]
    await offered(*nodes)
    assert [node.asked for node in nodes] == [1] * FEW


async def test_a_better_proof_is_fetched_from_the_node_that_has_it() -> None:
    all_of_them = range(len(COSIGNED))
    nodes = [Node(0, proof(0)), Node(1, proof()), Node(2, proof(0)), Node(3, b""), Node(4, proof(*all_of_them))]
    assert await offered(*nodes) == worth(proofs_of(ENTRY, [LocatedProof("log", nodes[4].data)]))
    assert [node.asked for node in nodes] == [1, 1, 0, 0, 1]


async def test_nodes_that_say_more_than_they_have_are_asked_once_each() -> None:
    for data in (proof(), b"", b"x"):
        nodes = [Node(0, proof(0)), Node(1, proof(0)), *(Liar(number, data) for number in range(2, 9))]
        nodes.append(Node(9, proof(0, 1, 2, 3)))
        assert await offered(*nodes) == worth(proofs_of(ENTRY, [LocatedProof("log", nodes[9].data)]))
        assert all(node.asked <= 1 for node in nodes)
