"""`comity demo --cut`: a vendor is cut off, and a chat kit with real weights answers the same client."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from comity_cli.lab.cut_demo import EXPECTED
from support.tools import missing

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]
"""`.ci/run` runs the command itself."""


def test_a_kit_answers_the_same_client_after_the_cut() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "comity_cli.main", "demo", "--cut", "--json"], capture_output=True, check=False
    )
    if b"KIT-WHEELS-MISSING" in ran.stdout or b"pip could not fetch" in ran.stdout:
        missing("the wheels of the chat kit; unlock: a package index that pip reaches")
    assert ran.returncode == 0, (ran.stdout[-2000:], ran.stderr[-2000:])
    document = json.loads(ran.stdout)
    report, steps = document["report"], {step["title"]: step["said"] for step in document["steps"]}
    assert report["passed"] and report["answered"] <= report["quality"]
    assert report["begun_after"] <= report["started"] and report["logged_by"] >= report["ended"]
    assert any(EXPECTED in line for line in steps["The drill"])
    assert any("node-ch killed" in line for line in steps["The cut"])
    prepared = steps["The ministry makes its plan"]
    assert any(line.startswith("kit check: passed") for line in prepared)
    assert "chat is amber (exit 8)" in prepared and any("[never-drilled]" in line for line in prepared)
    assert any("from node-es, node-kr, node-sg" in line for line in steps["The drill"])
    assert steps["The plan after the drill"] == ["chat is green (exit 0)"]
