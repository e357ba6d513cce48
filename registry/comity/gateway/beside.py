"""A node's gateway, for as long as its node runs: the hook that `comity.node.serve` is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from comity.gateway.app import make_app
from comity.gateway.blobs.serving import serving
from comity.gateway.hub.catalogue import opened
from comity.gateway.hub.streams import BODIES
from comity.gateway.places import Places
from comity.gateway.running import Running
from comity.gateway.server import listening
from comity.node.core import Core
from comity.node.importing.passages import Passages
from comity.node.publishing.desk import Desk
from comity.node.replication.assembly import Replication
from comity.node.tasks import Supervisor


@asynccontextmanager
async def beside(
    core: Core, desk: Desk, replication: Replication, passages: Passages, supervisor: Supervisor
) -> AsyncIterator[str]:
    """Serve HTTP while the block lasts; gives the URL, empty where the settings name no address for it.

    Raises Unavailable (LISTEN) for an address that cannot be had; NotFound, Malformed for certificate and key files.
    """
    settings = core.config.gateway
    async with serving(core, replication.blob_lost) as blobs:
        if not settings.http:
            yield ""
            return
        bodies = Places(BODIES, "readers")
        running = Running(core, desk, replication, passages, supervisor, blobs, bodies)
        async with opened(core) as catalogue, listening(make_app(running, catalogue), settings) as url:
            structlog.get_logger("comity.gateway").info("gateway", url=url)
            yield url
