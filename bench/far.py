"""A user far away from all nodes: seconds, bytes, calls and CPU of `show` and `pull`, beside `hf download`.

    python bench/far.py [--nodes 2,4,8,12] [--round-trips 0,100,250] [--rounds 3] [--only ROW]…
                        [--loss 0.001] [--congestion cubic]

Root is needed. The nodes are in one network namespace and the user in another, with a link between them that delays
each packet (`link.py`), and has no limit of its rate. Without `--loss`, packets have at most 9,000 bytes and the first
window of TCP two of them, which is what ten of 1,500 are, so that the link costs this machine less. Members have hybrid
keys, the settings are those of `comity init`, and the first four nodes copy everything.

    show           `comity show NAME` by somebody who has pinned the federation, and asks for the first time
    show, again    the same with the home of an earlier `show`
    pull, small    4 files of 1 MB together, by somebody new
    pull, large    13 files of 94 MB, shaped as a small language model
    hf, small      `hf download` of the same from the gateway of the first node, over plain HTTP, with a new cache
    hf, large

    seconds                  of the whole process: the median
    received_kb, sent_kb     through the link, with all headers of TCP and TLS
    connections              of TCP
    calls, chain             of gRPC and ranges of HTTPS, in one process of its own that is not timed; and how many of
                             them began after the end of the one before, along the longest such chain
    cpu_s                    of the user's process
    nodes_cpu_s              of all nodes together, less what they use at rest, which is measured before each row
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comity_client.node_home import ListenSettings
from federations import NodePorts, found
from harness import keep_bytecode, write
from link import ADDRESSES, Link, Passed, linked, within

COMITY = (sys.executable, "-m", "comity_cli.start")
TRACED = (sys.executable, str(Path(__file__).parent / "traced.py"))
COPIES = 4
PATIENCE = 900.0
REST = 3.0
"""Seconds in which the nodes' CPU at rest is measured before each row."""
SMALL = {"config.json": 700, "README.md": 3_300, "tokenizer.json": 196_000, "model.safetensors": 800_000}
LARGE = {
    "README.md": 8_300,
    "config.json": 870,
    "generation_config.json": 130,
    "special_tokens_map.json": 660,
    "tokenizer_config.json": 3_700,
    "added_tokens.json": 24,
    "LICENSE.txt": 11_300,
    "merges.txt": 466_000,
    "vocab.json": 800_000,
    "tokenizer.json": 2_100_000,
    "model.safetensors": 90_600_000,
    "modules.json": 350,
    "1_Pooling/config.json": 190,
}
MODELS = {"small": SMALL, "large": LARGE}


@dataclass(frozen=True)
class FarNode:
    """A node that runs at the near side. `http` is the URL of its gateway."""

    name: str
    home: Path
    http: str
    process: subprocess.Popen[bytes]

    @property
    def cpu_seconds(self) -> float:
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@dataclass(frozen=True)
class FarLab:
    """Nodes at the near side of a link, and the home of a user at its far side who has pinned their federation."""

    link: Link
    nodes: Sequence[FarNode]
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def cpu_seconds(self) -> float:
        return sum(node.cpu_seconds for node in self.nodes)

    def run(self, command: Sequence[str], home: Path | None = None, **environment: str) -> str:
        """Run a command at the far side, with the user's Hub cache in the home: what a pull into it left would make a
        `show` dearer. Raises SystemExit if it fails."""
        own = home or self.home
        environ = {**os.environ, "COMITY_HOME": str(own), "HF_HOME": str(own / "hf"), **environment}
        words = [*within(self.link.far), *command]
        ran = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout


def found_far(folder: Path, count: int) -> list[Path]:
    """Homes of `count` nodes at the near address; `COPIES` of them copy."""
    host = ADDRESSES[0]
    ports = [
        NodePorts(
            f"{host}:{20_000 + n}",
            f"{host}:{21_000 + n}",
            ListenSettings(*(f"{host}:{base + n}" for base in (22_000, 23_000, 24_000))),
        )
        for n in range(count)
    ]
    homes = [home for home, _ in found(folder, ports)]
    for number, home in enumerate(homes):
        copied = '"all"' if number < COPIES else '"none"'
        settings = (home / "node.toml").read_text()
        (home / "node.toml").write_text(settings.replace('mirror = "all"', f"mirror = {copied}"))
    return homes


