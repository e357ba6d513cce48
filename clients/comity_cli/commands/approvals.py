"""`comity approvals ls|end|add`."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest, format_time, printable
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen

from comity_cli.command import Group, agree, client, examples, output
from comity_cli.commands.approve import DAY_SECONDS, SCOPE, ApprovalOptions, approval_options, show_approval
from comity_cli.document import document, named
from comity_cli.files import FILE, FOLDER
from comity_cli.following import follow
from comity_cli.offers.arguments import moment
from comity_cli.offers.context import now

if TYPE_CHECKING:
    from comity_client.evidence.approvals import ListedApproval

_SPAN = re.compile(r"([0-9]{1,5})d\Z")


@frozen
class ConditionsItem:
    """A text of conditions, by its name and its SHA-256."""

    name: str
    sha256: Digest


@frozen
class ApprovalItem:
    """An approval by an officer whom the policy names `officer`. `line`: the signed line of `statement`."""

    officer: str
    id: Digest
    artifact: Digest
    claimed_title: str
    scope: str
    since: str = field(metadata=named("from"))
    until: str
    ended_from: str | None
    state: str
    conditions: ConditionsItem | None
    statement: Digest
    line: Digest

    @classmethod
    def of(cls, listed: ListedApproval, time: int) -> ApprovalItem:
        """Args: time: of the state, in POSIX seconds."""
        approved, end, entry = listed.proven.approved, listed.proven.end, listed.proven.entry
        conditions = approved.conditions
        return cls(
            officer=listed.officer,
            id=approved.by,
            artifact=approved.artifact,
            claimed_title=approved.title,
            scope=approved.scope,
            since=format_time(approved.since),
            until=format_time(approved.until),
            ended_from=format_time(end.since) if end else None,
            state=listed.state(time),
            conditions=ConditionsItem(conditions.name, conditions.text.digest) if conditions else None,
            statement=entry.statement_digest,
            line=entry.digest,
        )


@document("approvals")
class ApprovalsDocument:
    """Approvals of officers, as `comity approvals ls --json` prints them."""

    at: str
    approvals: tuple[ApprovalItem, ...]


@document("approvals-added")
class ApprovalsAddedDocument:
    """How many lines a pack got, as `comity approvals add --json` prints it."""

    folder: Path
    lines: int


@examples(
    "comity approvals ls --policy ministry.toml --runs-out 30d",
    "comity approvals end ./apertus-8b --scope hospital-bern --publisher Anna",
    "comity approvals add anna.intoto.jsonl ./apertus-8b --conditions ward.txt",
)
@click.group(cls=Group, name="approvals", short_help="List approvals of officers, end yours, and carry them.")
def command() -> None:
    """List, end and carry approvals. `comity approve` makes them; a policy says which count."""


@examples(
    "comity approvals ls ./apertus-8b --policy ministry.toml",
    "comity approvals ls inst/name@v1 --policy ministry.toml",
    "comity approvals ls --policy ministry.toml --runs-out 30d",
)
@command.command("ls", short_help="List the approvals of your policy's officers, and when they run out.")
@click.argument("target", metavar="[DIR|REF]", required=False)
@click.option("--policy", "policy_file", type=FILE, required=True, help="The policy that names the officers.")
@click.option("--runs-out", default="", metavar="DAYS", help="Only those in force that run out in so many days: 30d.")
@click.option("--at", default="", metavar="DATE", help="Judge at this time. Default: this machine's clock.")
def ls(target: str | None, policy_file: Path, runs_out: str, at: str) -> None:
    """List the approvals whose signatures are valid: in the pack of DIR, without a network; of REF or of every
    artifact, as reachable nodes have them. Whether they are enough, `comity verify` says."""
    out, api = output(), client()
    policy = api.policy(policy_file)
    if not policy.approvals.officers:
        hint = f"name them in [approvals.officers] of {policy_file}"
        raise NotFound("the policy names no officers", hint=hint, code="NO-OFFICERS")
    time = moment(at) if at else now()
    found = api.approvals().list(target, policy)
    if (days := _days(runs_out)) is not None:
        found = tuple(
            each for each in found if each.state(time) == "in force" and each.until <= time + days * DAY_SECONDS
        )
    rows = [_row(each, time) for each in found]
    out.say(f"At {format_time(time)}{'' if at else ', by the clock of this machine'}:")
    if rows:
        out.table(("officer", "artifact", "scope", "until", "state"), rows)
    else:
        out.say("None here." if target and Path(target).is_dir() else "None known to the reachable nodes.")
    out.answer(ApprovalsDocument(format_time(time), tuple(ApprovalItem.of(each, time) for each in found)))


def _days(text: str) -> int | None:
    if not text:
        return None
    parts = _SPAN.match(text)
    if parts is None:
        raise click.UsageError(f"--runs-out takes a number of days such as 30d, not {text[:20]!r}")
    return int(parts[1])


def _row(listed: ListedApproval, time: int) -> tuple[str, ...]:
    approved = listed.proven.approved
    title = approved.title or f"sha256:{approved.artifact[:16]}"
    return (listed.officer, title, approved.scope, format_time(listed.until), listed.state(time))


@examples(
    "comity approvals end ./apertus-8b --scope hospital-bern --publisher Anna --text 'a new version is due'",
    "comity approvals end inst/name@v1 --scope hospital-bern --from 2027-01-15 --publisher Anna --node node-ch",
)
@command.command("end", short_help="End your own approval of an artifact for a scope.")
@click.argument("target", metavar="DIR|REF")
@SCOPE
@click.option("--from", "since", default="", metavar="DATE", help="End it from this time on. Default: now.")
@click.option("--text", default="", help="Why. Public.")
@approval_options
def end(options: ApprovalOptions, since: str, text: str) -> int:
    """Sign that your approvals of an artifact for SITE end. Only their officer can end them. A reader who does not get
    the end, for example in an older pack, counts the approval until its last day. Exit status 8: not every node that
    you named logged it."""
    from comity_client.approving import ApprovalEnding

    printed, api = output(), client()
    signer, at = options.by.of(api), moment(since) if since else now()
    with follow(printed, "hashing") as on_event:
        subject = api.approvals().subject(options.target, on_event=on_event)
    target, scope = printable(options.target), printable(options.scope)
    printed.say(f"{printable(signer.label)} ends the approval of {target} for {scope}")
    printed.fact("artifact", f"sha256:{subject.artifact}")
    printed.fact("from", format_time(at))
    agree("Sign this?", yes=options.yes)
    ending = ApprovalEnding(options.scope, at, text)
    with follow(printed, "ending") as on_event:
        receipt = api.approvals().end(
            subject, ending, by=signer, nodes=options.nodes, out=options.out, on_event=on_event
        )
    return show_approval(printed, receipt, "ended", options.nodes)


@examples("comity approvals add anna.intoto.jsonl ./apertus-8b --conditions ward.txt")
@command.command("add", short_help="Add carried approvals to the evidence pack of a folder.")
@click.argument("file", type=FILE)
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--conditions", multiple=True, type=FILE, help="The text of conditions that an approval names.")
def add(file: Path, folder: Path, conditions: tuple[Path, ...]) -> None:
    """Add the approvals in FILE, from `comity approve --out`, to the evidence pack of DIR, without a network. Nothing
    is trusted by this: `comity verify` judges the signatures and the officers."""
    out, added = output(), client().approvals().carry(file, folder, conditions)
    out.say(f"{added} new lines in {folder}/.comity; their signatures were not checked")
    out.hint(f"comity verify {folder} --policy FILE")
    out.answer(ApprovalsAddedDocument(folder, added))
