"""A publisher that rotated its keys, for users who pull: from reachable nodes, and offline from the pack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.transfer.limits import TransferLimits
from comity.trust.errors import ComityError
from comity.trust.rotation import LogCut, parse_rotation
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, Release, release
from support.rotations import Owned, of
from support.weights import as_tensor

FILES = {"config.json": b'{"hidden_size":8}\n', "model.safetensors": as_tensor(bytes(300))}


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    with FakeFederation().running() as running:
        yield running


@pytest.fixture
def made(tmp_path: Path, federation: FakeFederation) -> Release:
    made = release(tmp_path / "source", FILES, by=federation.publisher)
    federation.publish(made)
    return made


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"), limits=TransferLimits(patience=20.0, read_timeout=1.0))
    client.pin(federation.file())
    return client


def rotate(federation: FakeFederation) -> tuple[Owned, str]:
    """The publisher rotates, with a cut of its home log at the current size; the log grows afterwards. Returns its new
    keys.
    """
    log = federation.nodes[0].log
    checkpoint = log.checkpoint()
    after, entry = of(federation.publisher).to(
        "publisher second", cut=[LogCut(log.origin, checkpoint.size, checkpoint.root)]
    )
    log.append(entry.line)
    return after, parse_rotation(entry)[0].digest


def test_a_pack_shows_offline_that_a_retired_key_signed_in_time(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    _, rotation = rotate(federation)
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    for fake in federation.nodes:
        federation.kill(fake.node.record.name)
    client.pin_rotation(federation.publisher.id, rotation)
    assert client.verify(tmp_path / "model").exit_status == 0
    for item in (tmp_path / "model" / ".comity" / "objects").iterdir():
        item.unlink()
    assert client.verify(tmp_path / "model").exit_status == 4


def test_a_stolen_old_key_publishes_nothing_for_users_that_pinned_the_rotation(
    tmp_path: Path, client: Client, made: Release, federation: FakeFederation
) -> None:
    owner, rotation = rotate(federation)
    federation.publish(
        release(tmp_path / "stolen", FILES | {"x": b"1"}, by=federation.publisher, name="swiss-ai/tiny@v2")
    )
    newcomer = Client(Home(tmp_path / "newcomer"), limits=TransferLimits(patience=20.0, read_timeout=1.0))
    newcomer.pin(federation.file())
    assert newcomer.pull("swiss-ai/tiny@v2", to=tmp_path / "fooled").verdict.accepted
    client.pin_rotation(federation.publisher.id, rotation)
    with pytest.raises(ComityError):
        client.pull("swiss-ai/tiny@v2", to=tmp_path / "refused")
    renewed = replace(federation.publisher, signer=owner.keys[0])
    federation.publish(release(tmp_path / "new", FILES | {"x": b"2"}, by=renewed, name="swiss-ai/tiny@v3"))
    assert client.pull("swiss-ai/tiny@v3", to=tmp_path / "new model").verdict.accepted
