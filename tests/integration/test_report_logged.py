"""An officer checks a copy, signs what came out and logs it; others see it as the officer's claim. Real nodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from comity.trust.errors import PolicyNotMet, Unavailable
from comity_client.client import Client
from comity_client.home import Home
from support.federation import found, processes
from support.publisher import model

T = TypeVar("T")
LABEL = "Security desk"


def eventually(step: Callable[[], T], *, patience: float = 60) -> T:
    """The result of `step`, once the federation has caught up with what was just published."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return step()
        except (Unavailable, PolicyNotMet):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def comity(home: Path, *arguments: str | Path, exits: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "comity_cli.main", *map(str, arguments), "--json"]
    ran = subprocess.run(command, env={"COMITY_HOME": str(home)}, capture_output=True, text=True, check=False)
    assert ran.returncode == exits, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.mark.slow
def test_a_signed_report_is_logged_and_others_see_who_checked(tmp_path: Path) -> None:
    founded = found(tmp_path / "nodes", 2)
    officer = Client(Home(tmp_path / "officer"))
    officer.pin(founded.federation.encode())
    publisher = officer.new_publisher("Swiss AI", "CH", founded.homes[0].origin)
    signer = officer.new_publisher(LABEL, "ES", founded.homes[1].origin)
    policy = tmp_path / "ministry.toml"
    comity(tmp_path / "officer", "policy", "new", "--out", policy)
    text = policy.read_text("utf-8").replace("at_least = 2", "at_least = 1").replace("jurisdictions = 2", "")
    policy.write_text(
        text.replace('# names = { swiss-ai = "51aa…" }', f'names = {{ swiss-ai = "{publisher.id}" }}'), "utf-8"
    )
    with processes(*founded.homes) as nodes:
        for node in nodes:
            asyncio.run(node.ready())
        officer.publish(model(tmp_path / "source"), "swiss-ai/tiny@v1", publisher=publisher, licence="MIT")
        copy = eventually(lambda: officer.pull("swiss-ai/tiny", to=tmp_path / "copy")).folder
        report, log = tmp_path / "r.json", founded.homes[1].name
        told = comity(
            *(tmp_path / "officer", "verify", copy, "--policy", policy, "--report", report),
            *("--sign-as", LABEL, "--log", log),
        )
        assert [logged["node"] for logged in told["logged"]] == [log]
        entry = officer.check_report(report).signed.entry
        assert told["accepted"] is True

        stranger = Client(Home(tmp_path / "stranger"))
        stranger.pin(founded.federation.encode())
        seen = eventually(lambda: stranger.show("swiss-ai/tiny")).checks
        assert [(fact.basis, fact.evidence) for fact in seen] == [("claimed", entry.digest)]
        assert LABEL in seen[0].by
        later = eventually(lambda: stranger.pull("swiss-ai/tiny", to=tmp_path / "later"))
        facts = later.verdict.row("policy").facts
        assert [fact.evidence for fact in facts if fact.basis == "claimed"] == [entry.digest]
        assert signer.id[:12] in seen[0].by
