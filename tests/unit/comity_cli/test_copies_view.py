"""What the commands about copies share: which node an option means, and how copies are written."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from comity.rules.copy_counts import MISSED, PASSED, AuditResult, CopyCount
from comity.trust.encoding import sha256
from comity.trust.places import MOST_REACHES
from comity_cli import copies_view
from comity_cli.copies_view import artifact_of, date, of_a_node, of_own_node, outcome_text, reaches_text, socket_of
from support.run_command import run


def options_of(decorate: Callable[[Any], Any], *words: object) -> dict[str, Any] | int:
    """What a command gets of these words, or its exit status."""
    got: dict[str, Any] = {}

    @click.command()
    @decorate
    def command(**options: Any) -> None:
        got.update(options)

    result = run(command, *words)
    return got if result.exit_code == 0 else result.exit_code


@pytest.fixture(name="listening")
def _listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("x.sock")
        return Path("x.sock")


def test_an_own_node_is_a_home_or_a_socket(listening: Path, tmp_path: Path) -> None:
    assert options_of(of_own_node) == {"socket": None, "home": None}
    assert options_of(of_own_node, "--node", listening) == {"socket": listening, "home": None}
    assert options_of(of_own_node, "--node", tmp_path) == {"socket": None, "home": tmp_path}
    assert options_of(of_own_node, "--socket", "y.sock") == {"socket": Path("y.sock"), "home": None}
    assert options_of(of_own_node, "--dir", "there") == {"socket": None, "home": Path("there")}


def test_a_node_that_is_asked_may_be_a_name(listening: Path, tmp_path: Path) -> None:
    assert options_of(of_a_node) == {"node": "", "socket": None, "home": None}
    assert options_of(of_a_node, "--node", "node-ch") == {"node": "node-ch", "socket": None, "home": None}
    assert options_of(of_a_node, "--node", listening) == {"node": "", "socket": listening, "home": None}
    assert options_of(of_a_node, "--node", tmp_path) == {"node": "", "socket": None, "home": tmp_path}


@pytest.mark.parametrize("old", [("--socket", "y.sock"), ("--dir", "there")])
def test_a_node_is_named_once(listening: Path, old: tuple[str, str]) -> None:
    for decorate in (of_own_node, of_a_node):
        assert options_of(decorate, "--node", listening, *old) == 2
    with pytest.raises(click.UsageError):
        socket_of(Path("a"), Path("b"))
    with pytest.raises(click.UsageError):
        copies_view.read_list("node-ch", Path("a"), None)


def test_the_socket_of_a_home_is_that_of_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.toml").write_text('[listen]\noperator = "other.sock"\n')
    assert socket_of(None, tmp_path) == tmp_path / "other.sock"
    monkeypatch.chdir(tmp_path)
    assert socket_of(None, None).name == "other.sock"
    assert socket_of(Path("x.sock"), None) == Path("x.sock")


def test_an_artifact_is_a_digest_or_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Names:
        def resolve(self, name: str) -> Any:
            return type("Found", (), {"artifact": sha256(name.encode())})

    monkeypatch.setattr(copies_view, "client", Names)
    digest = sha256(b"x")
    assert artifact_of(digest) == artifact_of(f"sha256:{digest}") == digest
    assert artifact_of("inst/tiny@v1") == sha256(b"inst/tiny@v1")


@pytest.mark.parametrize(
    ("reaches", "undeclared", "text"),
    [
        (0, 0, "0"),
        (MOST_REACHES - 1, 0, f"{MOST_REACHES - 1}"),
        (MOST_REACHES, 0, f"{MOST_REACHES} or more"),
        (1, 2, "1, 2 undeclared"),
        (MOST_REACHES, 1, f"{MOST_REACHES} or more, 1 undeclared"),
    ],
)
def test_reaches_are_counted_to_a_number(reaches: int, undeclared: int, text: str) -> None:
    assert reaches_text(CopyCount(9, 9, 9, 9, reaches=reaches, undeclared=undeclared)) == text


@pytest.mark.parametrize(
    ("day", "text"),
    [
        (0, "1970-01-01"),
        (20_782, "2026-11-25"),
        (2_900_000, "9909-12-07"),
        (2_900_001, "day 2900001"),
        (2**60, f"day {2**60}"),
    ],
)
def test_a_day_of_another_clock_has_always_a_text(day: int, text: str) -> None:
    assert date(day) == text


@pytest.mark.parametrize(
    ("outcome", "text"),
    [(PASSED, "passed 10 pieces"), (MISSED, "no answer"), ("digest", "failed: digest")],
)
def test_the_outcome_of_an_audit(outcome: str, text: str) -> None:
    assert outcome_text(AuditResult(sha256(b"auditor"), 1, outcome, 10)) == text
