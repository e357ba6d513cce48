"""Fuzz the parsers: `python tests/fuzz/run.py [--parser NAME]... [--seconds N] [--seed N]`.

Where atheris is installed, coverage guides it; else the seeded mutator of the tests runs for the given time. Each
parser has an equal share of the time. Inputs start from its samples, and from the bytes that the attackers of
`tests/attackers` emit. An input that raises anything but ComityError, or that prints back as other bytes, ends the run:
it is shown on standard error (in hex, or as libFuzzer shows it), and the status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attackers import emitted
from fuzz.check import check
from fuzz.mutate import MAX_INPUT, mutations
from fuzz.parsers import PARSERS


def by_mutation(name: str, seconds: float, seed: int) -> int:
    """Returns the number of inputs tried."""
    target = PARSERS[name]
    deadline = time.monotonic() + seconds
    for tried, data in enumerate(mutations((*target.samples, *emitted()), seed)):
        if time.monotonic() > deadline:
            return tried
        try:
            check(target, data)
        except Exception:
            print(f"{name}: failing input {data.hex()}", file=sys.stderr)
            raise
    return 0


def by_coverage(name: str, seconds: float, seed: int) -> None:
    """In a process of its own, since libFuzzer does not return."""
    with TemporaryDirectory() as corpus:
        for i, sample in enumerate((*PARSERS[name].samples, *emitted())):
            (Path(corpus) / f"sample-{i}").write_bytes(sample)
        options = [
            f"-max_total_time={max(1, round(seconds))}",
            f"-seed={seed}",
            f"-max_len={MAX_INPUT}",
            "-verbosity=0",
        ]
        guided = Path(__file__).with_name("guided.py")
        subprocess.run([sys.executable, str(guided), name, corpus, *options], check=True, cwd=corpus)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Fuzz the parsers of hostile bytes.")
    options.add_argument("--parser", action="append", choices=sorted(PARSERS), help="only this one; may be repeated")
    options.add_argument("--seconds", type=float, default=60, help="for all parsers together (default: 60)")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--plain", action="store_true", help="use the mutator although atheris is installed")
    chosen = options.parse_args(arguments)
    names = chosen.parser or sorted(PARSERS)
    share = chosen.seconds / len(names)
    guided = not chosen.plain and importlib.util.find_spec("atheris") is not None
    for name in names:
        if guided:
            by_coverage(name, share, chosen.seed)
            print(f"{name}: held for {share:.0f} s, guided by coverage")
        else:
            print(f"{name}: {by_mutation(name, share, chosen.seed)} inputs held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
