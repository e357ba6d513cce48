"""SIGKILL at each step of recording a vote: a machine signs one body a round, or none."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity_client.signing.votes import new_key
from support import signing_child
from support.forked import start_forked

PREV = sha256(b"epoch 4")
POINTS = ("votes.fsync", "votes.rename", "votes.folder", "votes.done")


class SigningMachine:
    """A key, and processes that sign with it."""

    def __init__(self, folder: Path) -> None:
        self.key = new_key(folder / "governance.pem")
        self.signed = folder / "signed.txt"

    def start(self, round_: int, *bodies: str, fault: str = "") -> ForkServerProcess:
        arguments = (str(self.key.path), str(self.signed), PREV, str(round_), *bodies)
        environ = {**os.environ, "COMITY_FAULT": fault}
        return start_forked(signing_child.main, *arguments, environ=environ, log=self.signed.with_name("log"))

    def run(self, round_: int, *bodies: str, fault: str = "") -> int | None:
        process = self.start(round_, *bodies, fault=fault)
        process.join()
        return process.exitcode

    def left(self) -> Iterator[tuple[str, str]]:
        """(round, body) of the signatures that the process released."""
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
        time.sleep(dice.random() / 10)  # all forty need a tenth of a second
        for process in racing:
            process.kill()
            process.join()
        machine.run(round_, sha256(b"late"))
        machine.check()
