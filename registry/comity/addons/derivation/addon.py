"""Adds the commands about what an artifact was made from and differs from."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "lineage": (
        "Verify",
        "comity.addons.derivation.commands.lineage",
        "Show what an artifact was made from, and who claims it.",
    ),
    "derive": (
        "Verify",
        "comity.addons.derivation.commands.derive",
        "Derive a child's weights again from its parent, and compare.",
    ),
    "bom": ("Verify", "comity.addons.derivation.commands.bom", "Write a bill of materials of an artifact or a site."),
    "diff": ("Verify", "comity.addons.derivation.commands.diff", "Show the differences between two artifacts."),
}
GUESSES: Final = {"sbom": ("bom",)}
