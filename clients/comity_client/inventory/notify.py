"""Tells a receiver of differences: one signed CloudEvent for each inventory that has some.

What was not delivered is kept in the inventory, and is in the next event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from comity_client.inventory.inventory import MAX_LISTED, Inventory, InventoryDifference
from comity_client.webhook_events import cloud_event

TYPE: Final = "dev.comity.inventory.v1"


def event_of(inventory: Inventory, told: Sequence[InventoryDifference]) -> bytes:
    """The CloudEvent that tells of differences: the first `MAX_LISTED`, which are the most urgent, and the count of
    each kind of all."""
    data = {
        "basis": "here",
        "machine": inventory.machine,
        "counts": dict(Counter(each.kind for each in told)),
        "differences": [each.to_json() for each in told[:MAX_LISTED]],
    }
    return cloud_event(TYPE, f"urn:comity:inventory:{inventory.machine}", inventory.machine, inventory.taken, data)
