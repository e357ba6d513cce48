"""A real Slurm controller accepts the reservation that Comity writes for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity_client.offers.handoff import render
from support.handoffs import H100, HOSTILE, PLAIN, hostile_with
from support.slurm import Slurm, slurm

pytestmark = pytest.mark.slow

TOMORROW = int(time.time()) // 3600 * 3600 + 86_400
BIG = replace(H100, start=TOMORROW, end=TOMORROW + 86_400)
"""Slurm reserves nothing in the past."""


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


def reserve(controller: Slurm, text: str) -> subprocess.CompletedProcess[str]:
    return controller.run("/bin/sh", "-c", text)


def fields(controller: Slurm, name: str) -> dict[str, str]:
    shown = controller.run("scontrol", "-o", "show", "reservation", name).stdout
    return dict(item.split("=", 1) for item in shown.split() if "=" in item)


def test_a_grant_becomes_a_reservation_for_its_nodes_and_its_window(controller: Slurm) -> None:
    facts = replace(PLAIN, user="root", parts=(BIG,))
    made = reserve(controller, render(facts)["reserve.sh"])
    assert (made.returncode, made.stderr) == (0, ""), made
    found = fields(controller, f"{facts.name}-big")
    assert (found["NodeCnt"], found["PartitionName"], found["Users"]) == ("2", "gpu", "root")
    assert (found["StartTime"], found["EndTime"]) == (str(BIG.start), str(BIG.end))


def test_slurm_reserves_no_more_nodes_than_there_are(controller: Slurm) -> None:
    parts = tuple(replace(H100, name=f"s{n}", start=BIG.end, end=BIG.end + 3600) for n in range(3))
    made = reserve(controller, render(replace(PLAIN, user="root", parts=parts))["reserve.sh"])
    assert made.returncode != 0
    assert "busy" in made.stderr


def test_a_job_with_our_head_is_planned_on_the_reserved_nodes(controller: Slurm, tmp_path: Path) -> None:
    now = int(time.time()) - 60
    facts = replace(PLAIN, user="root", parts=(replace(H100, name="now", start=now, end=now + 7200),))
    assert reserve(controller, render(facts)["reserve.sh"]).returncode == 0
    script = tmp_path / "job.sbatch"
    text = render(facts)["job-now.sbatch"].replace("--time=0-02:00:00", "--time=0-01:00:00")
    script.write_text(text + "hostname\n")
    planned = controller.run("sbatch", "--test-only", script)
    assert planned.returncode == 0, planned.stderr
    nodes = fields(controller, f"{facts.name}-now")["Nodes"]
    assert f"on nodes {nodes} in partition gpu" in planned.stderr


@pytest.mark.parametrize("word", HOSTILE[:6])
def test_texts_of_strangers_change_no_reservation(controller: Slurm, word: str) -> None:
    start = BIG.end + 10**7 + 3600 * HOSTILE.index(word)
    far = replace(H100, start=start, end=start + 3600, nodes=1)
    facts = hostile_with(word, user="root", parts=(far,), grant=sha256(word.encode()))
    made = reserve(controller, render(facts)["reserve.sh"])
    assert made.returncode == 0, made.stderr
    assert fields(controller, f"{facts.name}-big")["Users"] == "root"
