"""`comity scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import printable
from comity.trust.evidence import KINDS, kind_of
from comity.trust.exit_statuses import POLICY_NOT_MET

from comity_cli.command import Command, client, examples, output
from comity_cli.files import FILE
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.scan import FolderScan, PickleScan, Scanned

MOST_IMPORTS = 10


@examples(
    "comity scan ./apertus-8b",
    "comity scan swiss-ai/apertus-8b@v1 --policy ministry.toml",
    "comity scan ./downloads/model --pickles --json",
)
@click.command(cls=Command, name="scan", short_help="Detect file formats and code that a loader would run.")
@click.argument("target", metavar="DIR|REF")
@click.option("--policy", type=FILE, help="Apply the [safety] rules of this policy (TOML).")
@click.option("--pickles", is_flag=True, help="List the imports of pickles with picklescan; needs the extra [scan].")
@click.option("--all", "every", is_flag=True, help="List every file, not only notable ones.")
def command(target: str, policy: Path | None, pickles: bool, every: bool) -> int:
    """Read every file of DIR (or of the folder to which REF was pulled): detect its format from its bytes, code that a
    loader would run, and invalid headers. Nothing is loaded, run or sent. The folder need not be published.

    Exit status: 0 the policy refuses no file, 4 it refuses a file.
    """
    out, api, folder = output(), client(), Path(target)
    census = api.scan(folder if folder.exists() else target, policy=api.policy(policy) if policy else None)
    found = api.scan_pickles(census) if pickles else None
    _show(out, census, every)
    if found is not None:
        _show_pickles(out, found)
    out.document("scan", _document(census, found))
    return POLICY_NOT_MET if census.refused else 0


def _show(out: Output, census: FolderScan, every: bool) -> None:
    from comity_client.scan import allow_line

    formats = ", ".join(f"{count} {name}" for name, count in census.formats.items()) or "no files"
    out.say(f"{printable(str(census.folder))}: {formats}")
    shown = census.files if every else census.notable
    if shown:
        out.table(("path", "format", "", "what is in it"), [row for each in shown for row in _rows(each)])
    for kind in dict.fromkeys(kind_of(active) for each in shown for active in each.seen.active):
        out.fact(kind, KINDS[kind])
    if census.refused:
        out.say(f"the policy refuses {plural(len(census.refused), 'file')}", sign=f"{out.mark('✗', 'red')} ")
        line = allow_line(census) or "[safety] allow = [KIND, PATH or sha256:…]"
        out.hint(f"use another format, or accept in the policy what you have read: {line}")
    else:
        out.done("the policy refuses no file")


def _rows(each: Scanned) -> list[tuple[str, str, str, str]]:
    """One row per finding; the first row has the path and the format."""
    shown = [text for text in each.seen.active if not any(refused.startswith(text) for refused in each.refused)]
    findings = [("refused", text.partition(" (")[0]) for text in each.refused] + [("", text) for text in shown]
    first, *others = findings or [("", "")]
    return [(each.file.path, each.seen.format, *first), *(("", "", *more) for more in others)]


def _show_pickles(out: Output, found: PickleScan) -> None:
    looked = (
        f"picklescan {found.version}, which compares with lists of names, checked {plural(len(found.files), 'file')}"
    )
    order = ("dangerous", "suspicious")
    rows = [(e.path, i.level, f"{i.module}.{i.name}") for e in found.files for i in e.imports if i.level in order]
    rows += [(each.path, "unread", each.failed) for each in found.files if each.failed]
    if not rows:
        out.say(f"{looked}: none is suspicious or dangerous by its lists")
        return
    out.say(f"{looked}:")
    out.table(("path", "level", "imports"), sorted(rows, key=lambda row: row[1:])[:MOST_IMPORTS])
    if len(rows) > MOST_IMPORTS:
        out.say(f"  and {len(rows) - MOST_IMPORTS} more; --json lists all")


def _document(census: FolderScan, found: PickleScan | None) -> dict[str, object]:
    return {
        "folder": str(census.folder),
        "formats": dict(census.formats),
        "files": [each.to_json() for each in census.files],
        "refused": len(census.refused),
        "pickles": found.to_json() if found else None,
    }
