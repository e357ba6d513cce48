"""Names under attack, by the public API: neither later claims nor the answers of one node change a resolution."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published
from comity_client.client import Client
from comity_client.events import Event, Note
from comity_client.home import Home
from support.fakes import FakeFederation, Release, release
from support.weights import as_tensor
from support.world import Identity, identity
from unit.comity_client.evidence.test_proving_lines import junk

FILES = {"README.md": b"# Tiny\n", "model.safetensors": as_tensor(os.urandom(100_000))}
OWNER = identity("Swiss AI", "CH")


@pytest.fixture
def published(tmp_path: Path, federation: FakeFederation) -> Release:
    made = release(tmp_path / "source", FILES, by=OWNER)
    for line in (OWNER.entry.line, made.entry.line):
        federation.nodes[0].log.append(line)
    for fake in federation.nodes:
        fake.take(made)
    return made


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    return user(tmp_path / "home", federation)


def user(folder: Path, federation: FakeFederation) -> Client:
    made = Client(Home(folder))
    made.pin(federation.file({}))
    return made


def claim(by: Identity, name: str = "swiss-ai/tiny@v1") -> bytes:
    other = sha256(by.id.encode())
    objects = SideObject(other, 1)
    said = Published(by.id, Name.parse(name), other, objects, objects, Licence("MIT"))
    return sign_content(said, by.signer).line


def rivals(federation: FakeFederation, count: int, node: int = 3) -> list[Identity]:
    made = [identity(f"Sybil {number}", "SG") for number in range(count)]
    for each in made:
        for line in (each.entry.line, claim(each)):
            federation.nodes[node].log.append(line)
    return made


def test_a_later_claim_changes_a_name_for_no_user(
    tmp_path: Path, client: Client, federation: FakeFederation, published: Release
) -> None:
    artifact = published.published.artifact
    assert client.resolve("swiss-ai/tiny").artifact == artifact
    rivals(federation, 1)
    found = client.resolve("swiss-ai/tiny")
    assert (found.artifact, found.basis) == (artifact, "an earlier resolution here; claimed, not bound")
    newcomer = user(tmp_path / "newcomer", federation).resolve("swiss-ai/tiny@v1")
    assert newcomer.artifact == artifact
    assert "saw first" in newcomer.basis and "claimed, not bound" in newcomer.basis
    assert any("Sybil 0" in rival for rival in newcomer.rivals)


def test_the_first_resolution_is_remembered_until_it_is_unbound(
    client: Client, federation: FakeFederation, published: Release
) -> None:
    (rival,) = rivals(federation, 1)
    client.resolve("swiss-ai/tiny")
    client.bind("swiss-ai", rival.id)
    assert client.resolve("swiss-ai/tiny").artifact == sha256(rival.id.encode())
    client.unbind("swiss-ai")
    assert client.resolve("swiss-ai/tiny").artifact == published.published.artifact
    client.unbind("swiss-ai/tiny")
    with pytest.raises(NotFound):
        client.unbind("swiss-ai/tiny")


def test_forty_claimed_authors_stop_no_pull(
    tmp_path: Path, client: Client, federation: FakeFederation, published: Release
) -> None:
    for number in range(40):
        federation.nodes[3].log.append(claim(identity(f"Nobody {number}", "SG")))
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "placed")
    assert pulled.artifact == published.published.artifact


def test_a_bound_publisher_is_found_below_a_flood_of_one_version(
    client: Client, federation: FakeFederation, published: Release
) -> None:
    rivals(federation, 40)
    client.bind("swiss-ai", OWNER.id)
    found = client.resolve("swiss-ai/tiny@v1")
    assert (found.artifact, found.basis) == (published.published.artifact, "your binding of its namespace")


@pytest.mark.slow
def test_a_node_that_answers_with_junk_costs_its_own_answer_only(
    tmp_path: Path, client: Client, federation: FakeFederation, published: Release
) -> None:
    federation.nodes[3].junk = tuple(junk(number) for number in range(3_000))
    events: list[Event] = []
    pulled = client.pull("swiss-ai/tiny", to=tmp_path / "placed", on_event=events.append)
    assert pulled.artifact == published.published.artifact
    notes = [event.text for event in events if isinstance(event, Note)]
    slow = not any("unproven" in note for note in notes)
    assert slow or any("gave 3000 unproven lines" in note for note in notes)


def test_a_remembered_publisher_that_nodes_withhold_is_not_replaced(
    client: Client, federation: FakeFederation, published: Release
) -> None:
    client.resolve("swiss-ai/tiny")
    (rival,) = rivals(federation, 1)
    federation.nodes[0].log.lines[:] = []
    federation.nodes[0].log.numbers[:] = []
    with pytest.raises((NotFound, PolicyNotMet)) as refused:
        client.resolve("swiss-ai/tiny")
    assert refused.value.code == "NOT-PUBLISHED"
    assert Digest(rival.id) in refused.value.why
    assert refused.value.hint == "comity trust bind swiss-ai IDENTITY"
