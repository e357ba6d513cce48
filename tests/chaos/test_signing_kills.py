"""SIGKILL at each step of remembering a reading: whatever happens, a machine signs one body a round, or none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity_client.signing.votes import new_key

PREV = sha256(b"epoch 4")
POINTS = ("votes.fsync", "votes.rename", "votes.folder", "votes.done")
TESTS = Path(__file__).resolve().parents[1]


class SigningMachine:
    """A key, and processes that sign with it."""

    def __init__(self, folder: Path) -> None:
        self.key = new_key(folder / "governance.pem")
        self.signed = folder / "signed.txt"

    def start(self, round_: int, *bodies: str, fault: str = "") -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "support.signing_child",
            str(self.key.path),
            str(self.signed),
            PREV,
            str(round_),
        ]
        return subprocess.Popen(
            [*command, *bodies], env={**os.environ, "PYTHONPATH": str(TESTS), "COMITY_FAULT": fault}
        )

    def run(self, round_: int, *bodies: str, fault: str = "") -> int:
        return self.start(round_, *bodies, fault=fault).wait()

    def left(self) -> Iterator[tuple[str, str]]:
        """(round, body) of the signatures that left."""
        for line in self.signed.read_text().splitlines() if self.signed.exists() else ():
            round_, body = line.split()
            yield round_, body

    def check(self) -> None:
        rounds = {round_: {body for at, body in self.left() if at == round_} for round_, _ in self.left()}
        assert all(len(bodies) == 1 for bodies in rounds.values()), rounds


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> SigningMachine:
    return SigningMachine(tmp_path)


def test_after_a_kill_at_any_step_no_second_body_is_signed_in_the_round(machine: SigningMachine) -> None:
    for round_, point in enumerate(POINTS, start=1):
        first, second = sha256(point.encode()), sha256(b"another")
        assert machine.run(round_, first, fault=point) == -signal.SIGKILL, f"{point} is not on the way"
        assert str(round_) not in {at for at, _ in machine.left()}, "a signature left before the vote was on the disk"
        assert machine.run(round_, second, first) == 0
        machine.check()
        assert str(round_) in {at for at, _ in machine.left()}, "the round is lost to an honest member"


@pytest.mark.slow
def test_signers_that_are_killed_at_random_and_race_each_other_sign_one_body_a_round(machine: SigningMachine) -> None:
    dice = random.Random(7)
    for round_ in range(1, 9):
        racing = [
            machine.start(round_, *(sha256(b"%d of %d" % (number, racer)) for number in range(40)))
            for racer in range(3)
        ]
        time.sleep(0.3 + dice.random() / 2)
        for process in racing:
            process.send_signal(signal.SIGKILL)
            process.wait()
        machine.run(round_, sha256(b"late"))
        machine.check()
