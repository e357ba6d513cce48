"""The counts of an inventory as a file of the textfile collector of Prometheus' node exporter. No count is labelled by
artifact. Source: Prometheus text exposition format 0.0.4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from comity_client.inventory.inventory import KINDS, KNOWN, STATES, VERDICTS, Inventory, InventoryDifference
from comity_client.metrics_file import file_of, gauge, labelled


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