def start(link: Link, home: Path) -> FarNode:
    with (home / "node.log").open("wb") as log:
        command = [*within(link.near), *COMITY, "serve", "--dir", str(home)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    port = 22_000 + int(home.name.rpartition("-")[2])
    return FarNode(f"{home.name}.example", home, f"http://{ADDRESSES[0]}:{port}", process)


@contextlib.contextmanager
def far_lab(folder: Path, count: int, loss: float, congestion: Sequence[str]) -> Iterator[FarLab]:
    """A lab of `count` nodes below `folder`, with two models that `COPIES` nodes have and enough nodes cosigned."""
    homes = found_far(folder, count)
    settings, mtu = ((), 1_500) if loss else (("initcwnd", "2"), 9_000)
    with linked(0.0, loss, *settings, *congestion, mtu=mtu) as link:
        nodes = [start(link, home) for home in homes]
        try:
            lab = FarLab(link, nodes, folder)
            lab.run([*COMITY, "trust", "pin", str(homes[0] / "federation.json"), "--yes"])
            until(lambda: "node-" in lab.run([*COMITY, "status"]), "the nodes start")
            lab.run([*COMITY, "publisher", "new", "bench", "--jurisdiction", "CH", "--home", f"{nodes[0].name}/log"])
            for name, files in MODELS.items():
                model = made(folder / name, files)
                words = ["publish", str(model), "--as", f"bench/{name}@v1", "--licence", "other"]
                lab.run([*COMITY, *words, "--node", nodes[0].name])
                until(partial(copied, lab, f"bench/{name}@v1"), f"{name} is copied")
            yield lab
        finally:
            for node in nodes:
                node.process.terminate()
            for node in nodes:
                node.process.wait(60)


def made(folder: Path, files: dict[str, int]) -> Path:
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[path.suffix](size))
    return folder


