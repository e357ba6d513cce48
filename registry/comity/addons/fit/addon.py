"""Adds `comity offer fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def offer_commands() -> list[click.Command]:
    from comity.addons.fit.command import command

    return [command]
