"""The charter at one node: over real logs and a real ledger, with members that vote in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.ledger.entry_index import EntryQuery
from comity.node.charter import inbox
from comity.node.charter.inbox import StoredBodies
from comity.rules.charter_drafts import assemble, draft
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body, Member
from comity.trust.charter.votes import consent
from comity.trust.encoding import sha256
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner
from comity.trust.rotation import Rotation, rotate
from comity.trust.statement import Entry
from support.assembly import CLASSICAL, NEWCOMER, Assembly, change, reseated
from support.bench import Bench, at
from support.world import Identity, seat, signer


def certified(assembly: Assembly, body: Body, voters: Sequence[Identity], at_round: int = 1) -> list[Entry]:
    """The certificate of `body`, from voters that may have signed conflicting votes."""
    assembly.put(body, voters[0])
    draft = assembly.lines[-1]
    return [draft, *(assembly.intent(who, body, at_round) for who in voters),
            *(assembly.ratify(who, body, at_round) for who in voters)]  # fmt: skip


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    opened = Bench(tmp_path, Assembly.of(4))
    yield opened
    opened.close()


async def test_a_certified_body_is_followed_and_announced_once(bench: Bench) -> None:
    assembly = bench.assembly
    body = change(assembly.body)
    bench.log(assembly.seats[1], certified(assembly, body, assembly.seats[:3]))
    await bench.settle()
    assert bench.follower.epoch_store.newest == body == bench.members.body
    assert bench.changes == 1
    await bench.settle()
    assert [entry.statement.subject for entry in bench.said("adopted")] == [body.digest]


async def test_a_genesis_needs_no_statement_of_the_node(bench: Bench) -> None:
    await bench.settle()
    assert bench.said("adopted") == []
    assert bench.follower.findings.tally is not None


async def test_two_epochs_that_arrive_together_are_followed_one_after_the_other(bench: Bench) -> None:
    assembly = bench.assembly
    first = change(assembly.body, 1)
    lines = certified(assembly, first, assembly.seats[:3])
    assembly.body = first
    second = change(first, 2)
    bench.log(assembly.seats[2], [*certified(assembly, second, assembly.seats[1:]), *lines])
    await bench.settle()
    assert list(bench.follower.epoch_store.digests)[1:] == [first.digest, second.digest]


async def test_after_a_restart_nothing_is_logged_twice(tmp_path: Path) -> None:
    assembly = Assembly.of(4)
    body = change(assembly.body)
    before = Bench(tmp_path, assembly)
    before.log(assembly.seats[1], certified(assembly, body, assembly.seats[:3]))
    await before.settle()
    before.close()
    after = Bench(tmp_path, assembly)
    assert after.follower.epoch_store.newest == body == after.members.body
    await after.settle()
    assert len(after.said("adopted")) == 1
    after.close()


async def test_an_equivocation_is_logged_once_with_both_lines(bench: Bench) -> None:
    assembly = bench.assembly
    liar = assembly.seats[3]
    bench.log(liar, [assembly.intent(liar, change(assembly.body, number)) for number in (1, 2)])
    await bench.settle()
    await bench.settle()
    (misbehaviour_statement,) = bench.said("misbehaviour")
    assert misbehaviour_statement.statement.subject == liar.id
    assert all(bench.store.has(item.digest) for item in misbehaviour_statement.statement.objects)
    assert [lie.member for lie in bench.follower.findings.equivocations] == [liar.id]
    assert not bench.follower.findings.stopped


async def both(bench: Bench) -> tuple[Body, Body]:
    """Certify two bodies for one epoch; the logs of the third and fourth member hold one each."""
    assembly = bench.assembly
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    first, second, third, fourth = assembly.seats
    bench.log(third, certified(assembly, one, [first, second, third]))
    bench.log(fourth, certified(assembly, other, [first, second, fourth]))
    return one, other


async def test_a_fork_that_is_seen_from_the_start_adopts_neither_branch(bench: Bench) -> None:
    await both(bench)
    await bench.settle()
    assert bench.follower.findings.stopped
    assert bench.follower.epoch_store.newest == bench.assembly.body
    assert {lie.member for lie in bench.follower.findings.equivocations} == {who.id for who in bench.assembly.seats[:2]}
    assert bench.said("adopted") == []


async def test_the_operators_branch_decides_a_fork_that_is_seen_from_the_start(tmp_path: Path) -> None:
    assembly = Assembly.of(4)
    other = change(assembly.body, 2)
    bench = Bench(tmp_path, assembly, other.digest)
    await both(bench)
    await bench.settle()
    assert bench.follower.epoch_store.newest == other
    assert not bench.follower.findings.stopped
    bench.close()


async def test_a_rival_that_appears_later_stops_the_next_epochs(bench: Bench) -> None:
    assembly = bench.assembly
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    first, second, third, fourth = assembly.seats
    bench.log(third, certified(assembly, one, [first, second, third]))
    await bench.settle()
    assert bench.follower.epoch_store.newest == one
    bench.log(fourth, certified(assembly, other, [first, second, fourth]))
    await bench.settle()
    assert bench.follower.findings.stopped
    (fork,) = bench.follower.findings.forks
    assert (fork.first.body, fork.second.body) == (one, other)
    assembly.body = one
    bench.log(third, certified(assembly, change(one, 3), [first, second, third]))
    await bench.settle()
    assert bench.follower.epoch_store.newest == one


async def test_a_fork_is_remembered_over_a_start(tmp_path: Path) -> None:
    assembly = Assembly.of(4)
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    first, second, third, fourth = assembly.seats
    before = Bench(tmp_path, assembly)
    before.log(third, certified(assembly, one, [first, second, third]))
    await before.settle()
    before.log(fourth, certified(assembly, other, [first, second, fourth]))
    await before.settle()
    before.close()
    after = Bench(tmp_path, assembly)
    await after.follower.step()
    assert after.follower.findings.stopped and after.follower.epoch_store.newest == one
    after.close()


async def test_a_rival_made_with_retired_keys_is_an_alert_only(bench: Bench) -> None:
    assembly = bench.assembly
    seats = list(assembly.seats)
    rotated, members = [], []
    for who in seats:
        state, new = who.member.key_state, signer(f"{who.inception.label} after", CLASSICAL)
        change_of = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
        recovery = signer(f"{who.inception.label} recovery", CLASSICAL)
        rotated.append(rotate(state, change_of, [recovery], [new]))
        members.append(_rekeyed(who, new))
    rekeyed = reseated(assembly.body, members)
    bench.log(seats[1], [*rotated, *certified(assembly, rekeyed, seats[:3])])
    await bench.settle()
    assert bench.follower.epoch_store.newest == rekeyed
    bench.log(seats[3], certified(assembly, change(assembly.body, 9), seats[:3]))
    await bench.settle()
    (fork,) = bench.follower.findings.forks
    assert fork.retired and not bench.follower.findings.stopped


def _rekeyed(who: Identity, new: HybridSigner) -> Member:
    return replace(who.member, keys=KeySet((new.public,), 1), recovery=())


async def test_a_newcomers_statements_are_evaluated_when_they_arrive(bench: Bench) -> None:
    assembly = bench.assembly
    newcomer = seat(NEWCOMER, CLASSICAL)
    body = assembly.put(reseated(assembly.body, [*assembly.body.members, newcomer.member]))
    bench.log(assembly.seats[1], assembly.lines)
    await bench.settle()
    assert _draft(bench, body).objection is not None
    bench.log(assembly.seats[2], [consent(body, newcomer.id, newcomer.signer)])
    await bench.settle()
    bench.log(assembly.seats[1], [newcomer.entry])
    await bench.settle()
    assert _draft(bench, body).objection is None
    assert _draft(bench, body).missing == ()


def _draft(bench: Bench, body: Body) -> Any:
    tally = bench.follower.findings.tally
    assert tally is not None
    return tally.draft(body.digest)


async def test_an_admitted_member_that_asked_here_is_introduced(bench: Bench) -> None:
    assembly = bench.assembly
    newcomer = seat(NEWCOMER, CLASSICAL)
    card = [newcomer.entry.line, at(newcomer).entry.line]
    bench.ledger.join_requests.put(newcomer.id, card)
    body = reseated(assembly.body, [*assembly.body.members, newcomer.member])
    lines = certified(assembly, body, assembly.seats)
    bench.log(assembly.seats[1], [newcomer.entry, consent(body, newcomer.id, newcomer.signer), *lines])
    await bench.settle()
    assert bench.follower.epoch_store.newest == body
    assert bench.ledger.join_requests.waiting() == []
    mine = EntryQuery(predicate="node-record", origin=str(bench.me.record.log))
    assert [found.line for found in bench.ledger.index.find(mine)] == [card[1]]


async def test_the_home_log_of_an_admitted_member_is_read_from_the_certificate(bench: Bench) -> None:
    assembly = bench.assembly
    newcomer = seat(NEWCOMER, CLASSICAL)
    assert set(bench.members.origins.owners.values()) == {who.id for who in assembly.seats}
    body = reseated(assembly.body, [*assembly.body.members, newcomer.member])
    lines = certified(assembly, body, assembly.seats)
    bench.log(assembly.seats[1], [newcomer.entry, consent(body, newcomer.id, newcomer.signer), *lines])
    await bench.settle()
    assert bench.members.origins.owners[newcomer.inception.home] == newcomer.id


class Peering:
    """A peer that serves these epochs."""

    def __init__(self, *certificates: Certificate) -> None:
        self._certificates = certificates

    async def epochs(self, start: int) -> tuple[Any, ...]:
        return tuple(
            self._charter(certificate) for certificate in self._certificates if certificate.body.epoch >= start
        )

    async def charter(self, epoch: int) -> Any:
        (found,) = await self.epochs(epoch)
        return found

    @staticmethod
    def _charter(certificate: Certificate) -> Any:
        return SimpleNamespace(epoch=certificate.body.epoch, body=certificate.body.data, certificate=certificate.lines)


async def test_epochs_are_accepted_from_a_peer_that_proves_them(bench: Bench) -> None:
    assembly = bench.assembly
    certificate = assembly.decide(change(assembly.body))
    peer: Any = SimpleNamespace(record=at(assembly.seats[1]).record)
    await bench.follower.fetch_epochs(peer, cast(Any, Peering(certificate)))
    assert bench.follower.epoch_store.newest == certificate.body


async def test_a_draft_is_closed_when_a_peer_sends_the_epoch_that_decided_it(bench: Bench) -> None:
    assembly = bench.assembly
    lines = certified(assembly, change(assembly.body), assembly.seats[:3])
    bench.log(assembly.seats[1], lines[:-1])
    await bench.settle()
    assert bench.follower.votes_waiting(assembly.seats[2].id) == 1
    certificate = assemble(assembly.body, change(assembly.body), lines)
    assert certificate is not None
    peer: Any = SimpleNamespace(record=at(assembly.seats[1]).record)
    await bench.follower.fetch_epochs(peer, cast(Any, Peering(certificate)))
    assert bench.follower.votes_waiting(assembly.seats[2].id) == 0
    await bench.settle()
    tally = bench.follower.findings.tally
    assert tally is not None and (tally.current, tally.drafts, tally.duties) == (certificate.body, (), ())


async def test_a_peer_that_acts_under_a_rival_is_asked_for_its_proof(bench: Bench) -> None:
    assembly = bench.assembly
    one, other = change(assembly.body, 1), change(assembly.body, 2)
    first, second, third, fourth = assembly.seats
    bench.log(third, certified(assembly, one, [first, second, third]))
    await bench.settle()
    rival = Assembly(assembly.seats)
    rival.lines = certified(assembly, other, [first, second, fourth])
    certificate = assemble(assembly.body, other, rival.lines)
    assert certificate is not None
    peer = SimpleNamespace(record=at(fourth).record)
    bench.follower.adopted[str(at(fourth).record.log)] = other.digest
    await bench.follower.fetch_epochs(cast(Any, peer), cast(Any, Peering(certificate)))
    assert bench.follower.findings.stopped
    assert bench.follower.epoch_store.newest == one


def test_a_body_is_read_once_for_all_evaluations(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    body, asked = bench.assembly.put(change(bench.assembly.body)), list[bytes]()
    read = Body.parse

    def counted(data: bytes) -> Body:
        asked.append(data)
        return read(data)

    monkeypatch.setattr(Body, "parse", counted)
    bodies = StoredBodies(bench.store)
    bodies.digests = frozenset([body.digest])
    assert bodies.seat_ids(body.digest) == frozenset()
    bench.store.put(body.digest, body.data)
    for _ in range(3):
        assert bodies.seat_ids(body.digest) == {seat.id for seat in body.members}
        assert bodies.parse(body.data) == body
    assert asked == [body.data]


def test_bodies_that_are_read_and_not_parsed_take_no_memory_beside_those_that_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1 << 20
    monkeypatch.setattr(inbox, "MAX_BODY_BYTES", most)
    made = [_wide(bench.assembly.body, number) for number in range(2 * most // len(_wide(bench.assembly.body, 0).data))]
    bodies = StoredBodies(bench.store)
    bodies.digests = frozenset(body.digest for body in made)
    for body in made:
        bench.store.put(body.digest, body.data)
    tracemalloc.start()
    for body in made[: len(made) // 2]:
        bodies.parse(bytes(bytearray(body.data)))
    parsed, _ = tracemalloc.get_traced_memory()
    for body in made[len(made) // 2 :]:
        assert bodies[body.digest] == body.data
    added = tracemalloc.get_traced_memory()[0] - parsed
    tracemalloc.stop()
    assert parsed <= 3.2 * most
    assert added < most // 4


def _wide(body: Body, number: int) -> Body:
    """A body with a thousand namespaces, which make most of the parsing time."""
    return draft(body, namespaces={f"n{number}-{at}": sha256(b"%d" % at) for at in range(1_000)})
