"""What a federation costs as it grows: real nodes on loopback, and a simulator of the messages beyond.

python bench/growth.py --nodes 2,4,8 --seconds 60

Each size is run in a network namespace of its own (root is needed), so that the bytes of its loopback device are those
of its nodes alone, with the headers of TCP and TLS. All nodes have the default settings, and each is a process. Three
things are measured: an idle time, in which nothing changes; how long a published line takes to all nodes; and the bytes
that it moves. The simulator builds the messages of `comity.v1` with real sizes of keys and signatures, and counts the
bytes of their encoding without the headers below gRPC. The idle time of the real nodes is shorter than the ten minutes
after which cosignatures are made again: what these cost is in the simulated rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from comity.rules.assigned_cosigners import ALL_COSIGN, MIN_ASSIGNED
from comity.trust.keys import PrivateKey
from comity.trust.tlog.note import Checkpoint, cosign, log_verifier_key
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings
from federations import NodePorts, found
from harness import RESULTS, write
from support.ports import free_port
from support.publisher import Publisher

NODE = "import pathlib, sys; from comity.node.app import run; run(pathlib.Path(sys.argv[1]))"
TICK = os.sysconf("SC_CLK_TCK")
SIMULATED = (4, 8, 16, 50, 100, 200)
HEARTBEATS = 60 / 15
"""Heartbeats a minute with default settings."""
COSIGNED = 60 / 600
"""Cosignatures a minute of an unchanged checkpoint, by one cosigner."""


def received_bytes() -> int:
    """Bytes that the loopback device of this network namespace has received."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.strip().startswith("lo:")))


@dataclass(frozen=True, slots=True)
class RunningNode:
    folder: Path
    card: NodeCard
    process: subprocess.Popen[bytes]

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def events(self, name: str, origin: str) -> list[tuple[float, int]]:
        """Time and size of the events of one kind about a log."""
        lines = (self.folder / "node.log").read_text().splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{")]
        return [
            (datetime.fromisoformat(item["timestamp"]).timestamp(), item.get("size", 0))
            for item in parsed
            if item.get("event") == name and item.get("origin") == origin
        ]


def start(home: Path, card: NodeCard) -> RunningNode:
    with (home / "node.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", NODE, str(home / "node.toml")], stdout=log, stderr=log)
    return RunningNode(home, card, process)


def wait_until_level(nodes: Sequence[RunningNode], patience: float = 300.0) -> None:
    """Wait until every node has cosigned the newest checkpoint that any node has of each log, and nothing changes."""
    ends, quiet = time.monotonic() + patience, 0
    while quiet < 5:
        assert time.monotonic() < ends, "the nodes do not come to rest"
        before = received_bytes()
        time.sleep(2)
        signed = all(
            other.events("cosigned", node.card.record.origin) for node in nodes for other in nodes if other is not node
        )
        quiet = quiet + 1 if signed and received_bytes() - before < 20_000 * len(nodes) ** 2 else 0


async def publish(node: RunningNode) -> tuple[int, int]:
    """Publish a line. Returns its bytes and its index."""
    line = Publisher.generate().announcement
    card = node.card
    async with NodeClient.connect(Address.parse(card.open[0]), CertificatePin.of(card.record.tls)) as client:
        receipt = (await client.submit([line])).receipts[0]
    return len(line), receipt.index


