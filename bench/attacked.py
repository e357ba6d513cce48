"""What attackers cost the others: `python bench/attacked.py [--only NAME]... [--each] [--of MODULE]... [--rounds N]`.

Attackers run in groups, each alone too with `--each`; `--only` chooses groups and attackers; `--of` those of a module
of `tests/attackers`, each alone. Three honest nodes, as processes, and one hostile party. The honest script of
`tests/interference` runs without an attacker, then with each.

Written to `results/attacked.json`, with `--of` to `results/attacked_alone.json`, where rows of earlier runs stay unless
they are measured again; for each: whether anything came out
otherwise; the honest steps' seconds against the median of the runs without; each node's growth of memory (resident, at
the end) and of disk (less what it grows by undisturbed), beside what the attackers sent to it. Also the seconds until
all honest nodes have an artifact of 16 MB that one of them publishes: before the attack, and beside it, in the same run
of the same nodes; the most disk that copies for the hostile member use at a node, beside its share before the attack;
and the connections within a minute to machines that it names.

The bounds of the promise: 3 times the seconds, 64 MB of memory, 1.1 times what was sent on disk, and what the ledger
charges for each line of the hostile member's log beside its bytes, and copies within the member's share; 10 connections
a minute and node.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from attackers import ATTACKERS
from comity.ledger.entry_rows import LINE_OVERHEAD
from harness import RESULTS, write
from interference.federation import HONEST
from interference.groups import together
from interference.honest import MOST_KNOCKS, Outcome, Prepared, play, prepared
from support.hub_like import hub_like

ALONE = "attacked_alone"
LARGE = 16_000_000
"""Bytes of the artifact whose copying is measured."""
NOT_SLOW = 2.0
"""Seconds. A copy that takes fewer is not late: three times of less is the waiting for one round of the nodes."""
SLACK = 256 << 10
"""Bytes of disk by which two runs without an attacker differ: pages of a database, logs of events."""


def measured(outcome: Outcome, calm: list[Outcome]) -> dict[str, Any]:
    """The cost of one run with an attacker, compared with the runs without."""
    before, beside = outcome.copied
    nodes = sorted(outcome.disk)
    most = {key: max(one.memory[key] for one in calm) for key in calm[0].memory}
    growth = max(outcome.memory.get(f"{node} VmRSS", 0) - most[f"{node} VmRSS"] for node in nodes)
    return {
        "changed": sorted(step for step, found in outcome.facts.items() if found != calm[0].facts[step]),
        **_steps(outcome, calm),
        "copied_before_s": round(before, 2),
        "copied_beside_s": round(beside, 2),
        "copied_ratio": round(beside / before, 2),
        "memory_growth_mb": round(growth / 1e6, 1),
        "connections_in_a_minute": outcome.report.knocks,
        **(disk := _disk(outcome, calm)),
        "within_bounds": {
            "copied": beside <= 3 * max(before, NOT_SLOW),
            "memory": growth <= 64e6,
            "disk": disk["disk_beyond_kb"] == 0,
            "connections": outcome.report.knocks <= MOST_KNOCKS * HONEST,
        },
    }


def _steps(outcome: Outcome, calm: list[Outcome]) -> dict[str, Any]:
    """How much longer the honest steps took."""
    seconds = {step: statistics.median(one.seconds[step] for one in calm) for step in outcome.seconds}
    slowest = max((round(outcome.seconds[step] / max(seconds[step], 0.2), 2), step) for step in seconds)
    return {
        "latency_ratio": round(sum(outcome.seconds.values()) / sum(seconds.values()), 2),
        "slowest_step": slowest[::-1],
    }


def _disk(outcome: Outcome, calm: list[Outcome]) -> dict[str, Any]:
    """What each node has on its disk more than without an attacker, and how much of it nobody is charged for."""
    nodes, report, lines = sorted(outcome.disk), outcome.report, outcome.report.lines * LINE_OVERHEAD
    growth = {node: outcome.disk[node] - max(one.disk[node] for one in calm) for node in nodes}
    sent = {node: report.sent.get(node, 0) + report.answered // len(nodes) for node in nodes}
    first, last = outcome.shares
    share = {node: first[node].most or 0 for node in nodes}
    beyond = [growth[node] - 1.1 * sent[node] - last[node].used - lines - SLACK for node in nodes]
    beyond += [last[node].used - share[node] for node in nodes]
    return {
        "disk_growth_kb": {node: growth[node] // 1000 for node in nodes},
        "sent_kb": {node: sent[node] // 1000 for node in nodes},
        "hostile_log_lines": report.lines,
        "copies_for_it_mb": round(max(last[node].used for node in nodes) / 1e6, 1),
        "share_mb": round(min(share.values()) / 1e6, 1),
        "disk_beyond_kb": max(0, round(max(beyond) / 1000)),
    }


def run(before: Prepared, folder: Path, names: tuple[str, ...]) -> Outcome:
    try:
        return play(before, folder / "run", names, size=LARGE)
    finally:
        shutil.rmtree(folder / "run", ignore_errors=True)


def chosen_runs() -> tuple[dict[str, tuple[str, ...]], int, str]:
    """The attackers of each run, by its title; the number of undisturbed runs; and the name of the result."""
    options = argparse.ArgumentParser(description="What attackers cost the others.")
    alone = {name: (name,) for name in ATTACKERS}
    modules = sorted({each.attack.__module__.partition(".")[2] for each in ATTACKERS.values()})
    known = together() | alone
    options.add_argument("--only", action="append", choices=list(known), metavar="NAME", help="may be repeated")
    options.add_argument("--each", action="store_true", help="every attacker alone, too")
    options.add_argument("--of", action="append", choices=modules, default=[], help="each attacker of a module alone")
    options.add_argument("--rounds", type=int, default=3, help="undisturbed runs")
    chosen = options.parse_args()
    if chosen.of:
        parts = [f"attackers.{module}" for module in chosen.of]
        names = [name for part in parts for name, each in ATTACKERS.items() if each.attack.__module__ == part]
        return {name: known[name] for name in (chosen.only or []) + names}, chosen.rounds, ALONE
    names = chosen.only or list(known if chosen.each else together())
    return {name: known[name] for name in names}, chosen.rounds, "attacked"


def earlier(result: str) -> dict[str, dict[str, Any]]:
    """The rows that an earlier run wrote."""
    path = RESULTS / f"{result}.json"
    return dict(json.loads(path.read_text())["attackers"]) if path.exists() else {}


def main() -> None:
    runs, rounds, result = chosen_runs()
    with tempfile.TemporaryDirectory(prefix="i") as name, hub_like() as hub:
        folder = Path(name)
        before = prepared(folder, hub)
        calm = [run(before, folder, ()) for _ in range(rounds)]
        undisturbed = {step: round(statistics.median(one.seconds[step] for one in calm), 2) for step in calm[0].seconds}
        undisturbed |= {"copied": round(statistics.median(one.copied[1] for one in calm), 2)}
        table: dict[str, dict[str, Any]] = earlier(result) if result == ALONE else {}
        for title, names in runs.items():
            try:
                table[title] = measured(run(before, folder, names), calm)
            except AssertionError as error:
                table[title] = {"failed": str(error)[:500]}
            table[title]["load"] = round(os.getloadavg()[0], 1)
            print(title, table[title], flush=True)
            write(result, undisturbed_seconds=undisturbed, attackers=table)


if __name__ == "__main__":
    main()
