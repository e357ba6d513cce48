"""What a redeemed grant becomes for the engine that runs jobs: texts for a person to read and hand over. Comity runs
none of it, and nothing secret is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from comity_client.compute.handoff import kueue, skypilot, slurm, ssh
from comity_client.compute.handoff.facts import HandOff

Files: TypeAlias = dict[str, str]

RENDERERS: Final[dict[str, Callable[[HandOff], Files]]] = {
    "slurm": slurm.render,
    "kubernetes": kueue.render,
    "skypilot": skypilot.render,
    "ssh": ssh.render,
}


def render(facts: HandOff, engine: str = "") -> Files:
    """Texts by file name, for `engine` or the one that the offer names. Raises Malformed (HAND-OFF) for what the engine
    cannot be told."""
    return RENDERERS[engine or facts.engine](facts)
