"""The voting rules of the charter in the model checker Spin: the rules never fork in any order; rules without one
clause do.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.short_form import cases
from support.tools import needs

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parent / "charter.pml"
FORKS = [
    ("LOCK",),
    ("OWN_BODY",),
    ("LATER",),
    ("MONOTONE_RATIFY",),
    ("ONE_ROUND",),
    ("ONE_INTENT", "ONE_RATIFY"),
    ("ONE_INTENT", "STRICTLY_LATER"),
    ("CERTIFICATE_AT_HAND", "CERTIFICATE_CARRIED"),
]
"""Clauses without which two drafts can both be certified."""
REDUNDANT = sorted({clause for clauses in FORKS if len(clauses) > 1 for clause in clauses})


def forks(folder: Path, **defines: int) -> bool:
    """Whether some order of votes certifies two drafts; if the answer is no, every order was tried."""
    spin = needs("spin", unlock="apt-get install spin")
    gcc = needs("gcc", unlock="apt-get install gcc libc6-dev")
    chosen = [f"-D{name}={value}" for name, value in defines.items()]
    _run(folder, spin, "-a", *chosen, str(MODEL))
    _run(folder, gcc, "-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-DMEMLIM=2500", "-o", "pan", "pan.c")
    said = _run(folder, "./pan", "-m1000", "-w22")
    errors = re.search(r"errors: (\d+)", said)
    assert errors is not None, said
    forked = errors[1] != "0"
    assert forked == ("assertion violated" in said), said
    assert forked or ("Search not completed" not in said and "too small" not in said), said
    return forked


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=True)
    return done.stdout + done.stderr


def test_three_honest_members_and_a_lying_one_never_certify_two_drafts(tmp_path: Path) -> None:
    assert not forks(tmp_path, ROUNDS=3)


def test_five_honest_members_and_two_lying_ones_never_certify_two_drafts(tmp_path: Path) -> None:
    assert not forks(tmp_path, HONEST=5, FAULTY=2, ROUNDS=2)


@pytest.mark.long
def test_a_fourth_round_brings_no_fork(tmp_path: Path) -> None:
    assert not forks(tmp_path, ROUNDS=4)


def test_two_lying_members_of_four_can_certify_two_drafts(tmp_path: Path) -> None:
    assert forks(tmp_path, HONEST=2, FAULTY=2, ROUNDS=2)


@pytest.mark.parametrize("clauses", cases(FORKS, [FORKS[0], FORKS[4], FORKS[5], FORKS[7]]), ids="-and-".join)
def test_without_a_clause_two_drafts_are_certified(clauses: tuple[str, ...], tmp_path: Path) -> None:
    assert forks(tmp_path, ROUNDS=4, **{f"WITHOUT_{clause}": 1 for clause in clauses})


@pytest.mark.parametrize("clause", cases(REDUNDANT, ["CERTIFICATE_CARRIED", "ONE_INTENT"]))
def test_each_of_two_redundant_clauses_is_enough(clause: str, tmp_path: Path) -> None:
    assert not forks(tmp_path, ROUNDS=2, **{f"WITHOUT_{clause}": 1})
