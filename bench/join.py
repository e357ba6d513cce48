"""What a node that joins waits for: a federation's history over a slow link that loses packets.

    python bench/join.py [--artifacts 1000,10000] [--plain 400000] [--delay 0.1] [--loss 0.01] [--congestion cubic]
                         [--rounds 1] [--homes FOLDER]

Root is needed. Two network namespaces are joined by two TUN devices and a process that passes each packet on after
`delay` seconds, or loses it with the chance `loss`, in both directions: 0.1 is a round trip of 200 ms. TCP sees real
losses; there is no other limit of the rate. A federation of three: the first node has published all artifacts (made by
the library, as in `bench/start.py`), with claims of its copies and a checkpoint after every 50; the second one is new
and starts with the federation file; the third one never answers. A reader beside the new node asks it, from its start
on, for the first and for the last published artifact; `level` is when the last one is there, after all before it.
With `--plain`, the first node's log has so many statements that name no artifact and no side object, and the reader
asks for the size of the log. `FOLDER` keeps what the first node has, and a later run copies it.

    listening_s, first_s, level_s   from the start of the process
    longest_pause_s                 between two growths of the log at the new node, from the first to the last one
    cpu_s                           of the new node, until it is level
    received_mb                     bytes that came through the link to it, with all headers
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comity.content.blobs import FolderStore
from comity.trust.charter.document import CharterPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings, NewNode, init_node
from harness import process_seconds, write
from link import ADDRESSES, linked, within
from start import GrowingHome, make, publisher_at
from support.federation import NodeHome

NODE = "import pathlib, sys; from comity.node.app import run; run(pathlib.Path(sys.argv[1]))"
PATIENCE = 3600.0
CHECKPOINT_EVERY = 50
"""Artifacts between two checkpoints of the source. A node that publishes one by one has one for each."""
PLAIN_EVERY = 256
"""The same for plain entries: what a node appends at once, at most."""


@dataclass(frozen=True)
class Row:
    """What was measured at one size."""

    artifacts: int
    plain: int
    listening_s: float
    first_s: float
    level_s: float
    longest_pause_s: float
    cpu_s: float
    source_cpu_s: float
    received_mb: float
    lost_packets: int
    load: float


def found(folder: Path) -> None:
    """Homes of three nodes at the addresses of the link, in one federation."""
    cards: list[NodeCard] = []
    homes = [folder / f"node-{number}" for number in range(3)]
    for home, country, address in zip(homes, ("CH", "ES", "KR"), ADDRESSES, strict=True):
        card = init_node(
            home,
            NewNode(
                jurisdiction=country,
                org=f"Institute {country}",
                node_name=f"node-{country.lower()}.example",
                mutual=f"{address}:7443",
                open_=f"{address}:7444",
                listeners=ListenSettings(http="127.0.0.1:0"),
            ),
        )
        cards.append(card)
    body = draft_genesis(cards, CharterPolicy(3, 1, 1, cosigner_quorum=1), None)
    federation = seal_federation(body, [consent_to(body, home) for home in homes], cards)
    for home in homes:
        (home / "federation.json").write_bytes(federation.encode())
        settings = (home / "node.toml").read_text()
        (home / "node.toml").write_text(settings.replace('mirror = "all"', 'mirror = "none"'))


class Watched:
    """What a reader sees of the new node. Times are seconds since `began`."""

    def __init__(self, card: NodeCard, log: str, began: float) -> None:
        self._card = card
        self._log = log
        self._began = began
        self._sizes: list[tuple[float, int]] = []

    async def until(self, seen: Callable[[NodeClient], Awaitable[bool]]) -> float:
        """When `seen` first held; -1 if it never does."""
        address, pin = Address.parse(self._card.open[0]), CertificatePin.of(self._card.record.tls)
        while self._now() < PATIENCE:
            with contextlib.suppress(ComityError):
                async with NodeClient.connect(address, pin) as client:
                    while self._now() < PATIENCE:
                        await self._look(client)
                        if await seen(client):
                            return self._now()
                        await asyncio.sleep(0.5)
            await asyncio.sleep(0.2)
        return -1.0

    async def reaches(self, size: int) -> float:
        """When the log first had so many entries."""

        async def seen(client: NodeClient) -> bool:
            return await self._look(client) >= size

        return await self.until(seen)

    @property
    def longest_pause(self) -> float:
        """Between two growths of the log."""
        times = [time for time, _ in self._sizes]
        return round(max((after - before for before, after in pairwise(times)), default=0.0), 1)

    async def _look(self, client: NodeClient) -> int:
        size = 0
        with contextlib.suppress(NotFound):
            size = Checkpoint.parse(SignedNote.parse(await client.checkpoint(self._log)).text).size
        if size and (not self._sizes or size > self._sizes[-1][1]):
            self._sizes.append((self._now(), size))
        return size

    def _now(self) -> float:
        return round(time.time() - self._began, 1)


async def watch(watched: Watched, size: int, artifacts: Sequence[Digest]) -> dict[str, float]:
    """Seconds until the node has proven the first artifact, and the last one; or, if there are none, until it has the
    first entries of the log, and all."""

    def has(artifact: Digest) -> Callable[[NodeClient], Awaitable[bool]]:
        async def seen(client: NodeClient) -> bool:
            with contextlib.suppress(NotFound):
                return bool(await client.claims(artifact))
            return False

        return seen

    if artifacts:
        found = [await watched.until(has(artifact)) for artifact in artifacts]
    else:
        found = [await watched.reaches(least) for least in (1, size)]
    return {"first_s": found[0], "level_s": found[1], "longest_pause_s": watched.longest_pause}


def listening_since(home: Path) -> float:
    """When the node that runs in this home began to listen."""
    events = [json.loads(line) for line in (home / "node.log").read_text().splitlines() if line.startswith("{")]
    found = next(event["timestamp"] for event in events if event.get("event") == "listening")
    return datetime.fromisoformat(found).timestamp()


def start(namespace: str, home: Path) -> subprocess.Popen[bytes]:
    with (home / "node.log").open("wb") as log:
        command = [*within(namespace), sys.executable, "-c", NODE, str(home / "node.toml")]
        return subprocess.Popen(command, stdout=log, stderr=log)


def filled(folder: Path, artifacts: int, plain: int) -> None:
    """Homes in which the first node has so many artifacts, or plain entries, with a checkpoint after every few."""
    found(folder)
    homes = tuple(NodeHome(each, NodeCard.read(each / "node-card.json")) for each in sorted(folder.glob("node-*")))
    grown = GrowingHome(homes, holders=1, hold_batch=32)
    for end in range(CHECKPOINT_EVERY, artifacts + CHECKPOINT_EVERY, CHECKPOINT_EVERY):
        grown.grow(min(end, artifacts))
    if plain:
        grown.log_plain(plain, PLAIN_EVERY)


def seen_from_within(namespace: str, home: Path, log: str, began: float, count: int, size: int) -> dict[str, float]:
    """The view of a reader in the namespace of `home`'s node."""
    some = list[str]()
    if count:
        publisher = publisher_at(log.partition("+")[0])
        with tempfile.TemporaryDirectory() as scratch:
            store = FolderStore(Path(scratch))
            some = [make(number, publisher, store).artifact for number in (0, count - 1)]
    command = [*within(namespace), sys.executable, __file__, "--watch", str(home), log, str(began), str(size), *some]
    seen: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seen


