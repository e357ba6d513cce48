"""Adds the routes of an OCI registry to the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comity.gateway.app import ReaderParts
    from comity.gateway.declared_routes import DeclaredRoute
    from comity.gateway.hub.files import FileResponses

SHOWN_HEADERS: Final = ("Docker-Content-Digest", "OCI-Filters-Applied")


@asynccontextmanager
async def gateway_routes(parts: ReaderParts, files: FileResponses) -> AsyncIterator[list[DeclaredRoute]]:
    """The routes, while the block lasts."""
    from comity.addons.oci.images import ImageRegistry
    from comity.addons.oci.registry import registry_of_node
    from comity.addons.oci.routes import ImageRoutes, OciRoutes

    async with registry_of_node(parts.home.ledger, parts.read_through, parts.home.pools) as registry:
        artifacts = OciRoutes(registry, parts.read_through, parts.repositories, parts.access, files)
        images = ImageRoutes(ImageRegistry(registry, files), parts.read_through, parts.access, files)
        yield [*artifacts.routes(), *images.routes()]
