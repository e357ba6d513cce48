"""A backup has what its index lists, is refused otherwise, and a home restored from one signs nothing by itself."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.config import NodeConfig
from comity.node.home_files import IMPORT_QUEUE_FILE, HomeFiles
from comity.node.importing.queue import encode_queue, parse_queue
from comity.node.ledger_mark import LEDGER_MARK, OUTSIDE_MARK, FileMark
from comity.node.maintenance.backup import PARTIAL, RESTORING, create_backup, restore_backup
from comity.node.maintenance.backup_format import (
    BLOB_LIST,
    LEDGER,
    MANIFEST,
    BackupFile,
    BackupManifest,
    measure,
    read_manifest,
    verify_backup,
)
from comity.node.maintenance.home_files import add_webhook
from comity.node.maintenance.settings_shown import setting_problems
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Refused, Untrusted
from comity.wire.upstream import WAITING, QueuedImport
from comity_cli.main import command
from support.federation import NodeHome, found

NOW = 1_800_000_000
MARKS = {LEDGER_MARK, OUTSIDE_MARK, "audit-log.jsonl"}
BLOBS = [b"weights" * 1000, b"a licence", b""]


@pytest.fixture(scope="module", name="founded")
def _founded(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    (home, _) = found(tmp_path_factory.mktemp("founded"), 2)
    config = home.config()
    with closing(Ledger.open(config.storage.ledger.parent, lambda: NOW)) as ledger:
        FileMark(config.storage.ledger.with_name(LEDGER_MARK), ledger.identity).write()
        ledger.logs.create(home.origin, str(home.record.log), own=True)
        ledger.logs.append(str(home.record.log), [home.card.record_line])
    store = FolderStore(config.storage.blobs)
    for data in BLOBS:
        store.put(sha256(data), data)
    return home


@pytest.fixture(name="home")
def _home(tmp_path: Path, founded: NodeHome) -> NodeHome:
    shutil.copytree(founded.directory, tmp_path / "home")
    return NodeHome(tmp_path / "home", founded.card)


def backup(home: NodeHome, out: Path, *, with_keys: bool = True, with_blobs: bool = True) -> BackupManifest:
    file = home.directory / "node.toml"
    made = create_backup(file, out, with_keys=with_keys, with_blobs=with_blobs, clock=lambda: NOW, environ={})
    return made.manifest


@pytest.fixture(name="made")
def _made(tmp_path: Path, home: NodeHome) -> Path:
    backup(home, tmp_path / "backup")
    return tmp_path / "backup"


def test_a_backup_restores_to_the_same_node(tmp_path: Path, home: NodeHome, made: Path) -> None:
    assert verify_backup(made) == read_manifest(made)
    restored = restore_backup(made, tmp_path / "new", expected=None, environ={})
    config = NodeConfig.load(tmp_path / "new" / "node.toml", {})
    files = HomeFiles.read(config)
    assert files.own_node == HomeFiles.read(home.config()).own_node
    assert files.federation is not None
    with closing(Ledger.open(config.storage.ledger.parent, lambda: NOW)) as ledger:
        assert ledger.logs.get(str(home.record.log)).size == 1
    store = FolderStore(config.storage.blobs)
    assert sorted(digest for digest, _ in store.sizes()) == sorted(map(sha256, BLOBS))
    assert all(store.verify(digest) for digest, _ in store.sizes())
    assert restored.blobs == len(BLOBS)
    assert not list((tmp_path / "new").glob(f"*{RESTORING}"))


def test_a_restored_ledger_is_marked_as_a_copy_even_before_its_first_entry(tmp_path: Path, made: Path) -> None:
    """So the node signs nothing for its log before a quorum has answered, and nothing for outside logs."""
    restore_backup(made, tmp_path / "new", expected=None, environ={})
    folder = tmp_path / "new" / "data"
    with closing(Ledger.open(folder, lambda: NOW)) as ledger:
        for name in (LEDGER_MARK, OUTSIDE_MARK):
            assert FileMark(folder / name, ledger.identity).mismatches(begun=False)


def test_keys_are_left_out_unless_they_are_asked_for(tmp_path: Path, home: NodeHome) -> None:
    without = backup(home, tmp_path / "without", with_keys=False)
    assert not [file for file in without.files if file.secret]
    assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in (tmp_path / "without").rglob("*.*"))
    with_keys = backup(home, tmp_path / "with")
    secret = [file.path for file in with_keys.files if file.secret]
    assert "home/keys/log.pem" in secret
    for root in (tmp_path / "with", tmp_path / "with" / "home" / "keys"):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert {stat.S_IMODE((tmp_path / "with" / path).stat().st_mode) for path in secret} == {0o600}
    restore_backup(tmp_path / "with", tmp_path / "new", expected=None, environ={})
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "keys").iterdir()} == {0o600}


def test_offline_keys_are_never_read(tmp_path: Path, made: Path, home: NodeHome) -> None:
    assert list((home.directory / "offline").glob("*.pem"))
    assert not [path for path in made.rglob("*") if "offline" in path.parts]


def test_a_backup_and_a_home_are_never_overwritten(tmp_path: Path, home: NodeHome, made: Path) -> None:
    with pytest.raises(Conflict) as refused:
        backup(home, made)
    assert refused.value.code == "BACKUP-EXISTS"
    for target in (home.directory, made):
        with pytest.raises(Conflict) as refused:
            restore_backup(made, target, expected=None, environ={})
        assert refused.value.code == "HOME-NOT-EMPTY"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def _link_out(made: Path) -> None:
    target = made / "home" / "node-card.json"
    data = target.read_bytes()
    target.unlink()
    (made.parent / "elsewhere").write_bytes(data)
    target.symlink_to(made.parent / "elsewhere")


def _linked_folder(made: Path) -> None:
    (made / "home" / "keys").rename(made.parent / "keys")
    (made / "home" / "keys").symlink_to(made.parent / "keys")


def _lost_blob(made: Path) -> None:
    (made / "blobs" / sha256(BLOBS[1])[:2] / sha256(BLOBS[1])).unlink()


def _another_blob(made: Path) -> None:
    (made / "blobs" / sha256(BLOBS[1])[:2] / sha256(b"other")).write_bytes(b"other")


def _appended_list(made: Path) -> None:
    with (made / BLOB_LIST).open("a") as file:
        file.write(f"{sha256(b'more')} 4\n")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit of the ledger": lambda made: _flip(made / LEDGER),
    "a flipped bit of a key": lambda made: _flip(made / "home" / "keys" / "log.pem"),
    "a flipped bit of a blob": lambda made: _flip(made / "blobs" / sha256(BLOBS[0])[:2] / sha256(BLOBS[0])),
    "a lost file": lambda made: (made / "home" / "node.toml").unlink(),
    "a lost blob": _lost_blob,
    "another blob": _another_blob,
    "another file": lambda made: (made / "home" / "more").touch(),
    "a longer list": _appended_list,
    "a link to a file": _link_out,
    "a link to a folder": _linked_folder,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_backup_is_refused_and_restores_nothing(tmp_path: Path, made: Path, name: str) -> None:
    DAMAGES[name](made)
    with pytest.raises(Untrusted) as refused:
        verify_backup(made)
    assert refused.value.code == "BACKUP-DAMAGED"
    with pytest.raises(Untrusted):
        restore_backup(made, tmp_path / "new", expected=None, environ={})
    assert not (tmp_path / "new").exists()


def test_a_backup_without_manifest_is_refused(made: Path) -> None:
    (made / MANIFEST).unlink()
    with pytest.raises(NotFound):
        verify_backup(made)


def test_another_backup_is_refused_by_its_digest(tmp_path: Path, made: Path) -> None:
    digest = read_manifest(made).digest
    assert verify_backup(made, expected=digest).digest == digest
    with pytest.raises(Untrusted):
        restore_backup(made, tmp_path / "new", expected=sha256(b"the one that I kept"), environ={})


def test_a_ledger_of_a_newer_version_is_not_restored(tmp_path: Path, home: NodeHome) -> None:
    with closing(sqlite3.connect(home.config().storage.ledger)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    backup(home, tmp_path / "backup")
    with pytest.raises(Refused) as refused:
        restore_backup(tmp_path / "backup", tmp_path / "new", expected=None, environ={})
    assert refused.value.code == "LEDGER-NEWER"


def test_files_outside_of_the_home_are_reported(tmp_path: Path, home: NodeHome) -> None:
    (tmp_path / "policy.toml").touch()
    home.set("gateway", policy=str(tmp_path / "policy.toml"))
    file = home.directory / "node.toml"
    made = create_backup(file, tmp_path / "b", with_keys=False, with_blobs=False, clock=lambda: NOW, environ={})
    assert made.left_out == (tmp_path / "policy.toml",)


def test_the_rules_and_webhooks_that_settings_name_are_in_a_backup(tmp_path: Path, home: NodeHome) -> None:
    (home.directory / "mirror.toml").write_text('default = "copy"\n')
    (home.directory / "retention.toml").write_text('keep = ["lab/*"]\n')
    home.set("replication", rules="mirror.toml")
    home.set("retention", rules="retention.toml")
    home.set("webhooks", file="webhooks.toml")
    add_webhook(home.directory / "node.toml", "ops", "https://chat.example.org/comity", (), {})
    secret = "home/keys/webhook-ops.secret"
    assert secret not in [file.path for file in backup(home, tmp_path / "public", with_keys=False).files]
    assert secret in [file.path for file in backup(home, tmp_path / "backup").files if file.secret]
    restore_backup(tmp_path / "backup", tmp_path / "new", expected=None, environ={})
    assert setting_problems(tmp_path / "new" / "node.toml", {}) == ()
    for name in ("mirror.toml", "retention.toml", "webhooks.toml", "keys/webhook-ops.secret"):
        assert (tmp_path / "new" / name).read_bytes() == (home.directory / name).read_bytes()


def test_queued_imports_are_in_a_backup_without_keys_and_wait_again_in_the_restored_home(
    tmp_path: Path, home: NodeHome
) -> None:
    queued = QueuedImport("hf:org/tiny@main", "https://huggingface.co", (), WAITING, NOW)
    home.config().storage.ledger.with_name(IMPORT_QUEUE_FILE).write_bytes(encode_queue([queued]))
    backup(home, tmp_path / "backup", with_keys=False)
    restore_backup(tmp_path / "backup", tmp_path / "new", expected=None, environ={})
    ledger = NodeConfig.load(tmp_path / "new" / "node.toml", {}).storage.ledger
    assert parse_queue(ledger.with_name(IMPORT_QUEUE_FILE).read_bytes()) == (queued,)


def test_a_running_node_is_backed_up_at_one_moment(tmp_path: Path, home: NodeHome) -> None:
    """The ledger is open and has entries in its write-ahead log."""
    config = home.config()
    with closing(Ledger.open(config.storage.ledger.parent, lambda: NOW)) as ledger:
        ledger.logs.append(str(home.record.log), [home.card.inception_line])
        manifest = backup(home, tmp_path / "backup", with_blobs=False)
    assert manifest.ledger is not None and manifest.ledger.entries == 2
    verify_backup(tmp_path / "backup")


def altered(made: Path, *, settings: str = "", files: dict[str, bytes] | None = None, **change: Any) -> BackupManifest:
    """Write other settings and more files into a backup, none of them secret, and a new manifest that fits, as anybody
    can who may write to it."""
    toml = made / "home" / "node.toml"
    if settings:
        toml.write_text(settings)
    for path, data in (files or {}).items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(data)
    old = read_manifest(made)
    names = {file.path for file in old.files} | set(files or {})
    found = tuple(BackupFile(name, *measure(made / name), secret=False) for name in sorted(names))
    manifest = replace(old, files=found, **change)
    (made / MANIFEST).write_bytes(manifest.encode())
    return manifest


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    "line",
    [
        'ledger = "{out}/taken.sqlite"',
        'blobs = "{out}/taken"',
        'ledger = "../taken.sqlite"',
        'ledger = "data/../../taken/ledger.sqlite"',
        'blobs = "../new-blobs"',
    ],
)
def test_an_altered_backup_writes_nothing_outside_of_the_home(tmp_path: Path, made: Path, line: str) -> None:
    text = (made / "home" / "node.toml").read_text()
    name = line.partition(" ")[0]
    kept = [each for each in text.splitlines() if each.partition("=")[0].strip() != name]
    kept.insert(kept.index("[storage]") + 1, line.format(out=tmp_path / "out"))
    altered(made, settings="\n".join(kept) + "\n")
    before = everything(tmp_path)
    with pytest.raises(Refused) as refused:
        restore_backup(made, tmp_path / "new", expected=None, environ={})
    assert refused.value.code == "BACKUP-OUTSIDE-HOME"
    assert f"storage.{name} = " in refused.value.why and "--outside-home" in refused.value.hint
    assert everything(tmp_path) == before
    restore_backup(made, tmp_path / "new", expected=None, outside=True, environ={})
    written = everything(tmp_path) - before
    assert [path for path in written if not path.is_relative_to(tmp_path / "new")]


@pytest.mark.parametrize(
    "path",
    [
        "home/data/ledger.sqlite",
        "home/data/ledger.sqlite-wal",
        "home/data/ledger.inode",
        "home/data/blobs/ab/cd",
        "home/offline/governance.votes",
        "home/restore.incomplete",
    ],
)
def test_an_altered_backup_brings_no_file_of_a_nodes_own_memory(tmp_path: Path, made: Path, path: str) -> None:
    """A ledger without the marks of a copy would sign at once; a vote file that is older permits a second vote."""
    altered(made, files={path: b"x"})
    with pytest.raises(Untrusted) as refused:
        restore_backup(made, tmp_path / "new", expected=None, environ={})
    assert refused.value.code == "BACKUP-DAMAGED" and path in refused.value.why
    assert not (tmp_path / "new").exists()


def test_what_a_manifest_calls_public_is_restored_for_the_owner_only(tmp_path: Path, made: Path) -> None:
    altered(made, files={"home/keys/more.pem": b"a key", "home/tls/gateway.key": b"a key"})
    restore_backup(made, tmp_path / "new", expected=None, environ={})
    new = tmp_path / "new"
    readable = {path.name for path in new.rglob("*") if path.is_file() and path.stat().st_mode & 0o077}
    mine = {path for path in readable if path not in {sha256(data) for data in BLOBS}}
    assert mine <= {"node.toml", "inception.line", "node-record.line", "node-card.json", "rotations.lines", *MARKS}
    assert stat.S_IMODE((new / "data" / "ledger.sqlite").stat().st_mode) == 0o600


def test_a_restore_asks_for_the_digest(tmp_path: Path, made: Path) -> None:
    digest = read_manifest(made).digest
    base = ("backup", "restore", str(made), "--node", str(tmp_path / "new"))
    refused = CliRunner().invoke(command, base).exception
    assert isinstance(refused, Refused)
    assert (refused.code, "--digest DIGEST" in refused.hint) == ("BACKUP-UNPROVEN", True)
    wrong = CliRunner().invoke(command, [*base, "--digest", sha256(b"another")]).exception
    assert isinstance(wrong, Untrusted)
    assert wrong.code == "BACKUP-DAMAGED"
    assert not (tmp_path / "new").exists()
    restored = CliRunner().invoke(command, [*base, "--digest", digest])
    assert restored.exit_code == 0, restored.output
    assert "nothing proves" not in restored.output
    again = CliRunner().invoke(command, [*base[:-1], str(tmp_path / "second"), "--unproven"])
    assert again.exit_code == 0 and "nothing proves that this is the backup that you made" in again.output


def _files(files: list[Any]) -> bytes:
    base: dict[str, Any] = {"schema": "comity/backup/v1", "created": 1, "software": "x", "node": "n", "origin": "o"}
    return canonical({**base, "keys": False, "blobs": "none", "files": files})


@pytest.mark.parametrize(
    "path", ["home/../x", "/etc/passwd", "home//x", "home/", "../x", "home/a\nb", "other", "home/./x", "blobs/ab/cd"]
)
def test_a_manifest_names_no_file_outside_of_the_backup(path: str) -> None:
    with pytest.raises(Malformed):
        BackupManifest.parse(_files([{"path": path, "size": 1, "sha256": "a" * 64, "secret": False}]))


def test_a_manifest_lists_each_file_once_and_in_order() -> None:
    item = {"path": "home/x", "size": 1, "sha256": "a" * 64, "secret": False}
    assert BackupManifest.parse(_files([item])).encode() == _files([item])
    for files in ([item, item], [{**item, "path": "home/y"}, item]):
        with pytest.raises(Malformed):
            BackupManifest.parse(_files(files))


def test_remains_of_a_killed_backup_are_removed_by_the_next(tmp_path: Path, home: NodeHome) -> None:
    dead = tmp_path / f".backup-dead{PARTIAL}"
    dead.mkdir()
    (dead / "rest").touch()
    backup(home, tmp_path / "backup")
    assert not dead.exists()


def test_the_commands_print_the_checks(tmp_path: Path, home: NodeHome) -> None:
    def run(*arguments: str) -> str:
        ran = CliRunner().invoke(command, ["backup", *arguments], catch_exceptions=False, standalone_mode=False)
        assert ran.exit_code == 0
        return ran.output

    out, new = str(tmp_path / "b"), str(tmp_path / "n")
    said = run("create", out, "--node", str(home.directory))
    digest = read_manifest(tmp_path / "b").digest
    assert digest in said and "it has no keys" in said
    assert "is whole" in run("verify", out, "--digest", digest)
    assert "put the keys into" in run("restore", out, "--digest", digest, "--node", new)
