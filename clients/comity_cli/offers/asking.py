"""Asking for machines: for a grant, or for a standing pact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from comity.trust.offers.records import GrantRequest

from comity_cli.command import output
from comity_cli.offers import rendering
from comity_cli.offers.counter import LINE, Counter, F, now, speaking_options
from comity_cli.offers.wants import allocations, moment


def asking_options(command: F) -> F:
    """How much of what, when and what for; and who asks."""
    command = speaking_options(command)
    for option in (
        click.option("--text", default="", help="What for, for everybody to read."),
        click.option("--until", "end", type=moment, metavar="TIME", help="Until when. UTC, unless it names an offset."),
        click.option("--from-time", "start", type=moment, metavar="TIME", help="From when. Default: the whole window."),
        click.option("--want", "wants", multiple=True, required=True, metavar="SLICE:NODES[:AMOUNT]",
                     help="How much of what."),
    ):  # fmt: skip
        command = option(command)
    return command


def ask(
    offer: str, *, pact: bool, wants: Sequence[str], start: int | None, end: int | None, text: str, **options: Any
) -> None:
    """Sign a request, for a grant or a pact, and hand it over."""
    counter = Counter(**options)
    seen = counter.offer(offer)
    view, lent = seen.view, seen.view.offer
    if view.state != "proven":
        output().warn(f"this offer is only {rendering.standing(seen, now())}")
    said = GrantRequest(counter.voice.identity, lent.id, allocations(lent, wants, start, end), now(), pact, text)
    facts = [("of", f"{lent.title} [{view.book.chain[:12]}]"), ("lent by", view.circle.name(lent.provider))]
    for part in said.allocations:
        free = view.book.free_nodes(part.slice, part.start, part.end)
        how = f"{rendering.span(part)}, {part.amount:,} {lent.measure}; {free} free then"
        facts.append((part.slice, how))
    counter.sign(
        said,
        facts,
        title="asks for a standing pact:" if pact else "asks for machines:",
        known=view.parcel,
        following=f"comity grant approve {LINE} --dir HOME",
    )
