"""Members that change their keys or leave: what their nodes may still do, and which statements no longer count."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from comity.content.secrets import read_keys, read_signer, write_keys
from comity.rules.signing import sign_content
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Entry, Statement, Subject, parse_entry, sign_statement
from comity.wire.tls import make_certificate
from support.federation import NodeHome, converged, found, serving, until
from support.governing import Person, changed, decide, reseated
from support.publisher import Publisher, model, release, send

pytestmark = pytest.mark.slow


async def test_i10_a_removed_member_is_mirrored_reads_and_publishes_on(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    *staying, removed = (Person(home) for home in founded)
    body = reseated(founded.federation.body, [person.seat for person in staying])
    publisher = Publisher.generate()
    what = release(publisher, model(tmp_path / "model", weights=1000), "tests/model@v1")
    async with serving(*founded.homes):
        await staying[0].say(staying[0].drafting(body), bodies=[body])
        await decide(body, staying, everywhere=[removed])
        await until(lambda: _is_told_of_its_removal(removed), what="the removed member to be told")
        async with removed.home.client() as client:
            receipts = (await send(client, what)).receipts
        await converged(founded.homes, removed.home, least=receipts[-1].index + 1)
        said = Statement("noted", (Subject("", body.digest),), publisher.inception.author, {})
        async with staying[0].home.client() as client:
            lines = [publisher.announcement, sign_statement(said, publisher.signer).line]
            elsewhere = (await client.submit(lines)).receipts
        await converged(founded.homes, staying[0].home, least=elsewhere[-1].index + 1)
        await until(lambda: _counts_no_more(staying[0], removed), what="the others to count without it")
    async with serving(*founded.homes):  # also after a restart
        await converged(founded.homes, removed.home, least=receipts[-1].index + 1)


async def _is_told_of_its_removal(person: Person) -> bool:
    return any("does not list" in warning for warning in (await person.status()).warnings)


async def _counts_no_more(person: Person, removed: Person) -> bool:
    governance = (await person.status()).governance
    return governance is not None and removed.seat.name not in {member.name for member in governance.members}


def rotated(person: Person) -> tuple[HybridSigner, KeyState, Entry]:
    """A member's new keys, and the rotation to them, signed by its recovery key."""
    state = KeyState.of_inception(person.home.card.inception)
    recovery = read_signer(person.home.directory / "offline" / "recovery.pem")
    new, spare = HybridSigner.generate(), HybridSigner.generate()
    keys = KeySet((new.public,), 1)
    rotation = Rotation(person.id, 1, state.digest, keys, (spare.public.id,))
    return new, KeyState(person.id, keys, (spare.public.id,), state.home, 1), rotate(state, rotation, [recovery], [new])


def renewed(home: NodeHome, governance: HybridSigner) -> tuple[PrivateKey, Entry]:
    """A new TLS key, and the node record that binds it, under the member's new keys."""
    key = PrivateKey.generate("ecdsa-p256")
    record = replace(home.record, tls=make_certificate(key))
    files = (home.directory / "keys" / f"{name}.pem" for name in ("log", "cosigner", "online"))
    bound = [HybridSigner(read_keys(file)) for file in files]
    return key, sign_content(record, governance, *bound, HybridSigner((key,)))


@pytest.mark.slow
async def test_a_member_votes_by_its_rotated_keys_and_gives_its_node_a_new_certificate(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    everybody = [Person(home) for home in founded]
    changing, *others = everybody
    new, state, rotation = rotated(changing)
    genesis = founded.federation.body
    seats = [replace(seat, keys=state.keys, recovery=state.recovery) if seat.id == changing.id else seat
             for seat in genesis.members]  # fmt: skip
    body = reseated(genesis, seats)
    key, record = renewed(changing.home, new)
    async with serving(*founded.homes):
        await changing.say(rotation)
        write_keys(changing.home.directory / "offline" / "governance-new.pem", new.keys)
        changing.key = "governance-new.pem"
        await changing.say(changing.drafting(body), bodies=[body])
        await decide(body, everybody[:3], everywhere=everybody[3:])
        await changing.say(record)
        size = (await changing.status()).logs[0].size
        await converged(founded.homes, changing.home, least=size)
    use(changing.home, key, rotation, record)
    async with serving(*founded.homes):
        await changing.say(changing.drafting(changed(body, 2)), bodies=[changed(body, 2)])
        for person in others:
            await until(partial(_follows, person, changing.home, size + 1))


async def _follows(person: Person, home: NodeHome, size: int) -> bool:
    logs = {log.origin: log.size for log in (await person.status()).logs}
    return logs[home.origin] >= size


def use(home: NodeHome, key: PrivateKey, rotation: Entry, record: Entry) -> None:
    """Restart the node of `home` with another TLS key."""
    (home.directory / "keys" / "tls.pem").unlink()
    write_keys(home.directory / "keys" / "tls.pem", [key])
    (home.directory / "rotations.lines").write_bytes(rotation.line + b"\n")
    (home.directory / "node-record.line").write_bytes(record.line + b"\n")


async def test_an_unannounced_certificate_is_learned_from_another_members_log(tmp_path: Path) -> None:
    founded = found(tmp_path, 3)
    changing, second, third = (Person(home) for home in founded)
    key, record = renewed(changing.home, changing.signer)
    async with serving(*founded.homes):
        await converged(founded.homes, changing.home, least=3)
    (changing.home.directory / "keys" / "tls.pem").unlink()
    write_keys(changing.home.directory / "keys" / "tls.pem", [key])
    (changing.home.directory / "node-record.line").write_bytes(record.line + b"\n")
    async with serving(*founded.homes):
        async with second.home.client() as door:
            await changing.say(parse_entry(changing.card[0]), record, at=door)
        for person in (second, third):
            await until(partial(_follows, person, changing.home, 4))
