"""Measure the tests: `python tests/mutation/run.py [--modules PATH...] [--sample N --seed S] [--floor PERCENT]`.

Makes small changes in the modules (`mutants.py`), and counts how many of them the tests notice (`measuring.py`). Prints
each mutant that survives, and the score of each module. The status is 1 if fewer than `--floor` percent are noticed.
Mutants that change nothing that a caller can see are listed in `equivalent.toml`, with the reason; they do not count.

Without `--modules` it measures each of `SUITES`, or the one that the seed picks if only a sample is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from mutation.measuring import Measuring, Result
from mutation.mutants import Mutant, Source

ROOT: Final = Path(__file__).resolve().parents[2]
TRUST: Final = "registry/comity/trust"
RULES: Final = "registry/comity/rules"


@dataclass(frozen=True)
class Suite:
    """Modules, and the topics in tests/unit and tests/property that start no node and reach them."""

    modules: tuple[str, ...]
    unit: str
    properties: str = ""

    @property
    def tests(self) -> tuple[str, ...]:
        folders = {"unit": self.unit, "property": self.properties}
        return tuple(_test_of(folder, topic) for folder, topics in folders.items() for topic in topics.split())


def _test_of(folder: str, topic: str) -> str:
    """The path of the test of a topic: that of the kernel or of a rule, else the only one in this folder. Raises
    LookupError if there is none."""
    top = ROOT / "tests" / folder
    everywhere = list(top.rglob(f"test_{topic}.py"))
    found = [path for path in everywhere if path.relative_to(top).parts[0] in ("trust", "rules")] or everywhere
    if len(found) != 1:
        raise LookupError(f"{len(found)} tests of {topic!r} in tests/{folder}")
    return found[0].relative_to(ROOT).as_posix()


SUITES: Final = (
    Suite(
        (
            f"{TRUST}/charter",
            f"{TRUST}/rotation.py",
            f"{TRUST}/json_chunks.py",
            f"{RULES}/assigned_cosigners.py",
            f"{RULES}/charter_drafts.py",
            f"{RULES}/equivocation.py",
            f"{RULES}/tally.py",
            f"{RULES}/vote_state.py",
            "registry/comity/federation_file.py",
        ),
        """assigned_cosigners charter charter_attacks charter_certificate charter_equivocation charter_succession
        charter_tally charter_votes charter_voting federation federation_file identity json_chunks key_validity
        rotation""",
        "charter_mutations rotation",
    ),
    Suite(
        (
            f"{TRUST}/tlog",
            *(f"{RULES}/{name}.py" for name in ("cosigned_times", "misbehaviour", "tiles", "tree_proofs", "witness")),
        ),
        """checkpoint cosignature cosigned_moments growth merkle misbehaviour note own_vectors public_vectors tiles
        tlog_mirror tlog_policy tlog_proof tlog_witness witnessing""",
        "log_formats",
    ),
    Suite(
        (f"{TRUST}/rows", f"{TRUST}/verify.py"),
        """approvals_row cosigned_moments cosigner_places keyless lineage model_sig_rows newest_statement officers
        publication_rows report safety_row upstream_rows verdict_rows verify witnessing""",
    ),
    Suite((f"{TRUST}/resolution.py",), "claimants proven_order resolution upstream_choosing"),
    Suite((f"{TRUST}/home_logs.py",), "compromise home_logs newest_statement", "home_log_order"),
    Suite(
        (f"{TRUST}/key_validity.py",), "compromise evaluation key_validity newest_statement publication_rows witnessing"
    ),
    Suite((f"{TRUST}/report.py",), "report report_page"),
    Suite((f"{TRUST}/approvals.py", f"{TRUST}/officers.py"), "approvals approvals_row officers"),
    Suite(
        tuple(f"{TRUST}/{name}.py" for name in ("policy", "policy_file", "policy_table")),
        "federation_file officers policy policy_files safety_row",
    ),
    Suite((f"{RULES}/audit.py",), "audit audit_bounds"),
    Suite((f"{TRUST}/copies.py", f"{RULES}/copy_counts.py"), "copies holds"),
    Suite(
        (f"{RULES}/mirror_rules.py", f"{RULES}/retention.py", f"{RULES}/rule_file.py"),
        "mirror_rule_conditions mirror_rules retention_rules rule_file",
        "mirror_quotas",
    ),
    Suite((f"{RULES}/artifact_pins.py",), "artifact_pins"),
    Suite((f"{TRUST}/node_records.py",), "node_record places"),
    Suite(("clients/comity_client/party_drill.py",), "drill_command party_drill"),
    Suite((f"{TRUST}/places.py",), "cosigner_places places"),
    Suite(
        (f"{TRUST}/artifact.py", f"{RULES}/git_ids.py", f"{RULES}/pieces.py"),
        "chained hub manifest pieces",
    ),
    Suite(
        ("registry/comity/addons/hardware", f"{RULES}/hardware_evidence.py"),
        """hardware_appraisal hardware_certificates hardware_evidence hardware_pins hardware_reports
        hardware_tampers""",
    ),
    Suite((f"{TRUST}/lineage.py",), "drawing licences lineage"),
    Suite((f"{TRUST}/evaluation.py",), "evaluation_announced evaluation_forms"),
    Suite(
        (f"{TRUST}/bound_nodes.py", f"{TRUST}/claims.py"),
        """bound_nodes compromise cosigned_moments cosigner_places evaluation_announced evidence_reader holds
        proofs_of_pack key_validity newest_statement publication_rows read_claims rivals upstream_choosing upstream_rows
        vouched witnessing""",
    ),
    Suite((f"{TRUST}/names.py",), "abbreviations names published", "statement_formats"),
    Suite((f"{TRUST}/statement.py",), "dsse evidence_reader identity statement", "statement_formats"),
    Suite((f"{TRUST}/statements.py",), "claims derived published vouched", "statement_formats"),
    Suite((f"{TRUST}/identity.py", f"{TRUST}/keys.py"), "identity keys own_vectors", "statement_formats"),
    Suite((f"{TRUST}/encoding.py", f"{TRUST}/errors.py"), "encoding fields kept_errors names spelling"),
    Suite((f"{TRUST}/evidence.py",), "evidence_reader proofs_of_pack safety_row verdict verify"),
    Suite(
        (f"{TRUST}/upstream.py", "registry/comity/upstream/listed_files.py"),
        "upstream_choosing upstream_rows upstream_statements",
        "upstream",
    ),
    Suite(
        tuple(f"{RULES}/offers/{name}.py" for name in ("amounts", "fault_proof", "offer")),
        "offer_amounts offer_chain_state offer_deadlines offer_documents offer_fault_proofs offer_fit offer_texts",
        "offer_accounts offer_formats",
    ),
    Suite(
        (
            f"{TRUST}/eval_result.py",
            "registry/comity/addons/attestations/envelopes.py",
            "registry/comity/addons/attestations/predicates.py",
        ),
        "attestation_predicates attestations",
        "attestation_formats",
    ),
    Suite(
        (f"{TRUST}/model_signing",),
        "keyless model_sig_certificates model_sig_format model_sig_rows model_signing",
        "model_signing",
    ),
    Suite(("registry/comity/transfer/scheduler.py",), "transfer_schedule", "transfer_schedule"),
)


def covering_tests(modules: Sequence[str]) -> tuple[str, ...]:
    """The tests of the suites that have one of these modules, or a folder of it."""
    paths = [Path(module) for module in modules]
    return tuple(
        dict.fromkeys(
            test
            for suite in SUITES
            if any(path.is_relative_to(given) for path in paths for given in suite.modules)
            for test in suite.tests
        )
    )


EQUIVALENT: Final = Path(__file__).with_name("equivalent.toml")

Key: TypeAlias = tuple[str, str, str, str]
Record: TypeAlias = dict[str, Any]


def sources(paths: Sequence[str]) -> Iterator[Source]:
    for path in paths:
        given = ROOT / path
        for file in sorted(given.rglob("*.py")) if given.is_dir() else [given]:
            yield Source(file, str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name)


def equivalent() -> dict[Key, str]:
    """The reason why each listed mutant is equivalent, by `Mutant.key`."""
    listed = tomllib.loads(EQUIVALENT.read_text("utf-8")).get("equivalent", [])
    return {_key(each): each["reason"] for each in listed}


def survivors(path: Path) -> set[Key]:
    """The mutants that survived in an earlier result."""
    return {_key(each) for each in json.loads(path.read_text("utf-8"))["survivors"]}


def _key(record: Record) -> Key:
    return record["module"], record["function"], record["before"], record["after"]


def as_record(result: Result) -> Record:
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


def scores(results: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Mutants, those that tests noticed, and their share in percent, by module and `all`."""
    made: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for result in results:
        for name in (result["module"], "all"):
            made[name] += 1
            noticed[name] += bool(result["killer"])
    return {
        name: {"mutants": made[name], "killed": noticed[name], "percent": round(100 * noticed[name] / made[name], 1)}
        for name in sorted(made)
    }


