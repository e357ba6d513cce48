"""The counts of an inventory as a file of the textfile collector of Prometheus' node exporter. No count is labelled by
artifact. Source: Prometheus text exposition format 0.0.4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from comity_client.inventory.inventory import KINDS, KNOWN, STATES, VERDICTS, Inventory, InventoryDifference


def metrics_text(inventory: Inventory, found: Sequence[InventoryDifference]) -> str:
    """The file: what an inventory has, and how many differences of each kind were found when it was taken."""
    files = Counter(each.known for each in inventory.files)
    artifacts = Counter(each.verdict for each in inventory.artifacts)
    folders = Counter(each.state for each in inventory.folders)
    kinds = Counter(each.kind for each in found)
    warned = sum(bool(each.advisories) for each in inventory.artifacts)
    parts = (
        *_gauge("taken_timestamp_seconds", "When the inventory was taken", {"": inventory.taken}),
        *_gauge("files", "Files, by what is known of them", _each("known", KNOWN, files)),
        *_gauge("unread_paths", "Paths that were not read", {"": len(inventory.unread)}),
        *_gauge("artifacts", "Artifacts that files are of, by verdict", _each("verdict", VERDICTS, artifacts)),
        *_gauge("folders", "Folders of artifacts, by state", _each("state", STATES, folders)),
        *_gauge("warned_artifacts", "Artifacts here with an advisory", {"": warned}),
        *_gauge("differences", "Differences from the inventory before, by kind", _each("kind", KINDS, kinds)),
        *_gauge("undelivered_differences", "Differences no receiver took yet", {"": len(inventory.undelivered)}),
    )
    return "".join(f"{line}\n" for line in parts)


def _gauge(name: str, about: str, values: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP comity_inventory_{name} {about}"
    yield f"# TYPE comity_inventory_{name} gauge"
    yield from (f"comity_inventory_{name}{label} {value}" for label, value in values.items())


def _each(label: str, words: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {f'{{{label}="{word}"}}': counts.get(word, 0) for word in words}
