"""The provider's side of `comity grant`: each step is one record, written by its own node alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from comity.trust.errors import NotFound
from comity.trust.offers.offer import Window
from comity.trust.offers.records import Default, GrantRequest, Redemption

from comity_cli.command import Command, examples, output
from comity_cli.files import FILE, NEW_FOLDER
from comity_cli.offers import rendering
from comity_cli.offers.counter import LENDER, Counter, S, lending_options
from comity_cli.offers.wants import allocations, moment
from comity_cli.output import plural

if TYPE_CHECKING:
    from comity_client.offers.market import ProviderRecord, SentStatement


@examples(
    "comity grant approve 7c6b5a49 --dir node-ch",
    "comity grant approve request.parcel --dir node-ch --out grant.parcel",
    "comity grant approve 7c6b5a49 --want big:1:100 --dir node-ch",
)
@click.command(cls=Command, name="approve", short_help="Grant a request.")
@click.argument("request", metavar="REQUEST")
@click.option(
    "--want", "wants", multiple=True, metavar="SLICE:NODES[:AMOUNT]", help="Grant this instead of what was asked."
)
@click.option("--from-time", "start", type=moment, metavar="TIME", help="With --want: from when.")
@click.option("--until", "end", type=moment, metavar="TIME", help="With --want: until when.")
@lending_options
def approve(request: str, wants: Sequence[str], start: int | None, end: int | None, **options: Any) -> None:
    """Grant REQUEST, a digest's beginning or a parcel. Your node reserves the machines and logs the grant in one step;
    it refuses what would be more than there is."""
    from comity.wire.offer import Approve

    counter, out = Counter(**options), output()
    asked = counter.said(request, GrantRequest)
    said = asked.said
    chosen = allocations(asked.view.offer, wants, start, end) if wants else ()
    who = asked.view.circle.name(said.by)
    out.say(f"{who} asks for {'a standing pact' if said.pact else 'machines'}: {said.text or 'no reason given'}")
    for part in chosen or said.allocations:
        free = asked.view.book.free_nodes(part.slice, part.start, part.end)
        out.fact(part.slice, f"{rendering.span(part)}, {part.amount:,} {asked.view.offer.measure}; {free} free then")
    recorded = counter.record(Approve(asked.entry.digest, chosen), "Grant this?", _carried(asked))
    _tell(
        counter, recorded, f"granted to {who}", f"comity grant accept {_for_other_side(counter, recorded)} --dir HOME"
    )


@examples("comity grant reject 7c6b5a49 --text 'in use until March' --dir node-ch")
@click.command(cls=Command, name="reject", short_help="Say no to a request.")
@click.argument("request", metavar="REQUEST")
@click.option("--text", required=True, help="Why, for everybody to read.")
@lending_options
def reject(request: str, text: str, **options: Any) -> None:
    """Say no to REQUEST, with a reason. It is logged."""
    from comity.wire.offer import Reject

    counter = Counter(**options)
    asked = counter.said(request, GrantRequest)
    recorded = counter.record(Reject(asked.entry.digest, text), "Reject this request?", _carried(asked))
    _tell(counter, recorded, f"rejected {asked.entry.digest[:12]}", "comity offer ls")


@examples("comity grant load accept.parcel --dir node-ch", "comity grant load cut-off.parcel --dir node-ch --json")
@click.command(cls=Command, name="load", short_help="Log at your node what a grantee sent in a parcel.")
@click.argument("file", type=FILE)
@LENDER
def load(file: Path, home: Path) -> None:
    """Have your node log what somebody carried here: an acceptance, a release, a cut-off, a default, an agreement. It
    checks who signed each line, and records what follows by itself."""
    from comity_client.offers.market import OfferBundle

    counter, out = Counter(home=home), output()
    lines = OfferBundle.read(file).unplaced
    if not lines:
        raise NotFound(f"{file} brings nothing to log", why="each of its lines was in a log when it was written",
                       hint=f"comity offer show {shlex.quote(str(file))} --offline", code="NOTHING-TO-LOG")  # fmt: skip
    name, indexes = counter.market.deliver(lines, counter.socket)
    out.done(f"{plural(len(indexes), 'line')} of {file} logged at {name}")
    out.document("loaded", {"node": name, "indexes": list(indexes)})


@examples(
    "comity grant hand-over redeem.parcel --dir node-ch --user guest1 --into ./hand-off",
    "comity grant hand-over 3d4c5b6a --engine skypilot --into ./hand-off --dir node-ch",
)
@click.command(cls=Command, name="hand-over", short_help="Record a redemption, and write what the engine needs.")
@click.argument("redemption", metavar="REDEMPTION")
@click.option("--into", type=NEW_FOLDER, default=Path("hand-off"), show_default=True,
              help="Write the texts there.")  # fmt: skip
@click.option("--engine", default="", type=click.Choice(["", "slurm", "kubernetes", "skypilot", "ssh"]),
              help="Default: the offer's.")  # fmt: skip
@click.option("--user", default="", help="The grantee's account on your machines.")
@click.option("--endpoint", default="", metavar="URL", help="Your node as a Hub. Default: what its settings say.")
@click.option("--artifact", default="", metavar="DIGEST", help="The model. Default: the only one that the offer names.")
@click.option("--model", default="", metavar="NAME", help="Its name, for people and for vLLM.")
@lending_options
def hand_over(
    redemption: str, into: Path, engine: str, user: str, endpoint: str, artifact: str, model: str, **options: Any
) -> None:
    """Record REDEMPTION, a digest's beginning or a parcel, and write texts for Slurm, Kubernetes, SkyPilot or SSH. Your
    node checks that the grantee's own key signed it after the newest record, and that so much is left. Comity runs
    nothing: read the texts, then use them. No password or key is in them."""
    from comity.wire.offer import Redeem

    from comity_cli.offers.handing import facts_of, write

    counter, out = Counter(**options), output()
    asked = counter.said(redemption, Redemption)
    facts = facts_of(asked, engine, user, endpoint, artifact, model, counter.home)
    for what, how in rendering.grant_facts(asked.view, asked.view.grant(asked.said.grant)):
        out.fact(what, how)
    recorded = counter.record(Redeem(asked.entry.digest), "Record this redemption?", _carried(asked))
    files = write(facts, into)
    out.done(f"recorded: {recorded.entry.digest[:12]}; texts for {facts.engine}: {', '.join(files)} in {into}")
    written = {name: str(into / name) for name in files}
    out.document(
        "hand-over",
        {"line": recorded.entry.digest, "index": recorded.index, "engine": facts.engine, "files": written},
    )
    out.hint("read the texts, run the administrator's part, and give the grantee the rest")


@examples("comity grant take-back 1f2e3d4c --dir node-ch")
@click.command(cls=Command, name="take-back", short_help="Record that a grant is over, or was given back.")
@click.argument("grant", metavar="GRANT")
@lending_options
def take_back(grant: str, **options: Any) -> None:
    """Record that GRANT is over, or that its grantee gave it back: what was not redeemed is free again."""
    from comity.wire.offer import Release

    counter = Counter(**options)
    held = counter.grant(grant)
    recorded = counter.record(Release(held.commitment.digest), "Take it back?", held.view.parcel.unplaced)
    _tell(counter, recorded, "what is left of it is free again", f"comity offer show {held.view.book.chain[:12]}")


@examples("comity grant answer 4f3e2d1c --text 'the power failed; it was made good on 9 January' --dir node-ch")
@click.command(cls=Command, name="answer", short_help="Answer a default in public.")
@click.argument("default", metavar="DEFAULT")
@click.option("--text", required=True, help="What you have to say to it, for everybody to read.")
@lending_options
def answer(default: str, text: str, **options: Any) -> None:
    """Answer DEFAULT, what a grantee said of you. Both stand beside the grant, for everybody to read."""
    from comity.wire.offer import AnswerDefault

    counter = Counter(**options)
    found = counter.said(default, Default)
    output().say(f"{found.view.circle.name(found.said.by)} says: {found.said.text}")
    recorded = counter.record(AnswerDefault(found.entry.digest, text), "Log this answer?", _carried(found))
    _tell(counter, recorded, "answered", f"comity grant show {found.said.grant[:12]}")


@examples("comity grant report 1f2e3d4c --amount 280 --since 2027-01-04 --until 2027-01-11 --dir node-ch")
@click.command(cls=Command, name="report", short_help="Say what was used of a grant.")
@click.argument("grant", metavar="GRANT")
@click.option("--amount", "given", multiple=True, required=True, type=click.IntRange(0), help="Of each allocation.")
@click.option("--since", "start", type=moment, required=True, metavar="TIME", help="From when.")
@click.option("--until", "end", type=moment, required=True, metavar="TIME", help="Until when.")
@click.option("--text", default="", help="For people.")
@lending_options
def report(grant: str, given: Sequence[int], start: int, end: int, text: str, **options: Any) -> None:
    """Say what was used of GRANT. It counts in a balance once the grantee agrees: `comity grant agree`."""
    from comity.wire.offer import UsageReport

    counter = Counter(**options)
    held = counter.grant(grant)
    act = UsageReport(held.commitment.digest, tuple(given), Window(start, end), text)
    recorded = counter.record(act, f"Say that {', '.join(map(str, given))} {held.view.offer.measure} were used?")
    _tell(counter, recorded, "said", f"comity grant agree {_for_other_side(counter, recorded)} --dir HOME")


COMMANDS: Final = (approve, reject, load, hand_over, take_back, answer, report)


def _carried(asked: SentStatement[S]) -> list[bytes]:
    """What a parcel brought that is in no log yet: the statement itself last."""
    lines = asked.view.parcel.unplaced
    return [line for line in lines if line != asked.entry.line] + [asked.entry.line] if lines else []


def _for_other_side(counter: Counter, recorded: ProviderRecord) -> str:
    return shlex.quote(counter.out.name) if counter.out else recorded.entry.digest[:12]


def _tell(counter: Counter, recorded: ProviderRecord, what: str, following: str) -> None:
    out, entry = output(), recorded.entry
    out.done(f"{what}: {entry.statement.predicate} {entry.digest[:12]}, proven by a checkpoint"
             + (f"; in {counter.out}, to be carried" if counter.out else ""))  # fmt: skip
    out.document(entry.statement.predicate, {"line": entry.digest, "chain": entry.statement.subject, "next": following,
                                             "where": str(counter.out) if counter.out else ""})  # fmt: skip
    out.hint(f"the other side: {following}")
