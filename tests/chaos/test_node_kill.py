"""A node that is killed at fault points still holds what it acknowledged and what it cosigned."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.home import OpenedHome
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.wire.publish import SubmitReceipt
from support.federation import NodeHome, NodeProcess, converged, found, make_home, until
from support.publisher import Publisher, model, release, send
from support.short_form import cases

pytestmark = pytest.mark.slow

ORIGIN_POINTS = (
    "ledger.append.before-commit:3",
    "ledger.append.after-commit:3",
    "ledger.note.before-commit:2",
    "ledger.note.after-commit:2",
    "blob.rename:4",
    "blob.done:5",
)
MIRROR_POINTS = (
    "ledger.advance.grown:2",
    "ledger.advance.before-commit:2",
    "ledger.advance.after-commit:2",
    "ledger.cosign.before-commit:2",
    "ledger.cosign.after-commit:2",
    "blob.done:2",
)


async def died(node: NodeProcess) -> None:
    await until(lambda: not node.alive, what="the fault to kill the node")


def everything_cosigned_is_held(home: NodeHome) -> None:
    """Read the ledger of the killed node: for each of its cosignatures, the entries and all side objects that they name
    are there.
    """
    node = OpenedHome.open(home.config(), lambda: 0)
    try:
        for log in node.ledger.tables.logs.all():
            node.ledger.tables.history.verify_all(log.origin)
            for line in node.ledger.tables.history.entries(log.origin, 0, log.size):
                assert all(node.store.has(item.digest) for item in parse_entry(line).statement.objects)
            assert cosigned_size(node.ledger.tables, log.origin, home) <= log.size
    finally:
        node.close()


def cosigned_size(ledger: Ledger, origin: str, home: NodeHome) -> int:
    with contextlib.suppress(ComityError):
        note: SignedNote = ledger.cosignatures.cosigned(origin)
        if any(line.by(key) for line in note.signatures for key in home.record.cosigners):
            return Checkpoint.parse(note.text).size
    return 0


@pytest.mark.parametrize("fault", cases(ORIGIN_POINTS, ["ledger.append.after-commit:3", "blob.rename:4"]))
async def test_a_killed_node_still_has_all_that_it_acknowledged(tmp_path: Path, fault: str) -> None:
    home = make_home(tmp_path / "home", 0)
    publisher = Publisher.generate()
    releases = [
        release(publisher, model(tmp_path / f"model-{number}", weights=100_000, seed=number), f"tests/model@v{number}")
        for number in range(4)
    ]
    acknowledged: list[SubmitReceipt] = []
    with contextlib.closing(NodeProcess(home, {"COMITY_FAULT": fault})) as node:
        await node.ready()
        with contextlib.suppress(ComityError):
            async with home.client() as client:
                for what in releases:
                    acknowledged.extend((await send(client, what)).receipts)
        await died(node)
    everything_cosigned_is_held(home)
    with contextlib.closing(NodeProcess(home)) as node:
        await node.ready()
        async with home.client() as client:
            for receipt in acknowledged:
                batches = client.entries(home.origin, receipt.index, receipt.index + 1)
                (line,) = [line async for batch in batches for line in batch.lines]
                assert sha256(line) == receipt.line_digest
            again = [receipt for what in releases for receipt in (await send(client, what)).receipts]
            assert set(acknowledged) <= set(again)


@pytest.mark.parametrize(
    "fault", cases(MIRROR_POINTS, ["ledger.advance.after-commit:2", "ledger.cosign.before-commit:2"])
)
async def test_a_killed_mirror_holds_all_that_it_cosigned(tmp_path: Path, fault: str) -> None:
    founded = found(tmp_path, 2)
    first, second = founded.homes
    publisher = Publisher.generate()
    with contextlib.closing(NodeProcess(first)) as origin:
        with contextlib.closing(NodeProcess(second, {"COMITY_FAULT": fault})) as mirror:
            await origin.ready()
            async with first.client() as client:
                last, number = 0, 0
                while mirror.alive:
                    folder = model(tmp_path / f"model-{number}", weights=100_000, seed=number)
                    what = release(publisher, folder, f"tests/model@v{number}")
                    last = (await send(client, what)).receipts[-1].index
                    number += 1
                    assert number < 100, "the fault kills the mirror sooner"
                    await asyncio.sleep(0.5)
        everything_cosigned_is_held(second)
        with contextlib.closing(NodeProcess(second)) as mirror:
            await mirror.ready()
            await converged(founded.homes, first, least=last + 1)
