"""`comity keys`: the keys of a seat, shown, changed and used for signing, without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from comity_cli.commands.keys import command
from comity_client.client import Client
from comity_client.home import Home
from support.federation import NodeHome, found, make_home
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    return found(tmp_path_factory.mktemp("founded"), 2).homes[0]


@pytest.fixture(name="home")
def _home(tmp_path: Path, founded: NodeHome, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a member; its federation is pinned by the user."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(founded.directory, tmp_path / "node")
    Client(Home(tmp_path / "user")).pin(tmp_path / "node" / "federation.json")
    return tmp_path / "node"


def shown(home: Path, *more: object) -> dict[str, Any]:
    return printed(command, "show", "--node", home, "--offline", *more)


def test_the_keys_of_a_seat_are_shown(home: Path, founded: NodeHome) -> None:
    document = shown(home)
    assert document["member"] == founded.card.inception.id and document["seat"] == "Example Institute 0"
    assert (document["threshold"], document["rotations"], document["disputed"]) == (1, 0, False)
    assert [(key["path"], key["state"]) for key in document["keys"]] == [
        (str(home / "offline" / "governance.pem"), "may sign")
    ]
    text = said(command, "show", "--node", home, "--offline")
    assert "Example Institute 0 (CH), active" in text and "1 of 1 key, after 0 rotations" in text


def test_a_key_that_was_moved_is_not_here(home: Path) -> None:
    (home / "offline" / "governance.pem").unlink()
    (key,) = shown(home)["keys"]
    assert (key["path"], key["state"]) == (None, "not here")
    assert "PRIVATE" not in run(command, "show", "--node", home, "--offline").output


def test_a_member_without_a_seat_is_told_so(home: Path, tmp_path: Path) -> None:
    stranger = make_home(tmp_path / "stranger", 4)
    assert shown(stranger.directory)["seat"] is None
    assert "none in the current charter" in said(command, "show", "--node", stranger.directory, "--offline")
    refused(command, "show", "--node", tmp_path / "user", "--offline")


def rotate(home: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("rotate", "--node", home, "--offline", "--out", out, *more)


def test_nothing_is_made_without_consent(home: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert run(command, *rotate(home, tmp_path / "out"), answer="n\n").exit_code != 0
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out").exists()


def test_new_keys_sign_for_the_member_and_the_old_ones_do_not(home: Path, tmp_path: Path) -> None:
    old = shown(home)["keys"]
    text = said(command, *rotate(home, tmp_path / "out", "--yes", "--governance-keys", 3))
    assert "your member has new keys" in text and "comity proposal new rekey 'Example Institute 0'" in text
    assert list((tmp_path / "out").iterdir())
    after = printed(command, "show", "--node", home, "--offline", "--from", tmp_path / "out")
    assert (after["rotations"], after["threshold"], len(after["keys"])) == (1, 2, 3)
    assert all(key["state"] == "may sign" and key not in old for key in after["keys"])


def test_a_recovery_key_is_needed(home: Path, tmp_path: Path) -> None:
    recovery = home / "offline" / "recovery.pem"
    recovery.rename(tmp_path / "vault.pem")
    result = run(command, *rotate(home, tmp_path / "out", "--yes"))
    assert result.exit_code != 0 and not (tmp_path / "out").exists()
    governance = home / "offline" / "governance.pem"
    assert run(command, *rotate(home, tmp_path / "out", "--yes", "--recovery", governance)).exit_code != 0
    assert run(command, *rotate(home, tmp_path / "out", "--yes", "--recovery", tmp_path / "vault.pem")).exit_code == 0


@pytest.mark.parametrize("words", [("--governance-keys", 0), ("--governance-keys", 2, "--threshold", 3)])
def test_keys_that_could_never_sign_are_refused(home: Path, tmp_path: Path, words: tuple[object, ...]) -> None:
    refused(command, *rotate(home, tmp_path / "out", "--yes", *words))
    assert shown(home)["rotations"] == 0 and not (tmp_path / "out").exists()


def test_a_place_is_declared_and_carried(home: Path, tmp_path: Path) -> None:
    words = (
        "place",
        "--node",
        home,
        "--offline",
        "--out",
        tmp_path / "out",
        "--cloud",
        "Example Cloud",
        "--reach",
        "US",
    )
    before = (home / "node-record.line").read_bytes()
    assert run(command, *words, answer="n\n").exit_code != 0
    assert (home / "node-record.line").read_bytes() == before
    document = printed(command, *words, "--yes")
    assert (document["complete"], document["where"]) == (True, str(tmp_path / "out"))
    assert (home / "node-record.line").read_bytes() != before


@pytest.mark.parametrize("data", [b"", b"{}", b"no ceremony"])
def test_a_file_that_is_no_ceremony_is_refused(home: Path, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.ceremony.json"
    file.write_bytes(data)
    refused(command, "sign", file, "--key", home / "offline" / "governance.pem", "--yes")
    refused(command, *rotate(home, tmp_path / "out", "--signed", file))
    assert not (tmp_path / "out").exists()
