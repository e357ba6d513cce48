"""Memory of nodes that run for a long time: whether it stays flat while others publish, mirror and read.

python bench/memory.py --minutes 240

Three nodes with default settings, which mirror one another. Every few seconds one of them is published at; every one
is asked for names, evidence, small objects and pages, as strangers ask. Its resident memory and what of that is private
are read every ten seconds. `--work` chooses what is done, so that a growth can be given to one kind of work: the nodes
are new for each. What a node grows by is counted from `--settled` minutes on: at first its caches fill, each of which
has a bound. With `--most-mb` the exit status is 1 if a node grew by more.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from comity.trust.errors import ComityError
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings
from federations import NodePorts, found
from growth import RunningNode
from harness import write
from support.ports import free_port
from support.publisher import Publisher, model, release, send

WORKS = ("nothing", "publish", "read", "all")
"""`publish`: with its mirroring by the others; `read`: of what was published before."""
SAMPLE_SECONDS = 10.0
PAGES = ("/", "/-/catalogue", "/-/members", "/-/logs", "/api/models?search=memory")


def serve(home: Path, card: NodeCard) -> RunningNode:
    """A node with its gateway and its console."""
    command = [sys.executable, "-m", "comity_cli.main", "serve", "--node", str(home)]
    with (home / "node.log").open("wb") as log:
        return RunningNode(home, card, subprocess.Popen(command, stdout=log, stderr=log))


@contextmanager
def running(folder: Path, count: int) -> Iterator[list[tuple[RunningNode, str]]]:
    """Nodes that mirror all, each with the URL of its gateway."""
    https = [f"127.0.0.1:{free_port()}" for _ in range(count)]
    ports = [
        NodePorts(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", ListenSettings(http=http)) for http in https
    ]
    with ExitStack() as stack:
        nodes = [serve(home, card) for home, card in found(folder, ports)]
        for node in nodes:
            stack.callback(node.process.wait, 120)
            stack.callback(node.process.send_signal, signal.SIGTERM)
        yield [(node, f"http://{http}") for node, http in zip(nodes, https, strict=True)]


def wait_for(url: str, seconds: float = 60.0) -> None:
    """Wait until a gateway answers."""
    ends = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)
        else:
            return


def connect(card: NodeCard) -> Any:
    return NodeClient.connect(Address.parse(card.open[0]), CertificatePin.of(card.record.tls))


class Work:
    """What is done to the nodes. Each call is one piece of work, and waits for what it asks."""

    def __init__(self, folder: Path, nodes: list[tuple[RunningNode, str]]) -> None:
        self._folder, self._nodes = folder, nodes
        self._publisher = Publisher.generate()
        self._names = list[str]()
        self.done = dict.fromkeys(("published", "read", "refused"), 0)

    async def publish(self) -> None:
        number = len(self._names)
        name = f"memory/model-{number}@v1"
        made = release(self._publisher, model(self._folder / f"model-{number}", weights=200_000, seed=number), name)
        async with connect(self._nodes[number % len(self._nodes)][0].card) as client:
            await send(client, made)
        self._names.append(name.partition("@")[0])
        self.done["published"] += 1

    async def read(self) -> None:
        """The newest names and one of the others, and every page, of every node."""
        number = self.done["read"]
        names = self._names[-3:] + self._names[number % max(1, len(self._names)) :][:1]
        for node, url in self._nodes:
            async with connect(node.card) as client:
                for name in names:
                    try:
                        await client.resolve(name)
                    except ComityError:  # not there yet, or asked too often: counted
                        self.done["refused"] += 1
            for page in (*PAGES, *(f"/api/models/{name}" for name in names)):
                await asyncio.to_thread(self._get, url + page)
        self.done["read"] += 1

    def _get(self, url: str) -> None:
        try:
            asked = urllib.request.Request(url, headers={} if "/api/" in url else {"Accept": "text/html"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:  # not there yet
            self.done["refused"] += 1
            error.close()


def private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def run(work: Work, what: str, nodes: list[RunningNode], minutes: float, pause: float) -> list[dict[str, Any]]:
    """Work for a time. Returns samples: the time since the begin, and the resident and private bytes of each node."""
    for _ in range(5):
        await work.publish()
    steps = {"nothing": (), "publish": (work.publish,), "read": (work.read,), "all": (work.publish, work.read)}[what]
    samples, began, next_sample = list[dict[str, Any]](), time.monotonic(), 0.0
    for step in itertools.cycle(steps or (None,)):
        if (elapsed := time.monotonic() - began) >= 60 * minutes:
            return samples
        if elapsed >= next_sample:
            next_sample += SAMPLE_SECONDS
            resident, private = [node.memory for node in nodes], [private_bytes(node.process.pid) for node in nodes]
            samples.append({"seconds": round(elapsed), "resident": resident, "private": private})
        if step is not None:
            await step()
        await asyncio.sleep(pause)
    raise AssertionError


def judged(samples: list[dict[str, Any]], of: str, settled: float) -> dict[str, Any]:
    """Megabytes of each node when it has settled, and at the end, as medians of three minutes or of a fifth of what
    follows; and how much it grew between."""
    after = [each for each in samples if each["seconds"] >= settled]
    part = max(1, min(int(180 / SAMPLE_SECONDS), len(after) // 5))
    nodes = range(len(after[0][of]))

    def level(some: list[dict[str, Any]], node: int) -> float:
        return float(statistics.median(each[of][node] for each in some))

    settled_at = [level(after[:part], node) for node in nodes]
    late = [level(after[-part:], node) for node in nodes]
    grown = [last - first for first, last in zip(settled_at, late, strict=True)]
    return {
        "settled_mb": [round(each / 1e6, 1) for each in settled_at],
        "late_mb": [round(each / 1e6, 1) for each in late],
        "grown_mb": round(max(grown) / 1e6, 1),
        "most_mb": round(max(max(each[of]) for each in samples) / 1e6, 1),
    }


def measure(what: str, minutes: float, settled: float, pause: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "nodes", 3) as nodes:
        for _, url in nodes:
            wait_for(url)
        work = Work(Path(folder) / "models", nodes)
        samples = asyncio.run(run(work, what, [node for node, _ in nodes], minutes, pause))
        some = samples[:: max(1, len(samples) // 20)]
        return {
            "work": what,
            "minutes": minutes,
            "settled_minutes": settled,
            **work.done,
            "cpu_s": [round(node.cpu_seconds) for node, _ in nodes],
            "resident": judged(samples, "resident", 60 * settled),
            "private": judged(samples, "private", 60 * settled),
            "resident_mb_over_time": [
                [each["seconds"], *(round(one / 1e6) for one in each["resident"])] for each in some
            ],
            "load": round(os.getloadavg()[0], 1),
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=240.0)
    options.add_argument("--work", action="append", choices=WORKS, help="may be repeated; default: all")
    options.add_argument("--settled", type=float, default=30.0, help="minutes from which growth is counted")
    options.add_argument("--most-mb", type=float, help="fail if the resident memory of a node grew by more")
    options.add_argument("--pause", type=float, default=2.0, help="seconds between two pieces of work")
    options.add_argument("--result", default="memory", help="the name of the result file; empty: none")
    chosen = options.parse_args()
    rows = [measure(what, chosen.minutes, chosen.settled, chosen.pause) for what in chosen.work or ["all"]]
    for row in rows:
        print(row)
    if chosen.result:
        write(chosen.result, runs=rows)
    if chosen.most_mb is not None and any(row["resident"]["grown_mb"] > chosen.most_mb for row in rows):
        raise SystemExit(f"a node grew by more than {chosen.most_mb:g} MB")


if __name__ == "__main__":
    main()
