"""The shell completes models, members, nodes and logs from local files, and nothing that a shell would interpret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from comity_cli.completions import MAX_FILES, MAX_SUGGESTED, models
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.user import User
from support.federation import Founded, found


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return found(tmp_path_factory.mktemp("founded"), 2)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "comity"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def completed(*words: str) -> list[str]:
    """The shell's proposals for the last word."""
    *before, incomplete = words
    return [item.value for item in ShellComplete(command, {}, "comity", "_X").get_completions(list(before), incomplete)]


def remember(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{abs(hash(name))}.json").write_text(json.dumps({"repository": name}))


def test_models_that_were_resolved_or_pulled_are_offered(tmp_path: Path) -> None:
    remember(tmp_path / "comity" / "memory" / "names", "swiss-ai/apertus-8b")
    (tmp_path / "hub" / "models--swiss-ai--tiny" / "snapshots").mkdir(parents=True)
    assert completed("pull", "") == ["swiss-ai/apertus-8b", "swiss-ai/tiny"]
    assert completed("pull", "swiss-ai/a") == ["swiss-ai/apertus-8b"]
    assert completed("whereis", "acme") == []


def test_members_nodes_and_logs_of_pins_are_offered(founded: Founded) -> None:
    Client(Home.default()).pin(founded.federation.encode())
    assert User(Home.default()).pins()
    names = [home.name for home in founded]
    assert completed("log", "check", "node-") == sorted(home.origin for home in founded)
    assert set(names) <= set(completed("status", "--node", "node-"))
    assert completed("status", "--node", "./") == ["./"]


@pytest.mark.parametrize("name", ["a/$(reboot)", "a/b;c", "-o", "a b/c", "a/b\nc", "a/`x`", "../x"])
def test_a_name_that_a_shell_would_interpret_is_not_offered(tmp_path: Path, name: str) -> None:
    remember(tmp_path / "comity" / "memory" / "names", name)
    assert completed("pull", "") == []


@pytest.mark.parametrize(
    "text", ["", "[", "[1]", '{"repository": 5}', "{" * 100_000, '{"repository": "a/b"}' + " " * 9999]
)
def test_files_that_cannot_be_read_offer_nothing(tmp_path: Path, text: str) -> None:
    for folder in ("memory/names", "trust"):
        (tmp_path / "comity" / folder).mkdir(parents=True)
        (tmp_path / "comity" / folder / "x.json").write_text(text)
    assert completed("pull", "") == []
    assert completed("log", "check", "") == []


def test_the_number_of_files_and_suggestions_is_bounded(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 10):
        (tmp_path / "hub" / f"models--acme--{number}").mkdir(parents=True)
    assert len(list(models())) == MAX_FILES
    assert len(completed("pull", "")) == MAX_SUGGESTED


def test_completion_asks_no_node_and_loads_no_grpc() -> None:
    script = (
        "import sys\nimport comity_cli.completions\nlist(comity_cli.completions.nodes())\nprint('grpc' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_arguments_keep_their_values() -> None:
    pull = command.get_command(click.Context(command), "pull")
    assert pull is not None
    context = pull.make_context("pull", ["acme/model"], obj=None)
    assert context.params["reference"] == "acme/model"
