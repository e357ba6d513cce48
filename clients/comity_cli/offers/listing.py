"""Requests and grants of a chain in order, and the statements about a grant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity.trust.offers.amounts import DefaultAnswer, Usage
from comity.trust.offers.chain import GrantState
from comity.trust.offers.records import CutOff, Default, GivingBack, Redemption

from comity_cli.offers.rendering import when

if TYPE_CHECKING:
    from comity.trust.offers.offer import SliceAllocation
    from comity_client.offers.market import ChainView


def request_rows(view: ChainView) -> list[dict[str, Any]]:
    """One row for each request: its state and the next command."""
    from comity.trust.offers.records import GrantRequest
    from comity_client.offers.market import unlogged_statements

    rows = []
    for located in (*view.requests(), *unlogged_statements(view)):
        request = located.statement
        if not isinstance(request, GrantRequest):
            continue
        answer = view.state.answers.get(located.line)
        grant_state = view.state.grants.get(answer) if answer else None
        state = grant_state.state if grant_state else "rejected" if answer else "requested"
        rows.append(
            {
                "line": grant_state.digest if grant_state else located.line,
                "request": located.line,
                "state": state,
                "pact": request.pact,
                "by": request.by,
                "who": view.identities.name(request.by),
                "asked": _describe(
                    grant_state.grant.allocations if grant_state else request.allocations, view.offer.measure
                ),
                "chain": view.state.chain,
                "chain_state": view.status,
                "next": next_step(grant_state)
                if grant_state
                else f"comity grant approve {located.line[:12]} --dir HOME",
            }
        )
    return rows


def statement_rows(view: ChainView, grant: str) -> list[dict[str, Any]]:
    """Statements about a grant that are not records, in order."""
    from comity_client.offers.market import unlogged_statements

    found = []
    for located in (*view.chain.statements, *unlogged_statements(view)):
        statement = located.statement
        if getattr(statement, "grant", None) != grant:
            continue
        by = getattr(statement, "by", None)
        found.append(
            {
                "kind": _kind(statement),
                "line": located.line,
                "index": located.index,
                "by": view.identities.name(by) if by else f"the provider, {view.identities.name(view.offer.provider)}",
                "text": getattr(statement, "text", ""),
            }
        )
    return found


def next_step(grant_state: GrantState) -> str:
    """The next command for a grant; empty if it is over."""
    accepted = "pact declare" if grant_state.grant.pact else "grant redeem"
    return {
        "granted": f"comity grant accept {grant_state.digest[:12]} --dir HOME",
        "accepted": f"comity {accepted} {grant_state.digest[:12]} --dir HOME",
    }.get(grant_state.state, "")


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
