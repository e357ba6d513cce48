"""An officer verifies without a network: a copy of the folder, a federation file that the officer compared, and a
policy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from comity.trust.report import VerdictReport
from comity_client.client import Client
from comity_client.home import Home
from support.case import FILES, case, nodes
from support.tools import missing, needs

GOOD: Final = case(cosigners=nodes()[1:3])
COMITY: Final = (sys.executable, "-m", "comity_cli.main")
VERIFIER: Final = (sys.executable, "-m", "comity.verifier")
LABEL: Final = "Security desk"


@pytest.fixture(scope="module")
def alone() -> tuple[str, ...]:
    """The prefix of a command that runs it in an empty network namespace: even loopback is down there."""
    unshare, ip = needs("unshare", unlock="apt-get install util-linux"), needs("ip", unlock="apt-get install iproute2")
    prefix = (unshare, "--map-root-user", "--net")
    links = subprocess.run([*prefix, ip, "-oneline", "link", "show", "up"], capture_output=True, text=True, check=False)
    if links.returncode:
        missing(f"no network namespace can be made here ({links.stderr.strip()}); unlock: user namespaces, or root")
    assert links.stdout == ""
    return prefix


class Laptop:
    """A folder with the copy, the policy and the federation file that it pins; the home has no pins."""

    def __init__(self, folder: Path, alone: tuple[str, ...]) -> None:
        self.copy, self._alone = GOOD.write(folder), alone
        self.policy, self.home = folder / "policy.toml", folder / "home"
        body = f'file = "federation.json"\nbody = "{GOOD.federation.body.digest}"'
        text = self.policy.read_text("utf-8").replace('file = "federation.json"', body)
        self.policy.write_text(text, "utf-8")
        Client(Home(self.home)).new_publisher(LABEL, "ES", "node-es.example/log")

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "COMITY_HOME": str(self.home), "NO_COLOR": "1"}
        return subprocess.run(
            [*self._alone, *map(str, command)], env=env, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def laptop(tmp_path: Path, alone: tuple[str, ...]) -> Laptop:
    return Laptop(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.netns
def test_a_report_is_made_signed_and_checked_without_a_network(laptop: Laptop, tmp_path: Path) -> None:
    report, page = tmp_path / "r.json", tmp_path / "r.html"
    filed = ("--report", report, "--html", page, "--sign-as", LABEL)
    ran = laptop.run(*COMITY, "verify", laptop.copy, "--policy", laptop.policy, *filed)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "ACCEPTED" in ran.stdout
    assert VerdictReport.parse(report.read_bytes()).verdict.accepted
    assert "ACCEPTED" in page.read_text("utf-8")
    checked = laptop.run(*COMITY, "report", "check", report, "--json")
    assert json.loads(checked.stdout)["result"] == "PASSED"
    explained = laptop.run(*COMITY, "policy", "explain", laptop.policy)
    assert "Institute KR (KR)" in explained.stdout


@pytest.mark.netns
def test_the_bare_verifier_writes_the_same_report(laptop: Laptop, tmp_path: Path) -> None:
    ours, bare = tmp_path / "ours.json", tmp_path / "bare.json"
    laptop.run(*COMITY, "verify", laptop.copy, "--policy", laptop.policy, "--report", ours)
    ran = laptop.run(*VERIFIER, laptop.copy, "--policy", laptop.policy, "--report", bare)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ours.read_bytes() == bare.read_bytes()


@pytest.mark.netns
@pytest.mark.parametrize(("change", "status"), [("file", 3), ("federation", 3), ("policy", 4), ("proofs", 5)])
def test_wrong_evidence_and_missing_evidence_have_different_results(laptop: Laptop, change: str, status: int) -> None:
    if change == "file":
        (laptop.copy / "config.json").write_bytes(b"{}".ljust(len(FILES["config.json"])))
    elif change == "federation":
        laptop.policy.write_text(laptop.policy.read_text().replace(GOOD.federation.body.digest, "0" * 64))
    elif change == "policy":
        laptop.policy.write_text(laptop.policy.read_text().replace("jurisdictions = 2", "jurisdictions = 3"))
    else:
        for proof in (laptop.copy / ".comity" / "proofs").iterdir():
            proof.unlink()
    ran = laptop.run(*COMITY, "verify", laptop.copy, "--policy", laptop.policy)
    assert ran.returncode == status, ran.stdout + ran.stderr
