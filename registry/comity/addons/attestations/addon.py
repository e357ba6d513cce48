"""Adds `comity attestation`, and to `comity verify` how many attestations of other tools there are."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS: Final = {
    "attestation": ("Verify", "comity.addons.attestations.command", "Read and write attestations of other tools."),
}


def beside(folder: Path) -> tuple[int, str, str] | None:
    """What is beside the files of an artifact: how many, what they are, and the command that shows them."""
    from comity.addons.attestations.files import count_attestations

    count = count_attestations(folder)
    return (count, "attestation", f"comity attestation ls {shlex.quote(str(folder))}") if count else None
