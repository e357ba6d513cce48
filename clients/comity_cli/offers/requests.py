"""Requests: for a grant, or for a standing pact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from comity.trust.offers.records import GrantRequest

from comity_cli.command import output
from comity_cli.offers import rendering
from comity_cli.offers.arguments import allocations, moment
from comity_cli.offers.context import LINE, F, OfferContext, now, signing_options


def request_options(command: F) -> F:
    """Options of a request: allocations, times, text and signer."""
    command = signing_options(command)
    for option in (
        click.option("--text", default="", help="Reason. Public."),
        click.option("--until", "end", type=moment, metavar="TIME", help="End. UTC, unless it has an offset."),
        click.option("--from-time", "start", type=moment, metavar="TIME", help="Start. Default: the whole window."),
        click.option("--want", "wants", multiple=True, required=True, metavar="SLICE:NODES[:AMOUNT]",
                     help="Nodes and amount of a slice."),
    ):  # fmt: skip
        command = option(command)
    return command


def request_allocations(
    offer: str, *, pact: bool, wants: Sequence[str], start: int | None, end: int | None, text: str, **options: Any
) -> None:
    """Sign a request for a grant or a pact, and log it or write a bundle file."""
    context = OfferContext(**options)
    seen = context.offer(offer)
    view, document = seen.view, seen.view.offer
    if view.status != "proven":
        output().warn(f"this offer is only {rendering.describe_status(seen, now())}")
    request = GrantRequest(
        context.signer.identity, document.id, allocations(document, wants, start, end), now(), pact, text
    )
    facts = [
        ("of", f"{document.title} [{view.state.chain[:12]}]"),
        ("lent by", view.identities.name(document.provider)),
    ]
    for part in request.allocations:
        free = view.state.free_nodes(part.slice, part.start, part.end)
        how = f"{rendering.describe_interval(part)}, {part.amount:,} {document.measure}; {free} nodes free"
        facts.append((part.slice, how))
    context.sign(
        request,
        facts,
        title="requests a standing pact:" if pact else "requests machines:",
        known=view.bundle,
        next_command=f"comity grant approve {LINE} --node HOME",
    )
