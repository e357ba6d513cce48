"""Requests and grants of a chain, in the order in which they were made, and what was said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity.trust.offers.amounts import DefaultAnswer, Usage
from comity.trust.offers.chain import GrantState
from comity.trust.offers.records import CutOff, Default, GivingBack, Redemption

from comity_cli.offers.rendering import when

if TYPE_CHECKING:
    from comity.trust.offers.offer import SliceAllocation
    from comity_client.offers.market import ChainView


def lines_of(view: ChainView) -> list[dict[str, Any]]:
    """A row for each request: what became of it, and the next command."""
    from comity.trust.offers.records import GrantRequest
    from comity_client.offers.market import loose

    rows = []
    for stated in (*view.requests(), *loose(view)):
        request = stated.said
        if not isinstance(request, GrantRequest):
            continue
        answer = view.book.answers.get(stated.line)
        held = view.book.grants.get(answer) if answer else None
        state = held.state if held else "rejected" if answer else "requested"
        rows.append(
            {
                "line": held.digest if held else stated.line,
                "request": stated.line,
                "state": state,
                "pact": request.pact,
                "by": request.by,
                "who": view.circle.name(request.by),
                "asked": _words(held.grant.allocations if held else request.allocations, view.offer.measure),
                "chain": view.book.chain,
                "chain_state": view.state,
                "next": next_step(held) if held else f"comity grant approve {stated.line[:12]} --dir HOME",
            }
        )
    return rows


def said_of(view: ChainView, grant: str) -> list[dict[str, Any]]:
    """What either side said of a grant beside its chain, in order."""
    from comity_client.offers.market import loose

    found = []
    for stated in (*view.chain.stated, *loose(view)):
        said = stated.said
        if getattr(said, "grant", None) != grant:
            continue
        by = getattr(said, "by", None)
        found.append(
            {
                "kind": _kind(said),
                "line": stated.line,
                "index": stated.index,
                "by": view.circle.name(by) if by else f"the provider, {view.circle.name(view.offer.provider)}",
                "text": getattr(said, "text", ""),
            }
        )
    return found


def next_step(held: GrantState) -> str:
    """The command that a grant waits for; empty where it is over."""
    return {
        "granted": f"comity grant accept {held.digest[:12]} --dir HOME",
        "accepted": f"comity {'pact declare' if held.grant.pact else 'grant redeem'} {held.digest[:12]} --dir HOME",
    }.get(held.state, "")


def _kind(said: object) -> str:
    kinds = {
        Default: "default",
        DefaultAnswer: "answer",
        Usage: "usage",
        Redemption: "redemption",
        GivingBack: "release",
    }
    if isinstance(said, CutOff):
        return "drill" if said.drill else "cut-off"
    return kinds.get(type(said), type(said).__name__.lower())


def _words(allocations: tuple[SliceAllocation, ...], measure: str) -> str:
    return ", ".join(
        f"{part.nodes} x {part.slice} until {when(part.end)}, {part.amount:,} {measure}" for part in allocations
    )
