"""What members owe each other, from the usage that is signed in chains.

A provider's node says what was used; it counts once the grantee has agreed, in whichever log, by keys that can be
proven here. A chain that convicts its provider counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from comity.trust.digest import Digest
from comity.trust.offers.accounts import Balance, Unit, Usage, Used, balances
from comity.trust.offers.parties import Agreement

from comity_client.compute.chains import CONVICTED, View
from comity_client.compute.loose import loose


def accounts(views: Iterable[View]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit."""
    return balances(used for seen in views if seen.state != CONVICTED for used in _used(seen))


def _used(seen: View) -> Iterator[Used]:
    agreed = _agreed(seen)
    for stated in seen.chain.stated:
        usage = stated.said
        if not isinstance(usage, Usage) or usage.grant not in seen.book.grants:
            continue
        grant = seen.book.grants[usage.grant].grant
        parts = zip(grant.allocations, usage.amounts, strict=False)
        amounts = tuple((Unit(seen.offer.measure, _accelerator(seen, part.slice)), amount) for part, amount in parts)
        agreement = agreed.get((grant.grantee, stated.line))
        yield Used(seen.offer.provider, grant.grantee, amounts, usage.grant, stated.line, agreement)


def _agreed(seen: View) -> dict[tuple[Digest, Digest], Digest]:
    """Agreements that are proven to be their authors', by author and usage line."""
    found = {}
    for stated in (*seen.chain.stated, *loose(seen)):
        if isinstance(stated.said, Agreement):
            entry = seen.parcel.find(stated.line)
            if entry is not None and seen.circle.by_identity(entry):
                found[stated.said.by, stated.said.usage] = stated.line
    return found


def _accelerator(seen: View, name: str) -> str:
    """Of the newest version of the offer that has such a slice."""
    found = (part.accelerator for offer in reversed(seen.book.offers) if (part := offer.slice(name)))
    return next(found, "")
