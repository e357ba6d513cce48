"""The one ASGI application: routes of every face, what they refuse, and what stands around each request."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from comity.gateway.access import Access
from comity.gateway.bounds import Bounds
from comity.gateway.errors import answer, on_error
from comity.gateway.gguf import routes as gguf
from comity.gateway.hub import routes as hub
from comity.gateway.hub.catalogue import Catalogue
from comity.gateway.hub.through import Through
from comity.gateway.running import Running
from comity.gateway.tlog import routes as tlog
from comity.trust.errors import ComityError, Malformed, NotFound


def make_app(running: Running, catalogue: Catalogue) -> Starlette:
    """The gateway of a running node."""
    access, through = Access(running.core), Through(running, catalogue)
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            *tlog.routes(running),
            *gguf.routes(running, through, access),
            *hub.routes(running, through, access),
        ],
        middleware=[Middleware(Bounds, core=running.core)],
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
