"""Statements about a chain that its own log does not hold yet: carried by hand, or logged elsewhere."""

from __future__ import annotations

from comity.trust.errors import Malformed
from comity.trust.offers.hearing import Stated
from comity.trust.offers.parties import Request, is_said, read_said
from comity.trust.statement import Entry

from comity_client.compute.chains import View


def loose(seen: View) -> list[Stated]:
    """Those that are their authors', as far as that can be known here; at no index."""
    logged = {stated.line for stated in seen.chain.stated}
    offers = {offer.id for offer in seen.book.offers}
    found = (stated for entry in seen.parcel.entries if entry.digest not in logged if (stated := _read(entry, seen)))
    return [
        s for s in found if (s.said.offer in offers if isinstance(s.said, Request) else s.said.chain == seen.book.chain)
    ]


def _read(entry: Entry, seen: View) -> Stated | None:
    if not is_said(entry.statement) or seen.circle.by_identity(entry) is False:
        return None
    try:
        return Stated(-1, entry.digest, read_said(entry.statement))
    except Malformed:
        return None
