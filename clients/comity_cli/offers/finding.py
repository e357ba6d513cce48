"""Search queries for offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comity_cli.command import client
from comity_cli.offers.context import now

if TYPE_CHECKING:
    from comity.wire.offer import OfferQuery

EU = (
    *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
    *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
)
"""The jurisdictions that `EU` means."""


def offer_query(
    *, closed: bool, accelerator: str = "", min_hours: int = 0, measure: str = "", jurisdiction: Sequence[str] = (),
    beyond: Sequence[str] = (), artifact: str = "", engine: str = "",

) -> OfferQuery:  # fmt: skip
    """A query for offers whose window is not over; all offers if `closed`. Raises as `Client.resolve` does."""
    from comity.wire.offer import OfferQuery

    places = [code for given in jurisdiction for code in (EU if given == "EU" else [given])]
    return OfferQuery(
        accelerator=accelerator,
        least_amount=min_hours,
        jurisdictions=tuple(dict.fromkeys(places)),
        beyond_reach_of=tuple(beyond),
        artifact=client().resolve(artifact).artifact if artifact else None,
        engine=engine,
        measure=measure,
        ends_after=None if closed else now(),
        closed=closed,
    )
