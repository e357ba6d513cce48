"""Audits by file between two nodes without a network: what counts, and what somebody who carries the files
can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore
from comity.node.copies import responder as responding
from comity.node.copies.auditor import Auditor
from comity.node.copies.carried_audits import OPEN_DAYS, CarriedAudits
from comity.node.copies.leases import Leases
from comity.node.copies.own_copies import OwnClaims, OwnPieces, WithheldFiles
from comity.node.copies.responder import AuditResponder
from comity.node.metrics import Metrics
from comity.node.settings import Audits
from comity.node.threads import AsyncLedger
from comity.rules.audit import DAY, ReadPiece, read_pieces
from comity.rules.copy_counts import PASSED
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, OutOfSpace
from comity.v1 import audit_pb2
from comity.wire.audit import ORDER, AuditOrder, AuditReply, HoldOrder
from comity_client.carried_audits import CarriedAnswers, RefusedChallenge, encode_challenges, parse_challenges
from support.context import node_context
from support.withdrawals import WithdrawingNode

FILES = [b"the weights", b"the tokenizer"]


class Carrying(WithdrawingNode):
    """A node that audits and answers by file. It is never asked over a network, and its budget for that is 0."""

    def __init__(self, folder: Path, place: int) -> None:
        super().__init__(folder / "node", FolderStore(folder / "store"), place)
        self.damaged = 0
        ledger, pieces = (
            AsyncLedger(self.ledger),
            OwnPieces(self.ledger, self.store, WithheldFiles(self.store), self._found_damage),
        )
        metrics, settings = Metrics(), Audits(pieces=2)
        self.auditor = Auditor(
            node_context(
                ledger=ledger, pools=self.pools, membership=self.membership, metrics=metrics, clock=self.clock
            ),
            settings,
            self.index,
            self.own_log,
            {},
            pieces,
        )
        claims = OwnClaims(self.ledger, self.signer.record.node.id, self.log)
        answers = AuditResponder(
            node_context(
                ledger=ledger, pools=self.pools, membership=self.membership, metrics=metrics, clock=self.clock
            ),
            self.signer,
            self.clock,
            0,
            claims,
            pieces,
            Leases(0.0),
        )
        self.carried = CarriedAudits(
            node_context(ledger=ledger, pools=self.pools, membership=self.membership, clock=self.clock),
            self.signer,
            self.index,
            pieces,
            self.auditor,
            answers,
        )

    def clock(self) -> float:
        return self.today * DAY

    def _found_damage(self) -> None:
        self.damaged += 1

    async def challenged(self, prover: WithdrawingNode) -> list[AuditOrder]:
        return [order async for order in self.carried.draw(prover.signer.record.name, None, 10)]

    def results(self, artifact: Digest, of: WithdrawingNode) -> list[tuple[int, str]]:
        """Day and outcome of the results about a node's copy, at this node."""
        row = next(row for row in self.index.copies(artifact) if row.log == of.log)
        return [(result.day, result.outcome) for result in row.results]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Carrying, Carrying]]:
    first, second = Carrying(tmp_path / "first", 0), Carrying(tmp_path / "second", 1)
    yield first, second
    first.close()
    second.close()


def carried(orders: list[AuditOrder]) -> list[AuditOrder]:
    return list(parse_challenges(encode_challenges(orders)))


def other(order: AuditOrder, **changed: Any) -> AuditOrder:
    return replace(order, challenge=replace(order.challenge, **changed))


def brought_back(reply: AuditReply) -> AuditReply:
    return CarriedAnswers.parse(CarriedAnswers((reply,)).encode()).answers[0]


async def code(reply: AuditReply, auditor: Carrying) -> str:
    with pytest.raises(ComityError) as refused:
        await auditor.carried.check(reply)
    return refused.value.code


