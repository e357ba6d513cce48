"""Asking for machines: for a grant, or for a standing pact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comity.trust.offers.parties import Request

from comity_cli.command import output
from comity_cli.lending import rendering
from comity_cli.lending.counter import LINE, Counter, now
from comity_cli.lending.wants import allocations


def ask(
    offer: str, wants: Sequence[str], start: int | None, end: int | None, text: str, *, pact: bool, **options: Any
) -> None:
    """Sign a request, for a grant or a pact, and hand it over."""

    counter = Counter(**options)
    market, name = counter.named(offer)
    seen = market.offer(name)
    view, lent = seen.view, seen.view.offer
    if view.state != "proven":
        output().warn(f"this offer is only {rendering.standing(seen, now())}")
    said = Request(counter.voice.identity, lent.id, allocations(lent, wants, start, end), now(), pact, text)
    facts = [("of", f"{lent.title} [{view.book.chain[:12]}]"), ("lent by", view.circle.name(lent.provider))]
    for part in said.allocations:
        free = view.book.free_nodes(part.slice, part.start, part.end)
        how = f"{rendering.span(part)}, {part.amount:,} {lent.measure}; {free} free then"
        facts.append((part.slice, how))
    counter.sign(
        said, facts, title="asks for a standing pact:" if pact else "asks for machines:", known=view.parcel,
        following=f"comity grant approve {LINE} --dir HOME",
    )  # fmt: skip
