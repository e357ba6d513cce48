"""What others are told of an inventory: its counts as a file of the textfile collector of Prometheus' node exporter, in
which none is labelled by artifact; and one signed CloudEvent for each inventory that has differences. What was not
delivered is kept in the inventory, and is in the next event. Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from comity_client.inventory.inventory import KINDS, KNOWN, MAX_LISTED, STATES, VERDICTS, Inventory, InventoryDifference
from comity_client.metrics_file import file_of, gauge, labelled
from comity_client.webhook_events import cloud_event

EVENT_TYPE: Final = "dev.comity.inventory.v1"


def metrics_text(inventory: Inventory, found: Sequence[InventoryDifference]) -> str:
    """The file: what an inventory has, and how many differences of each kind were found when it was taken."""
    files = Counter(each.known for each in inventory.files)
    artifacts = Counter(each.verdict for each in inventory.artifacts)
    folders = Counter(each.state for each in inventory.folders)
    kinds = Counter(each.kind for each in found)
    warned = sum(bool(each.advisories) for each in inventory.artifacts)
    parts = (
        *_gauge("taken_timestamp_seconds", "When the inventory was taken", {"": inventory.taken}),
        *_gauge("files", "Files, by what is known of them", labelled("known", KNOWN, files)),
        *_gauge("unread_paths", "Paths that were not read", {"": len(inventory.unread)}),
        *gauge(
            "inventory_artifacts", "Artifacts that files are of, by verdict", labelled("verdict", VERDICTS, artifacts)
        ),
        *_gauge("folders", "Folders of artifacts, by state", labelled("state", STATES, folders)),
        *_gauge("warned_artifacts", "Artifacts here with an advisory", {"": warned}),
        *gauge(
            "inventory_differences", "Differences from the inventory before, by kind", labelled("kind", KINDS, kinds)
        ),
        *gauge(
            "inventory_undelivered_differences", "Differences no receiver took yet", {"": len(inventory.undelivered)}
        ),
    )
    return file_of(iter(parts))


def _gauge(name: str, about: str, values: Mapping[str, int]) -> Iterator[str]:
    return gauge(f"inventory_{name}", about, values)


def event_of(inventory: Inventory, told: Sequence[InventoryDifference]) -> bytes:
    """The CloudEvent that tells of differences: the first `MAX_LISTED`, which are the most urgent, and the count of
    each kind of all."""
    data = {
        "basis": "here",
        "machine": inventory.machine,
        "counts": dict(Counter(each.kind for each in told)),
        "differences": [each.to_json() for each in told[:MAX_LISTED]],
    }
    return cloud_event(
        EVENT_TYPE, f"urn:comity:inventory:{inventory.machine}", inventory.machine, inventory.taken, data
    )
