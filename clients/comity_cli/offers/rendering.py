"""Offers and grants on a screen, and as JSON. Proven, claimed and stale are never one word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from comity.trust.offers.chain import GrantState
from comity.trust.offers.offer import Offer, Slice, SliceAllocation

from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.offers.market import ChainView, FoundChain

STALE_SECONDS: Final = 3600
"""After which a chain whose provider does not answer is called stale."""


def when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def machines(offer: Offer) -> str:
    """`4 x 8 H100 80 GiB`."""
    return ", ".join(
        f"{part.nodes} x {part.count} {part.accelerator} {part.memory_gib} GiB" if part.count
        else f"{part.nodes} x {part.cpus} CPUs"
        for part in offer.slices
    )  # fmt: skip


def standing(seen: FoundChain, now: int) -> str:
    """How much is known of a chain, and how fresh that is."""
    view = seen.view
    if view.state == "convicted":
        return f"CONVICTED: {view.why}"
    if view.state == "claimed":
        return f"claimed by {', '.join(seen.nodes) or 'a carried file'}: {view.why}"
    closed = "withdrawn, " if view.book.withdrawn else "over, " if view.offer.window.end <= now else ""
    if seen.provider_answers:
        return f"{closed}proven, its provider answers"
    why = "its provider does not answer" if seen.nodes else "no node was asked"
    if view.as_of is None:
        return f"{closed}proven, cosigned by nobody yet; {why}"
    age = "stale:" if now - view.as_of > STALE_SECONDS else "proven"
    return f"{closed}{age} as of {when(view.as_of)}; {why}"


def span(part: SliceAllocation) -> str:
    """`2 nodes, 2027-01-04 00:00Z up to 2027-01-11 00:00Z`."""
    return f"{plural(part.nodes, 'node')}, {when(part.start)} up to {when(part.end)}"


def left(view: ChainView) -> str:
    """What is left of each slice."""
    return ", ".join(f"{amount:,}" for amount in view.book.remaining) + f" {view.offer.measure}"


def show_offer(out: Output, seen: FoundChain, now: int) -> None:
    view, offer = seen.view, seen.view.offer
    out.say(f"{offer.title}")
    out.fact("chain", view.book.chain)
    out.fact("state", standing(seen, now))
    out.fact("lent by", view.circle.name(offer.provider) + (f", {offer.contact}" if offer.contact else ""))
    out.fact(
        "log",
        f"{offer.log.split('+', 1)[0]}, {plural(view.book.seq + 1, 'record')}, the newest of {when(view.book.at)}",
    )
    out.fact(
        "cosigned", f"by {plural(view.cosigners, 'member')}" if view.cosigners else "by nobody, as far as is known here"
    )
    for part, rest in zip(offer.slices, view.book.remaining, strict=True):
        out.fact(part.name, f"{_nodes(part)}; {rest:,} of {part.amount:,} {offer.measure} left")
    out.fact("window", f"{when(offer.window.start)} up to {when(offer.window.end)}")
    place = offer.location
    out.fact("where", f"{place.jurisdiction}, run by {place.operator}"
                      + (f", cloud of {place.cloud_parent}" if place.cloud_parent else ""))  # fmt: skip
    out.fact("legal reach", ", ".join(place.legal_reach) or "none named")
    who = offer.eligibility
    out.fact("who may ask", who.who + (f" in {', '.join(who.jurisdictions)}" if who.jurisdictions else ""))
    price = f", {offer.terms.price} {offer.terms.currency} a unit" if offer.terms.kind == "price" else ""
    out.fact("terms", f"{offer.terms.kind}{price}" + (f": {offer.terms.text}" if offer.terms.text else ""))
    out.fact("engine", offer.engine.kind + (f" {offer.engine.target}" if offer.engine.target else ""))
    out.fact("models here", ", ".join(f"sha256:{each[:12]}…" for each in offer.artifacts) or "none named")
    out.say(
        "  Location, reach and machines are the provider's words. That no hardware is in two offers, nobody proves."
    )


def _nodes(part: Slice) -> str:
    each = f"{part.count} {part.vendor} {part.accelerator} {part.memory_gib} GiB" if part.count else "no accelerators"
    joined = f"{part.interconnect or 'interconnect not named'}, nodes joined by {part.fabric or 'nothing named'}"
    return f"{plural(part.nodes, 'node')} of {each}, {part.cpus} CPUs, {part.ram_gib} GiB RAM; {joined}"


def grant_facts(view: ChainView, held: GrantState) -> list[tuple[str, str]]:
    offer, grant = view.offer, held.grant
    facts = [
        ("of", f"{offer.title} [{view.book.chain[:12]}]"),
        ("lent by", view.circle.name(offer.provider)),
        ("to", view.circle.name(grant.grantee)),
        ("chain", view.state + (f": {view.why}" if view.why else "")),
    ]
    for part, used in zip(grant.allocations, held.redeemed, strict=True):
        facts.append((part.slice, f"{span(part)}, {part.amount:,} {offer.measure}, {used:,} redeemed"))
    if held.state == "granted":
        facts.append(("accept by", when(grant.accept_by)))
    return facts


def offer_json(seen: FoundChain) -> dict[str, Any]:
    view = seen.view
    return {
        "chain": view.book.chain,
        "offer": view.offer.id,
        "document": view.offer.to_json(),
        "state": view.state,
        "why": view.why,
        "provider": view.circle.name(view.offer.provider),
        "provider_answers": seen.provider_answers,
        "nodes": list(seen.nodes),
        "as_of": view.as_of,
        "cosigners": view.cosigners,
        "seq": view.book.seq,
        "at": view.book.at,
        "remaining": list(view.book.remaining),
        "withdrawn": view.book.withdrawn,
    }


def grant_json(view: ChainView, held: GrantState) -> dict[str, Any]:
    return {
        "grant": held.digest,
        "chain": view.book.chain,
        "chain_state": view.state,
        "why": view.why,
        "state": held.state,
        "pact": held.grant.pact,
        "request": held.grant.request,
        "grantee": held.grant.grantee,
        "allocations": [part.to_json() for part in held.grant.allocations],
        "accept_by": held.grant.accept_by,
        "redeemed": list(held.redeemed),
        "left": list(held.left),
        "newest": held.newest,
    }
