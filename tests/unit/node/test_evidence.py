"""Evidence about an artifact from the own ledger: what is asked, which documents are read, and what is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from comity.node import evidence as module
from comity.node.evidence import LedgerCollector
from comity.node.threads import Pools
from comity.rules.collected import CollectedEvidence
from comity.rules.collector import Question
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.evidence import EvidenceReader
from comity.trust.policy import Policy
from comity.wire.log import LocatedProof
from comity.wire.messages import LocatedEntry
from support.case import CARD, LICENCE_TEXT, Case, case, release
from support.world import identity

GOOD = case()
RIVAL = identity("Rival", "SG")


@dataclass
class Answers:
    """What the services and the store of a node answer; `asked` are the names and digests in their order."""

    case: Case = GOOD
    claims_of: dict[Digest, Sequence[bytes]] = field(default_factory=dict)
    stored: dict[Digest, bytes] = field(default_factory=lambda: dict(GOOD.objects))
    resolved: Sequence[bytes] = ()
    asked: list[str] = field(default_factory=list)
    marked: bool = False

    async def claims(self, artifact: Digest, named: Collection[Digest]) -> AsyncIterator[LocatedEntry]:
        self.asked.append(artifact)
        lines = self.claims_of.get(artifact, self.case.claims if artifact == self.case.artifact else ())
        if not lines:
            raise NotFound("nothing is said", code="NO-CLAIMS")
        for index, line in enumerate(lines):
            yield LocatedEntry("node.example/log", index, line, self.marked, self.marked)

    async def resolve(self, name: str, version: str, _: object, named: object) -> AsyncIterator[LocatedEntry]:
        self.asked.append(name)
        for index, line in enumerate(self.resolved):
            yield LocatedEntry("node.example/log", index, line)
        if not self.resolved:
            raise NotFound("no such name", code="NO-SUCH-NAME")

    async def proofs(self, line: Digest, _: object) -> AsyncIterator[LocatedProof]:
        found = [proof for proof in self.case.proofs if proof.line == line]
        if not found:
            raise NotFound("no proof", code="NO-PROOF")
        for proof in found:
            yield LocatedProof("node.example/log", proof.data)

    def has(self, digest: Digest) -> bool:
        return digest in self.stored

    def iterate(self, digest: Digest, start: int, length: int) -> Iterable[bytes]:
        data = self.stored[digest][start : start + length]
        return (data[at : at + 10] for at in range(0, len(data), 10))


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def collector(answers: Any, pools: Pools) -> LedgerCollector:
    return LedgerCollector(answers, answers, answers, pools, EvidenceReader())


async def collected(answers: Answers, pools: Pools, policy: Policy = GOOD.policy) -> CollectedEvidence:
    return await collector(answers, pools).collect(answers.case.artifact, policy)


async def test_all_that_a_verdict_depends_on_is_collected(pools: Pools) -> None:
    answers = Answers()
    found = await collected(answers, pools)
    assert set(found.lines) == set(GOOD.claims)
    assert dict(found.objects) == dict(GOOD.objects)
    assert {kept.proof for kept in found.proofs} == set(GOOD.proofs)
    asked = found.collector.asked
    assert asked[0] == Question("artifact", GOOD.artifact) and found.bounds == () and found.cut == frozenset()
    assert {"artifact", "identity", "name"} <= {question.kind for question in asked}


async def test_an_artifact_of_which_nothing_is_said_is_not_found(pools: Pools) -> None:
    with pytest.raises(NotFound):
        await collector(Answers(), pools).collect(sha256(b"unknown"), GOOD.policy)


async def test_what_rivals_of_its_name_say_is_collected(pools: Pools) -> None:
    rival = release({"other": b"bytes"}, by=RIVAL)[1].line
    answers = Answers(resolved=(RIVAL.entry.line, rival))
    assert {RIVAL.entry.line, rival} <= set((await collected(answers, pools)).lines)


@pytest.mark.parametrize("damage", ["missing", "other bytes", "shorter"])
async def test_a_document_that_is_not_stored_as_it_is_named_is_left_out(pools: Pools, damage: str) -> None:
    stored, card = dict(GOOD.objects), sha256(CARD)
    changed = {"missing": None, "other bytes": CARD[:-1] + b"x", "shorter": CARD[:-1]}[damage]
    stored.pop(card)
    if changed is not None:
        stored[card] = changed
    found = await collected(Answers(stored=stored), pools)
    assert set(found.objects) == {sha256(LICENCE_TEXT)} and found.bounds == ()


@pytest.mark.parametrize("spare", [0, -1])
async def test_documents_are_read_to_a_number_of_bytes(
    pools: Pools, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", len(CARD) + len(LICENCE_TEXT) + spare)
    found = await collected(Answers(), pools)
    assert len(found.objects) == (2 if spare == 0 else 1)
    assert found.bounds == (() if spare == 0 else ("documents that were read: more than fit",))


async def test_a_line_that_no_checkpoint_covers_has_no_proof(pools: Pools) -> None:
    made = collector(Answers(), pools)
    proven = GOOD.proofs[0].line
    assert await made.proofs(proven) == tuple(proof.data for proof in GOOD.proofs if proof.line == proven)
    assert await made.proofs(sha256(b"another line")) == ()


async def test_authors_whose_statements_were_cut_are_named(pools: Pools) -> None:
    found = await collected(Answers(marked=True), pools)
    assert identity("Swiss AI", "CH").id in found.cut and found.bounds


async def test_a_damaged_line_is_not_taken_for_a_statement(pools: Pools) -> None:
    answers = Answers(claims_of={GOOD.artifact: (*GOOD.claims, b"no statement")})
    with pytest.raises(Malformed):
        await collected(answers, pools)
