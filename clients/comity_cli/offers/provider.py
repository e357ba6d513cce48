"""The provider's commands of `comity grant`. Each writes one record, by the provider's own node."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from comity.content import durable
from comity.rules.offers.offer import Window
from comity.rules.offers.records import Default, GrantRequest, Redemption
from comity.trust.encoding import printable
from comity.trust.errors import ComityError, NotFound
from comity.trust.names import parse_id
from comity_client.hub_environment import endpoint_for_other_machines
from comity_client.offers.handoff import Files, HandOff, Part, render

from comity_cli.command import Command, examples, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FOLDER
from comity_cli.offers import rendering
from comity_cli.offers.arguments import allocations, moment
from comity_cli.offers.context import PROVIDER_HOME, OfferContext, S, provider_options
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.offers.offer_client import ProviderRecord, SentStatement


@document("loaded")
class LoadedDocument:
    """The entries of a node's log for the lines of a file, as `comity grant load --json` prints them."""

    node: str
    indexes: tuple[int, ...]


@examples(
    "comity grant approve 7c6b5a49 --node node-ch",
    "comity grant approve request.bundle --node node-ch --out grant.bundle",
    "comity grant approve 7c6b5a49 --want big:1:100 --node node-ch",
)
@click.command(cls=Command, name="approve", short_help="Grant a request.")
@click.argument("request", metavar="REQUEST")
@click.option(
    "--want", "wants", multiple=True, metavar="SLICE:NODES[:AMOUNT]", help="Grant this instead of the request."
)
@click.option("--from-time", "start", type=moment, metavar="TIME", help="With --want: start.")
@click.option("--until", "end", type=moment, metavar="TIME", help="With --want: end.")
@provider_options
def approve(request: str, wants: Sequence[str], start: int | None, end: int | None, **options: Any) -> None:
    """Grant REQUEST, given by the first digits of its digest or a bundle file. Your node reserves the machines and logs
    the grant in one step. It refuses a grant that exceeds what is free."""
    from comity.wire.offer import Approve

    context, out = OfferContext(**options), output()
    found = context.statement(request, GrantRequest)
    content = found.statement
    chosen = allocations(found.view.offer, wants, start, end) if wants else ()
    who = found.view.identities.name(content.by)
    reason = printable(content.text) or "no reason given"  # on one line: lines of its own could look like ours
    out.say(f"{who} requests {'a standing pact' if content.pact else 'machines'}: {reason}")
    for part in chosen or content.allocations:
        free = found.view.state.free_nodes(part.slice, part.start, part.end)
        out.fact(
            part.slice,
            f"{rendering.describe_interval(part)}, {part.amount:,} {found.view.offer.measure}; {free} nodes free",
        )
    recorded = context.record(Approve(found.entry.digest, chosen), "Grant this?", _unlogged_lines(found))
    _show_record(
        context, recorded, f"granted to {who}", f"comity grant accept {_argument(context, recorded)} --node HOME"
    )


@examples("comity grant reject 7c6b5a49 --text 'in use until March' --node node-ch")
@click.command(cls=Command, name="reject", short_help="Reject a request.")
@click.argument("request", metavar="REQUEST")
@click.option("--text", required=True, help="Reason. Public.")
@provider_options
def reject(request: str, text: str, **options: Any) -> None:
    """Reject REQUEST, with a reason. The rejection is logged."""
    from comity.wire.offer import Reject

    context = OfferContext(**options)
    found = context.statement(request, GrantRequest)
    recorded = context.record(Reject(found.entry.digest, text), "Reject this request?", _unlogged_lines(found))
    _show_record(context, recorded, f"rejected {found.entry.digest[:12]}", "comity offer ls")


@examples("comity grant load accept.bundle --node node-ch", "comity grant load cut-off.bundle --node node-ch --json")
@click.command(cls=Command, name="load", short_help="Log the statements of a bundle file at your node.")
@click.argument("file", type=FILE)
@PROVIDER_HOME
def load(file: Path, home: Path) -> None:
    """Log the statements in FILE at your node: an acceptance, a release, a cut-off, a default, an agreement. The node
    checks who signed each line, and writes the records that follow by itself."""
    from comity_client.offers.bundle import OfferBundle

    context, out = OfferContext(home=home), output()
    lines = OfferBundle.read(file).unplaced
    if not lines:
        raise NotFound(f"{file} contains nothing to log", why="all its lines were in a log when it was written",
                       hint=f"comity offer show {shlex.quote(str(file))} --offline", code="NOTHING-TO-LOG")  # fmt: skip
    name, indexes = context.offer_client.deliver(lines, context.socket)
    out.done(f"{plural(len(indexes), 'line')} of {file} logged at {name}")
    out.answer(LoadedDocument(name, tuple(indexes)))