async def test_a_node_fed_by_disks_is_tested_like_any_other_with_the_day_of_the_challenge(
    both: tuple[Carrying, Carrying],
) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    assert prover.hold(FILES) == artifact
    (order,) = carried(await auditor.challenged(prover))
    drawn = auditor.today
    prover.today = auditor.today = drawn + 20
    reply = brought_back(await prover.carried.answer(order))
    assert (await auditor.carried.check(reply)).outcome == PASSED
    assert auditor.results(artifact, prover) == [(drawn, PASSED)]
    assert await code(reply, auditor) == "NO-CHALLENGE"  # it is valid for one answer
    await auditor.auditor.log_days()
    assert auditor.index.unlogged_days(auditor.today) == []


@pytest.mark.parametrize("part", ["add", "add_own"])
async def test_an_answer_that_could_not_be_recorded_is_recorded_once_when_there_is_space(
    both: tuple[Carrying, Carrying], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = carried(await auditor.challenged(prover))
    reply = brought_back(await prover.carried.answer(order))

    def full(*_: object) -> None:
        raise OutOfSpace("the index of copies was not written", why="database or disk is full")

    monkeypatch.setattr(auditor.index, part, full)
    assert await code(reply, auditor) == "OUT-OF-SPACE"
    monkeypatch.undo()
    assert (await auditor.carried.check(reply)).outcome == PASSED
    assert auditor.results(artifact, prover) == [(auditor.today, PASSED)]
    assert len(auditor.index.own_audits(auditor.today)) == 1
    assert await code(reply, auditor) == "NO-CHALLENGE"


async def test_a_node_without_the_pieces_signs_nothing_and_nothing_is_recorded(both: tuple[Carrying, Carrying]) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    for data in FILES:
        prover.store.remove(sha256(data))
    with pytest.raises(ComityError) as lost:
        await prover.carried.answer(order)
    assert lost.value.code == "NOT-HELD"
    assert auditor.results(artifact, prover) == []


async def test_a_node_that_withdrew_its_copy_does_not_say_that_it_lost_it(both: tuple[Carrying, Carrying]) -> None:
    """The auditor may not have read the withdrawal yet: what it would log accuses an honest node."""
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    await prover.withdrawals.decide(HoldOrder(artifact, "legal-order", "order 12", force=True))
    with pytest.raises(ComityError) as refused:
        await prover.carried.answer(order)
    assert refused.value.code == "WITHDRAWING"
    with pytest.raises(ComityError) as lost:
        await prover.carried.answer(other(order, artifact=sha256(b"never held here")))
    assert lost.value.code == "NOT-HELD"


async def test_a_signed_wrong_answer_proves_a_fault_by_file_too(
    both: tuple[Carrying, Carrying], monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)

    def invent(*given: object) -> list[ReadPiece]:
        read = read_pieces(*given)  # type: ignore[arg-type]  # as it was called
        return [replace(piece, digest=sha256(b"invented")) for piece in read]

    monkeypatch.setattr(responding, "read_pieces", invent)
    reply = brought_back(await prover.carried.answer(order))
    assert (await auditor.carried.check(reply)).outcome == "digest"
    row = next(row for row in auditor.index.copies(artifact) if row.log == prover.log)
    assert [result.proven for result in row.results] == [True]


async def test_an_answer_changed_by_a_carrier_accuses_no_node_and_the_right_one_still_counts(
    both: tuple[Carrying, Carrying],
) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    reply = await prover.carried.answer(order)
    unasked = await prover.carried.answer(other(order, nonce=sha256(b"of nobody")))
    shorter = await prover.carried.answer(other(order, numbers=order.challenge.numbers[:1]))
    turned = reply.line.replace(b'"sig":"', b'"sig":"AAAA', 1)
    assert await code(AuditReply(b"no line", ()), auditor) == "AUDIT-FAILED"
    assert await code(AuditReply(turned, reply.paths), auditor) == "AUDIT-FAILED"
    assert await code(AuditReply(reply.line, ()), auditor) == "AUDIT-FAILED"
    assert await code(AuditReply(reply.line, ((b"x" * 32,),) * 2), auditor) == "AUDIT-FAILED"
    assert await code(shorter, auditor) == "AUDIT-FAILED"
    assert await code(unasked, auditor) == "NO-CHALLENGE"
    assert auditor.results(artifact, prover) == []
    assert (await auditor.carried.check(reply)).outcome == PASSED


async def test_an_auditor_that_lost_its_copy_records_nothing_and_can_check_again(
    both: tuple[Carrying, Carrying],
) -> None:
    auditor, prover = both
    artifact = auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    reply = await prover.carried.answer(order)
    for data in FILES:
        auditor.store.remove(sha256(data))
    assert await code(reply, auditor) == "NOT-COMPARED"
    for data in FILES:
        auditor.store.put(sha256(data), data)
    assert (await auditor.carried.check(reply)).outcome == PASSED
    assert len(auditor.results(artifact, prover)) == 1


async def test_an_auditor_whose_own_copy_is_damaged_takes_the_damaged_file_out_of_its_store(
    both: tuple[Carrying, Carrying],
) -> None:
    """As it does after a challenge over the network: the file is fetched again, and the answer compared then."""
    auditor, prover = both
    auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    reply = await prover.carried.answer(order)
    for data in FILES:
        path = cast(FolderStore, auditor.store).path(sha256(data))
        path.chmod(0o600)
        path.write_bytes(bytes(len(data)))
    assert await code(reply, auditor) == "NOT-COMPARED"
    assert auditor.damaged == 1
    assert [auditor.store.has(sha256(data)) for data in FILES].count(False) == 1


async def test_a_late_answer_does_not_count(both: tuple[Carrying, Carrying]) -> None:
    auditor, prover = both
    auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    reply = await prover.carried.answer(order)
    auditor.today += OPEN_DAYS + 1
    assert await code(reply, auditor) == "NO-CHALLENGE"


async def test_a_node_answers_nodes_of_other_members_only_and_grants_no_lease(both: tuple[Carrying, Carrying]) -> None:
    auditor, prover = both
    auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    for wrong in (
        other(order, auditor=sha256(b"a stranger")),
        other(order, auditor=prover.signer.record.node.id),
        other(order, lease=300),
    ):
        with pytest.raises(ComityError) as refused:
            await prover.carried.answer(wrong)
        assert refused.value.code == "AUDITORS-ONLY"
    with pytest.raises(ComityError) as unknown:
        [each async for each in auditor.carried.draw("nobody.example", None, 1)]
    assert unknown.value.code == "NO-SUCH-NODE"


async def test_a_challenge_for_another_node_or_of_another_federation_is_not_answered(
    both: tuple[Carrying, Carrying],
) -> None:
    """A node without a copy cannot have a holder answer in its place, and an honest node signs no answer that its
    auditor would find wrong."""
    auditor, prover = both
    auditor.hold(FILES)
    prover.hold(FILES)
    (order,) = await auditor.challenged(prover)
    elsewhere = other(order, prover=prover.peers[auditor.log].record.node.id)
    for wrong in (elsewhere, replace(order, federation=sha256(b"another federation"))):
        with pytest.raises(ComityError) as refused:
            await prover.carried.answer(wrong)
        assert refused.value.code == "AUDIT-PARTIES"


def test_a_challenge_of_an_older_version_is_refused_with_words() -> None:
    """Its auditor then logs no failure: it got no answer."""
    asked = audit_pb2.AuditRequest(artifact=bytes(32), index=bytes(32), nonce=bytes(32), numbers=[0])
    with pytest.raises(ComityError) as refused:
        ORDER.decode(asked)
    assert refused.value.code == "AUDIT-OLD-FORM"
    with pytest.raises(Malformed):
        parse_challenges(b'{"challenges":[],"schema":"comity/audit-challenges/v1"}')


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"answers":[],"refused":[],"schema":"comity/audit-answers/v2"}',
        b'{"answers":[{"line":"x","paths":["AAAA"]}],"refused":[],"schema":"comity/audit-answers/v1"}',
        b'{"answers":[{"line":"x","paths":[],"more":1}],"refused":[],"schema":"comity/audit-answers/v1"}',
    ],
)
def test_invalid_answers_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        CarriedAnswers.parse(data)


def test_refused_challenges_read_back() -> None:
    answers = CarriedAnswers((AuditReply(b"line", ((b"x" * 32,), ())),), (RefusedChallenge(sha256(b""), "none here"),))
    assert CarriedAnswers.parse(answers.encode()) == answers
