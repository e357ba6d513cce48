"""Rotated keys, as a node logs and serves them: of publishers, and of the members whose nodes it knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.secrets import read_signer
from comity.rules.signing import sign_content
from comity.trust.errors import Untrusted
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.rotation import KeyState, Rotation, rotate, rotation_statement
from comity.trust.statement import Entry, sign_statement
from support.federation import NodeHome, found, serving
from support.publisher import Publisher, model, release, send

FIRST, SPARE, SECOND = (HybridSigner.generate() for _ in range(3))
INCEPTION = Inception("publisher", KeySet((FIRST.public,), 1), (SPARE.public.id,), "", "CH", "rotates")
OWNER = Publisher(FIRST, INCEPTION, sign_content(InceptionStatement(INCEPTION), FIRST).line)


def rotated(start: KeyState, recovery: HybridSigner, new: HybridSigner) -> Entry:
    change = Rotation(start.identity, 1, start.digest, KeySet((new.public,), 1), ())
    return rotate(start, change, [recovery], [new])


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return found(tmp_path, 1).homes[0]


async def test_a_publication_under_new_keys_is_accepted_and_served_with_the_rotation(
    home: NodeHome, tmp_path: Path
) -> None:
    line = rotated(KeyState.of_inception(INCEPTION), SPARE, SECOND).line
    renewed = Publisher(SECOND, INCEPTION, OWNER.announcement)
    ready = release(renewed, model(tmp_path / "model"), "tests/model@v1")
    async with serving(home), home.client() as client:
        with pytest.raises(Untrusted):
            await send(client, ready)
        await client.submit([OWNER.announcement, line])
        await send(client, ready)
        assert {line, *ready.lines} <= {found.line for found in await client.claims(ready.artifact)}


async def test_a_rotation_without_the_recovery_key_is_not_logged(home: NodeHome) -> None:
    change = Rotation(INCEPTION.id, 1, KeyState.of_inception(INCEPTION).digest, KeySet((SECOND.public,), 1), ())
    stolen = sign_statement(rotation_statement(change, [FIRST.public]), FIRST, SECOND)
    async with serving(home), home.client() as client:
        with pytest.raises(Untrusted) as refused:
            await client.submit([OWNER.announcement, stolen.line])
        assert refused.value.code == "ROTATION"


async def test_rotations_of_members_are_served_with_the_records_of_their_nodes(home: NodeHome, tmp_path: Path) -> None:
    ready = release(OWNER, model(tmp_path / "model"), "tests/model@v1")
    recovery = read_signer(home.directory / "offline" / "recovery.pem")
    line = rotated(KeyState.of_inception(home.card.inception), recovery, HybridSigner.generate()).line
    async with serving(home), home.client() as client:
        await send(client, ready)
        await client.submit([line])
        told = {found.line for found in await client.claims(ready.artifact)}
        assert {line, home.card.record_line} <= told
