"""Files that the node fetches while a client of the gateway reads them: one fetch, verified bytes, and what remains on
disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.gateway.hub import files as streams
from comity.node.replication import on_demand as cold
from comity.node.replication.files import FileFetcher
from comity.trust.artifact import PieceRecord
from comity.wire.throttle import FairShares
from support.federation import serving, until
from support.publisher import model
from support.read_through_nodes import PeerRelay, read_through_nodes, stalling, taken, weights_of
from support.sources import cut
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

PIECE_SIZE = 4 * 1024 * 1024
SIZE = 9_000_000
FILE = "/tests/model/resolve/main/weights.bin"


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> PeerRelay:
    return PeerRelay(monkeypatch)


async def test_a_file_that_is_not_here_is_sent_while_it_is_fetched(tmp_path: Path, relay: PeerRelay) -> None:
    data = model(tmp_path / "model", weights=SIZE)
    relay.open_until = PIECE_SIZE
    async with (
        read_through_nodes(tmp_path) as both,
        httpx2.AsyncClient(base_url=both.url, follow_redirects=True, timeout=PATIENCE) as http,
    ):
        digest, weights = weights_of(await both.publish(data, "tests/model@v1"))
        head = await http.head(FILE)
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(SIZE))
        assert digest not in relay.passed, "HEAD asks no peer"
        assert await taken(both.url + FILE, most=PIECE_SIZE) == weights[:PIECE_SIZE], "the rest cannot have come"
        relay.opened.set()
        for path in data.iterdir():
            assert (await http.get(f"/tests/model/resolve/main/{path.name}")).content == path.read_bytes(), path.name
        assert both.blob(digest).read_bytes() == weights
        assert relay.passed[digest] == SIZE


async def test_without_the_setting_a_missing_file_is_refused(tmp_path: Path, relay: PeerRelay) -> None:
    async with (
        read_through_nodes(tmp_path, cold="off") as both,
        httpx2.AsyncClient(base_url=both.url, follow_redirects=True, timeout=PATIENCE) as http,
    ):
        await both.publish(model(tmp_path / "model", weights=1000), "tests/model@v1")
        answer = await http.get(FILE)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "NOT-HERE")
        assert not relay.passed


async def test_64_readers_of_4_files_cause_one_fetch_a_file_and_get_the_same_bytes(
    tmp_path: Path, relay: PeerRelay
) -> None:
    async with (
        read_through_nodes(tmp_path) as both,
        httpx2.AsyncClient(base_url=both.url, timeout=60, follow_redirects=True) as http,
    ):
        made = {}
        for number in range(4):
            folder = model(tmp_path / str(number), weights=5_000_000, seed=number)
            made[number] = weights_of(await both.publish(folder, f"tests/model-{number}@v1"))

        async def same(number: int) -> bool:
            answer = await http.get(f"/tests/model-{number}/resolve/main/weights.bin")
            return answer.content == made[number][1]

        assert all(await asyncio.gather(*(same(reader % 4) for reader in range(64))))
        assert {digest: relay.passed[digest] for digest, _ in made.values()} == dict.fromkeys(
            (digest for digest, _ in made.values()), 5_000_000
        )


async def test_clients_that_stall_or_leave_cost_the_others_nothing(tmp_path: Path, relay: PeerRelay) -> None:
    relay.open_until = PIECE_SIZE
    async with read_through_nodes(tmp_path) as both:
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=3 * SIZE), "tests/model@v1"))
        async with contextlib.AsyncExitStack() as stalled:
            for _ in range(8):
                stalled.push_async_callback(_closed, await stalling(both.url, FILE))
            reader = asyncio.create_task(taken(both.url + FILE))
            assert await taken(both.url + FILE, most=PIECE_SIZE) == weights[:PIECE_SIZE]
            relay.opened.set()
            assert await reader == weights
        assert relay.passed[digest] == len(weights)


async def _closed(client: socket.socket) -> None:
    client.close()


async def test_a_fetch_ends_with_its_last_reader_and_a_later_one_continues_it(
    tmp_path: Path, relay: PeerRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "LINGER", 0.2)
    relay.open_until = 2 * PIECE_SIZE
    async with read_through_nodes(tmp_path) as both:
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=3 * SIZE), "tests/model@v1"))
        assert await taken(both.url + FILE, most=PIECE_SIZE)
        await until(lambda: not relay.streams, what="the fetch to end")
        assert not both.blob(digest).exists()
        assert both.partial(digest).stat().st_size >= PIECE_SIZE
        relay.opened.set()
        assert await taken(both.url + FILE) == weights
        assert relay.passed[digest] < len(weights) + PIECE_SIZE, "no piece that had come is asked for again"


async def test_pieces_that_arrived_before_a_restart_are_not_fetched_again(tmp_path: Path, relay: PeerRelay) -> None:
    relay.open_until = 2 * PIECE_SIZE
    async with read_through_nodes(tmp_path) as both:
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=3 * SIZE), "tests/model@v1"))
        reader = asyncio.create_task(taken(both.url + FILE))
        await until(lambda: relay.passed.get(digest, 0) >= 2 * PIECE_SIZE, what="two pieces")
    assert weights.startswith(await reader)
    relay.opened.set()
    before = relay.passed[digest]
    async with serving(*both.full), serving(both.cold, companion=serve_gateway) as (listening,):
        assert await taken(listening.http + FILE) == weights
    assert relay.passed[digest] - before <= len(weights) - PIECE_SIZE


async def test_readers_join_the_fetch_of_a_node_that_copies_the_file_anyway(tmp_path: Path, relay: PeerRelay) -> None:
    relay.open_until = PIECE_SIZE
    async with read_through_nodes(tmp_path, mirror="all") as both:
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=SIZE), "tests/model@v1"))
        await until(lambda: relay.streams, what="the node to begin")
        assert await taken(both.url + FILE, most=PIECE_SIZE) == weights[:PIECE_SIZE]
        reader = asyncio.create_task(taken(both.url + FILE))
        await asyncio.sleep(0)
        relay.opened.set()
        assert await reader == weights
        assert relay.passed[digest] == SIZE


async def test_a_lying_peer_is_replaced_by_an_honest_one(tmp_path: Path, relay: PeerRelay) -> None:
    async with read_through_nodes(tmp_path, full=2) as both:
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=SIZE), "tests/model@v1"))
        relay.liars = {both.full[0].name}
        assert await taken(both.url + FILE) == weights
        assert both.blob(digest).read_bytes() == weights


async def test_if_all_peers_lie_no_wrong_byte_is_sent_or_kept(tmp_path: Path, relay: PeerRelay) -> None:
    async with (
        read_through_nodes(tmp_path) as both,
        httpx2.AsyncClient(base_url=both.url, follow_redirects=True, timeout=PATIENCE) as http,
    ):
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=SIZE), "tests/model@v1"))
        relay.liars = {both.full[0].name}
        answer = await http.get(FILE)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (503, "NOT-HERE")
        assert answer.headers["Retry-After"]
        relay.forged_from = relay.open_until = 2 * PIECE_SIZE
        reader = asyncio.create_task(taken(both.url + FILE))
        assert await taken(both.url + FILE, most=PIECE_SIZE) == weights[:PIECE_SIZE]
        relay.opened.set()
        assert weights[: 2 * PIECE_SIZE].startswith(await reader), "cut off at the wrong piece"
        assert not both.blob(digest).exists()
        assert both.partial(digest).stat().st_size <= 2 * PIECE_SIZE


async def test_pieces_that_do_not_form_the_file_never_give_a_complete_answer(
    tmp_path: Path, relay: PeerRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of the whole file decides: a publisher's piece index may belong to other bytes than its manifest."""

    async def others(*_: object) -> list[PieceRecord]:
        return cut(bytes(SIZE), PIECE_SIZE)

    async with read_through_nodes(tmp_path) as both:
        digest, _ = weights_of(await both.publish(model(tmp_path / "model", weights=SIZE), "tests/model@v1"))
        relay.liars = {both.full[0].name}
        monkeypatch.setattr(FileFetcher, "_records", others)
        assert len(await taken(both.url + FILE)) <= 2 * PIECE_SIZE, "the last piece is held back"
        assert not both.blob(digest).exists()
        assert not both.partial(digest).exists()


