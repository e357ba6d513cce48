"""Measure the tests: `python tests/mutation/run.py [--modules PATH...] [--sample N --seed S] [--floor PERCENT]`.

Makes small changes in the modules (`mutants.py`), and counts how many of them the tests notice (`measuring.py`). Prints
each mutant that survives, and the score of each module. The status is 1 if fewer than `--floor` percent are noticed.
Mutants that change nothing that a caller can see are listed in `equivalent.toml`, with the reason; they do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from mutation.measuring import Measuring, Result
from mutation.mutants import Mutant, Source

ROOT: Final = Path(__file__).resolve().parents[2]
TRUST: Final = "registry/comity/trust"
MODULES: Final = (
    f"{TRUST}/rotation.py",
    f"{TRUST}/tlog",
    f"{TRUST}/charter",
    f"{TRUST}/verify.py",
    f"{TRUST}/resolution.py",
    f"{TRUST}/report.py",
    f"{TRUST}/key_validity.py",
    f"{TRUST}/policy.py",
    f"{TRUST}/rows",
    "registry/comity/transfer/scheduler.py",
)
UNIT: Final = """
    charter charter_attacks charter_certificate charter_equivocation charter_succession charter_tally charter_votes
    charter_voting checkpoint claimants claims compromise cosignature cosigned_moments derived documents evaluation
    federation growth identity key_validity keyless licences lineage merkle misbehaviour model_sig_rows note
    own_vectors policy public_vectors report resolution rivals rotation safety_row tamper_table tiles tlog_mirror
    tlog_policy tlog_proof tlog_witness transfer_schedule upstream_choosing upstream_rows verdict verdict_rows verify vouched
    witnessing
"""
PROPERTY: Final = """
    charter_limits charter_mutations log_formats names_stand report_bytes rotation transfer_schedule
"""
TESTS: Final = (
    *(f"tests/unit/test_{topic}.py" for topic in UNIT.split()),
    *(f"tests/property/test_{topic}.py" for topic in PROPERTY.split()),
)
"""Those that start no node, and reach the modules."""
EQUIVALENT: Final = Path(__file__).with_name("equivalent.toml")

Key: TypeAlias = tuple[str, str, str, str]


def sources(paths: Sequence[str]) -> Iterator[Source]:
    for path in paths:
        given = ROOT / path
        for file in sorted(given.rglob("*.py")) if given.is_dir() else [given]:
            yield Source(file, str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name)


def equivalent() -> dict[Key, str]:
    """The reason why each listed mutant is equivalent, by `Mutant.key`."""
    listed = tomllib.loads(EQUIVALENT.read_text()).get("equivalent", [])
    return {(each["module"], each["function"], each["before"], each["after"]): each["reason"] for each in listed}


def survivors(path: Path) -> set[Key]:
    """The mutants that survived in an earlier result."""
    listed = json.loads(path.read_text())["survivors"]
    return {(each["module"], each["function"], each["before"], each["after"]) for each in listed}


def as_json(result: Result) -> dict[str, Any]:
    module, function, before, after = result.mutant.key
    return {
        "module": module,
        "line": result.mutant.first,
        "function": function,
        "before": before,
        "after": after,
        "tests": result.tests,
        "killer": result.killer,
    }


def scores(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mutants, those that tests noticed, and their share in percent, by module and `all`."""
    made: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for result in results:
        for name in (result.mutant.source.name, "all"):
            made[name] += 1
            noticed[name] += bool(result.killer)
    return {
        name: {"mutants": made[name], "killed": noticed[name], "percent": round(100 * noticed[name] / made[name], 1)}
        for name in made
    }


def show(result: Result) -> None:
    if not result.killer:
        print(f"survives {result.tests} tests: {result.mutant}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Count the small changes of the code that the tests notice.")
    options.add_argument("--modules", nargs="+", default=MODULES, help="files or folders to change")
    options.add_argument("--tests", nargs="+", default=TESTS, help="files or folders of the tests")
    options.add_argument("--sample", type=int, help="try only this many mutants")
    options.add_argument("--seed", type=int, default=0, help="chooses the sample")
    options.add_argument("--again", type=Path, help="try only the survivors of this earlier result")
    options.add_argument("--jobs", type=int, default=1, help="mutants to try at once")
    options.add_argument("--floor", type=float, default=90.0, help="fail below this percentage")
    options.add_argument("--out", type=Path, help="write the result as JSON")
    options.add_argument("--list", action="store_true", help="print the mutants, try none")
    chosen = options.parse_args(arguments)

    changed, known = list(sources(chosen.modules)), equivalent()
    made = [mutant for source in changed for mutant in source.mutants()]
    for module, function, before, after in set(known) - {mutant.key for mutant in made}:
        if module in {source.name for source in changed}:
            print(f"listed as equivalent, but not made: {module}: {function}: {before}  ->  {after}")
    mutants = [mutant for mutant in made if mutant.key not in known]
    if chosen.again:
        survived = survivors(chosen.again)
        mutants = [mutant for mutant in mutants if mutant.key in survived]
    if chosen.sample is not None:
        mutants = random.Random(chosen.seed).sample(mutants, min(chosen.sample, len(mutants)))
    if chosen.list:
        print(*mutants, sep="\n")
        return 0
    return measure(changed, mutants, chosen)


def measure(changed: Sequence[Source], mutants: Sequence[Mutant], chosen: argparse.Namespace) -> int:
    measuring = Measuring(changed, mutants, chosen.jobs, show)
    tests = [str(ROOT / path) for path in chosen.tests]
    settings = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    if status := pytest.main([*settings, "-q", "-s", *tests], plugins=[measuring]):
        return int(status)
    if failing := measuring.baseline.failed if measuring.baseline else ():
        print("these tests fail without a change:", *failing, sep="\n")
        return 2
    found = scores(measuring.results)
    if chosen.out:
        kept = [as_json(result) for result in measuring.results]
        lost = [each for each in kept if not each["killer"]]
        chosen.out.write_text(json.dumps({"scores": found, "survivors": lost, "results": kept}, indent=1) + "\n")
    for name, score in found.items():
        print(f"{score['percent']:5.1f} %  {score['killed']:4} of {score['mutants']:4}  {name}")
    return int(found["all"]["percent"] < chosen.floor)


if __name__ == "__main__":
    sys.exit(main())
