"""Nodes among members that equivocate, fork or stay silent: what is detected, what stops, and what continues."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from comity.rules.equivocation import EquivocationClaim, check_misbehaviour
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Intent, Ratify
from comity.trust.errors import NotFound, Untrusted
from comity.trust.identity import KeySet
from comity.trust.statement import Entry, parse_entry
from comity.trust.tlog.proof import TlogProof
from comity.wire.publish import SubmitReceipt
from support.federation import Founded, NodeHome, converged, found, serving, until
from support.governing import Person, changed, decide, digest_of
from support.publisher import Publisher, model, release, send
from support.short_form import cases

pytestmark = pytest.mark.slow

YEAR = 365 * 86_400.0


def people(founded: Founded) -> list[Person]:
    return [Person(home) for home in founded]


def keys(founded: Founded, person: Person) -> KeySet:
    seat = founded.federation.body.member(person.id)
    assert seat is not None
    return seat.keys


@pytest.mark.parametrize("where", cases(("in its own log", "each to another node"), ("each to another node",)))
async def test_every_node_detects_a_member_that_signs_conflicting_votes(tmp_path: Path, where: str) -> None:
    founded = found(tmp_path, 4)
    first, second, third, liar = people(founded)
    one, other = (changed(founded.federation.body, number) for number in (1, 2))
    said = [liar.signing(Intent(liar.id, founded.federation.body.digest, 1, 1, body.digest)) for body in (one, other)]
    async with serving(*founded.homes):
        if where == "in its own log":
            await liar.say(*said)
        else:
            for entry, person in zip(said, (first, second), strict=True):
                async with person.home.operator() as operator:
                    await person.say(entry, at=operator)
        for person in (first, second, third):
            await until(partial(_convicts, founded, person, liar))
            await until(partial(_tells_of, person, {liar.seat.name}))
            assert not await _forked(person)


async def _tells_of(person: Person, liars: set[str]) -> bool:
    governance = (await person.status()).governance
    return governance is not None and set(governance.liars) == liars


async def _convicts(founded: Founded, person: Person, liar: Person) -> bool:
    """Whether the person's own node has logged an accusation of `liar` with a valid proof."""
    async with person.home.client() as client:
        for located in await client.next_epoch_entries():
            entry = parse_entry(located.line)
            if entry.statement.predicate != "misbehaviour" or entry.statement.by != person.home.record.node:
                continue
            lines = {item.digest: await client.object(item.digest) for item in entry.statement.objects}
            return (
                check_misbehaviour(EquivocationClaim.parse(entry.statement), lines, keys(founded, liar)).member
                == liar.id
            )
    return False


def certificate(voters: Sequence[Person], previous: Body, body: Body) -> list[Entry]:
    """The certificate of `body`, from voters that may have signed conflicting votes."""
    said: list[Entry] = [voters[0].drafting(body)]
    said += [who.signing(Intent(who.id, previous.digest, body.epoch, 1, body.digest)) for who in voters]
    return said + [who.signing(Ratify(who.id, previous.digest, body.epoch, 1, body.digest)) for who in voters]


async def fork(founded: Founded) -> tuple[Body, Body]:
    """Two of four members certify one body with the third and another with the fourth, while the two halves are
    partitioned. Each half follows its own.
    """
    first, second, third, fourth = people(founded)
    genesis = founded.federation.body
    one, other = (changed(genesis, number) for number in (1, 2))
    for body, half, honest in ((one, (first, third), third), (other, (second, fourth), fourth)):
        async with serving(*(person.home for person in half)):
            await honest.say(*certificate((first, second, honest), genesis, body), bodies=[body])
            await until(partial(_all_at, half, 1))
            assert {await digest_of(person, 1) for person in half} == {body.digest}
    return one, other


async def _all_at(persons: Sequence[Person], epoch: int) -> bool:
    return all([await person.epoch() == epoch for person in persons])


async def _forked(person: Person) -> bool:
    governance = (await person.status()).governance
    return governance is not None and governance.stopped


async def publish(home: NodeHome, tmp_path: Path, number: int = 0) -> SubmitReceipt:
    """Publish at a node; another artifact for each number."""
    what = release(Publisher.generate(), model(tmp_path / f"model-{number}", weights=1000 + number), "tests/model@v1")
    async with home.client() as client:
        return (await send(client, what)).receipts[-1]