def show(result: Result) -> None:
    if not result.killer:
        print(f"survives {result.tests} tests: {result.mutant}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Count the small changes of the code that the tests notice.")
    options.add_argument("--modules", nargs="+", help="files or folders to change")
    options.add_argument("--tests", nargs="+", help="files or folders of the tests; default: those about the modules")
    options.add_argument("--sample", type=int, help="try only this many mutants")
    options.add_argument("--seed", type=int, default=0, help="chooses the sample")
    options.add_argument("--again", type=Path, help="try only the survivors of this earlier result")
    options.add_argument("--jobs", type=int, default=1, help="mutants to try at once")
    options.add_argument("--spare", type=float, default=2.0, help="seconds of a test beyond five times what it takes")
    options.add_argument("--floor", type=float, default=90.0, help="fail below this percentage")
    options.add_argument("--out", type=Path, help="write the result as JSON")
    options.add_argument("--list", action="store_true", help="print the mutants, try none")
    chosen = options.parse_args(arguments)

    if chosen.modules is None and chosen.sample is not None:
        suite = SUITES[chosen.seed % len(SUITES)]
        chosen.modules, chosen.tests = suite.modules, suite.tests
    if chosen.modules is not None and not (chosen.tests or chosen.list):
        chosen.tests = covering_tests(chosen.modules) or options.error("no suite has these modules: name --tests")
    if chosen.list:
        modules = chosen.modules or [module for suite in SUITES for module in suite.modules]
        print(*(mutant for source in sources(modules) for mutant in source.mutants()), sep="\n")
        return 0
    results = _each_suite(chosen) if chosen.modules is None else _measured(chosen)
    return 2 if results is None else _told(results, chosen)


