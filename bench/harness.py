"""What every benchmark here shares: peers take turns in one run, and the result names the machine and the spread."""

from __future__ import annotations

import json
import os
import platform
import ssl
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass
class Spent:
    """CPU seconds of each peer in each round: of the processes that it started and waited for, and of `server`.

    Attributes:
        server: returns the CPU seconds that the serving processes have used.
    """

    server: Callable[[], float] = lambda: 0.0
    own: dict[str, list[float]] = field(default_factory=dict)
    served: dict[str, list[float]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)

    def __call__(self) -> tuple[float, float]:
        times = os.times()
        return times.children_user + times.children_system, self.server()

    def add(self, name: str, before: tuple[float, float]) -> None:
        own, served = self()
        self.own.setdefault(name, []).append(own - before[0])
        self.served.setdefault(name, []).append(served - before[1])
        self.load.append(os.getloadavg()[0])

    def columns(self, name: str, size: int) -> dict[str, float]:
        """Medians and spreads per gigabyte (10**9 bytes)."""
        own, served = ([each / (size / 1e9) for each in found[name]] for found in (self.own, self.served))
        return {
            "cpu_s_per_gb": round(statistics.median(own), 2),
            "cpu_min": round(min(own), 2),
            "cpu_max": round(max(own), 2),
            "server_cpu_s_per_gb": round(statistics.median(served), 2),
        }


def keep_bytecode(folder: Path) -> None:
    """Have the programs that are started from now on keep their compiled modules in `folder`, as an installed package
    has them: a process that may not keep them compiles 240 modules at each start."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def process_seconds(pid: int) -> float:
    """CPU seconds of a running process and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family_seconds(pid: int) -> float:
    """CPU seconds of a running process and of its children, running or not."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return process_seconds(pid) + sum(process_seconds(int(child)) for child in children)


def take_turns(
    peers: Mapping[str, Callable[[], None]], rounds: int, spent: Spent | None = None
) -> dict[str, list[float]]:
    """Seconds of each peer in each round: A B C A B C …, after one round that is not counted. The writes of each peer
    are synced before the next one starts, so that no peer waits for another's writes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for counted in (False, *([True] * rounds)):
        for name, peer in peers.items():
            os.sync()
            before = spent() if spent else (0.0, 0.0)
            began = time.perf_counter()
            peer()
            if counted:
                seconds[name].append(time.perf_counter() - began)
                if spent:
                    spent.add(name, before)
    return seconds


def speeds(seconds: Mapping[str, list[float]], size: int, base: str) -> dict[str, dict[str, float]]:
    """MB/s (10**6 bytes) of each peer: median, min, max, and the median of the ratio to `base` round by round."""
    table = {}
    for name, taken in seconds.items():
        found = [size / 1e6 / each for each in taken]
        ratios = [other / each for each, other in zip(taken, seconds[base], strict=True)]
        table[name] = {
            "median_mb_per_s": round(statistics.median(found)),
            "min": round(min(found)),
            "max": round(max(found)),
            f"ratio_to_{base.replace(' ', '_')}": round(statistics.median(ratios), 2),
        }
    return table


def show(table: Mapping[str, Mapping[str, float]]) -> None:
    columns = list(next(iter(table.values())))
    print(f"{'peer':<34}" + "".join(f"{column:>{len(column) + 2}}" for column in columns))
    for name, row in table.items():
        print(f"{name:<34}" + "".join(f"{row[column]:>{len(column) + 2}}" for column in columns))


def write(name: str, **content: object) -> None:
    """Write `results/<name>.json` with the machine beside the content."""
    machine = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, **content}, indent=1) + "\n")
    print(f"written: {path.relative_to(Path(__file__).parent.parent)}")
