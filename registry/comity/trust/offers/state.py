"""Where a chain stands: its offers, its grants, and what is free of each slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.offers.offer import Offer
from comity.trust.offers.profile import Profile
from comity.trust.offers.records import Grant

GRANTED: Final = "granted"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
RELEASED: Final = "released"


@dataclass(frozen=True, slots=True)
class Commitment:
    """A grant, as its chain leaves it.

    Attributes:
        digest: of the line that grants; the grant's name.
        state: granted, accepted, lapsed or released.
        redeemed: of each allocation, in their order.
        newest: line digest of the newest record about it: the challenge of the next redemption.
    """

    grant: Grant
    digest: Digest
    state: str
    redeemed: tuple[int, ...]
    newest: Digest

    @property
    def left(self) -> tuple[int, ...]:
        """What may still be redeemed of each allocation, once it is accepted."""
        if self.state in (LAPSED, RELEASED):
            return (0,) * len(self.redeemed)
        pairs = zip(self.grant.allocations, self.redeemed, strict=True)
        return tuple(allocation.amount - used for allocation, used in pairs)


class State:
    """What the records that were taken have left. Read by the rules (`rules`), changed by the book (`book`)."""

    def __init__(self, chain: Digest) -> None:
        self.chain = chain
        self.offers: list[Offer] = []
        """Every version, the one in force last."""
        self.grants: dict[Digest, Commitment] = {}
        """By the line digest of the grant."""
        self.open: dict[Digest, None] = {}
        """The grants that are granted or accepted, oldest first."""
        self.answers: dict[Digest, Digest] = {}
        """The record that answers a statement of the other party, both by line digest."""
        self.withdrawal: Digest | None = None
        """The record that withdraws the offer."""
        self._profiles: dict[str, Profile] = {}
        self._given: dict[str, int] = {}

    @property
    def offer(self) -> Offer:
        """The version in force. There is one once a record was taken."""
        return self.offers[-1]

    @property
    def withdrawn(self) -> bool:
        return self.withdrawal is not None

    @property
    def remaining(self) -> tuple[int, ...]:
        """What is left of each slice of the offer in force: amounts."""
        return tuple(part.amount - self.given(part.name) for part in self.offer.slices)

    def given(self, slice_name: str) -> int:
        """How much of a slice is given out."""
        return self._given.get(slice_name, 0)

    def profile(self, slice_name: str) -> Profile:
        """How many nodes of a slice are given out at each instant."""
        return self._profiles.setdefault(slice_name, Profile())

    def free_nodes(self, slice_name: str, start: int, end: int) -> int:
        """How many nodes of a slice are free at every instant from `start` up to `end`; 0 where there is no such
        slice."""
        part = self.offer.slice(slice_name)
        return 0 if part is None else part.nodes - self.profile(slice_name).peak(start, end)

    def give(self, slice_name: str, amount: int) -> None:
        """Count what is given out; a negative amount returns."""
        self._given[slice_name] = self.given(slice_name) + amount
