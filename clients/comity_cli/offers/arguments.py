"""Parsing of command arguments: allocations, times, amounts, and search queries for offers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from comity.trust.frozen import frozen

from comity_cli.command import client
from comity_cli.offers.context import now

if TYPE_CHECKING:
    from comity.rules.offers.offer import Offer, SliceAllocation
    from comity.wire.offer import OfferQuery


def moment(text: str) -> int:
    """Click type: POSIX seconds of an ISO 8601 time, UTC unless it has an offset."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text[:40]!r} is not a time: write 2027-01-01T08:00 or 2027-01-01") from error
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())


def allocations(offer: Offer, wants: Sequence[str], start: int | None, end: int | None) -> tuple[SliceAllocation, ...]:
    """Parse allocations `SLICE:NODES[:AMOUNT]`. Defaults: all that the nodes give; the whole window.

    Raises click.UsageError with the reason if the offer can never grant them.
    """
    from comity.trust.errors import Malformed

    begin, until = offer.window.start if start is None else start, offer.window.end if end is None else end
    try:
        made = tuple(_allocation(offer, want, begin, until) for want in wants)
    except (ValueError, Malformed) as error:
        raise click.UsageError(f"--want: {error}") from error
    if len({part.slice for part in made}) != len(made):
        raise click.UsageError("--want: a slice is named twice")
    if why := offer.allocation_error(made):
        raise click.UsageError(f"the offer cannot grant this: {why}")
    return made


def amounts(given: Sequence[int], most: Sequence[int]) -> tuple[int, ...]:
    """Amounts of each allocation. Default: all that is left. Raises click.UsageError."""
    if given and len(given) != len(most):
        raise click.UsageError(f"--amount: the grant has {len(most)} allocations, so give {len(most)} amounts")
    return tuple(given) or tuple(most)


def _allocation(offer: Offer, want: str, start: int, end: int) -> SliceAllocation:
    from comity.rules.offers.offer import SliceAllocation

    name, _, rest = want.partition(":")
    nodes, _, amount = rest.partition(":")
    part = offer.slice(name)
    if part is None:
        raise ValueError(f"{name!r} is not a slice of the offer, which has {', '.join(p.name for p in offer.slices)}")
    if not nodes.isdecimal() or (amount and not amount.isdecimal()):
        raise ValueError(f"{want!r}: write SLICE:NODES or SLICE:NODES:AMOUNT")
    unit = offer.granularity.amount
    usual = min(part.max_amount(offer.measure, int(nodes), max(0, end - start)), part.amount) // unit * unit
    return SliceAllocation(name, int(nodes), start, end, int(amount) if amount else usual)


EU = (
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
    *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
)
"""The jurisdictions that `EU` means."""


@frozen
class Search:
    """Which offers are searched: those whose window is not over, or all if `closed`."""

    accelerator: str = ""
    min_hours: int = 0
    measure: str = ""
    jurisdiction: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    artifact: str = ""
    engine: str = ""
    closed: bool = False


def offer_query(search: Search) -> OfferQuery:
    """Raises as `Client.resolve` does."""
    from comity.wire.offer import OfferQuery

    places = [code for given in search.jurisdiction for code in (EU if given == "EU" else [given])]
    return OfferQuery(
        accelerator=search.accelerator,
        least_amount=search.min_hours,
        jurisdictions=tuple(dict.fromkeys(places)),
        beyond_reach_of=search.beyond,
        artifact=client().resolve(search.artifact).artifact if search.artifact else None,
        engine=search.engine,
        measure=search.measure,
        ends_after=None if search.closed else now(),
        closed=search.closed,
    )
