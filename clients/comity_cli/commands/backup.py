"""`comity backup create|verify|restore`."""

from __future__ import annotations

import shlex
import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import ABSENT, INLINE, Absent, document
from comity_cli.node_home import node_file, node_installed, noted_act, recorded_act
from comity_cli.nodes import home_option
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.node.maintenance.backup_format import BackupManifest

BACKUP = click.argument("backup", type=click.Path(path_type=Path))
DIGEST = click.option("--digest", default="", help="The digest that `create` printed: refuse any other backup.")


@frozen
class BackupFileItem:
    """A file of a backup."""

    path: str
    size: int
    sha256: Digest


@frozen
class BackupItem:
    """What a backup contains. `created` in POSIX seconds."""

    digest: Digest
    node: str
    origin: str
    created: int
    software: str
    keys: bool
    blobs: str
    entries: int | None
    files: tuple[BackupFileItem, ...]

    @classmethod
    def of(cls, manifest: BackupManifest) -> BackupItem:
        return cls(
            digest=manifest.digest,
            node=manifest.node,
            origin=manifest.origin,
            created=manifest.created,
            software=manifest.software,
            keys=manifest.keys,
            blobs=manifest.blobs,
            entries=manifest.ledger.entries if manifest.ledger else None,
            files=tuple(BackupFileItem(file.path, file.size, file.digest) for file in manifest.files),
        )


@document("backup")
class BackupDocument:
    """A backup, as `comity backup verify --json` prints it, and `comity backup create --json`.

    `blobs`: none, listed or copied. `entries` of the own log, null without a ledger in the backup. `left_out`, of
    `create` alone: files outside of the home.
    """

    backup: BackupItem = field(metadata=INLINE)
    left_out: tuple[Path, ...] | Absent = ABSENT


@document("restored")
class RestoredDocument:
    """A restored home, as `comity backup restore --json` prints it.

    The members of a backup, and the home.
    """

    backup: BackupItem = field(metadata=INLINE)
    home: Path


@examples(
    "comity backup create /backup/node-ch --node /var/lib/comity",
    "comity backup verify /backup/node-ch",
    "comity backup restore /backup/node-ch --digest 9f2c… --node /var/lib/comity-new",
)
@click.group(cls=Group, name="backup", short_help="Back up your node's home, and restore it.")
def command() -> None:
    """Back up the home of a node, running or stopped, check a backup, and restore one into an empty home."""


@examples(
    "comity backup create /backup/node-ch --node /var/lib/comity",
    "comity backup create /backup/node-ch --node /var/lib/comity --with-keys",
    "comity backup create /backup/node-ch --node /var/lib/comity --blobs",
)
@command.command("create", short_help="Back up a home.")
@BACKUP
@click.option(
    "--with-keys", is_flag=True, help="Include online keys, tokens and other secrets: mode 0600, unencrypted."
)
@click.option("--blobs", is_flag=True, help="Copy the blobs too; otherwise their digests are listed.")
@home_option("Your node, by its home. Default: here.", exists=False)
def create(backup: Path, with_keys: bool, blobs: bool, home: Path) -> None:
    """Make the new folder BACKUP: settings, public files, queued imports, the ledger of one moment, a list of the
    blobs, and a manifest with the hash of every file. The folder appears when it is complete. `offline/` is never
    read."""
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.backup import create_backup
    with noted_act(home, "backup.create", str(backup), "with keys" if with_keys else "without keys"):
        out = output()
        with out.waiting("copying"):
            made = create_backup(file, backup, with_keys=with_keys, with_blobs=blobs, clock=time.time)
    out.done(f"{backup} is complete and on the disk")
    _show(made.manifest)
    if made.manifest.ledger is None:
        out.warn("it has no ledger: the node never ran, or its ledger is in PostgreSQL (use pg_dump)")
    if made.manifest.blobs != "none":
        out.fact("blobs", f"{plural(made.blobs, 'blob')}, {size(made.blob_bytes)}, {made.manifest.blobs}")
    if not with_keys:
        out.warn("it has no keys: keep a copy of HOME/keys, encrypted, in another place")
    for path in made.left_out:
        out.warn(f"{path} is outside of the home and was left out")
    out.answer(BackupDocument(BackupItem.of(made.manifest), tuple(made.left_out)))
    out.say(
        "  Keep this digest in another place: who can write to the backup can replace it, and `restore` asks for it."
    )
    out.hint(f"comity backup verify {backup} --digest {made.manifest.digest}")


