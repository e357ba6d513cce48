"""Nodes that follow their charter: members come, change keys and go, and nobody's node is asked what was decided."""

from __future__ import annotations

from pathlib import Path

from comity.trust.statement import parse_entry
from support.federation import converged, found, make_home, serving, until
from support.governing import Person, decide, digest_of, reseated


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
            assert await first.asks() == ()
        assert not any("seat" in warning for warning in (await fifth.status()).warnings)
    async with serving(fifth.home):
        assert await fifth.epoch() == 1
