"""What members owe each other, from the usage that is signed in chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from comity.trust.offers.accounts import Balance, Unit, Usage, Used, balances
from comity.trust.offers.parties import Agreement

from comity_client.compute.chains import CONVICTED, View


def accounts(views: Iterable[View]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit. Chains that convict their provider count for nothing."""
    return balances(used for seen in views if seen.state != CONVICTED for used in _used(seen))


def _used(seen: View) -> Iterator[Used]:
    said = seen.chain.stated
    agreed = {(each.said.by, each.said.usage): each.line for each in said if isinstance(each.said, Agreement)}
    for stated in said:
        usage = stated.said
        if not isinstance(usage, Usage) or usage.grant not in seen.book.grants:
            continue
        grant = seen.book.grants[usage.grant].grant
        parts = zip(grant.allocations, usage.amounts, strict=False)
        amounts = tuple((Unit(seen.offer.measure, _accelerator(seen, part.slice)), amount) for part, amount in parts)
        agreement = agreed.get((grant.grantee, stated.line))
        yield Used(seen.offer.provider, grant.grantee, amounts, usage.grant, stated.line, agreement)


def _accelerator(seen: View, name: str) -> str:
    """Of the newest version of the offer that has such a slice."""
    found = (part.accelerator for offer in reversed(seen.book.offers) if (part := offer.slice(name)))
    return next(found, "")
