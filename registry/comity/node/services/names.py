"""Who claims a name, in the order in which this node proved it. Blocking.

A claimant is an identity that published under the name, or the upstream repository of that name, which nodes of this
federation mirrored. No later claimant displaces an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass

from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.names import UPSTREAM


@dataclass(frozen=True, slots=True)
class First:
    """A claimant: an identity with what it calls itself, or None for the upstream repository; `number` is the place of
    its first claim in the order in which this node proved things."""

    identity: Digest | None
    label: str
    number: int


def first_claimants(core: Core, name: str, most: int) -> list[First]:
    """The first `most` who claim the repository `name`, which is none of an upstream."""
    proven, upstream = core.ledger.proven, f"{UPSTREAM}{name}"
    first = proven.claimants(name, most).found
    known = proven.identities([claimant.publisher for claimant in first])
    labels = {identity: found.display for identity, found in known.items()}
    found = [First(claimant.publisher, labels.get(claimant.publisher, ""), claimant.number) for claimant in first]
    observed = [proven.first_claim(upstream, node) for node in core.membership.node_ids]
    numbers = [number for number in observed if number is not None]
    if numbers:
        found.append(First(None, "", min(numbers)))
    return sorted(found, key=lambda claimant: claimant.number)[:most]
