"""What people type when they ask for machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from comity.trust.offers.offer import Offer, SliceAllocation


def moment(text: str) -> int:
    """POSIX seconds of a time, UTC unless it names an offset; as Click's type of an option."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text[:40]!r} is not a time: write 2027-01-01T08:00 or 2027-01-01") from error
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())


def allocations(offer: Offer, wants: Sequence[str], start: int | None, end: int | None) -> tuple[SliceAllocation, ...]:
    """Allocations from `SLICE:NODES[:AMOUNT]`; without an amount, all that the nodes give. The whole window where no
    time is given. Raises click.UsageError with the offer's own objection."""
    from comity.trust.errors import Malformed

    begin, until = offer.window.start if start is None else start, offer.window.end if end is None else end
    try:
        made = tuple(_allocation(offer, want, begin, until) for want in wants)
    except (ValueError, Malformed) as error:
        raise click.UsageError(f"--want: {error}") from error
    if len({part.slice for part in made}) != len(made):
        raise click.UsageError("--want: a slice is asked for twice")
    if why := offer.objection(made):
        raise click.UsageError(f"this can never be had of this offer: {why}")
    return made


def amounts(given: Sequence[int], most: Sequence[int]) -> tuple[int, ...]:
    """Amounts for each allocation; all that is left where none is given. Raises click.UsageError."""
    if given and len(given) != len(most):
        raise click.UsageError(f"--amount: the grant has {len(most)} allocations, so name {len(most)} amounts")
    return tuple(given) or tuple(most)


def _allocation(offer: Offer, want: str, start: int, end: int) -> SliceAllocation:
    from comity.trust.offers.offer import SliceAllocation

    name, _, rest = want.partition(":")
    nodes, _, amount = rest.partition(":")
    part = offer.slice(name)
    if part is None:
        raise ValueError(f"{name!r} is no slice of the offer: it has {', '.join(p.name for p in offer.slices)}")
    if not nodes.isdecimal() or (amount and not amount.isdecimal()):
        raise ValueError(f"{want!r}: write SLICE:NODES or SLICE:NODES:AMOUNT")
    unit = offer.granularity.amount
    usual = min(part.most(offer.measure, int(nodes), max(0, end - start)), part.amount) // unit * unit
    return SliceAllocation(name, int(nodes), start, end, int(amount) if amount else usual)
