"""Tiles over HTTP: how much many requests for them make the node compute."""

from __future__ import annotations

import asyncio
import gzip
from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.tlog.tiles import COMPRESSED_AT_ONCE, TileRoutes
from comity.rules.tiles import WIDTH
from starlette.requests import Request

TILE = b"an entry of the log" * 1_000
NOTE = SimpleNamespace(text=f"own.example/log\n{WIDTH}\n{'A' * 43}=\n")


async def test_few_tiles_are_compressed_concurrently_and_others_are_sent_uncompressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, compressing = asyncio.Event(), list[bytes]()

    async def hashing(work: Any, data: bytes, *given: Any, **named: Any) -> bytes:
        compressing.append(data)
        await go_on.wait()
        return bytes(work(data, *given, **named))

    async def tile(*given: Any) -> bytes:
        return TILE

    async def key(*given: Any) -> str:
        return "key"

    async def note(*given: Any) -> Any:
        return NOTE

    unused: Any = None
    ledger: Any = SimpleNamespace(run=tile, tables=SimpleNamespace(history=SimpleNamespace(tile=None)))
    pools: Any = SimpleNamespace(hashing=hashing)
    known: Any = SimpleNamespace(log_by_prefix=key)
    routes = TileRoutes(ledger, pools, unused, "", known, unused)
    monkeypatch.setattr(routes, "_served_checkpoint", note)
    asked = {
        "type": "http",
        "headers": [(b"accept-encoding", b"gzip")],
        "path_params": {"log": "x", "tile": "entries/000"},
    }
    answers = [asyncio.create_task(routes.tile(Request(asked))) for _ in range(10)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(compressing) == COMPRESSED_AT_ONCE
    go_on.set()
    bodies = [
        (answer.headers.get("content-encoding"), bytes(answer.body), answer.headers["vary"])
        for answer in await asyncio.gather(*answers)
    ]
    assert [kind for kind, _, _ in bodies].count("gzip") == COMPRESSED_AT_ONCE
    assert {vary for _, _, vary in bodies} == {"Accept-Encoding"}
    assert all((gzip.decompress(body) if kind else body) == TILE for kind, body, _ in bodies)
    assert (await routes.tile(Request(asked))).headers["content-encoding"] == "gzip"