@examples(
    "comity grant hand-over redeem.bundle --node node-ch --user guest1 --into ./hand-off",
    "comity grant hand-over 3d4c5b6a --engine skypilot --into ./hand-off --node node-ch",
)
@click.command(cls=Command, name="hand-over", short_help="Record a redemption, and write files for the engine.")
@click.argument("redemption", metavar="REDEMPTION")
@click.option("--into", type=NEW_FOLDER, default=Path("hand-off"), show_default=True,
              help="Folder for the files.")  # fmt: skip
@click.option("--engine", default="", type=click.Choice(["", "slurm", "kubernetes", "skypilot", "ssh"]),
              help="Default: the offer's.")  # fmt: skip
@click.option("--user", default="", help="The grantee's account on your machines.")
@click.option("--endpoint", default="", metavar="URL", help="Your node as a Hub. Default: from its settings.")
@click.option("--artifact", default="", metavar="DIGEST", help="The model. Default: the only model of the offer.")
@click.option("--model", default="", metavar="NAME", help="Name of the model, for people and for vLLM.")
@provider_options
def hand_over(
    redemption: str, into: Path, engine: str, user: str, endpoint: str, artifact: str, model: str, **options: Any
) -> None:
    """Record REDEMPTION, given by the first digits of its digest or a bundle file, and write files for Slurm,
    Kubernetes, SkyPilot or SSH. Your node checks that the grantee's key signed it after the newest record, and that
    the amount is left. Comity runs nothing: read the files, then use them. They contain no password or key."""
    from comity.wire.offer import Redeem

    context, out = OfferContext(**options), output()
    found = context.statement(redemption, Redemption)
    handoff = build_handoff(found, engine, user, endpoint, artifact, model, context.home)
    texts = render(handoff)
    for what, how in rendering.grant_facts(found.view, found.view.grant(found.statement.grant)):
        out.fact(what, how)
    recorded = context.record(Redeem(found.entry.digest), "Record this redemption?", _unlogged_lines(found))
    files = write(texts, into)
    out.done(f"recorded: {recorded.entry.digest[:12]}; files for {handoff.engine}: {', '.join(files)} in {into}")
    written = {name: str(into / name) for name in files}
    out.document(
        "hand-over",
        {"line": recorded.entry.digest, "index": recorded.index, "engine": handoff.engine, "files": written},
    )
    out.hint("read the files, run the administrator's part, and send the rest to the grantee")


@examples("comity grant take-back 1f2e3d4c --node node-ch")
@click.command(cls=Command, name="take-back", short_help="Release a grant that is over or was given back.")
@click.argument("grant", metavar="GRANT")
@provider_options
def take_back(grant: str, **options: Any) -> None:
    """Record that GRANT is over or was given back. What was not redeemed is free again."""
    from comity.wire.offer import Release

    context = OfferContext(**options)
    found = context.grant(grant)
    recorded = context.record(Release(found.grant_state.digest), "Release it?", found.view.bundle.unplaced)
    _show_record(context, recorded, "released", f"comity offer show {found.view.state.chain[:12]}")


@examples("comity grant answer 4f3e2d1c --text 'the power failed; it was made good on 9 January' --node node-ch")
@click.command(cls=Command, name="answer", short_help="Answer a default statement.")
@click.argument("default", metavar="DEFAULT")
@click.option("--text", required=True, help="Your answer. Public.")
@provider_options
def answer(default: str, text: str, **options: Any) -> None:
    """Answer DEFAULT, a grantee's statement that a grant was not honoured. Both are public and shown with the grant."""
    from comity.wire.offer import AnswerDefault

    context = OfferContext(**options)
    found = context.statement(default, Default)
    output().say(f"{found.view.identities.name(found.statement.by)} says: {printable(found.statement.text)}")
    recorded = context.record(AnswerDefault(found.entry.digest, text), "Log this answer?", _unlogged_lines(found))
    _show_record(context, recorded, "answered", f"comity grant show {found.statement.grant[:12]}")


