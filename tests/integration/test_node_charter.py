"""Nodes that follow their charter: members join, change keys and leave; each node computes the decisions itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.charter_drafts import draft
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Intent, draft_withdrawn_statement
from comity.trust.errors import ComityError
from comity.trust.statement import Statement, parse_entry, sign_statement
from support.federation import converged, found, make_home, serving, until
from support.governing import Person, decide, digest_of, reseated
from support.officers import Document, Officer

pytestmark = pytest.mark.slow


async def test_a_fifth_member_is_admitted_and_its_node_mirrored_by_all(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    people = [Person(home) for home in founded]
    fifth = Person(make_home(tmp_path / "fifth", 4))
    (fifth.home.directory / "federation.json").write_bytes(founded.federation.encode())
    body = reseated(founded.federation.body, [*founded.federation.body.members, fifth.seat])
    async with serving(*founded.homes, fifth.home):
        async with people[0].home.client() as first:
            receipt = await first.ask(fifth.card)
            assert (receipt.member, receipt.waiting) == (fifth.id, 1)
            assert [ask.member for ask in await first.asks()] == [fifth.id]
        await people[0].say(people[0].drafting(body), bodies=[body])
        async with people[1].home.client() as second:
            announcement = parse_entry(fifth.home.card.inception_line)
            await fifth.say(announcement, fifth.consenting(body), bodies=[body], at=second)
        await decide(body, people, everywhere=[fifth])
        assert len({await digest_of(person, 1) for person in (*people, fifth)}) == 1
        await converged((*founded.homes, fifth.home), fifth.home, least=3)
        for home in founded:
            await converged((*founded.homes, fifth.home), home, least=4)
        async with people[0].home.client() as first:

            async def answered() -> bool:
                return await first.asks() == ()

            await until(answered, what="the request to be deleted")
        assert not any("does not list" in warning for warning in (await fifth.status()).warnings)
    async with serving(fifth.home):
        assert await fifth.epoch() == 1


async def test_every_node_shows_a_withdrawn_draft_as_withdrawn(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = (Person(home) for home in founded)
    body = draft(founded.federation.body, policy=replace(founded.federation.body.policy, min_copies=1))

    async def withdrawn() -> bool:
        return any(found.withdrawn for found in (await second.tally()).drafts)

    async with serving(*founded.homes):
        await first.say(first.drafting(body), bodies=[body])
        await until(lambda: _tally_has(second, body))
        assert not await withdrawn()
        await first.say(sign_statement(draft_withdrawn_statement(body, first.id, "a mistake"), first.signer))
        await until(withdrawn)
        await until(lambda: _without_duties(second), what="nobody to be asked for a vote")


async def _without_duties(person: Person) -> bool:
    governance = (await person.status()).governance
    return governance is not None and governance.duties == ()


async def refused(submitting: Awaitable[object]) -> str:
    with pytest.raises(ComityError) as caught:
        await submitting
    return caught.value.code


async def test_statements_about_the_charter_need_no_approval_of_an_operator(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = (Person(home) for home in founded)
    for person in (first, second):
        person.home.set("publishing", accept="none")
    newcomer, stranger = (Person(make_home(tmp_path / str(number), number)) for number in (5, 6))
    body = reseated(founded.federation.body, [*founded.federation.body.members, newcomer.seat])
    prev = founded.federation.body.digest
    intent = Intent(first.id, prev, 1, 1, body.digest)
    async with serving(*founded.homes), first.home.client() as opened, second.home.client() as elsewhere:
        publishing = stranger.card[0]
        assert await refused(opened.submit([publishing])) == "PUBLISHING-CLOSED"
        assert await refused(opened.submit([newcomer.consenting(body).line])) == "PUBLISHING-CLOSED"
        await first.say(first.drafting(body), bodies=[body], at=opened)
        assert await refused(elsewhere.submit([first.signing(intent).line])) == "NOT-HOME"
        await first.say(first.signing(intent), at=opened)
        await until(lambda: _tally_has(second, body))
        await newcomer.say(parse_entry(newcomer.card[0]), newcomer.consenting(body), bodies=[body], at=elsewhere)
        await until(lambda: _consented(second, body))
        assert await refused(opened.submit([stranger.consenting(body).line])) == "PUBLISHING-CLOSED"
        assert await refused(opened.submit([first.drafting(body).line, publishing])) == "PUBLISHING-CLOSED"


async def test_the_online_key_decides_nothing(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first = Person(founded.homes[0])
    body = reseated(founded.federation.body, [first.seat])
    reading = Intent(first.id, founded.federation.body.digest, 1, 1, body.digest).statement()
    as_node = Statement(reading.predicate, reading.subjects, first.home.record.node, reading.body)
    async with serving(first.home), first.home.operator() as own:
        for statement in (reading, as_node):
            assert await refused(own.submit([sign_statement(statement, first.online).line])) == "ONLINE-KEY"


async def _tally_has(person: Person, body: Body) -> bool:
    return (await person.tally()).draft(body.digest) is not None


async def _consented(person: Person, body: Body) -> bool:
    draft = (await person.tally()).draft(body.digest)
    return draft is not None and not draft.missing


async def test_operators_see_which_member_has_to_act(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, second = (Person(home) for home in founded)
    newcomer = Person(make_home(tmp_path / "newcomer", 5))
    body = reseated(founded.federation.body, [*founded.federation.body.members, newcomer.seat])
    async with serving(*founded.homes), first.home.client() as opened:
        await opened.ask(newcomer.card)
        await first.say(first.drafting(body, "they are\nreliable"), bodies=[body])
        await until(lambda: _sees_draft(first))
        seen = (await first.status()).governance
        assert seen is not None
        assert (seen.epoch, seen.asks, seen.stopped, seen.round) == (0, 1, False, 1)
        (draft,) = seen.drafts
        assert (draft.body, draft.by, draft.text) == (body.digest, first.seat.name, "they are reliable")
        assert (draft.intents, draft.quorum, draft.missing) == (0, 2, (newcomer.seat.name,))
        assert "inception" in draft.objection and seen.duties == ()
        assert [(member.name, member.epoch) for member in seen.members] == [(second.seat.name, None)]
        await newcomer.say(parse_entry(newcomer.card[0]), newcomer.consenting(body), at=opened)
        await until(lambda: _is_asked(first))


async def _sees_draft(person: Person) -> bool:
    governance = (await person.status()).governance
    return governance is not None and bool(governance.drafts)


async def _is_asked(person: Person) -> bool:
    return any("waiting for this member" in warning for warning in (await person.status()).warnings)


async def test_an_operator_keeps_or_deletes_a_request(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    first, newcomer = Person(founded.homes[0]), Person(make_home(tmp_path / "newcomer", 5))
    home, pins = first.home.directory, tmp_path / "pins"
    async with serving(first.home), first.home.client() as opened:
        await opened.ask(newcomer.card)
        assert await refused(opened.decide_ask(newcomer.id, keep=False)) == "OPERATORS-ONLY"

        async def decide(verb: str, who: str, exits: int = 0) -> Document:
            return await asyncio.to_thread(Officer(home, pins).comity, "member", verb, who, "--dir", home, exits=exits)

        assert (await decide("keep", newcomer.id[:12])).items() >= {"id": newcomer.id, "kept": True}.items()
        assert (await decide("keep", "00000000", exits=5))["error"]["code"] == "NO-ASK"
        assert [ask.member for ask in await opened.asks()] == [newcomer.id]
        assert (await decide("dismiss", newcomer.id[:12])).items() >= {"id": newcomer.id, "kept": False}.items()
        assert await opened.asks() == ()
