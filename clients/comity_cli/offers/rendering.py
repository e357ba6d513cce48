"""Text and JSON of offers, grants and balances. Proven, claimed and stale chains are always shown as different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Final

from comity.rules.offers.amounts import DefaultAnswer, Usage
from comity.rules.offers.chain import GrantState
from comity.rules.offers.offer import Offer, Slice, SliceAllocation
from comity.rules.offers.records import CutOff, Default, GivingBack, Redemption
from comity.trust.encoding import Digest, format_moment
from comity.trust.frozen import frozen

from comity_cli.command import output
from comity_cli.document import ABSENT, INLINE, Absent, document
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.rules.offers.amounts import Balance
    from comity.rules.offers.offer import SliceAllocation
    from comity_client.offers.attestation import HardwareCoverage, HardwareState
    from comity_client.offers.offer_client import FoundChain
    from comity_client.offers.views import ChainView, IdentityResolver


STALE_SECONDS: Final = 3600
"""Age in seconds after which a chain is shown as stale if its provider does not answer."""


@frozen
class OfferItem:
    """An offer and the state of its chain."""

    chain: Digest
    offer: Digest
    document: Annotated[Mapping[str, object], {"$ref": "../offer.json"}]
    state: str
    why: str
    provider: str
    provider_answers: bool
    nodes: tuple[str, ...]
    as_of: int | None
    cosigners: int
    seq: int
    at: int
    remaining: tuple[int, ...]
    withdrawn: bool

    @classmethod
    def of(cls, seen: FoundChain) -> OfferItem:
        view = seen.view
        return cls(
            chain=view.state.chain,
            offer=view.offer.id,
            document=view.offer.to_json(),
            state=view.status,
            why=view.why,
            provider=view.identities.name(view.offer.provider),
            provider_answers=seen.provider_answers,
            nodes=tuple(seen.nodes),
            as_of=view.as_of,
            cosigners=view.cosigners,
            seq=view.state.seq,
            at=view.state.at,
            remaining=tuple(view.state.remaining),
            withdrawn=view.state.withdrawn,
        )


@frozen
class HardwareItem:
    """How much of an offer is attested."""

    state: HardwareState
    coverage: HardwareCoverage = field(metadata=INLINE)


@frozen
class ListedOffer:
    """An offer of a list."""

    offer: OfferItem = field(metadata=INLINE)
    attested: HardwareItem | Absent = ABSENT


@document("offers")
class OffersDocument:
    """Compute offers, as `comity offer ls --json` prints them.

    `more`: offers that fit and are not listed. `attested`: with --attested or --partly-attested, how many of the
    accelerators (or nodes) have hardware evidence that is verified here.
    """

    offers: tuple[ListedOffer, ...]
    more: int


@frozen
class GrantItem:
    """A grant, and what its chain says of it. `left`: what of each allocation may still be redeemed."""

    grant: Digest
    chain: Digest
    chain_state: str
    why: str
    state: str
    pact: bool
    request: Digest
    grantee: Digest
    allocations: tuple[SliceAllocation, ...]
    accept_by: int
    redeemed: tuple[int, ...]
    left: tuple[int, ...]
    newest: Digest

    @classmethod
    def of(cls, view: ChainView, state: GrantState) -> GrantItem:
        return cls(
            grant=state.digest,
            chain=view.state.chain,
            chain_state=view.status,
            why=view.why,
            state=state.state,
            pact=state.grant.pact,
            request=state.grant.request,
            grantee=state.grant.grantee,
            allocations=state.grant.allocations,
            accept_by=state.grant.accept_by,
            redeemed=state.redeemed,
            left=state.left,
            newest=state.newest,
        )


@frozen
class RequestItem:
    """A request, or the grant that answers it, and the next command."""

    line: Digest
    request: Digest
    state: str
    pact: bool
    by: Digest
    who: str
    asked: str
    chain: Digest
    chain_state: str
    next: str


@frozen
class SaidItem:
    """A statement about a grant that is no record."""

    kind: str
    line: Digest
    index: int
    by: str
    text: str


def when(seconds: int) -> str:
    """`2027-01-04 00:00Z`."""
    return format_moment(seconds, "%Y-%m-%d %H:%MZ")


def machines(offer: Offer) -> str:
    """`4 x 8 H100 80 GiB`."""
    return ", ".join(
        f"{part.nodes} x {part.count} {part.accelerator} {part.memory_gib} GiB" if part.count
        else f"{part.nodes} x {part.cpus} CPUs"
        for part in offer.slices
    )  # fmt: skip


def describe_status(seen: FoundChain, now: int) -> str:
    """Status of a chain, and its age."""
    view = seen.view
    if view.status == "convicted":
        return f"CONVICTED: {view.why}"
    if view.status == "claimed":
        return f"claimed by {', '.join(seen.nodes) or 'a bundle file'}: {view.why}"
    closed = "withdrawn, " if view.state.withdrawn else "over, " if view.offer.window.end <= now else ""
    if seen.provider_answers:
        return f"{closed}proven, its provider answers"
    why = "its provider does not answer" if seen.nodes else "no node was asked"
    if view.as_of is None:
        return f"{closed}proven, not cosigned yet; {why}"
    age = "stale:" if now - view.as_of > STALE_SECONDS else "proven"
    return f"{closed}{age} as of {when(view.as_of)}; {why}"


def describe_amounts(amounts: Sequence[int], measure: str) -> str:
    """`11,904 accelerator-hours`; several allocations are separated by commas."""
    return f"{', '.join(f'{amount:,}' for amount in amounts)} {measure}"


def describe_interval(part: SliceAllocation) -> str:
    """`2 nodes, 2027-01-04 00:00Z up to 2027-01-11 00:00Z`."""
    return f"{plural(part.nodes, 'node')}, {when(part.start)} up to {when(part.end)}"


def left(view: ChainView) -> str:
    """Amount left of each slice."""
    return describe_amounts(view.state.remaining, view.offer.measure)


def show_offer(out: Output, seen: FoundChain, now: int) -> None:
    """Print one offer and the state of its chain."""
    view, offer = seen.view, seen.view.offer
    out.say(f"{offer.title}")
    out.fact("chain", view.state.chain)
    out.fact("state", describe_status(seen, now))
    out.fact("lent by", view.identities.name(offer.provider) + (f", {offer.contact}" if offer.contact else ""))
    out.fact(
        "log",
        f"{offer.log.split('+', 1)[0]}, {plural(view.state.seq + 1, 'record')}, the newest of {when(view.state.at)}",
    )
    out.fact("cosigned", f"by {plural(view.cosigners, 'member')}" if view.cosigners else "by no known member")
    for part, rest in zip(offer.slices, view.state.remaining, strict=True):
        out.fact(part.name, f"{_nodes(part)}; {rest:,} of {part.amount:,} {offer.measure} left")
    show_figures(out, offer)
    out.fact("window", f"{when(offer.window.start)} up to {when(offer.window.end)}")
    location = offer.location
    out.fact("where", f"{location.jurisdiction}, run by {location.operator}"
                      + (f", cloud of {location.cloud_parent}" if location.cloud_parent else ""))  # fmt: skip
    out.fact("legal reach", ", ".join(location.legal_reach) or "none named")
    eligibility = offer.eligibility
    out.fact(
        "who may ask",
        eligibility.who + (f" in {', '.join(eligibility.jurisdictions)}" if eligibility.jurisdictions else ""),
    )
    price = f", {offer.terms.price} {offer.terms.currency} a unit" if offer.terms.kind == "price" else ""
    out.fact("terms", f"{offer.terms.kind}{price}" + (f": {offer.terms.text}" if offer.terms.text else ""))
    out.fact("engine", offer.engine.kind + (f" {offer.engine.target}" if offer.engine.target else ""))
    out.fact("models here", ", ".join(f"sha256:{each[:12]}…" for each in offer.artifacts) or "none named")
    out.say(
        "  The provider states location, legal reach and machines. Nobody can prove that no hardware is in two offers."
    )


def show_figures(out: Output, offer: Offer) -> None:
    """Print the figures that the lender measured, as its claim."""
    from comity_client.offers.measure import MeasuredFigures

    for part in offer.slices:
        figures = MeasuredFigures.of_attributes(dict(part.attributes))
        for name, value in figures.describe() if figures else ():
            out.fact(f"{part.name} {name}", f"claimed by the lender: {value}")


def _nodes(part: Slice) -> str:
    each = f"{part.count} {part.vendor} {part.accelerator} {part.memory_gib} GiB" if part.count else "no accelerators"
    joined = f"{part.interconnect or 'interconnect not named'}, nodes joined by {part.fabric or 'nothing named'}"
    return f"{plural(part.nodes, 'node')} of {each}, {part.cpus} CPUs, {part.ram_gib} GiB RAM; {joined}"


def grant_facts(view: ChainView, grant_state: GrantState) -> list[tuple[str, str]]:
    """Rows (name, value) about a grant."""
    offer, grant = view.offer, grant_state.grant
    facts = [
        ("of", f"{offer.title} [{view.state.chain[:12]}]"),
        ("lent by", view.identities.name(offer.provider)),
        ("to", view.identities.name(grant.grantee)),
        ("chain", view.status + (f": {view.why}" if view.why else "")),
    ]
    for part, used in zip(grant.allocations, grant_state.redeemed, strict=True):
        facts.append((part.slice, f"{describe_interval(part)}, {part.amount:,} {offer.measure}, {used:,} redeemed"))
    if grant_state.state == "granted":
        facts.append(("accept by", when(grant.accept_by)))
    return facts


def request_rows(view: ChainView) -> list[RequestItem]:
    """One row for each request: its state and the next command."""
    from comity.rules.offers.records import GrantRequest
    from comity_client.offers.views import unlogged_statements

    rows = []
    for located in (*view.requests(), *unlogged_statements(view)):
        request = located.statement
        if not isinstance(request, GrantRequest):
            continue
        answer = view.state.answers.get(located.line)
        grant_state = view.state.grants.get(answer) if answer else None
        state = grant_state.state if grant_state else "rejected" if answer else "requested"
        rows.append(
            RequestItem(
                line=grant_state.digest if grant_state else located.line,
                request=located.line,
                state=state,
                pact=request.pact,
                by=request.by,
                who=view.identities.name(request.by),
                asked=_describe(
                    grant_state.grant.allocations if grant_state else request.allocations, view.offer.measure
                ),
                chain=view.state.chain,
                chain_state=view.status,
                next=next_step(view, grant_state)
                if grant_state
                else f"comity grant approve {located.line[:12]} --node HOME",
            )
        )
    return rows


def statement_rows(view: ChainView, grant: str) -> list[SaidItem]:
    """Statements about a grant that are not records, in order."""
    from comity_client.offers.views import statements_about

    found = []
    for located in statements_about(view):
        statement = located.statement
        if getattr(statement, "grant", None) != grant:
            continue
        by = getattr(statement, "by", None)
        who = view.identities.name(by) if by else f"the provider, {view.identities.name(view.offer.provider)}"
        found.append(SaidItem(_kind(statement), located.line, located.index, who, getattr(statement, "text", "")))
    return found


def next_step(view: ChainView, grant_state: GrantState) -> str:
    """The next command for a grant, of its grantee or its provider; empty if nothing of it is left."""
    from comity_client.offers.views import statements_about

    grant = grant_state.digest[:12]
    if grant_state.state == "granted":
        return f"comity grant accept {grant} --node HOME"
    if grant_state.state != "accepted" or not any(grant_state.left):
        return ""
    declared = not grant_state.grant.pact
    for located in statements_about(view):
        match located.statement:
            case Redemption(grant=grant_state.digest, after=grant_state.newest):
                return f"comity grant hand-over {located.line[:12]} --node HOME --into ./hand-off"
            case CutOff(grant=grant_state.digest, drill=False):
                declared = True
    return f"comity {'grant redeem' if declared else 'pact declare'} {grant} --node HOME"


def _kind(statement: object) -> str:
    kinds = {
        Default: "default",
        DefaultAnswer: "answer",
        Usage: "usage",
        Redemption: "redemption",
        GivingBack: "release",
    }
    if isinstance(statement, CutOff):
        return "drill" if statement.drill else "cut-off"
    return kinds.get(type(statement), type(statement).__name__.lower())


def _describe(allocations: tuple[SliceAllocation, ...], measure: str) -> str:
    return ", ".join(
        f"{part.nodes} x {part.slice} until {when(part.end)}, {part.amount:,} {measure}" for part in allocations
    )


def show_balances(found: Sequence[Balance], identities: IdentityResolver) -> None:
    """Print each balance of two members and one unit. Usage that the borrower has not agreed to is not in the net."""
    out = output()
    for each in found:
        first, second = identities.name(each.first), identities.name(each.second)
        out.say(f"{first} and {second}: {each.unit.accelerator} {each.unit.measure}")
        out.fact("lent", f"{each.lent:,} by the first, {each.borrowed:,} by the second")
        out.fact("net", _net(each.net, first, second))
        if each.claimed:
            out.fact("claimed", f"{each.claimed:,} by the lender only: not in the net until the borrower agrees")
        for line in each.lines:
            out.say(f"    usage {line.usage[:12]} of grant {line.grant[:12]}, "
                    + (f"agreed by {line.agreement[:12]}" if line.agreement else "not agreed to"))  # fmt: skip
    if not found:
        out.say("No usage is known.")
    listed = [
        {"first": each.first, "second": each.second, "measure": each.unit.measure, "accelerator": each.unit.accelerator,
         "lent": each.lent, "borrowed": each.borrowed, "claimed": each.claimed, "net": each.net,
         "lines": [{"grant": line.grant, "usage": line.usage, "agreement": line.agreement} for line in each.lines]}
        for each in found
    ]  # fmt: skip
    out.document("balance", {"balances": listed})


def _net(net: int, first: str, second: str) -> str:
    if net == 0:
        return "balanced"
    return f"{second if net > 0 else first} owes {first if net > 0 else second} {abs(net):,}"
