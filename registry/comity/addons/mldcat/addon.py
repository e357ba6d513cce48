"""Adds the catalogue for data portals to the gateway, and the command that writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comity.gateway.app import ReaderParts
    from comity.gateway.declared_routes import DeclaredRoute
    from comity.gateway.hub.files import FileResponses

COMMANDS: Final = {
    "catalogue": (
        "Mirror",
        "comity.addons.mldcat.commands.catalogue",
        "Write a catalogue of artifacts for data portals.",
    ),
}


@asynccontextmanager
async def gateway_routes(parts: ReaderParts, files: FileResponses) -> AsyncIterator[list[DeclaredRoute]]:
    """The route, while the block lasts."""
    from comity.addons.mldcat.routes import CatalogueRoutes

    yield CatalogueRoutes(parts).routes()