def measure(folder: Path, artifacts: int, plain: int, options: argparse.Namespace) -> Row:
    homes = sorted(folder.glob("node-*"))
    log = str(NodeCard.read(homes[0] / "node-card.json").record.log)
    with linked(options.delay, options.loss, "congctl", options.congestion) as link:
        nodes = [start(link.near, homes[0])]
        try:
            time.sleep(10)  # the source listens, and is at rest
            source = process_seconds(nodes[0].pid)
            began = time.time()
            nodes.append(start(link.far, homes[1]))
            seen = seen_from_within(link.far, homes[1], log, began, artifacts, plain)
            used = [process_seconds(node.pid) for node in nodes]
            passed = link.passed()
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait(60)
    return Row(
        artifacts,
        plain,
        round(listening_since(homes[1]) - began, 1),
        **seen,
        cpu_s=round(used[1], 1),
        source_cpu_s=round(used[0] - source, 1),
        received_mb=round(passed.received / 1e6, 1),
        lost_packets=passed.lost,
        load=round(os.getloadavg()[0], 1),
    )


def kept(homes: Path, artifacts: int, plain: int) -> Path:
    """The homes of this size, made if they are not there."""
    folder = homes / f"{artifacts}-{plain}"
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        filled(making, artifacts, plain)
        making.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", default="1000,10000")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds of each packet")
    parser.add_argument("--loss", type=float, default=0.01, help="chance of each packet")
    parser.add_argument("--congestion", default="cubic", help="congestion control of TCP, at both ends")
    parser.add_argument("--plain", default="", help="entries without side objects, in place of artifacts")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--homes", type=Path, help="a folder that keeps the homes; default: one that is removed")
    parser.add_argument("--result", default="join", help="the name of the result file; empty: none")
    parser.add_argument("--watch", nargs="+", default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.watch:
        home, log, began, size, *some = chosen.watch
        watched = Watched(NodeCard.read(Path(home) / "node-card.json"), log, float(began))
        print(json.dumps(asyncio.run(watch(watched, int(size), [Digest(each) for each in some]))))
        return
    rows = list[Row]()
    sizes = [(int(count), 0) for count in chosen.artifacts.split(",") if count]
    sizes += [(0, int(count)) for count in chosen.plain.split(",") if count]
    with tempfile.TemporaryDirectory() as scratch:
        for artifacts, plain in chosen.rounds * sizes:
            source = kept(chosen.homes or Path(scratch), artifacts, plain)
            with tempfile.TemporaryDirectory() as copied:
                folder = shutil.copytree(source, Path(copied) / "homes")
                rows.append(measure(folder, artifacts, plain, chosen))
                print(rows[-1], flush=True)
    if chosen.result:
        link = {"delay_s": chosen.delay, "loss": chosen.loss, "congestion": chosen.congestion}
        write(chosen.result, runs=[{**link, "measured": [asdict(row) for row in rows]}])


if __name__ == "__main__":
    main()
