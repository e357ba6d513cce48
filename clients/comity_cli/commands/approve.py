"""`comity approve`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from comity.trust.encoding import Digest, format_time, printable
from comity.trust.frozen import frozen

from comity_cli.command import Command, agree, client, examples, options_as, output
from comity_cli.commands.publish import NODE, LoggedEntry, logged_status
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.following import follow
from comity_cli.offers.arguments import moment
from comity_cli.output import Output
from comity_cli.signers import SignerOptions, signer_options

if TYPE_CHECKING:
    from comity_client.approving import ApprovalReceipt

R = TypeVar("R")
DAY_SECONDS = 86_400
SCOPE = click.option("--scope", required=True, metavar="SITE", help="The scope, exactly as policies write it.")
OUT = click.option("--out", type=NEW_FILE, help="Write it to this file, to carry it to a pack.")
YES = click.option("--yes", is_flag=True, help="Sign without asking.")


@document("approval")
class ApprovalDocument:
    """What an officer signed, as `comity approve --json` and `comity approvals end --json` print it.

    `folder` has it in its pack, `file` was written to be carried.
    """

    artifact: Digest
    title: str
    statements: tuple[Digest, ...]
    folder: Path | None
    file: Path | None
    logged: tuple[LoggedEntry, ...]


@frozen
class ApprovalOptions:
    """An artifact and a scope for which an officer approves it, or ends that; who signs, and where it is put."""

    target: str
    scope: str
    by: SignerOptions
    nodes: tuple[str, ...]
    out: Path | None
    yes: bool


def approval_options(function: Callable[..., R]) -> Callable[..., R]:
    """Decorator: what approving and ending have in common, as the argument `options`."""
    function = options_as("options", ApprovalOptions)(function)
    for option in (YES, OUT, NODE, signer_options):
        function = option(function)
    return function


@examples(
    "comity approve ./apertus-8b --scope hospital-bern --until 2027-03-31 --conditions ward.txt --publisher Anna",
    "comity approve inst/name@v1 --scope hospital-bern --until 2027-03-31 --publisher Anna --node node-ch",
    "comity approve ./apertus-8b --scope hospital-bern --until 2027-03-31 --out anna.intoto.jsonl --yes",
)
@click.command(cls=Command, name="approve", short_help="Approve an artifact for a use, as a named officer.")
@click.argument("target", metavar="DIR|REF")
@SCOPE
@click.option("--until", required=True, metavar="DATE", help="The last day, or a time in UTC.")
@click.option("--from", "since", default="", metavar="DATE", help="The first day, or a time in UTC. Default: today.")
@click.option("--conditions", type=FILE, help="A text file; its SHA-256 is signed, and the text travels along.")
@approval_options
def command(options: ApprovalOptions, until: str, since: str, conditions: Path | None) -> int:
    """Sign that you approve an artifact for SITE until DATE. An officer is an identity (comity publisher new) that the
    owner of a policy names in [approvals.officers]; for everybody else the approval means nothing.

    Of DIR every file is hashed first, and the approval is added to its evidence pack; no network is needed. For REF it
    is logged, unless --out is given. Exit status 8: not every node that you named logged it.
    """
    from comity_client.approving import ApprovalTerms

    printed, api = output(), client()
    today = int(time.time()) // DAY_SECONDS * DAY_SECONDS
    begin, end = moment(since) if since else today, _last_second(until)
    signer = options.by.of(api)
    with follow(printed, "hashing") as on_event:
        subject = api.approvals().subject(options.target, on_event=on_event)
    printed.say(f"{printable(signer.label)} approves {printable(options.target)} for {printable(options.scope)}")
    printed.fact("artifact", f"sha256:{subject.artifact}")
    printed.fact("from", format_time(begin))
    printed.fact("until", format_time(end))
    if conditions is not None:
        printed.fact("under", printable(conditions.name))
    agree("Sign this?", yes=options.yes)
    terms = ApprovalTerms(options.scope, begin, end, conditions)
    with follow(printed, "approving") as on_event:
        receipt = api.approvals().approve(
            subject, terms, by=signer, nodes=options.nodes, out=options.out, on_event=on_event
        )
    return show_approval(printed, receipt, "approved", options.nodes)


def _last_second(text: str) -> int:
    """POSIX seconds of a time, or of the last second of a day."""
    at = moment(text)
    return at + DAY_SECONDS - 1 if len(text) == len("2027-03-31") else at


def show_approval(out: Output, receipt: ApprovalReceipt, what: str, nodes: Sequence[str]) -> int:
    """Print what was signed and where it is. Returns the exit status; `nodes` are those that the user named."""
    out.done(f"{what}: {receipt.title or 'an artifact'}  sha256:{receipt.artifact}")
    for entry in receipt.entries:
        out.fact("statement", f"sha256:{entry.statement_digest}")
    for logged in receipt.logged:
        out.done(f"logged at {logged.node}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
    if receipt.folder is not None:
        out.fact("added to", f"{receipt.folder}/.comity")
    if receipt.out is not None:
        out.fact("written to", str(receipt.out))
        out.hint(f"on the machine with the folder: comity approvals add {receipt.out} DIR")
    entries = tuple(LoggedEntry(each.node, each.origin, each.index) for each in receipt.logged)
    statements = tuple(entry.statement_digest for entry in receipt.entries)
    out.answer(ApprovalDocument(receipt.artifact, receipt.title, statements, receipt.folder, receipt.out, entries))
    return logged_status(receipt.logged, nodes)