async def test_a_fork_stops_governance_everywhere_and_nothing_else(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    first, second, third, fourth = everybody = people(founded)
    one, other = await fork(founded)
    async with serving(*founded.homes):
        for person in everybody:
            await until(partial(_forked, person))
        await until(partial(_tells_of, third, {first.seat.name, second.seat.name}))
        governance = (await third.status()).governance
        assert governance is not None
        (shown,) = governance.forks
        assert {shown.first, shown.second} == {one.digest, other.digest} and not shown.retired
        assert any("FORK" in warning for warning in (await fourth.status()).warnings)
        receipt = await publish(first.home, tmp_path)
        await converged(founded.homes, first.home, least=receipt.index + 1)
        assert await digest_of(third, 1) == one.digest and await digest_of(fourth, 1) == other.digest


@pytest.mark.slow
async def test_a_person_decides_a_fork_by_naming_a_branch(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    first, second, third, fourth = everybody = people(founded)
    one, _ = await fork(founded)
    async with serving(*founded.homes):
        await until(lambda: _forked(fourth))
    for home in founded:
        home.set("federation", branch=one.digest)
    after = changed(one, 7)
    async with serving(*founded.homes):
        await first.say(first.drafting(after), bodies=[after])
        await decide(after, [third, fourth, first], everywhere=[second])
        for person in everybody:
            assert [await digest_of(person, epoch) for epoch in (1, 2)] == [one.digest, after.digest]


async def test_no_restart_returns_to_an_earlier_epoch(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    everybody = people(founded)
    body = changed(founded.federation.body, 1)
    async with serving(*founded.homes):
        await everybody[0].say(everybody[0].drafting(body), bodies=[body])
        await decide(body, everybody)
    alone = everybody[2]
    async with serving(alone.home), alone.home.client() as client:
        assert (await client.charter()).epoch == 1
        assert [charter.epoch for charter in await client.epochs()] == [0, 1]
        with pytest.raises(NotFound):
            await client.epochs(2)


async def test_a_federation_file_of_another_branch_is_refused(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    *_, third, fourth = people(founded)
    await fork(founded)
    async with serving(fourth.home), fourth.home.client() as client:
        theirs = await client.epochs()
    file = federation_file(founded, [list(charter.certificate) for charter in theirs], [c.body for c in theirs])
    (third.home.directory / "federation.json").write_bytes(file)
    with pytest.raises(Untrusted) as caught:
        async with serving(third.home):
            pass
    assert caught.value.code == "CHARTER-BRANCH"


def federation_file(founded: Founded, certificates: Sequence[list[bytes]], bodies: Sequence[bytes]) -> bytes:
    chain = [Body.parse(body) for body in bodies]
    return type(founded.federation).assemble(chain, certificates, founded.federation.nodes).encode()


@pytest.mark.slow
async def test_i3_without_a_quorum_for_ten_years_all_but_the_charter_continues(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    first, second, *_ = people(founded)
    body = changed(founded.federation.body, 1)
    now = [1_800_000_000.0]
    async with serving(first.home, second.home, clock=lambda: now[0]):
        await first.say(first.drafting(body), bodies=[body])
        for person in (first, second):
            await until(partial(_drafted, person, body))
            await person.vote(body)
        for year in range(10):
            now[0] += YEAR
            receipt = await publish(first.home, tmp_path, year)
            await converged((first.home, second.home), first.home, least=receipt.index + 1)
            async with second.home.client() as client:
                (proof,) = await client.proofs(receipt.line_digest)
                (batch,) = [
                    batch async for batch in client.entries(first.home.origin, receipt.index, receipt.index + 1)
                ]
                TlogProof.parse(proof.proof).verify(batch.lines[0], first.home.record.log)
        await until(lambda: _holds(second, 10))
        status = await second.status()
        assert await _all_at((first, second), 0)
        assert status.governance is not None and not status.governance.stopped
        silent = {member.name: member.heard for member in status.governance.members}
        assert sum(not answered for answered in silent.values()) == 2


async def _drafted(person: Person, body: Body) -> bool:
    return (await person.tally()).draft(body.digest) is not None


async def _holds(person: Person, count: int) -> bool:
    return (await person.status()).holds == count
