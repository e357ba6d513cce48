"""`comity descent` and `comity impact` beside nodes that count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.rules.descent import NOWHERE, DescentCount, LineageRoot
from comity.trust.encoding import sha256
from comity.wire.descent import DescentPage
from comity_cli.commands import impact as impact_module
from comity_cli.commands.descent import command
from comity_cli.commands.impact import command as impact
from comity_client.client import Client
from comity_client.dependents import VENDORS
from comity_client.home import Home
from support.fakes import FakeFederation
from support.run_command import printed, refused, run, said

LAWS = b'[laws]\n"hf:google" = "US"\n"hf:Mistralai" = "FR"\n'


@pytest.fixture(scope="module", name="running")
def _running() -> Iterator[FakeFederation]:
    federation = FakeFederation(("CH", "SG"))
    with federation.running() as running:
        artifact = sha256(b"needs packages")
        counts = (
            DescentCount((LineageRoot("hf:google", "mirrored"),), True, 2, 2_000_000_000, 0, 7, 1),
            DescentCount((LineageRoot(running.publisher.id, "own"),), True, 1, 10, 0, 0, 0),
            DescentCount((NOWHERE,), True, 1, 10, 1, 0, 0),
        )
        for node in running.nodes:
            node.descent_pages = {
                0: DescentPage(0, counts[:2], 5, 13, (artifact,)),
                5: DescentPage(0, counts[2:], 0, 13),
            }
        yield running


@pytest.fixture(name="laws")
def _laws(running: FakeFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    Client(Home(tmp_path / "home")).pin(running.file())
    (tmp_path / "laws.toml").write_bytes(LAWS)
    return str(tmp_path / "laws.toml")


def test_the_command_prints_a_table_of_80_columns_and_says_what_is_missing(laws: str) -> None:
    text = said(command)
    assert "law not known" in text and "ancestors not known" in text and "--laws FILE" in text
    assert "1 artifact names packages that it does not contain" in text and "size of 1 artifact is not known" in text
    stated = run(command, "--laws", laws).output
    table = [line for line in stated.splitlines() if "%" in line]
    assert "US (stated)" in stated and len(table) == 5 and max(map(len, table)) <= 80, stated
    document = printed(command, "--laws", laws)
    assert (document["total"]["artifacts"], document["requiring_packages"]) == (4, 1)
    (us,) = (each for each in document["laws"] if each["law"] == "US")
    assert (us["law_from"], us["amounts"], us["mirrored"]) == (
        "stated",
        {"artifacts": 2, "bytes": 2_000_000_000, "pulls": 7},
        2,
    )


def test_a_member_a_node_or_an_id_is_asked_about_and_nobody_else(laws: str, running: FakeFederation) -> None:
    record = running.nodes[0].node.record
    for option, name in (("--held-by", record.name), ("--published-by", record.member), ("--held-by", "f" * 64)):
        assert printed(command, option, name)["total"]["artifacts"] == 4
    refused(command, "--held-by", "Nobody")


def test_impact_of_parties_without_copies_says_what_needs_them(laws: str) -> None:
    assert "1 artifact on package-index" in said(impact, "package-index")
    assert "Nothing depends on update-channel" in said(impact, "update-channel")
    for vendor in VENDORS:
        assert f"hardware-root:{vendor}" in said(impact, f"hardware-root:{vendor}")
    (item,) = printed(impact, "package-index")["parties"]
    assert (item["kind"], item["dependents"], item["gone"]) == ("package-index", 1, 0)
    refused(impact, "hardware-root:other")
    assert impact_module._further_party("reach:US") is None
