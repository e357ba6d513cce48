"""SkyPilot's own parser reads the files that Comity writes for it. It is installed in an environment of its own, with
94 packages.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity_client.offers.handoff import render
from support.environments import python_with
from support.handoffs import HOSTILE, PLAIN, hostile_with

pytestmark = pytest.mark.slow

SKYPILOT = "skypilot==0.11.2"

READER = """
import json, sys, yaml, sky
found = []
for text in json.load(sys.stdin):
    try:
        task = sky.Task.from_yaml_config(yaml.safe_load(text))
        (resources,) = task.resources
        found.append({"name": task.name, "nodes": task.num_nodes, "accelerators": resources.accelerators,
                      "cpus": resources.cpus, "memory": resources.memory, "envs": dict(task.envs), "run": task.run})
    except Exception as error:
        found.append({"refused": f"{type(error).__name__}: {error}"})
print(json.dumps(found))
"""


NOWHERE = "http://127.0.0.1:9"


def read(texts: list[str], home: Path) -> list[dict[str, Any]]:
    """SkyPilot's result for each text, with a home of its own, and a proxy without an answer for a network."""
    python = python_with(SKYPILOT)
    ran = subprocess.run(
        [python, "-c", READER],
        input=json.dumps(texts),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_skypilot_reads_each_task_as_intended_and_refuses_an_invalid_one(tmp_path: Path) -> None:
    def task(facts: Any) -> str:
        return render(facts, "skypilot")[f"{facts.name}-big.sky.yaml"]

    texts = [task(PLAIN), task(replace(PLAIN, target="kubernetes/prod")), *(task(hostile_with(w)) for w in HOSTILE)]
    plain, placed, *hostile, broken = read([*texts, task(PLAIN).replace("num_nodes", "nodes")], tmp_path)
    assert plain == {
        "name": PLAIN.name, "nodes": 2, "accelerators": {"H100": 8}, "cpus": "96+", "memory": "1000+",
        "envs": dict(PLAIN.environment), "run": plain["run"],
    }  # fmt: skip
    assert placed == plain
    for word, found in zip(HOSTILE, hostile, strict=True):
        assert found["envs"] == dict(hostile_with(word).environment)
        assert found["run"] == plain["run"]
    assert "nodes" in broken["refused"]
