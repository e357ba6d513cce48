"""How side objects are fetched: many small ones in one call, and one by one from nodes of older versions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from comity.content.blobs import FolderStore
from comity.node.members import PeerKey
from comity.node.replication.side_objects import BATCH_BYTES, SideObjectFetcher, batches_of_small
from comity.node.threads import Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.wire import limits
from comity.wire.client import NodeClient
from hypothesis import given
from hypothesis import strategies as st

PEER = PeerKey(sha256(b"member"), "a.example/log")


class Peer:
    """Answers from memory, and counts the calls."""

    def __init__(self, *objects: bytes, old: bool = False) -> None:
        self.held = {sha256(data): data for data in objects}
        self.old = old
        self.single, self.bulk = 0, 0

    async def object(self, digest: Digest) -> bytes:
        self.single += 1
        if digest not in self.held:
            raise NotFound("no such object here")
        return self.held[digest]

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        self.bulk += 1
        if self.old:
            raise Unavailable("the node does not know this call", code="UNIMPLEMENTED")
        assert len(digests) <= limits.OBJECTS
        for digest in digests:
            if digest in self.held and len(self.held[digest]) <= limits.SMALL_OBJECT:
                yield digest, self.held[digest]

    @property
    def client(self) -> NodeClient:
        return cast(NodeClient, self)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def fetcher(store: FolderStore) -> Iterator[SideObjectFetcher]:
    pools = Pools()
    yield SideObjectFetcher(store, pools)
    pools.close()


def named(*objects: bytes) -> list[SideObject]:
    return [SideObject(sha256(data), len(data)) for data in objects]


SMALL = [b"object %d" % number for number in range(600)]
LARGE = bytes(limits.SMALL_OBJECT + 1)


async def test_many_small_objects_take_few_calls(fetcher: SideObjectFetcher, store: FolderStore) -> None:
    peer = Peer(*SMALL, LARGE)
    received = await fetcher.fetch_all(peer.client, named(*SMALL, LARGE, *SMALL), PEER)
    assert (peer.bulk, peer.single) == (3, 1)
    assert received == sum(map(len, SMALL)) + len(LARGE)
    assert all(store.has(sha256(data)) for data in (*SMALL, LARGE))
    assert await fetcher.fetch_all(peer.client, named(*SMALL), PEER) == 0
    assert (peer.bulk, peer.single) == (3, 1)


async def test_a_node_of_an_older_version_is_asked_for_one_at_a_time(
    fetcher: SideObjectFetcher, store: FolderStore
) -> None:
    peer = Peer(*SMALL[:5], old=True)
    await fetcher.fetch_all(peer.client, named(*SMALL[:3]), PEER)
    await fetcher.fetch_all(peer.client, named(*SMALL[3:5]), PEER)
    assert (peer.bulk, peer.single) == (1, 5)
    assert all(store.has(sha256(data)) for data in SMALL[:5])


async def test_an_object_that_a_peer_leaves_out_fails_and_the_others_are_kept(
    fetcher: SideObjectFetcher, store: FolderStore
) -> None:
    peer = Peer(*SMALL[:5])
    with pytest.raises(NotFound):
        await fetcher.fetch_all(peer.client, named(*SMALL[:6]), PEER)
    assert all(store.has(sha256(data)) for data in SMALL[:5])


async def test_an_object_of_another_size_than_its_statement_says_is_refused(fetcher: SideObjectFetcher) -> None:
    peer = Peer(*SMALL[:2])
    wrong = [SideObject(sha256(SMALL[0]), 3), *named(SMALL[1])]
    with pytest.raises(Untrusted, match="size"):
        await fetcher.fetch_all(peer.client, wrong, PEER)


async def test_a_stored_object_of_another_size_than_its_statement_says_is_refused(
    fetcher: SideObjectFetcher, store: FolderStore
) -> None:
    """Otherwise one log could claim a size that makes the object unreadable, after another log has brought it."""
    store.put(sha256(SMALL[0]), SMALL[0])
    with pytest.raises(Untrusted, match="size"):
        await fetcher.fetch_all(Peer(*SMALL).client, [SideObject(sha256(SMALL[0]), 3)], PEER)


@given(st.lists(st.integers(0, 2 * limits.SMALL_OBJECT), max_size=600))
def test_batches_are_bounded_and_complete(sizes: list[int]) -> None:
    items = [SideObject(sha256(b"%d" % number), size) for number, size in enumerate(sizes)]
    batches = list(batches_of_small(items * 2))
    assert [item for batch in batches for item in batch] == [item for item in items if item.size <= limits.SMALL_OBJECT]
    assert all(batch and len(batch) <= limits.OBJECTS for batch in batches)
    assert all(sum(item.size for item in batch) <= BATCH_BYTES for batch in batches)
