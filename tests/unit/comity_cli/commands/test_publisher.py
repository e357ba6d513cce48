"""`comity publisher`: identities of this user, made, shown and listed; no secret is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.encoding import format_id, syllables
from comity_cli.commands.publisher import command
from comity_client.client import Client
from comity_client.home import Home
from support.case import case
from support.run_command import printed, refused, run, said


@pytest.fixture(autouse=True, name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_no_identity_is_said_with_the_next_step() -> None:
    assert said(command, "ls").startswith("None yet.")
    assert printed(command, "ls")["publishers"] == []


def test_an_identity_without_a_home_log_is_ordered_by_its_names(home: Path) -> None:
    made = printed(command, "new", "Swiss AI", "--jurisdiction", "CH", "--home", "")
    assert (made["label"], made["home"]) == ("Swiss AI", "")
    assert Path(made["folder"]).is_relative_to(home)
    (listed,) = printed(command, "ls")["publishers"]
    assert listed == {name: made[name] for name in ("id", "label", "home", "folder")}
    text = said(command, "show", "Swiss AI")
    assert format_id(made["id"]) in text and "home none" in text and "after 0 rotations" in text


def test_the_words_of_an_identity_are_shown_when_it_is_made() -> None:
    text = said(command, "new", "Swiss AI", "--jurisdiction", "CH", "--home", "")
    made = printed(command, "ls")["publishers"][0]
    assert syllables(made["id"]) in text and "ordered by their names" in text and "recovery.pem" in text


def test_an_identity_made_before_a_pin_is_warned_about(home: Path, tmp_path: Path) -> None:
    text = said(command, "new", "Swiss AI", "--jurisdiction", "CH")
    assert "no federation is pinned" in text
    assert "comity publisher new 'Swiss AI' --jurisdiction CH" in text
    assert "is pinned" not in said(command, "new", "Other", "--jurisdiction", "CH", "--home", "")
    file = tmp_path / "federation.json"
    file.write_bytes(case().federation.encode())
    Client(Home(home)).pin(file)
    assert "is pinned" not in said(command, "new", "Third", "--jurisdiction", "CH")


def test_only_an_identity_without_a_home_log_is_told_to_name_a_node(home: Path, tmp_path: Path) -> None:
    assert "--licence SPDX-ID --node NODE" in said(command, "new", "Other", "--jurisdiction", "CH", "--home", "")
    file = tmp_path / "federation.json"
    file.write_bytes(case().federation.encode())
    Client(Home(home)).pin(file)
    text = said(command, "new", "Swiss AI", "--jurisdiction", "CH")
    assert "--licence SPDX-ID" in text and "--node NODE" not in text


def test_the_home_log_of_a_pinned_member_of_its_jurisdiction_is_the_default(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "federation.json"
    file.write_bytes(case().federation.encode())
    Client(Home(home)).pin(file)
    assert "node-ch.example/log" in printed(command, "new", "Swiss AI", "--jurisdiction", "CH")["home"]
    assert printed(command, "new", "Other", "--jurisdiction", "CH", "--home", "")["home"] == ""


@pytest.mark.parametrize("jurisdiction", ["ch", "Switzerland", "C1"])
def test_a_jurisdiction_that_is_none_is_refused(jurisdiction: str) -> None:
    refused(command, "new", "Swiss AI", "--jurisdiction", jurisdiction, "--home", "")
    assert printed(command, "ls")["publishers"] == []


def test_a_publisher_is_found_by_label_or_digits() -> None:
    made = printed(command, "new", "Swiss AI", "--jurisdiction", "CH", "--home", "")
    for name in ("Swiss AI", made["id"], made["id"][:12]):
        shown = printed(command, "show", name)
        assert (shown["id"], shown["model_sig"]) == (made["id"], None)
    refused(command, "show", "Swiss")
    refused(command, "show", "ff" * 32)


def test_no_secret_is_printed(home: Path) -> None:
    made = printed(command, "new", "Swiss AI", "--jurisdiction", "CH", "--home", "")
    texts = [said(command, "show", "Swiss AI"), said(command, "ls"), str(printed(command, "show", "Swiss AI"))]
    secrets = [path.read_text() for path in Path(made["folder"]).rglob("*.pem")]
    assert secrets and all("PRIVATE KEY" in secret for secret in secrets)
    assert not any("PRIVATE" in text for text in texts)


def test_keys_are_not_changed_without_consent_or_a_recovery_key(home: Path) -> None:
    made = printed(command, "new", "Swiss AI", "--jurisdiction", "CH", "--home", "")
    assert run(command, "rotate", "Swiss AI", "--json").exit_code == 2  # nobody is there to ask
    (recovery,) = Path(made["folder"]).rglob("recovery.pem")
    recovery.rename(home / "elsewhere.pem")
    refused(command, "rotate", "Swiss AI", "--yes")
    assert "after 0 rotations" in said(command, "show", "Swiss AI")
