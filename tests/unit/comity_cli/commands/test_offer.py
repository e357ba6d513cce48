"""`comity offer` without a node: the file that is written to be filled in, and what is said of one that is checked."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from comity_cli.commands.offer import MAX_TOML, command
from support.federation import NodeHome, make_home
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="home")
def _home(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    return make_home(tmp_path_factory.mktemp("made") / "node", 0)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    said(command, "new", "--out", tmp_path / "offer.toml")
    return tmp_path / "offer.toml"


def test_a_file_to_fill_in_is_written_once(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    assert tomllib.loads(before.decode())
    assert "exists" in str(refused(command, "new", "--out", file)) and file.read_bytes() == before
    other = tmp_path / "fr.toml"
    assert printed(command, "new", "--jurisdiction", "FR", "--out", other)["file"] == str(other)
    assert "FR" in other.read_text() and "FR" not in before.decode()


@pytest.mark.parametrize("data", [b"", b"[[", b"title = 5\n", b"\xff", b"# " + b"x" * MAX_TOML])
def test_a_file_that_is_no_offer_is_refused(file: Path, home: NodeHome, data: bytes) -> None:
    file.write_bytes(data)
    assert refused(command, "check", file, "--node", home.directory).code


def test_figures_are_those_of_a_slice_of_the_offer(file: Path, home: NodeHome, tmp_path: Path) -> None:
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"schema": "x"}))
    words = ("check", file, "--node", home.directory, "--measured", "big", measured)
    refused(command, *words)  # no figures of a machine
    assert run(command, *words[:-1]).exit_code == 2


def test_an_offer_for_a_node_passes_the_check_and_says_what_to_decide(home: NodeHome, tmp_path: Path) -> None:
    target = tmp_path / "own.toml"
    text = said(command, "new", "--for", home.directory, "--out", target)
    for part in ("[[slices]]", "[window]", "[eligibility]", "[terms]", "legal_reach"):
        assert part in text
    location = printed(command, "check", target, "--node", home.directory)["document"]["location"]
    member = home.card.inception
    assert (location["operator"], location["jurisdiction"]) == (member.label, member.jurisdiction)
    assert refused(command, "check", _plain(tmp_path), "--node", home.directory).code == "OFFER-FILE"


def _plain(folder: Path) -> Path:
    said(command, "new", "--out", folder / "plain.toml")
    return folder / "plain.toml"
