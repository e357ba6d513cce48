"""The decided epochs: who voted is proven, and a date needs as many cosigners as the charter asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.charter.votes import adopted_statement, draft_statement
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, sign_statement
from comity.wire.messages import LocatedEntry
from comity_client.charter.history import ShownPast, adoptions, cosigned_by, gather_past, past_epochs
from comity_client.evidence.known_since import KnownSince
from support.joining_members import JoiningMember
from support.world import NOW, Log, Node


@pytest.fixture(scope="module", name="decided")
def _decided() -> JoiningMember:
    """Four members that admitted a fifth one."""
    members = JoiningMember()
    members.drafts(0)
    for _ in range(6):
        members.follows_what_is_printed()
    assert members.admitted
    return members


def test_an_epoch_names_its_change_its_proposer_and_its_votes(decided: JoiningMember) -> None:
    newest, genesis = past_epochs(decided.federation, decided.reading)
    assert (newest.body.epoch, newest.before) == (1, genesis.body)
    assert {seat.id for seat in newest.body.members} - {seat.id for seat in genesis.body.members} == {
        decided.newcomer.seat.id
    }
    assert (newest.by, newest.text) == (decided.members[0].member, "it mirrors us")
    voters = {each.member for each in decided.members}
    assert len(newest.ratified) >= 3 and set(newest.ratified) <= voters and set(newest.intents) <= voters
    assert (genesis.body.epoch, set(genesis.ratified)) == (0, voters)
    assert newest.seen is None


def test_what_a_stranger_says_about_a_body_changes_no_past(decided: JoiningMember) -> None:
    newest, _ = past_epochs(decided.federation, decided.reading)
    stranger = decided.newcomer.seat
    lie = sign_statement(draft_statement(newest.body, stranger.id, "it was my idea"), stranger.signer)
    assert past_epochs(decided.federation, decided.reading, ShownPast([lie]))[0] == newest


def adopting(decided: JoiningMember, number: int, by: Node | None = None) -> Entry:
    body, node = decided.reading.current, decided.members[number].node
    return sign_statement(adopted_statement(body, node.record.node.id), (by or node).online)


def test_only_a_node_itself_says_that_it_follows_an_epoch(decided: JoiningMember) -> None:
    body = decided.reading.current
    records = {each.node.record.node.id: each.node.record for each in decided.members}
    said, forged = adopting(decided, 0), adopting(decided, 0, by=decided.members[1].node)
    assert [entry for entry, _ in adoptions([said, forged], body, records)] == [said]
    assert list(adoptions([said], decided.federation.body, records)) == []


@pytest.mark.parametrize(
    ("cosigners", "needed", "seen"), [((1, 2), 2, NOW), ((1,), 2, None), ((), 1, None), ((0,), 1, None)]
)
def test_a_date_needs_enough_cosigners_beside_the_logs_own_member(
    decided: JoiningMember, cosigners: tuple[int, ...], needed: int, seen: int | None
) -> None:
    node, entry = decided.members[0].node, adopting(decided, 0)
    log = Log(node.origin, node.log)
    log.append(entry.line)
    owners = {key: each.member for each in decided.members for key in each.node.record.cosigners}
    proof = log.proof(entry.line, [decided.members[number].node for number in cosigners]).data
    assert cosigned_by(proof, entry, node.record, owners, needed) == seen
    assert cosigned_by(proof, adopting(decided, 1), node.record, owners, needed) is None
    assert cosigned_by(b"no proof", entry, replace(node.record), owners, needed) is None


class Answering:
    """A session with nodes of the members, which answer about one body at these times by their clocks."""

    def __init__(self, decided: JoiningMember, lines: Sequence[bytes], times: Sequence[int]) -> None:
        located = [[LocatedEntry("log", 0, line, known_since=at) for line in lines] for at in times]
        seats = [SimpleNamespace(id=each.member) for each in decided.members]
        self.nodes = [SimpleNamespace(member=seat, former=False, record=None) for seat in seats[: len(times)]]
        self._answers = {id(node): answer for node, answer in zip(self.nodes, located, strict=True)}

    def soonest(self, nodes: Iterable[Any], count: int) -> list[Any]:
        return list(nodes)[:count]

    async def ask_each(self, question: Any, nodes: Iterable[Any], enough: Any) -> Any:
        class Client:
            def __init__(self, answer: list[LocatedEntry]) -> None:
                self.answer = answer

            async def claims(self, subject: Digest) -> list[LocatedEntry]:
                return self.answer

            async def proofs(self, line: Digest) -> list[Any]:
                return []

        found = {Asked(node): await question(node)(Client(self._answers[id(node)])) for node in nodes}
        return SimpleNamespace(found=found)


class Asked:
    """A node as a key."""

    def __init__(self, node: Any) -> None:
        self.member = node.member


@pytest.mark.parametrize(("times", "at", "members"), [((50, 40, 90), 50, 2), ((70,), 70, 1), ((0, 0, 0), None, 0)])
async def test_nodes_say_since_when_an_epoch_is_known_and_one_alone_moves_nothing(
    decided: JoiningMember, times: tuple[int, ...], at: int | None, members: int
) -> None:
    session: Any = Answering(decided, [adopting(decided, 0).line, adopting(decided, 1).line], times)
    federation: Any = decided.federation
    shown = await gather_past(session, federation, decided.reading)
    newest, genesis = past_epochs(federation, decided.reading, shown)
    assert genesis.known_since is None
    assert newest.known_since == (None if at is None else KnownSince(at, "claimed", members))
