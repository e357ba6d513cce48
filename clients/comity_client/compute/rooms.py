"""The slices of an offer as rooms for a model."""

from __future__ import annotations

from comity.trust.offers.capacity import Slice

from comity_client.compute.fitting import Room
from comity_client.compute.handoff.kueue import LABEL

KNOWN = ("kubernetes-resource",)
"""Attributes that are understood here, beside labels."""


def room_of(part: Slice) -> Room | str:
    """The room, or why nothing is said of it."""
    strange = [name for name, _ in part.attributes if not name.startswith(LABEL) and name not in KNOWN]
    if part.strict and strange:
        return f"it is to be used only by who understands {', '.join(strange)[:200]}"
    if not part.count or not part.memory_gib:
        return "it has no accelerators, or does not say how much memory they have"
    return Room(part.accelerator, part.count, part.memory_gib, part.nodes, part.interconnect, part.fabric)
