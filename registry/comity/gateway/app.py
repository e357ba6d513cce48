"""The ASGI application of the gateway: all routes, routing errors, and the companion that `comity.node.app.serve`
runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from comity.content.gateway_tokens import TOKENS_FILE, USES_FILE, TokenUses
from comity.content.inspections import INSPECTIONS_FILE, KeptInspections
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.setup import console_routes, console_url
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute, answers_below, require_declared
from comity.gateway.fileserver.server import FileRoutes, serve_files
from comity.gateway.fileserver.verified import REMOTE_PIECES
from comity.gateway.http import ConnectionSlots, RequestBounds, on_error
from comity.gateway.http_listener import listen_http
from comity.gateway.hub.card import Cards
from comity.gateway.hub.catalogue import Catalogue, RepositoryList, open_catalogue
from comity.gateway.hub.continuations import Continuations
from comity.gateway.hub.files import BODIES, ColdFiles, FileResponses
from comity.gateway.hub.judge import PolicyJudge
from comity.gateway.hub.list_items import ListItems, kept_list
from comity.gateway.hub.proven_items import ProvenItems
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.routes import HubRoutes, git_routes
from comity.gateway.tlog.logs import KnownLogs
from comity.gateway.tlog.mirror import MirrorRoutes
from comity.gateway.tlog.tiles import TileRoutes
from comity.gateway.tlog.witness import WitnessKey, WitnessRoutes
from comity.installed_addons import from_addons
from comity.node.app import RunningNode
from comity.node.home import OpenedHome, ServedHome
from comity.node.importing.read_through import ReadThroughImports
from comity.node.ledger_mark import OUTSIDE_MARK
from comity.node.metrics import Readiness
from comity.node.policy_file import PolicyFile
from comity.node.replication.setup import ReplicationTasks
from comity.node.settings import Gateway
from comity.rules.continuation import FollowRule
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.frozen import frozen


@frozen
class ReaderParts:
    """What answers readers of artifacts, at a node and at a front end alike. `uses` keeps when each token was used."""

    home: ServedHome
    catalogue: Catalogue
    read_through: ReadThroughRoutes
    items: ListItems
    repositories: RepositoryList
    access: GatewayAccess
    uses: TokenUses


@asynccontextmanager
async def reader_parts(
    home: ServedHome, policy: PolicyFile, imports: ReadThroughImports | None
) -> AsyncIterator[ReaderParts]:
    """What answers readers, while the block lasts. Without `imports` nothing is mirrored for them. Raises as
    `ListItems` does."""
    ledger, pools, membership = home.ledger, home.pools, home.membership
    uses = await pools.files(TokenUses, home.config.path(USES_FILE))
    judge = PolicyJudge(policy, membership, home.clock)
    kept = await pools.files(KeptInspections, home.config.storage.ledger.with_name(INSPECTIONS_FILE))
    async with (
        _closed_after(kept),
        open_catalogue(ledger, home.store, pools, membership, judge, home.metrics, kept) as catalogue,
    ):
        rule = FollowRule(home.config.gateway.continuations)
        continuations = Continuations(ledger, membership, catalogue, rule)
        read_through = ReadThroughRoutes(pools, imports, catalogue, continuations)
        made = await pools.files(list_items, home, catalogue)
        async with kept_list(made, home.metrics) as items:
            access = gateway_access(home, uses)
            try:
                yield ReaderParts(home, catalogue, read_through, items, RepositoryList(ledger), access, uses)
            finally:
                with suppress(ComityError):
                    await pools.files(uses.flush)


@asynccontextmanager
async def _closed_after(kept: KeptInspections) -> AsyncIterator[None]:
    try:
        yield
    finally:
        kept.close()


@asynccontextmanager
async def addon_routes(parts: ReaderParts, files: FileResponses) -> AsyncIterator[list[DeclaredRoute]]:
    """The routes of the installed add-ons, while the block lasts. An add-on declares `gateway_routes`, with the same
    arguments and result."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(gateway_routes(parts, files))
            for gateway_routes in from_addons("gateway_routes")
        ]
        yield [route for routes in opened for route in routes]


@asynccontextmanager
async def gateway_app(
    parts: ReaderParts,
    files: FileResponses,
    tlog: Sequence[BaseRoute],
    console: Sequence[BaseRoute],
    readiness: Readiness,
    middleware: Sequence[Middleware] = (),
) -> AsyncIterator[Starlette]:
    """The application for a running node or front end, while the block lasts. Raises Refused (ACCESS-UNDECLARED) if a
    route does not declare who may ask it."""
    home, settings = parts.home, parts.home.config.gateway
    hub = HubRoutes(settings, home.pools, parts.repositories, parts.items, parts.read_through, parts.access, files)
    bounds = Middleware(
        RequestBounds,
        metrics=home.metrics,
        draining=home.draining,
        calls_per_second=settings.calls_per_second,
        proxies=settings.proxies,
    )
    async with addon_routes(parts, files) as addons:
        yield Starlette(
            routes=require_declared(
                [
                    DeclaredRoute("/healthz", healthz, EVERYBODY),
                    DeclaredRoute("/readyz", readyz(readiness), EVERYBODY),
                    *tlog,
                    *addons,
                    *git_routes(),
                    *hub.api_routes(),
                    *console,
                    *hub.resolve_routes(),
                ]
            ),
            middleware=[bounds, *middleware, *cross_origin(settings)],
            exception_handlers={ComityError: on_error, HTTPException: on_routing},
        )