def as_json(size: int) -> bytes:
    return json.dumps({"made": os.urandom(max(1, size // 2 - 7)).hex()}).encode()


def as_text(size: int) -> bytes:
    return b"".join(os.urandom(32).hex().encode() + b"\n" for _ in range(size // 65))


def as_tensor(size: int) -> bytes:
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(size)


CONTENTS: dict[str, Callable[[int], bytes]] = {
    ".json": as_json,
    ".md": as_text,
    ".txt": as_text,
    ".safetensors": as_tensor,
}


def copied(lab: FarLab, reference: str) -> bool:
    """Whether as many nodes as are to copy it do, and a pull of somebody new succeeds."""
    replicas = json.loads(lab.run([*COMITY, "whereis", reference, "--json"]))
    if sum(each["complete"] for each in replicas["replicas"]) < min(COPIES, len(lab.nodes)):
        return False
    with contextlib.suppress(SystemExit), new_home(lab) as home:
        lab.run([*COMITY, "pull", reference, "--quiet", "--to", str(home / "into")], home)
        return True
    return False


def until(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        with contextlib.suppress(SystemExit):
            if true():
                return
        time.sleep(2)
    raise SystemExit(f"not within {PATIENCE:g} s: {what}")


@contextlib.contextmanager
def new_home(lab: FarLab) -> Iterator[Path]:
    """The home of a user with the same pin and no memory of anything."""
    with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
        home = Path(folder) / "home"
        shutil.copytree(lab.home / "trust", home / "trust")
        yield home


Command = Callable[[Path], Sequence[str]]
"""The words of a command, for the home of its user."""
HUB = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def rows(lab: FarLab) -> dict[str, Command]:
    def pull(name: str) -> Command:
        return lambda home: (*COMITY, "pull", f"bench/{name}@v1", "--quiet", "--to", str(home / "into"))

    def hub(name: str) -> Command:
        hf = str(Path(sys.executable).parent / "hf")
        given = [f"{key}={value}" for key, value in {**HUB, "HF_HUB_DISABLE_XET": "1"}.items()]
        words = (hf, "download", f"bench/{name}", "--revision", "v1", "--local-dir")
        return lambda home: ("env", f"HF_ENDPOINT={lab.nodes[0].http}", *given, *words, str(home / "into"))

    def show(home: Path) -> Sequence[str]:
        return (*COMITY, "show", "bench/small@v1")

    made = {"show": show, "show, again": show}
    return made | {f"{word}, {name}": way(name) for name in MODELS for word, way in (("pull", pull), ("hf", hub))}


@dataclass(frozen=True)
class Run:
    """One process of a row."""

    seconds: float
    cpu_s: float
    nodes_cpu_s: float
    passed: Passed


def timed(lab: FarLab, row: str, command: Command, rest: float) -> Run:
    """Args: rest: CPU seconds that the nodes use in a second at rest."""
    with new_home(lab) as home:
        if row.endswith("again"):
            lab.run(command(home), home)
        passed, used, own = lab.link.passed(), lab.cpu_seconds(), own_seconds()
        began = time.monotonic()
        lab.run(command(home), home)
        seconds = time.monotonic() - began
        time.sleep(0.3)  # what the nodes do after the answer
        nodes = lab.cpu_seconds() - used - rest * (time.monotonic() - began)
        return Run(seconds, own_seconds() - own, nodes, lab.link.passed().since(passed))


def own_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def at_rest(lab: FarLab) -> float:
    used, began = lab.cpu_seconds(), time.monotonic()
    time.sleep(REST)
    return (lab.cpu_seconds() - used) / (time.monotonic() - began)


def traced(lab: FarLab, row: str, command: Command) -> dict[str, object]:
    """The calls of one process that is not timed; of `hf` nothing is known."""
    with new_home(lab) as home:
        words = command(home)
        if words[:3] != COMITY:
            return {}
        if row.endswith("again"):
            lab.run(words, home)
        lab.run([*TRACED, str(home / "calls.json"), *words[3:]], home)
        calls = json.loads((home / "calls.json").read_text())
    kinds = sorted({call[0] for call in calls})
    by_kind = {kind: sum(call[0] == kind for call in calls) for kind in kinds}
    return {"calls": len(calls), "chain": chain(calls), "by_kind": by_kind}


def chain(calls: Sequence[tuple[str, str, float, float]]) -> int:
    """How many calls were made one after the other, along the longest chain."""
    length, free = 0, 0.0
    for _, _, begin, end in sorted(calls, key=lambda call: call[3]):
        if begin >= free:
            length, free = length + 1, end
    return length


def measure(lab: FarLab, round_trips: Sequence[int], rounds: int, only: Sequence[str]) -> list[dict[str, object]]:
    """All rows at each round trip, in milliseconds; rows take turns."""
    chosen = {name: command for name, command in rows(lab).items() if not only or name in only}
    lines = list[dict[str, object]]()
    for milliseconds in round_trips:
        lab.link.delay(milliseconds / 2000)
        taken: dict[str, list[Run]] = {name: [] for name in chosen}
        for _, (name, command) in itertools.product(range(rounds), chosen.items()):
            taken[name].append(timed(lab, name, command, at_rest(lab)))
        for name, runs in taken.items():
            line = {"nodes": len(lab.nodes), "round_trip_ms": milliseconds, "row": name, **summary(runs)}
            line |= traced(lab, name, chosen[name])
            lines.append(line)
            print(json.dumps(line), flush=True)
    return lines


def summary(runs: Sequence[Run]) -> dict[str, object]:
    def median(value: Callable[[Run], float], digits: int) -> float:
        return round(statistics.median(map(value, runs)), digits)

    return {
        "seconds": median(lambda run: run.seconds, 2),
        "seconds_min": round(min(run.seconds for run in runs), 2),
        "seconds_max": round(max(run.seconds for run in runs), 2),
        "received_kb": median(lambda run: run.passed.received / 1e3, 0),
        "sent_kb": median(lambda run: run.passed.sent / 1e3, 0),
        "connections": median(lambda run: run.passed.connections, 0),
        "cpu_s": median(lambda run: run.cpu_s, 2),
        "nodes_cpu_s": median(lambda run: run.nodes_cpu_s, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--nodes", default="2,4,8,12", help="48 needs 7 GB of memory")
    options.add_argument("--round-trips", default="0,100,250", help="milliseconds")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", action="append", default=[], help="a row, several times; writes no result file")
    options.add_argument("--loss", type=float, default=0.0, help="chance of each packet, of 1,500 bytes then")
    options.add_argument("--congestion", help="congestion control of TCP, at both ends; default: that of this machine")
    options.add_argument("--result", default="far", help="the name of the result file; empty: none")
    chosen = options.parse_args()
    congestion = ["congctl", chosen.congestion] if chosen.congestion else []
    lines, load = list[dict[str, object]](), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="comity-far-") as scratch:
        keep_bytecode(Path(scratch) / "bytecode")
        for count in map(int, chosen.nodes.split(",")):
            with far_lab(Path(tempfile.mkdtemp(dir=scratch)), count, chosen.loss, congestion) as lab:
                lines += measure(lab, [*map(int, chosen.round_trips.split(","))], chosen.rounds, chosen.only)
    if chosen.result and not chosen.only:
        link = "two network namespaces, TUN devices, packets of 9,000 bytes, first window of two of them"
        if chosen.loss:
            link = f"two network namespaces, TUN devices, packets of 1,500 bytes, {chosen.loss:g} of them lost"
        write(
            chosen.result,
            rounds=chosen.rounds,
            link=link,
            load={"before": load, "after": os.getloadavg()[0]},
            rows=lines,
        )


if __name__ == "__main__":
    main()