@examples("comity backup verify /backup/node-ch", "comity backup verify /backup/node-ch --json")
@command.command("verify", short_help="Check every byte of a backup.")
@BACKUP
@DIGEST
def verify(backup: Path, digest: str) -> None:
    """Hash every file of BACKUP, check the ledger in it, and that nothing else is in the folder. Without --digest this
    finds damage, and not that somebody wrote another backup in its place."""
    with node_installed():
        from comity.node.maintenance.backup_format import verify_backup
    manifest, out = verify_backup(backup, expected=_digest(digest)), output()
    out.done(f"{backup} is whole" + ("" if digest else "; compare its digest with the one that you kept"))
    _show(manifest)
    out.answer(BackupDocument(BackupItem.of(manifest)))


@examples(
    "comity backup restore /backup/node-ch --digest 9f2c… --node /var/lib/comity-new",
    "comity backup restore /backup/node-ch --unproven --node ./new --json",
)
@command.command("restore", short_help="Restore a backup into an empty home.")
@BACKUP
@DIGEST
@click.option("--unproven", is_flag=True, help="Restore without --digest: somebody may have altered the backup.")
@click.option("--outside-home", "outside", is_flag=True, help="Allow settings that put the ledger or blobs elsewhere.")
@home_option("The new home: a folder that is missing or empty.", exists=False)
def restore(backup: Path, digest: str, unproven: bool, outside: bool, home: Path) -> None:
    """Check BACKUP, and restore it into a folder that is missing or empty. After an interruption, run the same command
    again. The old machine must be stopped for good.

    Only the digest that `create` printed shows that nobody altered BACKUP, its settings or its keys. Nothing is written
    outside of the new home.

    The restored ledger may be older than what the node signed. So the node signs nothing before nodes of a quorum of
    members have shown the newest checkpoint of its log, and nothing for outside logs before you confirm the ledger.
    """
    with node_installed():
        from comity.node.maintenance.backup import restore_backup
    if not digest and not unproven:
        raise Refused(
            "the backup is not proven unaltered",
            why="who can write to a backup can put another one in its place, with other settings and keys",
            hint=f"comity backup restore {shlex.quote(str(backup))} --digest DIGEST, or with --unproven",
            code="BACKUP-UNPROVEN",
        )
    expected = Digest(_digest(digest)) if digest else None
    restored, out = restore_backup(backup, home, expected=expected, outside=outside), output()
    with recorded_act(home, "backup.restore", str(backup), restored.manifest.digest):
        pass  # the home had to be empty before
    out.done(f"{home} is restored")
    if expected is None:
        out.warn("nothing proves that this is the backup that you made: compare its digest, settings and keys")
    _show(restored.manifest)
    if restored.manifest.blobs == "copied":
        out.fact("blobs", plural(restored.blobs, "blob"))
    else:
        out.say("  The node fetches its blobs from other members when it runs.")
    out.answer(RestoredDocument(BackupItem.of(restored.manifest), home))
    if restored.manifest.keys:
        out.hint(f"comity serve --node {home}")
    else:
        out.hint(f"put the keys into {home / 'keys'}, mode 0600, then: comity serve --node {home}")


def _show(manifest: BackupManifest) -> None:
    out = output()
    out.fact("node", f"{manifest.node}, its log is {manifest.origin}")
    out.fact("made", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.created)) + f" by {manifest.software}")
    if manifest.ledger is not None:
        out.fact("ledger", f"{manifest.ledger.entries} entries in the own log")
    out.fact("keys", "included: protect this folder" if manifest.keys else "not included")
    out.fact("digest", manifest.digest)


def _digest(text: str) -> str:
    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise Malformed("not a digest", why="expected 64 hex digits", code="BAD-ID")
    return text
