"""`comity webhook`: hooks of a home, the secret that is printed once, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity_cli.commands.webhook import KINDS, command
from support.federation import NodeHome, make_home
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    return make_home(tmp_path_factory.mktemp("home") / "node", 0)


@pytest.fixture(name="home")
def _home(made: NodeHome) -> Path:
    (made.directory / "webhooks.toml").unlink(missing_ok=True)
    return made.directory


def test_no_webhook_is_said_with_the_next_step(home: Path) -> None:
    assert said(command, "ls", "--node", home).startswith("None yet.")
    assert printed(command, "ls", "--node", home)["webhooks"] == []


def test_a_new_webhook_has_all_events_and_a_secret_that_is_printed_once(home: Path) -> None:
    document = printed(command, "new", "ops", "https://chat.example/hook", "--node", home)
    assert tuple(document["events"]) == KINDS and document["secret"].startswith("whsec_")
    (listed,) = printed(command, "ls", "--node", home)["webhooks"]
    hook = {"name": "ops", "url": "https://chat.example/hook", "events": list(KINDS), "publisher": "", "waiting": 0}
    assert listed == hook
    assert document["secret"] not in run(command, "ls", "--node", home).output
    assert document["secret"] == (home / "keys" / "webhook-ops.secret").read_text().strip()


def test_quiet_prints_the_secret_alone(home: Path) -> None:
    result = run(command, "new", "ops", "https://chat.example/hook", "--node", home, "--quiet")
    assert result.exit_code == 0 and result.stdout.startswith("whsec_") and len(result.stdout.split()) == 1


def test_events_are_chosen_by_name(home: Path) -> None:
    words = ("new", "ops", "http://127.0.0.1:1/hook", "--event", "alert", "--event", "version", "--node", home)
    assert set(printed(command, *words)["events"]) == {"alert", "version"}
    assert run(command, "new", "more", "https://a.example", "--event", "weather", "--node", home).exit_code == 2


@pytest.mark.parametrize("url", ["http://chat.example/hook", "ftp://a.example", "no url", ""])
def test_a_receiver_elsewhere_needs_https(home: Path, url: str) -> None:
    assert refused(command, "new", "ops", url, "--node", home).code
    assert printed(command, "ls", "--node", home)["webhooks"] == []


def test_a_name_is_used_once(home: Path) -> None:
    assert run(command, "new", "ops", "https://a.example/", "--node", home).exit_code == 0
    refused(command, "new", "ops", "https://b.example/", "--node", home)
    assert [each["url"] for each in printed(command, "ls", "--node", home)["webhooks"]] == ["https://a.example/"]


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    refused(command, "ls", "--node", tmp_path)
