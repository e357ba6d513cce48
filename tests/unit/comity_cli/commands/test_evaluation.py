"""`comity evaluation`: criteria are written and kept before anything is sent, and nothing is overwritten."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from comity.trust.evaluation import EvaluationResults
from comity_cli.commands import evaluation as module
from comity_cli.commands.evaluation import command
from comity_client.client import Client
from comity_client.home import Home
from support.run_command import printed, refused, run, said


class Node:
    """A client whose node logs what it is sent, or does not answer."""

    def __init__(self, root: Path) -> None:
        self.real = Client(Home(root / "home"))
        self.sent: list[Any] = []
        self.silent = False
        self.publisher, self.publishers = self.real.publisher, self.real.publishers

    def announce_evaluation(self, reference: str, digest: str, **more: Any) -> Any:
        return self._receipt((reference, digest))

    def vouch(self, reference: str, statement: str, *, document: Path, **more: Any) -> Any:
        return self._receipt((reference, statement, document.read_bytes()))

    def _receipt(self, what: Any) -> Any:
        self.sent.append(what)
        if self.silent:
            raise Unavailable("no node answers", code="UNREACHABLE")
        return SimpleNamespace()


@pytest.fixture(name="node")
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    made = Node(tmp_path)
    made.real.new_publisher("Lab", "CH", "")
    monkeypatch.setattr(module, "client", lambda: made)
    monkeypatch.setattr(module, "show_receipt", lambda out, receipt, nodes: 8 if nodes else 0)
    return made


@pytest.fixture(name="criteria")
def _criteria(tmp_path: Path) -> Path:
    said(command, "new", "--out", tmp_path / "criteria.toml")
    return tmp_path / "criteria.toml"


def test_criteria_to_fill_in_are_written_once(tmp_path: Path, criteria: Path) -> None:
    before = criteria.read_bytes()
    assert tomllib.loads(before.decode())["claims"][0]["metric"] == "refusal_rate"
    assert "exists" in str(refused(command, "new", "--out", criteria)) and criteria.read_bytes() == before
    assert printed(command, "new", "--out", tmp_path / "b.toml")["file"] == str(tmp_path / "b.toml")


def test_what_is_announced_is_kept_before_it_is_sent(node: Node, tmp_path: Path, criteria: Path) -> None:
    out = tmp_path / "criteria.json"
    node.silent = True
    refused(command, "announce", "inst/tiny@v1", "--criteria", criteria, "--out", out)
    kept = out.read_bytes()
    assert node.sent == [("inst/tiny@v1", sha256(kept))] and out.stat().st_mode & 0o777 == 0o600
    refused(command, "announce", "inst/tiny@v1", "--criteria", criteria, "--out", out)  # it is not overwritten
    assert out.read_bytes() == kept and len(node.sent) == 1


def test_an_announcement_ends_with_the_status_of_its_receipt(node: Node, tmp_path: Path, criteria: Path) -> None:
    words = ("announce", "inst/tiny@v1", "--criteria", criteria, "--node", "node-ch", "--out")
    assert run(command, *words, tmp_path / "a").exit_code == 8


def test_two_announcements_of_the_same_criteria_differ(node: Node, tmp_path: Path, criteria: Path) -> None:
    for name in ("a", "b"):
        text = said(command, "announce", "inst/tiny@v1", "--criteria", criteria, "--out", tmp_path / name)
        assert f"comity evaluation report inst/tiny@v1 --criteria {tmp_path / name}" in text
    (_, first), (_, second) = node.sent
    assert first != second  # a random number hides what they are


@pytest.mark.parametrize("data", [b"", b"[[", b'suite = "x"\nother = 1\n', b"# " + b"x" * 300_000, b"\xff"])
def test_criteria_that_cannot_be_read_are_not_sent(node: Node, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "criteria.toml"
    path.write_bytes(data)
    refused(command, "announce", "inst/tiny@v1", "--criteria", path, "--out", tmp_path / "out")
    assert node.sent == [] and not (tmp_path / "out").exists()


@pytest.fixture(name="announced")
def _announced(node: Node, tmp_path: Path, criteria: Path) -> Path:
    said(command, "announce", "inst/tiny@v1", "--criteria", criteria, "--out", tmp_path / "criteria.json")
    node.sent.clear()
    return tmp_path / "criteria.json"


@pytest.mark.parametrize(("value", "met"), [("0.98", "met"), ("0.991", "met"), ("0.979", "not met")])
def test_results_are_shown_against_their_thresholds(node: Node, announced: Path, value: str, met: str) -> None:
    words = ("report", "inst/tiny@v1", "--criteria", announced, "--value", f"refusal_rate={value}")
    assert f"refusal_rate {value}; refusal_rate >= 0.98: {met} Next:" in said(command, *words)
    ((reference, statement, document),) = node.sent
    results = EvaluationResults.parse(document)
    assert (reference, statement) == ("inst/tiny@v1", "evaluated")
    assert (results.values, results.criteria.encode()) == ((value,), announced.read_bytes())


@pytest.mark.parametrize(
    "values",
    [
        ("latency=1",),
        ("refusal_rate=",),
        ("refusal_rate=NaN",),
        ("refusal_rate",),
        ("refusal_rate=1", "x=1"),
        ("refusal_rate=1e9",),
    ],
)
def test_values_that_do_not_fit_the_criteria_are_not_sent(node: Node, announced: Path, values: tuple[str, ...]) -> None:
    given = [word for value in values for word in ("--value", value)]
    refused(command, "report", "inst/tiny@v1", "--criteria", announced, *given)
    assert node.sent == []


def test_the_exit_status_is_that_of_the_receipt(node: Node, announced: Path) -> None:
    words = ("report", "inst/tiny@v1", "--criteria", announced, "--value", "refusal_rate=1")
    assert run(command, *words).exit_code == 0 and run(command, *words, "--node", "node-ch").exit_code == 8
    assert run(command, *words[:-2]).exit_code == 2  # no value
