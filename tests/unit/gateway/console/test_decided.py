"""The decided changes on the page of proposals: votes of the certificate, and a date that enough cosigners make."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from comity.gateway.console.decided import DecidedChange, DecidedChanges
from comity.ledger.ledger import Ledger
from comity.node.epochs import EpochStore
from comity.node.members import Membership
from comity.trust.charter.certificate import Certificate
from comity.trust.encoding import Digest
from support.joining_members import JoiningMember


@pytest.fixture(scope="module", name="decided")
def _decided() -> JoiningMember:
    """Four members that admitted a fifth one."""
    members = JoiningMember()
    members.drafts(0)
    for _ in range(6):
        members.follows_what_is_printed()
    assert members.admitted
    return members


class Following:
    """A node that follows the newest charter, whose log has these cosigners, by member; none before it adopted it."""

    def __init__(self, decided: JoiningMember, times: dict[Digest, int] | None) -> None:
        (newest,) = decided.reading.tally.epochs
        path = [Certificate(decided.federation.body, ()), newest]
        self.reads = 0
        self.epochs = cast(
            EpochStore, SimpleNamespace(digests=[each.body.digest for each in path], certificate=path.__getitem__)
        )
        node = decided.members[0].node
        own = SimpleNamespace(record=node.record, inception=node.seat.inception)
        found = [] if times is None else [SimpleNamespace(index=3, line=b"adopted")]
        log = str(node.record.log)
        proven = [SimpleNamespace(number=7, vkey="another log"), SimpleNamespace(number=9, vkey=log)]
        ledger = SimpleNamespace(
            index=SimpleNamespace(find=lambda query, limit: self._found(found)),
            cosignatures=SimpleNamespace(best_note=lambda log, index: None),
            proven=SimpleNamespace(with_line=lambda line: proven),
            proven_times=SimpleNamespace(verified_at=lambda numbers: {each: 100 * each for each in numbers}),
        )
        membership = SimpleNamespace(own_node=own, cosigned_times=lambda note: dict(times or {}))
        self.changes = DecidedChanges(cast(Ledger, ledger), cast(Membership, membership))

    def _found(self, found: list[SimpleNamespace]) -> list[SimpleNamespace]:
        self.reads += 1
        return found

    def only(self) -> DecidedChange:
        (change,) = self.changes.newest(self.epochs)
        return change


def test_a_decided_change_names_what_changed_and_who_ratified_it(decided: JoiningMember) -> None:
    change = Following(decided, None).only()
    assert (change.epoch, change.body) == (1, decided.reading.current.digest)
    assert [(each.what, each.name, each.before) for each in change.changes if each.what == "member"] == [
        ("member", "Institute BR", None)
    ]
    names = {f"{each.node.seat.inception.label} ({each.node.seat.inception.jurisdiction})" for each in decided.members}
    assert len(change.voters) >= 3 and set(change.voters) <= names
    assert (change.seen, change.known_since) == (None, None)


def test_the_date_is_that_of_the_last_cosigner_that_is_needed_and_never_the_own_one(decided: JoiningMember) -> None:
    own, *others = (each.member for each in decided.members)
    assert decided.reading.current.policy.cosigner_quorum == 2
    assert Following(decided, {own: 1, others[0]: 5, others[1]: 9, others[2]: 20}).only().seen == 9
    assert Following(decided, {own: 1, others[0]: 5}).only().seen is None


def test_when_this_node_followed_it_is_said_also_without_cosigners(decided: JoiningMember) -> None:
    assert Following(decided, {}).only().known_since == 900
    assert Following(decided, None).only().known_since is None


def test_a_dated_change_is_not_read_again_and_an_undated_one_is(decided: JoiningMember) -> None:
    others = [each.member for each in decided.members[1:]]
    for times, reads in ((dict.fromkeys(others, 7), 1), ({}, 2)):
        node = Following(decided, times)
        assert node.only() == node.only()
        assert node.reads == reads