def file_responses(parts: ReaderParts, file_routes: FileRoutes, cold: ColdFiles | None) -> FileResponses:
    """Return the responses with the bodies of files."""
    home, withdrawn = parts.home, parts.catalogue.local_artifacts.withdrawn
    slots = ConnectionSlots(REMOTE_PIECES if file_routes.verified.remote else BODIES, "readers")
    return FileResponses(home, file_routes, cold, slots, withdrawn)


def gateway_access(home: ServedHome, uses: TokenUses) -> GatewayAccess:
    """Return who may read."""
    file, public = home.config.path(TOKENS_FILE), home.config.gateway.public
    return GatewayAccess(file, home.pools, uses, home.clock, public=public)


ASKED_HEADERS: Final = ("Authorization", "Content-Type", "Range", "If-None-Match", "If-Range", "X-Requested-With")
SHOWN_HEADERS: Final = (
    *("Accept-Ranges", "Content-Range", "Content-Length", "ETag", "Link", "X-Total-Count", "X-Repo-Commit"),
    *("X-Linked-ETag", "X-Linked-Size", "X-Error-Code", "X-Error-Message", "X-HF-Warning", "X-Request-Id"),
    "X-Comity-Continues",
)
"""What pages of other origins may read of an answer; an add-on declares those of its own routes under the same name."""


def cross_origin(settings: Gateway) -> list[Middleware]:
    """Return what lets pages of the origins in the settings read this gateway from a browser: none by default. A page
    gets no cookies or saved passwords with it, so it can read only what its own token, if any, may read."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=ASKED_HEADERS,
            expose_headers=[*SHOWN_HEADERS, *chain.from_iterable(from_addons("SHOWN_HEADERS"))],
        )
    ]


def tlog_routes(home: OpenedHome, replication: ReplicationTasks) -> list[DeclaredRoute]:
    """Blocking. Raises as `WitnessKey.load` does."""
    ledger, settings = home.ledger, home.config.tlog
    known = KnownLogs(ledger, home.membership, settings, home.mark(OUTSIDE_MARK))
    witness = WitnessKey.load(settings, home.keys)
    tiles = TileRoutes(ledger, home.pools, home.keys.record, home.config.gateway.url, known, witness)
    submissions = WitnessRoutes(ledger, home.clock, replication.misbehaviour, known, witness)
    uploads = MirrorRoutes(home, replication, known, submissions)
    return [
        DeclaredRoute("/tlog", tiles.index, EVERYBODY),
        DeclaredRoute("/tlog/add-checkpoint", submissions.add_checkpoint, EVERYBODY, methods=["POST"]),
        DeclaredRoute("/tlog/add-entries", uploads.add_entries, EVERYBODY, methods=["POST"]),
        DeclaredRoute("/tlog/witness/{log}/checkpoint", submissions.witness_checkpoint, EVERYBODY),
        DeclaredRoute("/tlog/{log}/checkpoint", tiles.checkpoint, EVERYBODY),
        DeclaredRoute("/tlog/{log}/tile/{tile:path}", tiles.tile, EVERYBODY),
    ]


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def readyz(readiness: Readiness) -> Callable[[Request], Awaitable[JSONResponse]]:
    """Status 200 if the node can serve, else 503; for load balancers and service managers."""

    async def answer(request: Request) -> JSONResponse:
        checks = await readiness.check()
        return JSONResponse(checks.document(), 200 if checks.ready else 503, {"Cache-Control": "no-store"})

    return answer


async def on_routing(request: Request, error: Exception) -> Response:
    """Return the error response for a request that the router refuses."""
    assert isinstance(error, HTTPException)
    respond = answers_below(request.app.routes, request.url.path).errors
    if error.status_code == 404:
        return await respond(request, NotFound("no such address", code="NO-SUCH-ROUTE"))
    if error.status_code == 405:
        why = f"{request.method[:20]}; nothing is written over HTTP: publish a folder with comity publish"
        refusal = Malformed("the address does not support this method", why=why, code="METHOD")
        return await respond(request, refusal)
    return await respond(request, Malformed("the request cannot be read", why=error.detail))


def list_items(home: ServedHome, catalogue: Catalogue) -> ListItems:
    """Blocking. Raises as `ListItems` does."""
    ledger, pools, local = home.ledger, home.pools, catalogue.local_artifacts
    proven = ProvenItems(ledger, pools, catalogue.judge, local, home.store, home.clock)
    return ListItems(home, catalogue, Cards(home.store, pools), proven)


@asynccontextmanager
async def serve_gateway(node: RunningNode) -> AsyncIterator[str]:
    """Serve HTTP while the block lasts; yields the URL, empty if the settings have no HTTP address.

    Raises Unavailable (LISTEN) if the address is in use; NotFound, Malformed for certificate and key files.
    """
    home, replication, imports = node.home, node.replication, node.read_through
    settings = home.config.gateway
    async with serve_files(home, replication.blob_lost) as file_routes:
        if not settings.http:
            yield ""
            return
        async with (
            reader_parts(home, node.policy, imports) as parts,
            console_routes(node, parts.catalogue, parts.uses) as console,
        ):
            cold = ColdFiles(replication.on_demand, imports) if settings.cold != "off" else None
            files = file_responses(parts, file_routes, cold)
            async with (
                gateway_app(parts, files, tlog_routes(home, replication), console, node.readiness) as app,
                listen_http(app, settings, home.draining) as url,
            ):
                node.links.serve_at(console_url(settings, url))
                structlog.get_logger("comity.gateway").info("gateway", url=url)
                try:
                    yield url
                finally:
                    node.links.serve_at("")
