"""`comity backup`: what is in a backup, what is said of keys and digests, and what is not restored."""

from __future__ import annotations

import shutil
import stat
from contextlib import closing
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity_cli.commands.backup import command
from support.federation import NodeHome, make_home
from support.run_command import printed, refused, run, said


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    home = make_home(tmp_path_factory.mktemp("home") / "node", 0)
    config = home.config()
    with closing(Ledger.open(config.storage.ledger.parent, lambda: 1_000)) as ledger:
        ledger.logs.create(home.origin, str(home.record.log), own=True)
    return home


@pytest.fixture(name="home")
def _home(made: NodeHome, tmp_path: Path) -> Path:
    shutil.copytree(made.directory, tmp_path / "node")
    return tmp_path / "node"


def test_a_backup_has_no_key_unless_it_is_asked_for(home: Path, tmp_path: Path) -> None:
    plain = printed(command, "create", tmp_path / "plain", "--node", home)
    assert not plain["keys"] and plain["entries"] == 0 and plain["left_out"] == []
    names = {file["path"] for file in plain["files"]}
    assert not any(name.startswith(("home/keys", "home/offline")) for name in names) and "home/node.toml" in names
    keys = printed(command, "create", tmp_path / "keys", "--with-keys", "--node", home)
    assert keys["keys"] and any(file["path"].startswith("home/keys/") for file in keys["files"])
    assert not any(file["path"].startswith("home/offline") for file in keys["files"])
    assert keys["digest"] != plain["digest"]


def test_what_a_backup_lacks_is_a_warning(home: Path, tmp_path: Path) -> None:
    text = said(command, "create", tmp_path / "plain", "--node", home)
    assert "it has no keys: keep a copy of HOME/keys" in text and "it has no ledger" not in text
    assert "it has no keys" not in said(command, "create", tmp_path / "keys", "--with-keys", "--node", home)
    for file in home.rglob("ledger.sqlite*"):
        file.unlink()
    assert "it has no ledger" in said(command, "create", tmp_path / "never ran", "--node", home)


def test_a_backup_is_made_once_and_only_of_a_home(home: Path, tmp_path: Path) -> None:
    said(command, "create", tmp_path / "b", "--node", home)
    refused(command, "create", tmp_path / "b", "--node", home)
    refused(command, "create", tmp_path / "c", "--node", tmp_path)
    assert not (tmp_path / "c").exists()


def test_a_whole_backup_is_verified_by_its_digest(home: Path, tmp_path: Path) -> None:
    digest = printed(command, "create", tmp_path / "b", "--node", home)["digest"]
    assert printed(command, "verify", tmp_path / "b")["digest"] == digest
    assert "compare its digest" in said(command, "verify", tmp_path / "b")
    assert "compare its digest" not in said(command, "verify", tmp_path / "b", "--digest", digest)
    refused(command, "verify", tmp_path / "b", "--digest", "0" * 64)


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "G" * 64, "sha256:" + "0" * 57])
def test_a_digest_that_is_none_is_an_error_of_the_user(tmp_path: Path, digest: str) -> None:
    for words in (("verify", tmp_path), ("restore", tmp_path, "--node", tmp_path / "new")):
        assert refused(command, *words, "--digest", digest).code == "BAD-ID"


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_damage_is_found(home: Path, tmp_path: Path, damage: str) -> None:
    said(command, "create", tmp_path / "b", "--node", home)
    file = tmp_path / "b" / "added"
    if damage != "added":
        (file,) = (tmp_path / "b").rglob("node.toml")
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(b"x" * 10)
    refused(command, "verify", tmp_path / "b")
    refused(command, "restore", tmp_path / "b", "--unproven", "--node", tmp_path / "new")
    assert not (tmp_path / "new" / "node.toml").exists()


def test_a_backup_is_restored_only_if_it_is_proven_or_that_is_waived(home: Path, tmp_path: Path) -> None:
    backup, new = tmp_path / "b", tmp_path / "new"
    digest = printed(command, "create", backup, "--with-keys", "--node", home)["digest"]
    error = refused(command, "restore", backup, "--node", new)
    assert error.code == "BACKUP-UNPROVEN" and not new.exists()
    refused(command, "restore", backup, "--digest", "0" * 64, "--node", new)
    assert not (new / "node.toml").exists()
    restored = printed(command, "restore", backup, "--digest", digest, "--node", new)
    assert (restored["digest"], restored["home"]) == (digest, str(new))
    assert (new / "node.toml").read_bytes() == (home / "node.toml").read_bytes()
    refused(command, "restore", backup, "--digest", digest, "--node", home)  # not empty
    text = said(command, "restore", backup, "--unproven", "--node", tmp_path / "other")
    assert "nothing proves that this is the backup that you made" in text


def test_the_next_step_depends_on_the_keys(home: Path, tmp_path: Path) -> None:
    for name, words in (("with", ("--with-keys",)), ("without", ())):
        said(command, "create", tmp_path / name, *words, "--node", home)
        text = said(command, "restore", tmp_path / name, "--unproven", "--node", tmp_path / f"new {name}")
        assert ("put the keys into" in text) == (name == "without")
    assert run(command, "verify", tmp_path / "missing").exit_code != 0


def test_a_home_restored_without_keys_has_a_private_folder_for_them(home: Path, tmp_path: Path) -> None:
    printed(command, "create", tmp_path / "plain", "--node", home)
    printed(command, "restore", tmp_path / "plain", "--unproven", "--node", tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new" / "keys").stat().st_mode) == 0o700
    assert not list((tmp_path / "new" / "keys").iterdir())


def test_a_restore_makes_no_folder_for_keys_outside_of_the_home(home: Path, tmp_path: Path) -> None:
    settings = home / "node.toml"
    settings.write_text(settings.read_text().replace('keys = "keys"', f'keys = "{tmp_path / "elsewhere"}"'))
    printed(command, "create", tmp_path / "plain", "--node", home)
    printed(command, "restore", tmp_path / "plain", "--unproven", "--node", tmp_path / "new")
    assert not (tmp_path / "elsewhere").exists()
