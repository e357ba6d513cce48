"""Pulls by chained records, which are not signed: correct records, false records, and from which nodes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from comity import hashing, verifier
from comity.rules.pieces import CHAINED_LAYOUT
from comity.transfer.fetch import FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import WantedFile
from comity.transfer.sources import BlobSource
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES
from comity.trust.encoding import sha256
from comity_client.client import Client
from comity_client.events import Event, SourceDropped
from comity_client.home import Home
from comity_client.pull import fetch
from support.fakes import FakeFederation, FakeNode, Release, release
from support.weights import as_tensor
from support.world import identity

pytestmark = pytest.mark.skipif(hashing.ENGINE is None, reason="needs libcrypto.so.3 (OpenSSL 3)")

WEIGHTS = as_tensor(random.Random(5).randbytes(4 * PIECE_SIZE + 1001))
FILES = {"config.json": b"{}\n", "model.bin": WEIGHTS}
BLOB = sha256(WEIGHTS)


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    with FakeFederation().running() as running:
        yield running


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release(tmp_path_factory.mktemp("source"), FILES, by=identity("Swiss AI", "CH"))


@pytest.fixture
def made(unpublished: Release, federation: FakeFederation) -> Release:
    federation.publish(unpublished)
    return unpublished


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, made: Release) -> Client:
    client = Client(Home(tmp_path / "home"), limits=TransferLimits(patience=20.0, read_timeout=1.0))
    client.pin(federation.file())
    return client


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each transfer of the weights used chained records."""
    found: list[bool] = []

    async def noted(want: WantedFile, sources: list[BlobSource], into: Path, **more: Any) -> FetchResult:
        if want.digest == BLOB:
            found.append(want.chained)
        return await fetch_file(want, sources, into, **more)

    monkeypatch.setattr(fetch, "fetch_file", noted)
    return found


def pulled(client: Client, into: Path) -> set[str]:
    """Pull, compare, and return the names of dropped nodes."""
    events: list[Event] = []
    client.pull("swiss-ai/tiny", to=into, on_event=events.append)
    assert (into / "model.bin").read_bytes() == WEIGHTS
    return {event.node for event in events if isinstance(event, SourceDropped)}


def forge(node: FakeNode, piece: int) -> None:
    """Replace the state after `piece`."""
    records = bytearray(node.records_held[BLOB, CHAINED_LAYOUT])
    records[piece * RECORD_BYTES + 4] ^= 1
    node.records_held[BLOB, CHAINED_LAYOUT] = bytes(records)


def test_a_chain_proves_the_file_in_one_transfer(tmp_path: Path, client: Client, tried: list[bool]) -> None:
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [True]
    other = client.pull("swiss-ai/tiny", to=tmp_path / "other")
    assert other.tally.reused >= len(WEIGHTS), "its pieces were remembered by their plain hashes"
    assert tried == [True, False]


@pytest.mark.parametrize("piece", [0, 2, 3])
def test_the_same_false_chain_from_all_nodes_costs_a_second_transfer_and_accuses_no_node(
    tmp_path: Path, client: Client, federation: FakeFederation, tried: list[bool], piece: int
) -> None:
    """The publisher may have made it, so no node is at fault."""
    for node in federation.nodes:
        forge(node, piece)
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [True, False]


def test_a_chain_on_which_two_nodes_differ_is_not_used(
    tmp_path: Path, client: Client, federation: FakeFederation, tried: list[bool]
) -> None:
    forge(federation.nodes[0], 1)
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [False]


def test_a_chain_to_another_file_is_passed_over(
    tmp_path: Path, client: Client, federation: FakeFederation, tried: list[bool]
) -> None:
    forge(federation.nodes[0], 4)
    federation.nodes[1].records_held[BLOB, CHAINED_LAYOUT] = b"no records"
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [True]


def test_a_lying_source_is_named_by_the_signed_records(
    tmp_path: Path, client: Client, federation: FakeFederation, tried: list[bool]
) -> None:
    for node in federation.nodes[:-1]:
        node.lies_about = {BLOB}
    dropped = pulled(client, tmp_path / "model")
    assert tried == [True, False]
    assert dropped and dropped <= {node.node.record.name for node in federation.nodes[:-1]}


def test_nodes_without_chains_serve_as_before(
    tmp_path: Path, client: Client, federation: FakeFederation, tried: list[bool]
) -> None:
    for node in federation.nodes:
        del node.records_held[BLOB, CHAINED_LAYOUT]
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [False]


def test_a_machine_without_the_engine_pulls_as_before(
    tmp_path: Path, client: Client, tried: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ENGINE", None)
    assert pulled(client, tmp_path / "model") == set()
    assert tried == [False]


def test_a_pulled_folder_is_verified_on_all_cores_and_damage_is_found(tmp_path: Path, client: Client) -> None:
    into = tmp_path / "model"
    client.pull("swiss-ai/tiny", to=into)
    assert [path.name for path in (into / ".comity" / "chains").iterdir()] == [BLOB]
    by_chain: list[bool] = []

    def noted(*arguments: Any) -> Any:
        found = hashing.hash_by_chain(*arguments)
        by_chain.append(found is not None)
        return found

    with patch.object(verifier, "hash_by_chain", noted):
        assert client.verify(into).exit_status == 0
        weights = into / "model.bin"
        weights.chmod(0o644)
        weights.write_bytes(WEIGHTS[:-1] + b"!")
        assert client.verify(into).exit_status == 3
    assert by_chain == [True, False]


@pytest.mark.parametrize("records", [b"", bytes(5 * RECORD_BYTES), b"x" * 10_000])
def test_false_chains_in_a_pack_change_no_verdict(tmp_path: Path, client: Client, records: bytes) -> None:
    client.pull("swiss-ai/tiny", to=tmp_path / "model")
    file = tmp_path / "model" / ".comity" / "chains" / BLOB
    file.chmod(0o644)
    file.write_bytes(records or file.read_bytes()[:36] + bytes(36) + file.read_bytes()[72:])
    assert client.verify(tmp_path / "model").exit_status == 0
