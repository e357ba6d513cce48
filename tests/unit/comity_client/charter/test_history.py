"""The decided epochs: who voted is proven, and a date needs as many cosigners as the charter asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.trust.charter.votes import adopted_statement, draft_statement
from comity.trust.statement import Entry, sign_statement
from comity_client.charter.history import adoptions, cosigned_by, past_epochs
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
    assert past_epochs(decided.federation, decided.reading, [lie])[0] == newest


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
