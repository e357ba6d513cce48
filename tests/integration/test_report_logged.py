"""An officer verifies a copy, signs the report and logs it; others see it as the officer's claim. Real nodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from comity.trust.encoding import Digest
from comity_client.client import Client
from comity_client.home import Home
from support.command_server import command_server
from support.federation import found, processes
from support.publisher import model
from support.waiting import eventually

LABEL = "Security desk"


def comity(home: Path, *arguments: str | Path, exits: int = 0) -> dict[str, Any]:
    command = [str(command_server().comity), *map(str, arguments), "--json"]
    ran = subprocess.run(command, env={"COMITY_HOME": str(home)}, capture_output=True, text=True, check=False)
    assert ran.returncode == exits, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.mark.slow
def test_a_signed_report_is_logged_and_others_see_its_signer(tmp_path: Path) -> None:
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
            *("--sign-as", LABEL, "--log", log, "--sign-oci"),
        )
        assert [logged["node"] for logged in told["logged"]] == [log]
        entry = officer.check_report(report).signed.signature.entry
        assert told["accepted"] is True

        stranger = Client(Home(tmp_path / "stranger"))
        stranger.pin(founded.federation.encode())
        seen = eventually(lambda: stranger.show("swiss-ai/tiny").checks, bool)
        assert [(fact.basis, fact.evidence) for fact in seen] == [("claimed", entry.digest)]
        assert LABEL in seen[0].by

        def checked() -> list[Digest | None]:
            pulled = stranger.pull("swiss-ai/tiny", to=tmp_path / "later")
            return [fact.evidence for fact in pulled.verdict.row("policy").facts if fact.basis == "claimed"]

        assert eventually(checked, bool) == [entry.digest]
        assert signer.id[:12] in seen[0].by
