"""A node that is killed repeatedly during an import: the import continues, and the observation that is logged is
correct.
"""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import ExitStack
from functools import partial
from operator import le
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity_client.events import Event, Progress
from comity_client.importing import Imported
from support.federation import processes
from support.hub_like import Answer, Asked, hub_like
from support.importing import importers
from support.waiting import eventually

SHARDS = [random.Random(number).randbytes(6_000_000) for number in range(4)]
FILES = {
    **{f"shard-{number}.bin": data for number, data in enumerate(SHARDS)},
    "README.md": b"# Shards\n",
    "sub/config.json": b"{}\n",
}
SOURCE = "hf:org/shards"
PATIENCE = 120


class Arriving:
    """The progress that the importing node reports, and a wait for more of it."""

    def __init__(self) -> None:
        self._came = 0
        self._more = threading.Condition()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            with self._more:
                self._came += event.count
                self._more.notify_all()

    def wait_for(self, count: int) -> None:
        """Return once so many more bytes have arrived."""
        with self._more:
            wanted = self._came + count
            assert self._more.wait_for(lambda: self._came >= wanted, PATIENCE), "no further bytes arrive"


def breaking_off(asked: Asked) -> Answer | None:
    """Every answer ends after a megabyte and a half, so that an import has many beginnings."""
    data = next((shard for shard in SHARDS if sha256(shard) == asked.path.removeprefix("/")), None)
    if data is None:
        return None
    rest, end = data[asked.offset :], len(data) - 1
    headers = {"Content-Range": f"bytes {asked.offset}-{end}/{len(data)}", "Content-Length": str(len(rest))}
    return Answer(206 if asked.offset else 200, rest, headers, cut=1_500_000)


def first_offsets(asked: list[Asked]) -> list[int]:
    """Where each shard was asked for first."""
    first: dict[str, int] = {}
    for request in asked:
        if request.cdn:
            first.setdefault(request.path, request.offset)
    return list(first.values())


def require_continued(asked: list[Asked], restarts: list[int]) -> None:
    """After some restart a shard was not asked for from its beginning; after the last ones, all may be here."""
    parts = [asked[begin:end] for begin, end in zip(restarts, [*restarts[1:], len(asked)], strict=True)]
    assert any(any(first_offsets(part)) for part in parts), "every shard was fetched from its beginning once more"


def killed_at_random(tmp_path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with hub_like() as hub, importers(tmp_path, 1) as running, ExitStack() as stack:
        commit = hub.repository("org/shards").commit(FILES).sha
        hub.interfere = breaking_off
        arriving, results = Arriving(), list[Imported]()
        importing = threading.Thread(
            target=lambda: results.append(running.mirror(hub, source=SOURCE, on_event=arriving))
        )
        importing.start()
        node, restarts = running.nodes[0], list[int]()
        for _ in range(kills):
            arriving.wait_for(chance.randrange(1, 4_000_000))
            node.kill()
            restarts.append(len(hub.asked))
            (node,) = stack.enter_context(processes(running.home()))
            asyncio.run(node.ready())
        importing.join(PATIENCE)
        (done,) = results
    assert done.observed.upstream.commit == commit
    assert done.observed.matched.compared == len(FILES)
    require_continued(hub.asked, restarts)
    assert not list((running.home().directory / "data" / "blobs" / "partial" / "imports").glob("*"))


@pytest.mark.slow
def test_a_node_killed_in_the_middle_of_an_import_continues_it(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 2, 7)


@pytest.mark.slow
def test_a_queued_import_goes_on_after_kills_without_a_command(tmp_path: Path) -> None:
    with hub_like() as hub, importers(tmp_path, 1) as running, ExitStack() as stack:
        commit = hub.repository("org/shards").commit(FILES).sha
        hub.interfere = breaking_off
        socket, hosts = str(running.home().socket), [hub.cdn.removeprefix("http://")]
        running.client.decide_import(SOURCE, socket, endpoint=hub.url, hosts=hosts, keep=True)
        node, restarts = running.nodes[0], list[int]()
        for received in (3_000_000, 9_000_000):
            eventually(lambda: running.client.queued_imports(socket)[0].received, partial(le, received))
            node.kill()
            restarts.append(len(hub.asked))
            (node,) = stack.enter_context(processes(running.home()))
            asyncio.run(node.ready())
        (done,) = eventually(
            lambda: running.client.queued_imports(socket), lambda found: [item.state for item in found] == ["logged"]
        )
    assert done.pinned == f"hf:org/shards@{commit}"
    require_continued(hub.asked, restarts)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_a_node_killed_at_many_moments_of_an_import_continues_it(tmp_path: Path, seed: int) -> None:
    killed_at_random(tmp_path, 5, seed)
