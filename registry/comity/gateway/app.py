"""The one ASGI application: routes of every face, what they refuse, and what stands around each request.

A node's gateway, for as long as its node runs: the hook that `comity.node.app.serve` is given.

The HTTP face of a node: what unmodified clients of other worlds read here. Runs in the node's process and loop.

    running, beside    the parts of a node that routes use; how the gateway starts and ends with its node
    app                the one ASGI application: routes, errors, headers, bounds
    server             the listening socket
    access             who may read what: the node's tokens
    hub/               the Hugging Face Hub's read routes
    gguf/              the registry routes of Ollama and of older llama.cpp
    blobs/             a file server for large files and for peers, by signed URLs
    tlog/              the faces of transparency logs, witnesses and mirrors

Nothing is decided here that `comity.trust` decides, and nothing is kept that `comity.ledger` keeps.
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
from comity.gateway.fileserver.server import serving
from comity.gateway.http import Access, ConnectionPlaces, RequestBounds, answer, listening, on_error
from comity.gateway.hub import routes as hub
from comity.gateway.hub.catalogue import Catalogue, opened
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


def make_app(running: GatewayContext, catalogue: Catalogue) -> Starlette:
    """The gateway of a running node."""
    access, through = Access(running.core), ReadThroughRoutes(running, catalogue)
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            *tlog_routes(running),
            *ollama_routes(running, through, access),
            *hub.hub_routes(running, through, access),
        ],
        middleware=[Middleware(RequestBounds, core=running.core)],
        exception_handlers={ComityError: on_error, HTTPException: on_routing},
    )


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def on_routing(request: Request, error: Exception) -> JSONResponse:
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answer(NotFound("there is nothing at this address", code="NO-SUCH-ROUTE"))
    if error.status_code == 405:
        return answer(Malformed("this address does not take such a request", why=request.method[:20], code="METHOD"))
    return answer(Malformed("the request cannot be read", why=error.detail))


@asynccontextmanager
async def beside(
    core: NodeContext,
    desk: Submissions,
    replication: ReplicationTasks,
    passages: ReadThroughImports,
    supervisor: Supervisor,
) -> AsyncIterator[str]:
    """Serve HTTP while the block lasts; gives the URL, empty where the settings name no address for it.

    Raises Unavailable (LISTEN) for an address that cannot be had; NotFound, Malformed for certificate and key files.
    """
    settings = core.config.gateway
    async with serving(core, replication.blob_lost) as blobs:
        if not settings.http:
            yield ""
            return
        bodies = ConnectionPlaces(BODIES, "readers")
        running = GatewayContext(core, desk, replication, passages, supervisor, blobs, bodies)
        async with opened(core) as catalogue, listening(make_app(running, catalogue), settings) as url:
            structlog.get_logger("comity.gateway").info("gateway", url=url)
            yield url
