"""Adds `comity offer fit`."""

from __future__ import annotations

from typing import Final

OFFER_COMMANDS: Final = ("comity.addons.fit.command",)
