"""`comity load`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.exit_statuses import PARTIAL

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import FOLDER
from comity_cli.following import follow
from comity_cli.nodes import node_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog
    from comity_client.bundles.loading import LoadResult

SHOWN = 20
"""Logs and artifacts that are named; the rest is counted."""


@document("load")
class LoadDocument:
    """What a node took from a bundle, as `comity load --json` prints it.

    `disks` of `of_disks` were read; `damaged`: why one that was named was not, by its folder. `why` and `code`: why a
    part was not taken. `not_listed`: published artifacts that the settings of the node do not name.
    """

    changed: bool
    disks: int
    of_disks: int
    damaged: Mapping[str, str]
    charter: LoadedCharter | None
    logs: tuple[LoadedLog, ...]
    artifacts: tuple[LoadedArtifact, ...]
    not_listed: int


@examples(
    "comity load /media/stick --node /var/lib/comity",
    "comity load ./disk-01 ./disk-03 ./disk-05 --node /var/lib/comity",
    "comity load /media/stick --check --node /srv/comity/operator.sock --json",
)
@click.command(cls=Command, name="load", short_help="Have your node take what a bundle on disks has.")
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="DIR…")
@click.option("--check", is_flag=True, help="First read every file, and compare it with the bundle's list.")
@node_option("Your node, by its home or operator socket. Default: here.")
def command(folders: tuple[Path, ...], check: bool, node: str | None) -> int:
    """Have your node take charters, logs and artifacts from the bundle in DIR, as from a peer: it verifies signatures,
    proofs and every byte, cosigns the logs, and copies the artifacts that its settings name. Nothing is believed
    because it is on the disk. Run it again to continue after an interruption. Exit status 8: something was refused."""
    from comity_client.own_node import own_socket

    out = output()
    with follow(out, "loading") as on_event:
        result = client().load_bundle(folders, own_socket(node).absolute(), check=check, on_event=on_event)
    _show(out, result)
    return PARTIAL if result.refused else 0


def _show(out: Output, result: LoadResult) -> None:
    here, disks = result.disks
    if disks > 1:
        restored = "; what is missing was restored from parity" if result.restored else ""
        out.fact("disks", f"{here} of {disks}{restored}")
    for where, why in result.damaged.items():
        out.warn(f"{where} was not read: {why}")
    if (charter := result.charter) is not None:
        grown = f"{charter.before - 1} to {charter.now - 1}" if charter.now > charter.before else f"{charter.now - 1}"
        out.fact("epoch", f"{grown}{_refusal(charter.why)}")
    for log in result.logs[:SHOWN]:
        if log.now > log.before:
            state = f"{plural(log.now - log.before, 'new entry', 'new entries')}, {log.now} now"
        elif log.carried < log.now:
            state = f"older than what is here: {log.carried} entries there, {log.now} here"
        else:
            state = "nothing new"
        out.fact("log", f"{log.origin}: {'not taken' if log.why else state}{_refusal(log.why)}")
    complete = [item for item in result.artifacts if not item.code]
    for item in result.artifacts[:SHOWN]:
        out.fact("artifact", f"{item.name}: {'complete, every byte verified' if not item.code else 'not complete'}"
                 f"{_refusal(item.why)}")  # fmt: skip
    left = max(0, len(result.logs) - SHOWN) + max(0, len(result.artifacts) - SHOWN)
    if left:
        out.say(f"  and {left} more; see --json")
    if result.changed:
        logs = sum(log.now > log.before for log in result.logs)
        out.done(f"{plural(logs, 'log')} advanced, {plural(len(complete), 'artifact')} copied")
    else:
        out.say("Nothing has changed at the node.")
    if result.refused:
        out.warn(f"{len(result.refused)} parts of this bundle were not taken")
    if result.not_listed:
        names = plural(result.not_listed, "published artifact")
        out.hint(f"{names} not named by [replication] mirror of this node: comity status --node HOME")
    out.answer(
        LoadDocument(
            result.changed, here, disks, result.damaged, charter, tuple(result.logs), tuple(result.artifacts),
            result.not_listed,
        )
    )  # fmt: skip


def _refusal(why: str) -> str:
    return f" ({why})" if why else ""
