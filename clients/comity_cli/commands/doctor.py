"""`comity doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity.trust.frozen import frozen

from comity_cli.command import Command, examples, output
from comity_cli.document import INLINE, document, named
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity.node.maintenance.home_checks import Diagnosis

SIGNS: Final = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "unknown": ("?", "cyan")}


@frozen
class FindingItem:
    """What was found about a topic, and the next command."""

    topic: str
    level: str
    text: str
    fix: str = field(metadata=named("try"))


@frozen
class AllFindings:
    """All of them, and the exit status of the worst one."""

    findings: tuple[FindingItem, ...]
    exit_status: int


@document("doctor")
class DoctorDocument:
    """What is wrong with a node, as `comity doctor --json` prints it."""

    found: AllFindings = field(metadata=INLINE)


@examples("comity doctor", "comity doctor --node /var/lib/comity", "comity doctor --node /var/lib/comity --json")
@click.command(cls=Command, name="doctor", short_help="Find what is wrong with your node, and how to repair it.")
@home_option("Your node, by its home. Default: here.", exists=False)
def command(home: Path) -> int:
    """Check settings, keys, membership, clock, disk, storage, bucket, ledger, ports, addresses, proxy, peers, forks,
    gateway, versions and release of a node on this machine, running or stopped. Each problem is shown with what to do.
    Nothing is changed; one small file is written to the blob folder and removed, and objects of its own, some 15 MB, to
    the bucket of a node that has one.

    Exit status: 0 no problem was found, 8 warnings only, 1 something must be repaired. What could not be checked is
    marked with a question mark and does not count.
    """
    node_file(home)
    with node_installed():
        from comity.node.maintenance.doctor import diagnose
    with output().waiting("checking"):
        found = diagnose(home)
    return show_findings(DoctorDocument, found)


def show_findings(described: Callable[[AllFindings], object], findings: Sequence[Diagnosis]) -> int:
    """Print findings with their fixes, and their number; as this document with --json. Returns the exit
    status of the worst one."""
    from comity.node.maintenance.home_checks import EXIT_STATUS, worst

    out = output()
    for finding in findings:
        first = f"{out.mark(*SIGNS[finding.level])} {finding.topic:<13} "
        out.prose(finding.text, first=first, rest=" " * 16)
        if finding.fix:
            out.say(f"{'':<15} try: {finding.fix}")
    count, status = Counter(finding.level for finding in findings), EXIT_STATUS[worst(findings)]
    unchecked = f", {count['unknown']} not checked" if count["unknown"] else ""
    out.say(f"{plural(count['fail'], 'problem')}, {plural(count['warn'], 'warning')}{unchecked}")
    listed = tuple(FindingItem(each.topic, each.level, each.text, each.fix) for each in findings)
    out.answer(described(AllFindings(listed, status)))
    return status
