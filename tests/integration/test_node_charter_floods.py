"""Charter votes during floods: neither strangers at the open ports nor the signatures of one member stop a vote."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from attackers.charter import contradictions, copies
from attackers.forging import Holder, keys_in
from comity.trust.errors import ComityError
from comity.trust.statement import parse_entry
from comity.wire.client import NodeClient
from support.federation import Founded, found, serving, until
from support.governing import Person, changed, decide, digest_of
from support.short_form import cases

pytestmark = pytest.mark.slow


def people(founded: Founded) -> list[Person]:
    for home in founded:
        home.set("publishing", accept="none")
    return [Person(home) for home in founded]


async def pour(client: NodeClient, lines: Iterable[bytes], *, each: int = 20) -> None:
    """Submit lines, whether they are accepted or refused."""
    made = list(lines)
    for start in range(0, len(made), each):
        with contextlib.suppress(ComityError):
            await client.submit(made[start : start + each])


async def test_copies_of_a_public_draft_stop_no_member(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    everybody = people(founded)
    body = changed(founded.federation.body, 1)
    drafting = everybody[0].drafting(body)
    async with serving(*founded.homes):
        await everybody[0].say(drafting, bodies=[body])
        for person in everybody:
            async with person.home.client() as opened:
                await until(partial(_has_draft, person, 1))
                await pour(opened, copies(drafting.line, 80))
        await decide(body, everybody)
        assert len({await digest_of(person, 1) for person in everybody}) == 1


async def _has_draft(person: Person, count: int) -> bool:
    return len((await person.tally()).drafts) == count


async def test_copies_of_a_public_inception_stop_no_members_statements(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = everybody = people(founded)
    body = changed(founded.federation.body, 1)
    async with serving(*founded.homes), second.home.client() as home, first.home.client() as elsewhere:
        for opened in (home, elsewhere):
            await pour(opened, copies(second.home.card.inception_line, 256))
        await second.say(second.drafting(body), bodies=[body], at=elsewhere)
        await second.say(second.drafting(body, "again"), bodies=[body], at=home)
        await decide(body, everybody)


@pytest.mark.parametrize("rounds", cases([10, 25], [10]))
async def test_a_member_that_signs_everything_it_can_stops_no_other(tmp_path: Path, rounds: int) -> None:
    founded = found(tmp_path, 4)
    *honest, liar = people(founded)
    genesis = founded.federation.body
    bodies = [changed(genesis, number) for number in range(1, 4)]
    hostile = Holder({"identity": liar.id}, keys_in(liar.home.directory / "offline" / liar.key))
    said = contradictions(hostile, genesis.digest, 1, [body.digest for body in bodies], range(1, rounds + 1))
    flood = [parse_entry(line) for line in said]
    async with serving(*founded.homes):
        for person, body in zip(honest, bodies, strict=False):
            await person.say(person.drafting(body), bodies=[body])
        for start in range(0, len(flood), 64):
            await liar.say(*flood[start : start + 64])
        for person in honest:
            async with person.home.client() as opened:
                await pour(opened, [entry.line for entry in flood[::29]])
        await decide(bodies[1], honest)
        assert {await digest_of(person, 1) for person in honest} == {bodies[1].digest}
        status = await honest[0].status()
        assert status.governance is not None and not status.governance.stopped
