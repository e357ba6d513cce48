"""`comity export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from comity.trust.encoding import Digest
from comity.trust.exit_statuses import PARTIAL
from comity.trust.frozen import frozen

from comity_cli.command import Command, client, examples, output
from comity_cli.document import document
from comity_cli.files import FOLDER, NEW_FOLDER
from comity_cli.following import follow
from comity_cli.node_home import noted_if_home
from comity_cli.nodes import SpelledOption, node_option
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.bundles.exporting import ExportedBundle

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@frozen
class ExportedLog:
    """The entries of a log that a bundle has: from `start` up to `end`."""

    log: str
    start: int
    end: int


@frozen
class UncosignedExport:
    """A log with new entries, how many have cosigned its checkpoint, and how many the charter asks for."""

    log: str
    cosigners: int
    asked: int


@document("export")
class ExportDocument:
    """A bundle that was written, as `comity export --json` prints it.

    `earlier`: the bundles that it continues. `incomplete`: artifacts that the node does not have whole, which were left
    out. `written`: bytes written now. `uncosigned`: logs with new entries that fewer have cosigned yet than the charter
    asks for, by the names on their checkpoints.
    """

    folder: Path
    bundle: Digest
    federation: str
    node: str
    earlier: tuple[Digest, ...]
    logs: tuple[ExportedLog, ...]
    entries: int
    artifacts: int
    incomplete: tuple[str, ...]
    files: int
    bytes: int
    written: int
    disks: int
    data_disks: int
    uncosigned: tuple[UncosignedExport, ...]

    @classmethod
    def of(cls, exported: ExportedBundle, folder: Path) -> ExportDocument:
        index = exported.index
        return cls(
            folder=folder,
            bundle=index.digest,
            federation=index.federation,
            node=index.node,
            earlier=tuple(index.earlier),
            logs=tuple(ExportedLog(log.log, log.start.size, log.end.size) for log in index.logs),
            entries=exported.entries,
            artifacts=index.artifacts,
            incomplete=tuple(exported.incomplete),
            files=exported.files,
            bytes=index.size,
            written=exported.written,
            disks=index.code.total,
            data_disks=index.code.data,
            uncosigned=tuple(UncosignedExport(log.origin, log.cosigners, log.asked) for log in exported.uncosigned),
        )


class DiskSize(click.ParamType):  # type: ignore[type-arg]  # not generic in older versions of click
    """A number of bytes, such as `50G` (powers of ten, as disks are sold)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removesuffix("B")
        digits = text.rstrip("KMGT")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 12 or text[len(digits) :] not in UNITS:
            self.fail(f"{value!r} is not a size such as 64G", param, ctx)
        found = int(digits) * UNITS[text[len(digits) :]]
        if not 0 < found <= 10**15:
            self.fail("a disk has at most 1000 TB", param, ctx)
        return found


@examples(
    "comity export --all --out /media/stick --node node-ch",
    "comity export swiss-ai/apertus-8b@v1 --out /media/stick --node node-ch",
    "comity export --since /media/stick --out ./october --node node-ch",
    "comity export --all --out ./disks --parity 3/5 --split 2T --node node-ch",
)
@click.command(cls=Command, name="export", short_help="Write what a node has to disks that people carry.")
@click.argument("references", nargs=-1, metavar="[REF…]")
@click.option("--all", "everything", is_flag=True, help="Every artifact that the node has completely.")
@click.option(
    "--since", "earlier", type=FOLDER, multiple=True, metavar="BUNDLE", help="Only what this bundle does not have."
)
@click.option("--out", "--to", "folder", cls=SpelledOption, type=NEW_FOLDER, required=True, help="The folder to write.")
@click.option("--split", "disk_bytes", type=DiskSize(), metavar="SIZE", help="Disks of at most this size, such as 64G.")
@click.option("--parity", metavar="K/N", help="N disks, of which any K restore everything, such as 3/5.")
@node_option("The node to read. Default: the home here.")
def command(
    references: tuple[str, ...],
    everything: bool,
    earlier: tuple[Path, ...],
    folder: Path,
    disk_bytes: int | None,
    parity: str | None,
    node: str | None,
) -> int:
    """Write charters, logs and artifacts into a folder that can be carried to where there is no network. Without REF
    and --all: the artifacts that the exported log entries publish. After an interruption, run the same command again.
    Signatures are checked where the bundle is loaded. Exit status 8: an artifact of REF is incomplete at the node, and
    was left out."""
    from comity_client.bundles.erasure import ErasureCode
    from comity_client.bundles.writing import DiskPlan

    if not (references or everything or earlier):
        raise click.UsageError("say what to export: REF, --since BUNDLE or --all")
    if references and everything:
        raise click.UsageError("give REF or --all, not both")
    out = output()
    what = ", ".join(references) or ("every artifact" if everything else "what is new")
    with noted_if_home(node, "export", str(folder), what), follow(out, "exporting") as on_event:
        exported = client().export_bundle(
            folder,
            named_node(node),
            references=references,
            everything=everything,
            earlier=earlier,
            disks=DiskPlan(disk_bytes, ErasureCode.parse(parity) if parity else None),
            on_event=on_event,
        )
    show_export(out, exported, folder)
    out.answer(ExportDocument.of(exported, folder))
    for log in exported.uncosigned:
        out.warn(
            f"{log.origin} is cosigned by {plural(log.cosigners, 'other')} yet, and the charter asks for {log.asked}: "
            "where nobody else can be asked, its new entries do not meet that policy. Wait a minute, and export what "
            f"is new: comity export --since {folder} --out OTHER-FOLDER"
        )
    out.hint(f"carry it, then at the other side: comity load {folder} --node HOME")
    return PARTIAL if references and exported.incomplete else 0


def named_node(node: str | None) -> str:
    """The node that was named, or the one whose home is the current folder. Raises NotFound (NO-HOME)."""
    from comity_client.own_node import own_socket

    return node if node is not None else str(own_socket(None))


def show_export(out: Output, exported: ExportedBundle, folder: Path) -> None:
    index = exported.index
    out.prose(f"{folder}  sha256:{index.digest}")
    out.fact("logs", f"{len(index.logs)}, with {plural(exported.entries, 'new entry', 'new entries')}")
    out.fact("artifacts", f"{index.artifacts} complete, {len(exported.incomplete)} left out")
    disks = f"{plural(index.code.total, 'disk')}, of which any {index.code.data} restore everything"
    out.fact("disks", disks if index.code.total > index.code.data else plural(index.code.total, "disk"))
    out.fact("bytes", f"{size(index.size)} in {plural(exported.files, 'file')}; {size(exported.written)} written now")
