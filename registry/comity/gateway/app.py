"""The ASGI application of the gateway: all routes, routing errors, and the companion that `comity.node.app.serve`
runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from comity.gateway.context import GatewayContext
from comity.gateway.fileserver.server import serve_files
from comity.gateway.http import ConnectionSlots, GatewayAccess, RequestBounds, error_response, listen_http, on_error
from comity.gateway.hub import routes as hub
from comity.gateway.hub.catalogue import Catalogue, open_catalogue
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.routes import BODIES
from comity.gateway.ollama import ollama_routes
from comity.gateway.tlog import tlog_routes
from comity.node.context import NodeContext
from comity.node.importing.read_through import ReadThroughImports
from comity.node.publishing import Submissions
from comity.node.replication.setup import ReplicationTasks
from comity.node.supervisor import Supervisor
from comity.trust.errors import ComityError, Malformed, NotFound


def make_app(context: GatewayContext, catalogue: Catalogue) -> Starlette:
    """Return the application for a running node."""
    access, read_through = GatewayAccess(context.core), ReadThroughRoutes(context, catalogue)
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            *tlog_routes(context),
            *ollama_routes(context, read_through, access),
            *hub.hub_routes(context, read_through, access),
        ],
        middleware=[Middleware(RequestBounds, core=context.core)],
        exception_handlers={ComityError: on_error, HTTPException: on_routing},
    )


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def on_routing(request: Request, error: Exception) -> JSONResponse:
    """Return the error response for a request that the router refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFound("no such address", code="NO-SUCH-ROUTE"))
    if error.status_code == 405:
        return error_response(
            Malformed("the address does not support this method", why=request.method[:20], code="METHOD")
        )
    return error_response(Malformed("the request cannot be read", why=error.detail))


@asynccontextmanager
async def serve_gateway(
    core: NodeContext,
    submissions: Submissions,
    replication: ReplicationTasks,
    read_through: ReadThroughImports,
    supervisor: Supervisor,
) -> AsyncIterator[str]:
    """Serve HTTP while the block lasts; yields the URL, empty if the settings have no HTTP address.

    Raises Unavailable (LISTEN) if the address is in use; NotFound, Malformed for certificate and key files.
    """
    settings = core.config.gateway
    async with serve_files(core, replication.blob_lost) as blobs:
        if not settings.http:
            yield ""
            return
        bodies = ConnectionSlots(BODIES, "readers")
        context = GatewayContext(core, submissions, replication, read_through, supervisor, blobs, bodies)
        async with open_catalogue(core) as catalogue, listen_http(make_app(context, catalogue), settings) as url:
            structlog.get_logger("comity.gateway").info("gateway", url=url)
            yield url
