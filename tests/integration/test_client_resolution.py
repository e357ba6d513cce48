"""The resolution of a bare name, with nodes that give false positions of lines. Over the real wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator
from pathlib import Path

import pytest
from comity.rules.tree_proofs import inclusion_proof
from comity.trust.encoding import Digest, sha256
from comity.trust.tlog.proof import TlogProof
from comity.wire.log import LocatedProof
from comity.wire.messages import LocatedEntry
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, FakeNode, Release, release

MANY = 40
"""Questions to one node, after which the test takes the resolution for one that does not end."""


class TwoPlaces(FakeNode):
    """A home node whose log holds a line twice. It proves one of the two positions in turn; both proofs are valid."""

    asked: int = 0

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        self.asked += 1
        assert self.asked < MANY
        places = [index for index, line in enumerate(self.log.lines) if sha256(line) == line_digest]
        yield LocatedProof(self.log.origin, self._proof(places[self.asked % len(places)]))

    def _proof(self, index: int) -> bytes:
        log, checkpoint = self.log, self.log.checkpoint()
        cosigned = [s for by in self.cosigners[log.origin] for s in by.cosign(checkpoint)]
        hashes = inclusion_proof(index, log.tree.size, log.tree.node)
        return TlogProof(index, hashes, checkpoint.signed(log.key).with_signatures(*cosigned)).encode()


class MadeUp(FakeNode):
    """A node that claims a low index in its publisher's home log for a line, and proves nothing."""

    favourite: bytes = b""

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        yield LocatedEntry("node-ch.example/log", 10**9, self.favourite)


@pytest.fixture
def federation() -> Iterator[FakeFederation]:
    made = FakeFederation()
    made.nodes[:2] = [TwoPlaces(**vars(made.nodes[0])), MadeUp(**vars(made.nodes[1]))]
    with made.running() as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation) -> Client:
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file())
    return client


def published(folder: Path, federation: FakeFederation, version: str) -> Release:
    made = release(
        folder / version, {"a.txt": version.encode()}, by=federation.publisher, name=f"swiss-ai/tiny@{version}"
    )
    federation.publish(made)
    return made


def test_a_resolution_ends_though_the_home_node_proves_two_indexes_of_a_line_in_turn(
    tmp_path: Path, federation: FakeFederation, client: Client
) -> None:
    _, newest = (published(tmp_path, federation, version) for version in ("v1", "v2"))
    home = federation.nodes[0]
    assert isinstance(home, TwoPlaces)
    home.log.append(newest.entry.line)
    home.asked = 1  # it contradicts its first answer
    for fake in federation.nodes[1:]:
        federation.kill(fake.node.record.name)
    assert client.resolve("swiss-ai/tiny").artifact == newest.published.artifact
    assert home.asked < MANY


def test_a_line_that_its_home_log_has_twice_counts_at_its_first_index(
    tmp_path: Path, federation: FakeFederation, client: Client
) -> None:
    older, newest = (published(tmp_path, federation, version) for version in ("v1", "v2"))
    federation.nodes[0].log.append(older.entry.line)
    federation.kill(federation.nodes[1].node.record.name)
    assert client.resolve("swiss-ai/tiny").artifact == newest.published.artifact


def test_an_unproven_index_makes_no_version_the_newest(
    tmp_path: Path, federation: FakeFederation, client: Client
) -> None:
    elsewhere = federation.nodes[1]
    assert isinstance(elsewhere, MadeUp)
    newest = published(tmp_path, federation, "v2")
    stray = release(tmp_path / "stray", {"a.txt": b"x"}, by=federation.publisher, name="swiss-ai/tiny@v1")
    elsewhere.log.append(stray.entry.line)
    elsewhere.favourite = stray.entry.line
    assert client.resolve("swiss-ai/tiny").artifact == newest.published.artifact