def _each_suite(chosen: argparse.Namespace) -> list[Record] | None:
    """The results of all suites, each measured by a process of its own."""
    again = ["--again", str(chosen.again)] if chosen.again else []
    results: list[Record] = []
    for suite in SUITES:
        with TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            what = [
                "--modules",
                *suite.modules,
                "--tests",
                *suite.tests,
                *again,
                "--jobs",
                str(chosen.jobs),
                "--spare",
                str(chosen.spare),
            ]
            subprocess.run([sys.executable, __file__, *what, "--floor", "0", "--out", str(out)], check=False)
            if not out.exists():
                return None
            results += json.loads(out.read_text("utf-8"))["results"]
    return results


def _measured(chosen: argparse.Namespace) -> list[Record] | None:
    changed = list(sources(chosen.modules))
    measuring = Measuring(changed, _chosen_mutants(changed, chosen), chosen.jobs, show, chosen.spare)
    tests = [str(ROOT / path) for path in chosen.tests]
    os.environ["COMITY_TESTS_CHECK_ANEW"] = "1"
    settings = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    if pytest.main([*settings, "-qq", "-s", *tests], plugins=[measuring]):
        return None
    if failing := measuring.baseline.failed if measuring.baseline else ():
        print("these tests fail without a change:", *failing, sep="\n")
        return None
    return [as_record(result) for result in measuring.results]


def _chosen_mutants(changed: Sequence[Source], chosen: argparse.Namespace) -> list[Mutant]:
    known, made = equivalent(), [mutant for source in changed for mutant in source.mutants()]
    for module, function, before, after in set(known) - {mutant.key for mutant in made}:
        if module in {source.name for source in changed}:
            print(f"listed as equivalent, but not made: {module}: {function}: {before}  ->  {after}")
    mutants = [mutant for mutant in made if mutant.key not in known]
    if chosen.again:
        survived = survivors(chosen.again)
        mutants = [mutant for mutant in mutants if mutant.key in survived]
    if chosen.sample is not None:
        mutants = random.Random(chosen.seed).sample(mutants, min(chosen.sample, len(mutants)))
    return mutants


def _told(results: Sequence[Record], chosen: argparse.Namespace) -> int:
    found = scores(results)
    if chosen.out:
        lost = [each for each in results if not each["killer"]]
        document = {"scores": found, "survivors": lost, "results": results}
        chosen.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for name, score in found.items():
        print(f"{score['percent']:5.1f} %  {score['killed']:4} of {score['mutants']:4}  {name}")
    return int(bool(results) and found["all"]["percent"] < chosen.floor)


if __name__ == "__main__":
    sys.exit(main())
