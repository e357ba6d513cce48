"""Measure what costly files cost to inspect: `python tests/fuzz/costs.py [--only TEXT]...`.

Each file is made, and then inspected in a process of its own: its CPU seconds, its largest resident memory and the
answer are printed. A file that takes more than MAX_SECONDS or MAX_MEMORY, or is killed, makes the status 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attackers.costly_files import costly_files

MAX_SECONDS: Final = 30
"""CPU seconds of one file."""
MAX_MEMORY: Final = 300_000_000
"""Bytes of resident memory, of which Python and the inspection itself take about 25 million."""
INSPECT: Final = """
import json, re, sys, time
from comity.formats.inspect import inspect
begun = time.process_time()
with open(sys.argv[1], "rb", buffering=0) as file:
    seen = inspect(file, sys.argv[2], file.seek(0, 2))
seconds = time.process_time() - begun
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps([seconds, peak, seen.format, [*seen.active, *seen.malformed]]))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds and bytes of resident memory of one inspection, its format, and what it found."""

    seconds: float
    memory: int
    format: str
    found: tuple[str, ...]

    @property
    def within_bounds(self) -> bool:
        return self.seconds <= MAX_SECONDS and self.memory <= MAX_MEMORY

    def text(self) -> str:
        return f"{self.seconds:6.2f} s {self.memory / 1e6:5.0f} MB  {self.format}: {'; '.join(self.found)[:90]}"


def cost_of(file: Path, name: str) -> Cost | None:
    """None if the inspection was killed, at twice the seconds that it may take."""
    limits = (2 * MAX_SECONDS, 2 * MAX_SECONDS)
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, str(file), name],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limits),
    )
    if done.returncode:
        return None
    seconds, memory, kind, found = json.loads(done.stdout)
    return Cost(seconds, memory, kind, tuple(found))


def cost_of_made(make: Callable[[], bytes], name: str, folder: Path) -> Cost | None:
    """As `cost_of`, of a file that is written into the folder."""
    file = folder / "file"
    file.write_bytes(make())
    return cost_of(file, name)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Measure what costly files cost to inspect.")
    options.add_argument("--only", action="append", help="only files whose description has this text; may be repeated")
    chosen = options.parse_args(arguments)
    over = 0
    with TemporaryDirectory() as folder:
        for what, name, make in costly_files():
            if not any(text in what for text in chosen.only or [""]):
                continue
            cost = cost_of_made(make, name, Path(folder))
            over += cost is None or not cost.within_bounds
            print(f"{what:50} {cost.text() if cost else 'killed'}", flush=True)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
