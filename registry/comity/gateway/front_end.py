"""The gateway of a front end: what only reads, with one answer for what writes; and how old it is.

Served are the Hub API, OCI, Ollama and files by range, as by the node itself, and the logs: checkpoints and tiles. What
is submitted to the node's logs, its mirror or its witness is refused with the address of the writer. The console shows
what is in the database, and has no forms (`console.readers`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comity.gateway.app import ReaderParts, file_responses, gateway_app, reader_parts, serve_gateway
from comity.gateway.console.readers import front_end_pages
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute, Handler
from comity.gateway.fileserver.server import read_files
from comity.gateway.http_listener import listen_http
from comity.gateway.tlog.logs import KnownLogs
from comity.gateway.tlog.tiles import TileRoutes
from comity.node import app as node_app
from comity.node.config import NodeConfig
from comity.node.front_end import RunningFrontEnd, ShownAge, WriterOnly, check_front_end, run_front_end
from comity.node.policy_file import PolicyFile
from comity.node.supervisor import Supervisor

WARNING: Final = "X-HF-Warning"
"""Stock Hub clients show it: a topic, a semicolon, and a sentence."""

_log: Final = structlog.get_logger("comity.gateway")


def run(file: Path) -> None:
    """Run the node or the front end of a `node.toml`, with its gateway, in this process, until SIGTERM or SIGINT."""
    config = NodeConfig.load(file)
    if config.is_front_end:
        run_front_end(config, serve_reading_gateway)
    else:
        node_app.run(file, serve_gateway)


def check(file: Path) -> node_app.HomeCheck:
    """As `comity.node.app.check`, for the home of a node or of a front end."""
    config = NodeConfig.load(file)
    return check_front_end(config) if config.is_front_end else node_app.check(file)


@asynccontextmanager
async def serve_reading_gateway(front_end: RunningFrontEnd) -> AsyncIterator[str]:
    """Serve HTTP while the block lasts; yields the URL, empty if the settings have no HTTP address. Raises as
    `serve_gateway` does, and NotFound, Malformed, Untrusted and Unavailable for the policy file."""
    home = front_end.home
    settings = home.config.gateway
    if not settings.http:
        yield ""
        return
    policy, supervisor = await home.pools.files(PolicyFile, settings.policy), Supervisor(home.metrics)
    policy.begin(supervisor, home.pools)
    async with (
        _stopped_after(supervisor),
        reader_parts(home, policy, None) as parts,
        _console(front_end, parts) as console,
        gateway_app(
            parts,
            file_responses(parts, read_files(home), None),
            reading_tlog_routes(front_end),
            console,
            front_end.readiness,
            [Middleware(AgeWarning, age=front_end.followed.age)],
        ) as app,
        listen_http(app, settings, home.draining) as url,
    ):
        _log.info("gateway", url=url)
        yield url


@asynccontextmanager
async def _console(front_end: RunningFrontEnd, parts: ReaderParts) -> AsyncIterator[list[DeclaredRoute]]:
    """The routes of the console; if the operator disabled it, only `/`, which is never an error."""
    if front_end.home.config.gateway.console:
        async with front_end_pages(front_end, parts.catalogue, parts.access) as routes:
            yield routes
        return
    name = front_end.home.membership.own_node.record.name
    yield [DeclaredRoute("/", overview(name, front_end.followed.age), EVERYBODY)]


@asynccontextmanager
async def _stopped_after(supervisor: Supervisor) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await supervisor.stop()


def reading_tlog_routes(front_end: RunningFrontEnd) -> list[DeclaredRoute]:
    """The routes of the logs, without those that sign or store. Blocking."""
    home, config = front_end.home, front_end.home.config
    known = KnownLogs(home.ledger, home.membership, config.tlog, None)
    tiles = TileRoutes(home.ledger, home.pools, home.membership.own_node.record, config.gateway.url, known, None)
    refuse = refused(front_end.writer)
    return [
        DeclaredRoute("/tlog", tiles.index, EVERYBODY),
        DeclaredRoute("/tlog/add-checkpoint", refuse, EVERYBODY, methods=["POST"]),
        DeclaredRoute("/tlog/add-entries", refuse, EVERYBODY, methods=["POST"]),
        DeclaredRoute("/tlog/witness/{log}/checkpoint", refuse, EVERYBODY),
        DeclaredRoute("/tlog/{log}/checkpoint", tiles.checkpoint, EVERYBODY),
        DeclaredRoute("/tlog/{log}/tile/{tile:path}", tiles.tile, EVERYBODY),
    ]


def refused(writer: WriterOnly) -> Handler:
    """A handler that answers with the address of the writer."""

    async def refuse(request: Request) -> Response:
        raise writer.refusal()

    return refuse


def overview(node: str, age: Callable[[], ShownAge]) -> Handler:
    """A handler for `/`, which is never an error."""

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse({"node": node, "console": False, "status": "ok", "front_end": age().document()})

    return answer


class AgeWarning:
    """Adds a warning to each response while new entries may be missing here; not to those that never change, which
    caches keep."""

    def __init__(self, app: ASGIApp, age: Callable[[], ShownAge]) -> None:
        self._app = app
        self._age = age

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_warning(message: Message) -> None:
            if message["type"] == "http.response.start" and (text := warning(self._age())):
                headers = MutableHeaders(scope=message)
                if "immutable" not in headers.get("Cache-Control", ""):
                    headers.append(WARNING, text)
            await send(message)

        await self._app(scope, receive, send_with_warning if scope["type"] == "http" else send)


def warning(age: ShownAge) -> str:
    """The text of the warning; empty while nothing is old."""
    if not age.old:
        return ""
    why = "its ledger does not answer" if age.writer else "the writer of this node does not run"
    if not age.checkpoint:
        return f"age; {why}: new entries may be missing"
    at = datetime.fromtimestamp(age.checkpoint, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"age; {why}: shown is its log as others signed it last, at {at}"
