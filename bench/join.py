"""What a node that joins waits for: a federation's history over a slow link that loses packets.

    python bench/join.py [--artifacts 1000,10000] [--delay 0.1] [--loss 0.01] [--congestion cubic] [--homes FOLDER]

Root is needed. Two network namespaces are joined by two TUN devices and a process that passes each packet on after
`delay` seconds, or loses it with the chance `loss`, in both directions: 0.1 is a round trip of 200 ms. TCP sees real
losses; there is no other limit of the rate. A federation of three: the first node has published all artifacts (made by
the library, as in `bench/start.py`), with claims of its copies and a checkpoint after every 50; the second one is new
and starts with the federation file; the third one never answers. A reader beside the new node asks it, from its start
on, for the first and for the last published artifact; `level` is when the last one is there, after all before it.

    listening_s, first_s, level_s   from the start of the process
    cpu_s                           of the new node, until it is level
    received_mb                     bytes that came through the link to it, with all headers
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comity.content.blobs import FolderStore
from comity.trust.charter.document import CharterPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.wire.client import NodeClient
from comity.wire.tls import Address, CertificatePin
from comity_client.founding import ListenSettings, NodeCard, consent_to, draft_genesis, init_node, seal_federation
from harness import process_seconds, write
from start import GrowingHome, homes_in, make, publisher_at

NODE = "import pathlib, sys; from comity.node.app import run; run(pathlib.Path(sys.argv[1]))"
PATIENCE = 3600.0
CHECKPOINT_EVERY = 50
"""Artifacts between two checkpoints of the source. A node that publishes one by one has one for each."""
TUN_SETTINGS, TUN_WITHOUT_HEADER, SET_TUN = 0x0001, 0x1000, 0x400454CA
PACKET = 65_536
ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.77.0.3")


@dataclass(frozen=True)
class Row:
    """What was measured at one size."""

    artifacts: int
    listening_s: float
    first_s: float
    level_s: float
    cpu_s: float
    source_cpu_s: float
    received_mb: float
    lost_packets: int
    load: float


def enter(namespace: str) -> None:
    """Move this process into a network namespace."""
    with Path("/var/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def tun_device(namespace: str, address: str) -> int:
    """A new device in the namespace, in which this process is afterwards, and its file descriptor."""
    enter(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_TUN, struct.pack("16sH", b"slow0", TUN_SETTINGS | TUN_WITHOUT_HEADER))
    for command in (f"ip addr add {address}/24 dev slow0", "ip link set slow0 up", "ip link set lo up"):
        subprocess.run(command.split(), check=True)
    return device


def relay(namespaces: tuple[str, str], delay: float, loss: float) -> None:
    """Pass packets between two namespaces until standard input ends; then print how many were lost."""
    devices = [tun_device(name, address) for name, address in zip(namespaces, ADDRESSES, strict=False)]
    print("ready", flush=True)
    chance, lost, number = random.Random(1), 0, 0
    waiting: list[tuple[float, int, int, bytes]] = []
    while True:
        wait = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([*devices, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            print(lost, flush=True)
            return
        for device in set(devices).intersection(readable):
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(device, PACKET):
                    if chance.random() < loss:
                        lost += 1
                        continue
                    number += 1
                    other = devices[1 - devices.index(device)]
                    heapq.heappush(waiting, (time.monotonic() + delay, number, other, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(waiting)
            with contextlib.suppress(BlockingIOError):
                os.write(device, packet)


@contextlib.contextmanager
def linked(delay: float, loss: float, congestion: str) -> Iterator[tuple[tuple[str, str], subprocess.Popen[str]]]:
    """Two namespaces with a link between them, and the process that is the link."""
    names = (f"comity-{os.getpid()}-a", f"comity-{os.getpid()}-b")
    link: subprocess.Popen[str] | None = None
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        command = [sys.executable, __file__, "--relay", *names, "--delay", str(delay), "--loss", str(loss)]
        link = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert link.stdout is not None
        assert link.stdout.readline() == "ready\n"
        for name in names:
            route = ["ip", "route", "replace", "10.77.0.0/24", "dev", "slow0", "congctl", congestion]
            subprocess.run([*within(name), *route], check=True)
        yield names, link
    finally:
        if link is not None:
            link.kill()
            link.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def within(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def found(folder: Path) -> None:
    """Homes of three nodes at the addresses of the link, in one federation."""
    cards: list[NodeCard] = []
    homes = [folder / f"node-{number}" for number in range(3)]
    for home, country, address in zip(homes, ("CH", "ES", "KR"), ADDRESSES, strict=True):
        card = init_node(
            home,
            jurisdiction=country,
            org=f"Institute {country}",
            node_name=f"node-{country.lower()}.example",
            mutual=f"{address}:7443",
            open_=f"{address}:7444",
            listeners=ListenSettings(http="127.0.0.1:0"),
        )
        cards.append(card)
    body = draft_genesis(cards, CharterPolicy(3, 1, 1, cosigner_quorum=1), None)
    federation = seal_federation(body, [consent_to(body, home) for home in homes], cards)
    for home in homes:
        (home / "federation.json").write_bytes(federation.encode())
        settings = (home / "node.toml").read_text()
        (home / "node.toml").write_text(settings.replace('mirror = "all"', 'mirror = "none"'))


async def watch(card: NodeCard, first: Digest, last: Digest, began: float) -> dict[str, float]:
    """Seconds since `began` until the node has proven the first artifact, and the last one."""
    seen: dict[str, float] = {}
    address, pin = Address.parse(card.open[0]), CertificatePin.of(card.record.tls)
    while len(seen) < 2 and time.time() - began < PATIENCE:
        with contextlib.suppress(ComityError):
            async with NodeClient.connect(address, pin) as client:
                while len(seen) < 2 and time.time() - began < PATIENCE:
                    name, artifact = ("level_s", last) if "first_s" in seen else ("first_s", first)
                    if await client.claims(artifact):
                        seen[name] = round(time.time() - began, 1)
                    else:
                        await asyncio.sleep(0.5)
        await asyncio.sleep(0.2)
    return seen


def received_bytes(namespace: str) -> int:
    lines = subprocess.run([*within(namespace), "cat", "/proc/net/dev"], check=True, stdout=subprocess.PIPE, text=True)
    return int(next(line.split()[1] for line in lines.stdout.splitlines() if line.strip().startswith("slow0:")))


def listening_since(home: Path) -> float:
    """When the node that runs in this home began to listen."""
    events = [json.loads(line) for line in (home / "node.log").read_text().splitlines() if line.startswith("{")]
    found = next(event["timestamp"] for event in events if event.get("event") == "listening")
    return datetime.fromisoformat(found).timestamp()


def start(namespace: str, home: Path) -> subprocess.Popen[bytes]:
    with (home / "node.log").open("wb") as log:
        command = [*within(namespace), sys.executable, "-c", NODE, str(home / "node.toml")]
        return subprocess.Popen(command, stdout=log, stderr=log)


def measure(folder: Path, count: int, delay: float, loss: float, congestion: str) -> Row:
    homes = homes_in(folder)
    grown = GrowingHome(homes, holders=1, hold_batch=32)
    for end in range(CHECKPOINT_EVERY, count + CHECKPOINT_EVERY, CHECKPOINT_EVERY):
        grown.grow(min(end, count))
    publisher = publisher_at(homes[0].origin)
    with tempfile.TemporaryDirectory() as scratch:
        some = [make(number, publisher, FolderStore(Path(scratch))).artifact for number in (0, count - 1)]
    with linked(delay, loss, congestion) as (names, link):
        nodes = [start(names[0], homes[0].directory)]
        try:
            time.sleep(10)  # the source listens, and has come to rest
            source = process_seconds(nodes[0].pid)
            began = time.time()
            nodes.append(start(names[1], homes[1].directory))
            watching = [
                *within(names[1]),
                sys.executable,
                __file__,
                "--watch",
                str(homes[1].directory),
                *some,
                str(began),
            ]
            seen = json.loads(subprocess.run(watching, check=True, stdout=subprocess.PIPE).stdout)
            used = [process_seconds(node.pid) for node in nodes]
            received = received_bytes(names[1])
            lost, _ = link.communicate()
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait(60)
    never = {"first_s": -1.0, "level_s": -1.0}
    listening = round(listening_since(homes[1].directory) - began, 1)
    return Row(
        count,
        listening,
        **never | seen,
        cpu_s=round(used[1], 1),
        source_cpu_s=round(used[0] - source, 1),
        received_mb=round(received / 1e6, 1),
        lost_packets=int(lost),
        load=round(os.getloadavg()[0], 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", default="1000,10000")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds of each packet")
    parser.add_argument("--loss", type=float, default=0.01, help="chance of each packet")
    parser.add_argument("--congestion", default="cubic", help="congestion control of TCP, at both ends")
    parser.add_argument("--homes", type=Path, help="an empty folder for the homes; default: one that is removed")
    parser.add_argument("--result", default="join", help="the name of the result file; empty: none")
    parser.add_argument("--relay", nargs=2, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--watch", nargs=4, default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.relay:
        relay(tuple(chosen.relay), chosen.delay, chosen.loss)
        return
    if chosen.watch:
        home, first, last, began = chosen.watch
        card = NodeCard.read(Path(home) / "node-card.json")
        print(json.dumps(asyncio.run(watch(card, Digest(first), Digest(last), float(began)))))
        return
    rows = list[Row]()
    for count in map(int, chosen.artifacts.split(",")):
        with tempfile.TemporaryDirectory(dir=chosen.homes) as scratch:
            found(Path(scratch))
            rows.append(measure(Path(scratch), count, chosen.delay, chosen.loss, chosen.congestion))
        print(rows[-1], flush=True)
    if chosen.result:
        link = {"delay_s": chosen.delay, "loss": chosen.loss, "congestion": chosen.congestion}
        write(chosen.result, runs=[{**link, "measured": [asdict(row) for row in rows]}])


if __name__ == "__main__":
    main()
