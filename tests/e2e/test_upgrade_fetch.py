"""A release in a federation of real nodes: published, rebuilt and vouched by members, fetched by policy, warned about;
and stock pip installs it with no index.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import comity
import pytest
from comity_cli.lab.lab import Lab
from comity_client.client import Client
from support.officers import Officer
from support.releases import make_release
from support.waiting import eventually
from support.walks import lab

pytestmark = pytest.mark.slow

NAME = "comity/comity"
VERSION = "9.9.9"


@pytest.fixture(scope="module", name="federation")
def _federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Client]]:
    with lab(tmp_path_factory.mktemp("federation"), "comity") as running:
        yield running


def test_a_release_is_published_rebuilt_fetched_installed_and_warned_about(
    federation: tuple[Lab, Client], tmp_path: Path
) -> None:
    made, maker = federation
    (publisher,) = maker.publishers()
    maker.publish(make_release(tmp_path / "maker", VERSION), f"{NAME}@{VERSION}", publisher=publisher, licence="MIT")
    people = [Officer(made.directory / node.name, tmp_path / node.name) for node in made.nodes[:3]]
    user = people[0]
    for person in people:
        person.comity("trust", "pin", made.federation, "--yes")
    eventually(lambda: len([found for found in maker.whereis(f"{NAME}@{VERSION}") if found.complete]), bool)
    policy = tmp_path / "release.toml"
    policy.write_text(
        f'schema = "comity/policy/v1"\n[[pin]]\nfile = "{made.federation}"\n'
        f'[publishers]\naccept = ["{publisher.id}"]\n[safety]\nallow = ["wheels/*.whl"]\n'
    )
    fetch = ("upgrade", "fetch", "--policy", policy, "--out", tmp_path / "fetched")

    def rebuild(person: Officer) -> None:
        """As a member does with its own checkout of the commit."""
        built = make_release(tmp_path / person.home.name / "build", VERSION)
        vouch = ("vouch", f"{NAME}@{VERSION}", "--statement", "reproduced", "--built", built)
        person.act(*vouch)

    def refused(exits: int, code: str) -> bool:
        ran = user.run(*fetch, "--json")
        return ran.returncode == exits and json.loads(ran.stdout)["error"]["code"] == code

    rebuild(people[1])
    eventually(lambda: refused(4, "RELEASE-NOT-REBUILT"), bool)
    assert not (tmp_path / "fetched").exists()
    rebuild(people[2])
    eventually(lambda: user.run(*fetch).returncode == 0, bool)
    document = user.comity(*fetch)
    assert len(document["rebuilt_by"]) == 2 and document["version"] == VERSION
    assert user.comity("verify", tmp_path / "fetched", "--policy", policy)["exit_status"] == 0

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    words = [str(tmp_path / "venv/bin/python"), *document["install"][1:]]
    subprocess.run(words, check=True, capture_output=True)
    listed = subprocess.run([words[0], "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert f"comity {VERSION} needed_one 1.5" in " ".join(listed.split())

    maker.advise(f"{NAME}@{VERSION}", "vulnerability", "high", "a way in", publisher=publisher)
    eventually(lambda: refused(4, "RELEASE-WARNED"), bool)
    findings = json.loads(user.run("doctor", "--node", user.home, "--json").stdout)["findings"]
    (told,) = [finding for finding in findings if finding["topic"] == "release"]
    assert told["level"] == "unknown" and f"no publication of {NAME}@{comity.__version__}" in told["text"]
