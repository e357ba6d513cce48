"""What attackers cost the others: `python bench/attacked.py [--only NAME]... [--each] [--rounds N]`.

Attackers run in groups, each alone too with `--each`; `--only` chooses groups and attackers. Three honest nodes, as
processes, and one hostile party. The honest script of `tests/interference` runs without an attacker, then with each.
Written to `results/attacked.json`, for each: whether anything came out otherwise; the honest steps' seconds against the
median of the runs without; each node's growth of memory (resident, at the end) and of disk (less what it grows by
undisturbed), beside what the attackers sent to it. The bounds of the promise: 3 times the seconds, 64 MB of memory,
1.1 times what was sent on disk, and what the ledger charges for each line of the hostile member's log beside its bytes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from attackers import ATTACKERS
from comity.ledger.entry_rows import LINE_OVERHEAD
from harness import write
from interference.groups import together
from interference.honest import Outcome, Prepared, play, prepared
from support.hub_like import hub_like

SLACK = 256 << 10
"""Bytes of disk by which two runs without an attacker differ: pages of a database, logs of events."""


def measured(outcome: Outcome, calm: list[Outcome]) -> dict[str, Any]:
    """The cost of one run with an attacker, compared with the runs without."""
    seconds = {
        step: statistics.median(one.seconds[step] for one in calm)
        for step in outcome.seconds
    }  # fmt: skip
    nodes = sorted(outcome.disk)
    growth = {
        node: outcome.memory.get(f"{node} VmRSS", 0) - max(one.memory[f"{node} VmRSS"] for one in calm)
        for node in nodes
    }
    disk = {node: outcome.disk[node] - max(one.disk[node] for one in calm) for node in nodes}
    sent = {node: outcome.report.sent.get(node, 0) + outcome.report.answered // len(nodes) for node in nodes}
    lines = outcome.report.lines * LINE_OVERHEAD
    return {
        "changed": sorted(step for step, found in outcome.facts.items() if found != calm[0].facts[step]),
        "latency_ratio": round(sum(outcome.seconds.values()) / sum(seconds.values()), 2),
        "slowest_step": max((round(outcome.seconds[step] / max(seconds[step], 0.2), 2), step) for step in seconds)[
            ::-1
        ],
        "memory_growth_mb": round(max(growth.values()) / 1e6, 1),
        "disk_growth_kb": {node: disk[node] // 1000 for node in nodes},
        "hostile_log_lines": outcome.report.lines,
        "sent_kb": {node: sent[node] // 1000 for node in nodes},
        "within_bounds": {
            "memory": max(growth.values()) <= 64e6,
            "disk": all(disk[node] <= 1.1 * sent[node] + lines + SLACK for node in nodes),
        },
    }


def run(before: Prepared, folder: Path, names: tuple[str, ...]) -> Outcome:
    try:
        return play(before, folder / "run", names)
    finally:
        shutil.rmtree(folder / "run", ignore_errors=True)


def main() -> None:
    options = argparse.ArgumentParser(description="What attackers cost the others.")
    known = together() | {name: (name,) for name in ATTACKERS}
    options.add_argument("--only", action="append", choices=list(known), metavar="NAME", help="may be repeated")
    options.add_argument("--each", action="store_true", help="every attacker alone, too")
    options.add_argument("--rounds", type=int, default=3, help="undisturbed runs")
    chosen = options.parse_args()
    names = chosen.only or list(known if chosen.each else together())
    runs = {name: known[name] for name in names}
    with tempfile.TemporaryDirectory(prefix="i") as name, hub_like() as hub:
        folder = Path(name)
        before = prepared(folder, hub)
        calm = [run(before, folder, ()) for _ in range(chosen.rounds)]
        table = {}
        for title, names in runs.items():
            table[title] = measured(run(before, folder, names), calm)
            print(title, table[title], flush=True)
    undisturbed = {step: round(statistics.median(one.seconds[step] for one in calm), 2) for step in calm[0].seconds}
    write("attacked", undisturbed_seconds=undisturbed, attackers=table)


if __name__ == "__main__":
    main()
