"""`comity advisory new|ls`."""

from __future__ import annotations

import click
from comity.trust.statements import ADVISORIES, SEVERITIES

from comity_cli.command import Group, client, examples, output
from comity_cli.commands.publish import NODE, PUBLISHER, show_receipt, signing
from comity_cli.following import follow


@examples("comity advisory new inst/name@v1 --kind yank --text 'wrong tokenizer'", "comity advisory ls inst/name@v1")
@click.group(cls=Group, name="advisory", short_help="Log a warning about an artifact, such as a yank.")
def command() -> None:
    """Warnings are logged and shown beside the artifact. They delete nothing and block nothing by themselves."""


@examples(
    "comity advisory new inst/name@v1 --kind yank --text 'wrong tokenizer' --node node-ch",
    "comity advisory new sha256:9f2c… --kind malware --severity critical --text 'see report 12'",
)
@command.command("new", short_help="Sign and log a warning.")
@click.argument("reference", metavar="REF")
@click.option("--kind", required=True, type=click.Choice(ADVISORIES))
@click.option("--severity", type=click.Choice(SEVERITIES), default="info", show_default=True)
@click.option("--text", required=True, help="What people should know.")
@PUBLISHER
@NODE
def new(reference: str, kind: str, severity: str, text: str, publisher: str, nodes: tuple[str, ...]) -> None:
    """Sign and log a warning about REF. Yank and superseded move what a bare name stands for, where its own publisher
    says so; exact versions and digests are always fetched, with the warning shown."""
    out = output()
    api = client()
    with follow(out, "logging") as on_event:
        receipt = api.advise(
            reference, kind, severity, text, publisher=signing(api, publisher), nodes=nodes, on_event=on_event
        )
    out.say(f"{kind} on {receipt.title}  sha256:{receipt.artifact}")
    show_receipt(out, receipt)
    out.hint(f"comity advisory ls {receipt.title}   # as others see it")


@examples(
    "comity advisory lost-key --since 812 --text 'the laptop is gone' --publisher 'Swiss AI'",
    "comity advisory lost-key --since 0 --key 5f01 --text 'generated on a bad machine' --node node-ch --node node-es",
)
@command.command("lost-key", short_help="Tell from when on a key of yours was in other hands.")
@click.option("--since", required=True, type=click.IntRange(0), metavar="INDEX", help="An entry of your home log.")
@click.option("--key", default="", metavar="HEX", help="Which one. Default: the last retired, or the present one.")
@click.option("--text", required=True, help="What people should know.")
@PUBLISHER
@NODE
def lost_key(since: int, key: str, text: str, publisher: str, nodes: tuple[str, ...]) -> None:
    """Sign and log that a key of your publisher was in other hands from entry INDEX of its home log on. Change your
    keys first (comity publisher rotate). What stands below the entry keeps its place in every verdict; what stands
    there or behind it, by that key, no longer passes the key policy."""
    out = output()
    api = client()
    signer = signing(api, publisher)
    with follow(out, "logging") as on_event:
        receipt = api.report_lost_key(signer, since, text, key=key, nodes=nodes, on_event=on_event)
    out.say(f"a key of {receipt.title} was in other hands from entry {since} of {signer.home} on")
    show_receipt(out, receipt)


@examples("comity advisory ls inst/name@v1")
@command.command("ls", short_help="List the proven warnings about an artifact.")
@click.argument("reference", metavar="REF")
def ls(reference: str) -> None:
    """List the warnings about REF whose issuers really signed them."""
    out = output()
    advisories = client().resolve(reference).advisories
    rows = [(a.kind, a.severity, f"{a.by.kind} {a.by.id[:12]}", a.text) for a in advisories]
    if rows:
        out.table(("kind", "severity", "by", "text"), rows)
    else:
        out.say("None known to the reachable nodes.")
    listed = [{"kind": a.kind, "severity": a.severity, "by": a.by.id, "text": a.text} for a in advisories]
    out.document("advisories", {"advisories": listed})
