"""Adds the engines for which `comity grant hand-over` writes files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comity_client.offers.handoff import Renderer


def handoff_renderers() -> dict[str, Renderer]:
    from comity.addons.schedulers.kueue import render_kueue
    from comity.addons.schedulers.skypilot import render_skypilot
    from comity.addons.schedulers.slurm import render_slurm

    return {"slurm": render_slurm, "kubernetes": render_kueue, "skypilot": render_skypilot}
