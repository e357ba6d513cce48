"""`comity audit-log check|tail`."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import field
from pathlib import Path
from typing import Annotated

import click
from comity.content.audit_log import EMPTY, ActRecord, AuditHead, check_chain
from comity.trust.encoding import sha256
from comity.trust.frozen import frozen

from comity_cli.command import Group, examples, output
from comity_cli.document import INLINE, document
from comity_cli.node_home import node_file
from comity_cli.nodes import home_option
from comity_cli.output import plural

HOME = home_option("Your node, by its home. Default: here.", exists=False)


@document("audit-log-check")
class AuditLogCheckDocument:
    """What `comity audit-log check --json` found: an altered log is an error document."""

    lines: int
    head: str
    compared: Annotated[str | None, "The head of --head, null if none was given."]


@frozen
class NumberedAct:
    """A line of the log."""

    record: ActRecord = field(metadata=INLINE)
    number: Annotated[int, {"minimum": 1}]


@document("audit-log")
class AuditLogDocument:
    """The newest lines of the audit log, as `comity audit-log tail --json` prints them.

    The lines as they are in audit.log; the whole log was checked before.
    """

    lines: tuple[NumberedAct, ...]


@examples("comity audit-log tail", "comity audit-log check --node /var/lib/comity")
@click.group(cls=Group, name="audit-log", short_help="Check and read the log of what operators of your node did.")
def command() -> None:
    """Read what operators of a node did: tokens, copies that were dropped, statements that were logged, exports,
    backups. Each line of HOME/audit.log names the hash of the line before, so a changed or removed line is found."""


@examples(
    "comity audit-log check",
    "comity audit-log check --node /var/lib/comity",
    "comity audit-log check --head 7:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae --json",
)
@command.command("check", short_help="Check that no line was changed or removed.")
@click.option("--head", "kept", default="", help="NUMBER:HASH that an earlier check printed and you kept elsewhere.")
@HOME
def check(kept: str, home: Path) -> None:
    """Read the whole log, check that each line continues the one before, and that the last one is the one that was
    written last. Who may write to the home could make another log: only a head that you kept elsewhere finds that."""
    node_file(home)
    head, out = EMPTY, output()
    for record in check_chain(home, AuditHead.parse(kept) if kept else None):
        head = AuditHead(record.number, sha256(record.line()))
    compared = "it continues the head that you kept" if kept else "nothing kept elsewhere was compared"
    out.done(f"{plural(head.number, 'line')}: each continues the one before; {compared}")
    out.fact("head", str(head))
    out.answer(AuditLogCheckDocument(head.number, str(head), kept or None))
    if not kept:
        out.hint(f"keep the head elsewhere; later: comity audit-log check --head {head} --node {home}")


@examples(
    "comity audit-log tail", "comity audit-log tail --lines 100 --node /var/lib/comity", "comity audit-log tail --json"
)
@command.command("tail", short_help="Show the newest lines.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@HOME
def tail(lines: int, home: Path) -> None:
    """Check the log as `comity audit-log check` does, and show its newest lines: when, who, what. An act whose name
    ends in `.failed` did not happen; its detail names the line before it that says what was tried."""
    node_file(home)
    out, newest = output(), deque[ActRecord](check_chain(home), maxlen=lines)
    rows = [
        (str(record.number), _moment(record.time), record.act, record.by, record.subject, record.detail)
        for record in newest
    ]
    out.table(("line", "time (UTC)", "act", "by", "about", "detail"), rows, shorten=("about", "detail"))
    out.answer(AuditLogDocument(tuple(NumberedAct(record, record.number) for record in newest)))


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
