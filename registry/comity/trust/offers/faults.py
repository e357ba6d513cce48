"""Faults of chains: three that the records alone show, and one that takes what stands between them."""

from __future__ import annotations

from typing import Final

from comity.trust.errors import ComityError, Untrusted

OVERBOOKED: Final = "overbooked"
"""More was given out than there is."""
FORKED: Final = "forked"
"""Two records have one number."""
BROKEN: Final = "broken"
"""A record that may not stand where it stands, or says wrongly what is left."""
UNANSWERED: Final = "unanswered"
"""A record answers a statement that does not stand before it in the log, or that says something else."""
FAULTS: Final = (OVERBOOKED, FORKED, BROKEN, UNANSWERED)

_AT_FAULT: Final = "the chain of an offer is at fault"
_KINDS: Final = {
    "OFFER-OVERBOOKED": OVERBOOKED,
    "OFFER-FORKED": FORKED,
    "OFFER-BROKEN": BROKEN,
    "OFFER-UNANSWERED": UNANSWERED,
}


def overbooked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-OVERBOOKED")


def forked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-FORKED")


def broken(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-BROKEN")


def unanswered(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-UNANSWERED")


def kind_of(error: ComityError) -> str:
    """Which kind of fault an error stands for; empty for any other error."""
    return _KINDS.get(error.code, "")
