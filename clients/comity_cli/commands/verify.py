"""`comity verify`: the verdict, and the report and HTML page that are written, signed and logged with it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import comity
from comity.installed_addons import from_addons
from comity.trust.artifact import MAX_FILES
from comity.trust.errors import ComityError, NotFound
from comity.trust.evidence import PACK, Verdict
from comity.trust.frozen import frozen

from comity_cli import verdicts
from comity_cli.command import Command, client, examples, options_as, output
from comity_cli.commands.publish import show_image
from comity_cli.files import FILE, NEW_FILE
from comity_cli.following import follow
from comity_cli.nodes import nodes_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.trust.report import VerdictReport
    from comity.trust.statement import Entry
    from comity_client.client import Client
    from comity_client.publish import PublishReceipt
    from comity_client.publishers import Publisher


@frozen
class Filed:
    """Paths of the report, its page and its signature, and the receipt of the log."""

    report: Path | None
    page: Path | None
    signature: Path | None
    receipt: PublishReceipt | None

    def to_json(self) -> dict[str, Any]:
        logged = self.receipt.logged if self.receipt else ()
        return {
            "report": str(self.report) if self.report else None,
            "html": str(self.page) if self.page else None,
            "signature": str(self.signature) if self.signature else None,
            "logged": [{"node": each.node, "origin": each.origin, "index": each.index} for each in logged],
        }


@frozen
class LogPlaces:
    """The nodes at which a signed report is logged, and whether a summary about the image is too."""

    nodes: Sequence[str]
    sign_image: bool


def file_report(
    out: Output,
    api: Client,
    verdict: Verdict,
    report: Path | None,
    page: Path | None,
    publisher: Publisher | None,
    where: LogPlaces,
) -> Filed | None:
    """Return None if no output was requested. Written files stay if logging fails."""
    if report is None and page is None:
        return None
    from comity.content import durable
    from comity.trust.report import VerdictReport
    from comity_client.reports import read_signed
    from comity_client.reports import render_page as render
    from comity_client.signature_files import signature_path, write_signature

    made = VerdictReport.of(verdict, comity.__version__)
    signed = entry = None
    if report is not None:
        durable.write_file(report, made.encode(), mode=0o644, point="report")
        out.say(f"Report: {report}")
    if report is not None and publisher is not None and verdict.artifact is None:
        out.warn("not signed: without a manifest there is no artifact to sign for")
    elif report is not None and publisher is not None:
        entry = api.sign_report(made, publisher)
        write_signature(report, publisher, entry)
        signed = read_signed(report)
        out.done(f"signed by {publisher.label} [{publisher.id[:12]}]: {signature_path(report)}")
    if page is not None:
        durable.write_file(page, render(made, signed).encode(), mode=0o644, point="page")
        out.say(f"Page: {page}")
    receipt = _logged(out, api, made, entry, publisher, where) if entry and publisher and where.nodes else None
    return Filed(report, page, signature_path(report) if report and signed else None, receipt)


def _logged(
    out: Output, api: Client, report: VerdictReport, entry: Entry, publisher: Publisher, where: LogPlaces
) -> PublishReceipt:
    nodes, sign_image = where.nodes, where.sign_image
    with follow(out, "logging") as on_event:
        receipt = api.log_report(report, entry, publisher, sign_image=sign_image, nodes=nodes, on_event=on_event)
    for logged in receipt.logged:
        out.done(f"logged at {logged.node}: entry {logged.index} of {logged.origin}, proven by a checkpoint")
    if receipt.image is not None:
        show_image(out, receipt.image, publisher, nodes)
    return receipt


@frozen
class VerifyOptions:
    """Whether a summary about the image is signed, the facts of each row are shown, and no node is asked."""

    sign_oci: bool
    facts: bool
    offline: bool


@examples(
    "comity verify ./apertus-8b",
    "comity verify ./apertus-8b --policy ministry.toml --report evidence.json --html evidence.html",
    "comity verify ./apertus-8b --policy ministry.toml --report evidence.json --sign-as 'Security desk' --node node-ch",
    "python -m comity.verifier ./apertus-8b --policy ministry.toml",
)
@click.command(cls=Command, name="verify", short_help="Check an artifact by its files and evidence.")
@click.argument("target", metavar="DIR|REF")
@click.option("--policy", type=FILE, help="Verify with this policy (TOML).")
@click.option(
    "--report", type=NEW_FILE, help="Write the report to this file: JSON, the same bytes for the same evidence."
)
@click.option("--html", "page", type=NEW_FILE, help="Write the report as an HTML page to this file.")
@click.option("--sign-as", "signer", default="", metavar="LABEL", help="Sign the report with this publisher's keys.")
@nodes_option("Log the signed report at this node; needs a network.", old=("--log",))
@click.option("--sign-oci", is_flag=True, help="With --node: also sign a summary about the OCI image, for cosign.")
@click.option("--facts", is_flag=True, help="Show the facts of each row.")
@click.option("--offline", is_flag=True, help="Ask no node, also where no evidence is beside the files.")
@options_as("how", VerifyOptions)
def command(
    target: str,
    policy: Path | None,
    report: Path | None,
    page: Path | None,
    signer: str,
    nodes: tuple[str, ...],
    how: VerifyOptions,
) -> int:
    """Hash every file of DIR (or of the folder to which REF was pulled), and verify it with the evidence beside it.
    Uses no network and no clock. Without --policy your pinned federations are the policy.

    If no evidence is beside the files of DIR, nodes are asked which artifact they are, by the first bits of each
    digest, and for its evidence. Nothing is written. --offline asks none.

    With --sign-as the report gets a signature beside it (FILE.intoto.jsonl) with the time of signing. A refusal is
    signed too. --sign-oci also logs a summary about the OCI image of an accepted artifact: cosign verify-attestation,
    and policies of clusters, check it with the key of comity publisher key LABEL.

    Exit status: 0 accepted, 3 verification failed, 4 policy not met, 5 evidence missing, 8 partial.
    """
    out, api, folder = output(), client(), Path(target)
    if how.sign_oci and not nodes:
        raise click.UsageError("--sign-oci logs a summary about the image: give --sign-as and --node")
    _check_usage(folder, policy, report, page, signer, nodes)
    publisher = api.publisher(signer) if signer else None
    verdict, why = _judged(out, api, folder if folder.exists() else target, policy, how.offline)
    verdicts.show(out, verdict, facts=how.facts, folder=shlex.quote(target) if folder.exists() else "", policy=policy)
    verdicts.warn(out, verdict)
    _tell_of_others(folder)
    if why is not None:
        out.warn(f"not identified by its files: {why}")
        out.hint(why.hint)
    if policy is None and not api.pins():
        out.warn("no federation is pinned here, so no log and no cosigner counts")
        out.hint("copy the federation file from the machine that pulled it, which lists its path: comity trust show")
        out.hint("compare the words of the federation with two members, then: comity trust pin FILE")
        out.hint(f"comity verify {target}")
    sign_image = how.sign_oci and verdict.accepted
    if how.sign_oci and not verdict.accepted:
        out.warn("no summary about the image is signed: cosign asks who signed one, and not for its result")
    filed = file_report(out, api, verdict, report, page, publisher, LogPlaces(nodes, sign_image))
    if out.as_json:
        click.echo(_document(verdict, filed))
    return verdict.exit_status


def _judged(
    out: Output, api: Client, subject: Path | str, policy: Path | None, offline: bool
) -> tuple[Verdict, ComityError | None]:
    """The verdict; and, for a folder without evidence, why it was not identified."""
    judged_by = api.policy(policy) if policy else None
    bare = isinstance(subject, Path) and subject.is_dir() and not (subject / PACK / "manifest.json").is_file()
    with out.progress("hashing", _size(Path(subject))) as progress:
        if not bare or offline:
            verdict = api.verify(subject, policy=judged_by, on_hashed=progress.advance)
            return verdict, _ask_none(subject) if bare and not verdict.accepted else None
        found = api.verify_by_files(Path(subject), policy=judged_by, on_hashed=progress.advance)
    if found.identified is not None:
        out.prose(found.identified.basis)
        for alarm in found.identified.alarms:
            out.warn(alarm)
    return found.verdict, found.why


def _ask_none(folder: Path | str) -> ComityError:
    why, hint = "--offline asks no node", f"on a machine with a network: comity adopt {shlex.quote(str(folder))}"
    return NotFound("no evidence is beside the files", why=why, hint=hint, code="NO-PACK")


def _tell_of_others(folder: Path) -> None:
    """What add-ons know beside the files: each declares `beside`, which returns a count, its unit and a command."""
    for found in filter(None, (beside(folder) for beside in from_addons("beside") if folder.is_dir())):
        count, unit, command = found
        output().say(f"{plural(count, unit)} of other tools beside it: no row depends on them")
        output().hint(command)


def _check_usage(
    folder: Path, policy: Path | None, report: Path | None, page: Path | None, signer: str, nodes: tuple[str, ...]
) -> None:
    """Reject wrong combinations of options before any file is hashed."""
    if signer and (report is None or policy is None):
        raise click.UsageError("--sign-as signs a report under a policy: give --report and --policy")
    if nodes and not signer:
        raise click.UsageError("--node logs a signed report: give --sign-as")
    for path in (report, page):
        if path is not None and folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
            raise click.UsageError(f"{path} is inside the verified folder, and would be a file that nobody published")


def _document(verdict: Verdict, filed: Filed | None) -> str:
    document = verdict.to_json() | (filed.to_json() if filed else {})
    return json.dumps(document, indent=1)  # ASCII only: file names may contain characters that cannot be encoded


def _size(folder: Path) -> int:
    """Bytes of the files of a folder; 0 if there are more of them than an artifact has."""
    sizes = list(islice(_sizes(folder), MAX_FILES + 1)) if folder.is_dir() else []
    return sum(sizes) if len(sizes) <= MAX_FILES else 0


def _sizes(folder: Path) -> Iterator[int]:
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:  # hashing says what cannot be read
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry.stat().st_size
