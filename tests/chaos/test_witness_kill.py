"""A witness and mirror that is killed at fault points never signs two roots of one size."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from comity.content.secrets import write_keys
from comity.trust.keys import PrivateKey
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, make_home, until
from support.outside import OutsideLog, TlogRoutes, read_log, vkeys
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

LOG = OutsideLog("outside.example/log").grow(300)


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    home = make_home(tmp_path / "home", 0)
    write_keys(home.directory / "keys" / "witness.pem", (PrivateKey.generate("ed25519"),))
    home.set("tlog", witness=vkeys([LOG]), mirror=vkeys([LOG]), witness_name="witness.example/w1")
    home.set("replication", first_answer_seconds=0)
    return home


@contextlib.asynccontextmanager
async def started(home: NodeHome, fault: str) -> AsyncIterator[tuple[NodeProcess, TlogRoutes]]:
    with contextlib.closing(NodeProcess(home, {"COMITY_FAULT": fault}, main=WITH_GATEWAY)) as node:
        await node.ready()
        url = next(str(event["http"]) for event in node.events if event.get("event") == "listening")
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            yield node, TlogRoutes(client)


@pytest.mark.parametrize(("point", "size"), [("before-commit", 8), ("after-commit", 12)])
async def test_a_killed_witness_is_at_the_old_size_or_the_new_one(home: NodeHome, point: str, size: int) -> None:
    async with started(home, f"ledger.witness.{point}:2") as (node, witness):
        assert (await witness.add_checkpoint(LOG.submission(0, 8))).status_code == 200
        with pytest.raises(httpx2.TransportError):
            await witness.add_checkpoint(LOG.submission(8, 12))
        await until(lambda: not node.alive, what="the fault to kill the node")
    async with started(home, "") as (_, witness):
        stale = await witness.add_checkpoint(LOG.submission(20 - size, 20))
        assert (stale.status_code, stale.text) == (409, f"{size}\n")
        assert (await witness.add_checkpoint(LOG.submission(size, 20))).status_code == 200


@pytest.mark.parametrize(
    "point", ["stage.before-commit", "stage.after-commit", "advance.before-commit", "cosign.before-commit"]
)
async def test_a_killed_mirror_continues_with_the_entries_that_it_has(home: NodeHome, point: str) -> None:
    async with started(home, f"ledger.{point}:1") as (node, mirror):
        await mirror.add_checkpoint(LOG.submission(0, 300))
        with pytest.raises(httpx2.TransportError):
            await mirror.add_entries(LOG.upload(0, 300))
        await until(lambda: not node.alive, what="the fault to kill the node")
    async with started(home, "") as (_, mirror):
        asked = await mirror.add_entries(LOG.upload(0, 0))
        assert asked.status_code == 409
        at = int(asked.text.split("\n")[1])
        assert (await mirror.add_entries(LOG.upload(at, 300))).status_code == 200
        assert (await read_log(mirror, LOG.prefix, LOG.verifier))[1] == LOG.entries
