"""`comity advisory new|ls`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.home_logs import home_origin
from comity.trust.statements import ADVISORIES, SEVERITIES, Advisory

from comity_cli.command import Group, client, examples, output
from comity_cli.commands.publish import NODE, show_receipt
from comity_cli.document import document
from comity_cli.files import FILE
from comity_cli.following import follow
from comity_cli.known_since import known_day
from comity_cli.signers import PUBLISHER, signing

if TYPE_CHECKING:
    from comity_client.evidence.known_since import KnownSince


@frozen
class WarningItem:
    """A verified warning, by its signer, and by when nodes say that they knew it."""

    kind: str
    severity: str
    by: Digest
    text: str
    known_since: KnownSince | None


@document("advisories")
class AdvisoriesDocument:
    """The warnings about an artifact, as `comity advisory ls --json` prints them.

    `not_read`: what a limit left out.
    """

    advisories: tuple[WarningItem, ...]
    not_read: tuple[str, ...]


@examples("comity advisory new inst/name@v1 --kind yank --text 'wrong tokenizer'", "comity advisory ls inst/name@v1")
@click.group(cls=Group, name="advisory", short_help="Log a warning about an artifact, such as a yank.")
def command() -> None:
    """Log and list warnings. They are shown beside the artifact; by themselves they delete and block nothing."""


@examples(
    "comity advisory new inst/name@v1 --kind yank --text 'wrong tokenizer' --node node-ch",
    "comity advisory new sha256:9f2c… --kind malware --severity critical --text 'see report 12'",
)
@command.command("new", short_help="Sign and log a warning.")
@click.argument("reference", metavar="REF")
@click.option("--kind", required=True, type=click.Choice(ADVISORIES))
@click.option("--severity", type=click.Choice(SEVERITIES), default="info", show_default=True)
@click.option("--text", required=True, help="The warning. Public.")
@PUBLISHER
@NODE
def new(reference: str, kind: str, severity: str, text: str, publisher: str, nodes: tuple[str, ...]) -> int:
    """Sign and log a warning about REF. A yank or superseded by its own publisher changes the version that a bare name
    resolves to; exact versions and digests are always fetched, with the warning shown. Exit status 8: not every node
    that you named logged it."""
    out = output()
    api = client()
    with follow(out, "logging") as on_event:
        receipt = api.advise(
            reference, kind, severity, text, publisher=signing(api, publisher), nodes=nodes, on_event=on_event
        )
    out.prose(f"{kind} on {receipt.title}  sha256:{receipt.artifact}")
    status = show_receipt(out, receipt, nodes)
    out.hint(f"comity advisory ls {receipt.title}   # as other nodes show it")
    return status


@examples(
    "comity advisory lost-key --since 812 --text 'the laptop is gone' --publisher 'Swiss AI'",
    "comity advisory lost-key --since 0 --key 5f01 --text 'generated on a bad machine' --node node-ch --node node-es",
)
@command.command("lost-key", short_help="State from which entry on a key of yours was compromised.")
@click.option("--since", required=True, type=click.IntRange(0), metavar="INDEX", help="An entry of your home log.")
@click.option("--key", default="", metavar="HEX", help="Which key. Default: the last retired one, or the current one.")
@click.option("--text", required=True, help="The warning. Public.")
@PUBLISHER
@NODE
def lost_key(since: int, key: str, text: str, publisher: str, nodes: tuple[str, ...]) -> int:
    """Sign and log that a key of your publisher was compromised from entry INDEX of its home log on. Change your keys
    first (comity publisher rotate). Statements of that key before the entry stay valid; statements at or after it no
    longer pass the key policy. Exit status 8: not every node that you named logged it."""
    out = output()
    api = client()
    signer = signing(api, publisher)
    with follow(out, "logging") as on_event:
        receipt = api.report_lost_key(signer, since, text, key=key, nodes=nodes, on_event=on_event)
    out.say(f"a key of {receipt.title} was compromised from entry {since} of {home_origin(signer.home)} on")
    return show_receipt(out, receipt, nodes)


@examples("comity advisory ls inst/name@v1")
@command.command("ls", short_help="List the verified warnings about an artifact.")
@click.argument("reference", metavar="REF")
@click.option("--policy", type=FILE, help="Read the statements of those first whom this policy (TOML) names.")
def ls(reference: str, policy: Path | None) -> None:
    """List the warnings about REF whose signatures are verified: about its bytes, and about the key with which its
    publisher signed it. It says what a limit left out."""
    out, api = output(), client()
    resolution = api.resolve(reference, policy=api.policy(policy) if policy else None)
    lost = ((each.entry, Advisory.parse(each.entry.statement)) for each in resolution.lost_keys)
    times = resolution.inquiry.claimed_times
    advisories = [(each, times.of(entry.line)) for entry, each in (*resolution.advised, *lost)]
    rows = [(a.kind, a.severity, f"{a.by.kind} {a.by.id[:12]}", known_day(known), a.text) for a, known in advisories]
    if rows:
        out.table(("kind", "severity", "by", "known since (claimed)", "text"), rows)
    else:
        out.say("None known to the reachable nodes.")
    not_read = resolution.evidence.bounds
    for text in not_read:
        out.fact("not read", text)
    listed = tuple(WarningItem(a.kind, a.severity, a.by.id, a.text, known) for a, known in advisories)
    out.answer(AdvisoriesDocument(listed, tuple(not_read)))