def measure(count: int, seconds: float) -> dict[str, float]:
    """In this process's network namespace."""
    with tempfile.TemporaryDirectory() as folder:
        ports = [
            NodePorts(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", ListenSettings(http="127.0.0.1:0"))
            for _ in range(count)
        ]
        nodes = [start(home, card) for home, card in found(Path(folder), ports)]
        try:
            wait_until_level(nodes)
            cpu, received = sum(node.cpu_seconds for node in nodes), received_bytes()
            time.sleep(seconds)
            idle = received_bytes() - received
            used = sum(node.cpu_seconds for node in nodes) - cpu
            minutes = seconds / 60
            news = news_of_a_line(nodes, idle / seconds)
            return {
                "nodes": count,
                "idle_bytes_a_node_and_minute": round(idle / count / minutes),
                "idle_cpu_s_a_node_and_minute": round(used / count / minutes, 2),
                "memory_mb_a_node": round(sum(node.memory for node in nodes) / count / 1e6),
                **news,
            }
        finally:
            for node in nodes:
                node.process.terminate()
            for node in nodes:
                node.process.wait(60)


def news_of_a_line(nodes: Sequence[RunningNode], idle_rate: float) -> dict[str, float]:
    """Publish a line at the first node. Returns seconds until all nodes have it and have cosigned it, and bytes."""
    origin, others = nodes[0].card.record.origin, nodes[1:]
    received, began = received_bytes(), time.time()
    size, index = asyncio.run(publish(nodes[0]))

    def reached(event: str) -> float | None:
        times = [
            min((at for at, size in node.events(event, origin) if at >= began and size > index), default=None)
            for node in others
        ]
        return None if None in times else max(at for at in times if at is not None) - began

    ends = time.time() + 60
    while reached("cosigned") is None and time.time() < ends:
        time.sleep(0.5)
    time.sleep(5)
    moved = received_bytes() - received - idle_rate * (time.time() - began)
    pairs = len(others) * len(others)
    needed = len(others) * (size + CHECKPOINT_BYTES) + pairs * COSIGNATURE_BYTES
    mirrored, cosigned = reached("mirrored"), reached("cosigned")
    return {
        "seconds_to_all": round(mirrored or math.inf, 2),
        "seconds_cosigned_by_all": round(cosigned or math.inf, 2),
        "published_bytes": round(moved),
        "published_bytes_needed": needed,
    }


def _sample_cosignatures() -> tuple[int, int]:
    """Bytes of a checkpoint note, and of a log's news with the two cosignatures of one cosigner."""
    keys = [PrivateKey.generate(kind) for kind in ("ed25519", "ml-dsa-44")]
    checkpoint = Checkpoint("node-100.example/log", 123_456, bytes(32))
    note = checkpoint.signed(keys[0]).encode()
    lines = [line for key in keys for line in (cosign(checkpoint, "node-101.example/cosigner", key, 2_000_000_000),)]
    signatures = sum(len(line.signature) + len(line.name) + len(line.key_id) + 8 for line in lines)
    return len(note), signatures + len(str(log_verifier_key(checkpoint.origin, keys[0].public)))


CHECKPOINT_BYTES, COSIGNATURE_BYTES = _sample_cosignatures()


def simulate(members: int, cosigners: int) -> dict[str, float]:
    """Bytes of messages that a node receives in an idle minute, if `cosigners` members tell their cosignatures of each
    of `members` logs.

    The heads of before are those of all logs from every peer, every five seconds.
    """
    from comity.v1 import news_pb2

    keys = [PrivateKey.generate(kind) for kind in ("ed25519", "ml-dsa-44")]
    checkpoint = Checkpoint("node-100.example/log", 123_456, bytes(32))
    lines = [cosign(checkpoint, "node-101.example/cosigner", key, 2_000_000_000) for key in keys]
    log = news_pb2.LogNews(
        log=str(log_verifier_key(checkpoint.origin, keys[0].public)),
        size=checkpoint.size,
        cosignatures=[
            news_pb2.Cosignature(name=line.name, key_id=line.key_id, signature=line.signature) for line in lines
        ],
    )
    empty = news_pb2.News(position=bytes(16), misbehaviour=1, charter=bytes(32))
    told = news_pb2.News(position=bytes(16), logs=[log], misbehaviour=1, charter=bytes(32))
    note = checkpoint.signed(keys[0]).with_signatures(*lines)
    head = len(note.encode()) - len(checkpoint.signed(keys[0]).encode())
    return {
        "members": members,
        "cosigners_of_a_log": cosigners,
        "heartbeats": round((members - 1) * HEARTBEATS * len(empty.SerializeToString())),
        "cosignatures": round(members * cosigners * COSIGNED * len(told.SerializeToString())),
        "heads_of_before": round((members - 1) * 12 * members * (members - 1) * head),
    }


def kept_rows(result: str) -> list[dict[str, float]]:
    """The measurements of earlier runs: a size that is not run again stays in the result."""
    path = RESULTS / f"{result}.json"
    rows: list[dict[str, float]] = json.loads(path.read_text())["measured"] if result and path.exists() else []
    return rows


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """The slope of a straight line through the logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points if y > 0]
    if len(logs) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    covariance: float = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    variance: float = sum((x - mean_x) * (x - mean_x) for x, _ in logs)
    return round(covariance / variance, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="2,4,8", help="sizes that are run as real processes; empty: none")
    parser.add_argument("--seconds", type=float, default=60, help="the idle time")
    parser.add_argument("--result", default="growth", help="the name of the result file; empty: none")
    parser.add_argument("--alone", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.alone, arguments.seconds)))
        return
    measured = kept_rows(arguments.result)
    for count in map(int, filter(None, arguments.nodes.split(","))):
        own = f'ip link set lo up && exec "$0" "$@" --alone {count} --seconds {arguments.seconds}'
        command = ["unshare", "--net", "sh", "-c", own, sys.executable, __file__]
        found_here = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        row = json.loads(found_here) | {"load": round(os.getloadavg()[0], 1)}
        measured = sorted(
            [*(other for other in measured if other["nodes"] != count), row], key=lambda each: each["nodes"]
        )
        print(json.dumps(row), flush=True)
    simulated = [
        simulate(count, cosigners)
        for count in SIMULATED
        for cosigners in sorted({count - 1, count - 1 if count <= ALL_COSIGN else MIN_ASSIGNED})
    ]
    for row in simulated:
        print(json.dumps(row))
    idle = [(row["nodes"], row["idle_bytes_a_node_and_minute"]) for row in measured]
    default = {count: count - 1 if count <= ALL_COSIGN else MIN_ASSIGNED for count in SIMULATED}
    complete = [row for row in simulated if row["cosigners_of_a_log"] == default[int(row["members"])]]
    messages = [(row["members"], row["heartbeats"] + row["cosignatures"]) for row in complete]
    before = [(row["members"], row["heads_of_before"]) for row in complete]
    exponents = {"measured_idle": exponent(idle), "simulated": exponent(messages), "of_before": exponent(before)}
    print(json.dumps(exponents))
    if arguments.result:
        write(arguments.result, measured=measured, simulated=simulated, exponents=exponents)


if __name__ == "__main__":
    main()