async def test_ranges_of_an_arriving_file_are_fetched_first(tmp_path: Path, relay: PeerRelay) -> None:
    async with (
        read_through_nodes(tmp_path) as both,
        httpx2.AsyncClient(base_url=both.url, follow_redirects=True, timeout=PATIENCE) as http,
    ):
        digest, weights = weights_of(await both.publish(model(tmp_path / "model", weights=3 * SIZE), "tests/model@v1"))
        answer = await http.get(FILE, headers={"Range": f"bytes={5 * PIECE_SIZE}-{5 * PIECE_SIZE + 99}"})
        assert (answer.status_code, answer.content) == (206, weights[5 * PIECE_SIZE : 5 * PIECE_SIZE + 100])
        assert answer.headers["Content-Range"] == f"bytes {5 * PIECE_SIZE}-{5 * PIECE_SIZE + 99}/{len(weights)}"
        first, last = await asyncio.gather(
            http.get(FILE, headers={"Range": "bytes=0-99"}), http.get(FILE, headers={"Range": "bytes=-50"})
        )
        assert first.content + last.content == weights[:100] + weights[-50:]
        await until(both.blob(digest).exists, what="the file to be whole")


async def test_a_file_that_cannot_be_fetched_now_is_a_503_with_reason_and_retry_time(
    tmp_path: Path, relay: PeerRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with read_through_nodes(tmp_path) as both, httpx2.AsyncClient(base_url=both.url, timeout=PATIENCE) as http:
        _, weights = weights_of(await both.publish(model(tmp_path / "model", weights=SIZE), "tests/model@v1"))

        async def refused() -> tuple[int, str]:
            answer = await http.get(FILE)
            assert answer.headers["Retry-After"]
            return answer.status_code, answer.headers["X-Error-Code"]

        with monkeypatch.context() as scarce:
            scarce.setattr(FairShares, "acquire_from_others", lambda shares, item, block: item)
            assert await refused() == (503, "COLD-BUSY")
        with monkeypatch.context() as scarce:
            scarce.setattr(cold, "SPARE_FACTOR", 1 << 40)
            assert await refused() == (503, "NOT-HERE")
            assert not relay.passed
        relay.open_until = 0
        with monkeypatch.context() as hasty:
            hasty.setattr(streams, "FIRST", 0.2)
            assert await refused() == (503, "ON-ITS-WAY")
        relay.opened.set()
        assert await taken(both.url + FILE) == weights, "the fetch has continued"
