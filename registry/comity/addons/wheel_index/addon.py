"""Adds an index of wheels for each artifact to the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comity.gateway.app import ReaderParts
    from comity.gateway.declared_routes import DeclaredRoute
    from comity.gateway.hub.files import FileResponses


@asynccontextmanager
async def gateway_routes(parts: ReaderParts, files: FileResponses) -> AsyncIterator[list[DeclaredRoute]]:
    """The routes, while the block lasts."""
    from comity.addons.wheel_index.routes import WheelRoutes

    routes = WheelRoutes(parts.read_through, parts.home.pools, parts.access)
    try:
        yield routes.routes()
    finally:
        await routes.close()