@examples("comity grant report 1f2e3d4c --amount 280 --since 2027-01-04 --until 2027-01-11 --node node-ch")
@click.command(cls=Command, name="report", short_help="Log what was used of a grant.")
@click.argument("grant", metavar="GRANT")
@click.option(
    "--amount", "given", multiple=True, required=True, type=click.IntRange(0), help="Amount of each allocation."
)
@click.option("--since", "start", type=moment, required=True, metavar="TIME", help="Start.")
@click.option("--until", "end", type=moment, required=True, metavar="TIME", help="End.")
@click.option("--text", default="", help="Free text. Public.")
@provider_options
def report(grant: str, given: Sequence[int], start: int, end: int, text: str, **options: Any) -> None:
    """Log what was used of GRANT. It counts in a balance once the grantee agrees: `comity grant agree`."""
    from comity.wire.offer import UsageReport

    context = OfferContext(**options)
    found = context.grant(grant)
    action = UsageReport(found.grant_state.digest, tuple(given), Window(start, end), text)
    recorded = context.record(action, f"Log that {', '.join(map(str, given))} {found.view.offer.measure} were used?")
    _show_record(context, recorded, "logged", f"comity grant agree {_argument(context, recorded)} --node HOME")


COMMANDS: Final = (approve, reject, load, hand_over, take_back, answer, report)


def _unlogged_lines(found: SentStatement[S]) -> list[bytes]:
    """Lines of the bundle that are in no log yet, the statement itself last."""
    lines = found.view.bundle.unplaced
    return [line for line in lines if line != found.entry.line] + [found.entry.line] if lines else []


def _argument(context: OfferContext, recorded: ProviderRecord) -> str:
    return shlex.quote(context.out.name) if context.out else recorded.entry.digest[:12]


def _show_record(context: OfferContext, recorded: ProviderRecord, what: str, next_command: str) -> None:
    out, entry = output(), recorded.entry
    out.done(f"{what}: {entry.statement.predicate} {entry.digest[:12]}, proven by a checkpoint"
             + (f"; in bundle file {context.out}" if context.out else ""))  # fmt: skip
    where = str(context.out) if context.out else ""
    document = {"line": entry.digest, "chain": entry.statement.subject, "next": next_command, "where": where}
    out.document(entry.statement.predicate, document)
    out.hint(f"the other side: {next_command}")


def build_handoff(
    found: SentStatement[Redemption], engine: str, user: str, endpoint: str, artifact: str, model: str, home: Path
) -> HandOff:
    """The hand-off of a redemption. Raises Malformed (HAND-OFF), NotFound (NO-GRANT)."""
    redemption, view = found.statement, found.view
    grant_state, offer = view.grant(redemption.grant), view.offer
    parts = []
    for given, amount in zip(grant_state.grant.allocations, redemption.amounts, strict=False):
        part = next(p for old in reversed(view.state.offers) if (p := old.slice(given.slice)))
        parts.append(
            Part(part.name, part.vendor, part.accelerator, part.count, given.nodes, given.start, given.end, amount,
                 part.cpus, part.ram_gib, part.disk_gib, part.attributes)
        )  # fmt: skip
    only = offer.artifacts[0] if len(offer.artifacts) == 1 else None
    return HandOff(
        grant=grant_state.digest,
        title=offer.title,
        provider=view.identities.name(offer.provider),
        grantee=view.identities.name(redemption.by),
        measure=offer.measure,
        engine=engine or offer.engine.kind,
        target=offer.engine.target,
        parts=tuple(part for part in parts if part.amount),
        endpoint=endpoint or _endpoint(home),
        artifact=parse_id(artifact) if artifact else only,
        model=model,
        user=user,
        note=redemption.text,
    )


def write(files: Files, folder: Path) -> list[str]:
    """Write the files below `folder`; returns their names. Raises OutOfSpace, Unavailable."""
    with durable.disk_errors(f"{folder} was not made"):
        durable.make_folders(folder)
    for name, text in files.items():
        durable.write_file(folder / name, text.encode(), mode=0o644, point="hand-off")
    return sorted(files)


def _endpoint(home: Path) -> str:
    """URL of the gateway for jobs on other machines; empty, with a warning, if there is none."""
    try:
        url, why = endpoint_for_other_machines(home), "the gateway listens only for this machine"
    except ComityError as error:
        url, why = "", str(error)
    if not url:
        output().warn(f"the files do not set HF_ENDPOINT: {why}; set url in [gateway] of node.toml, or give --endpoint")
    return url
