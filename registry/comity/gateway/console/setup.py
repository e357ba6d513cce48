"""Puts the console together: its pages, sessions and background tasks, and where an operator opens it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comity.content.gateway_tokens import TOKENS_FILE, TokenFile, TokenUses
from comity.gateway.console.artifact import ArtifactPages
from comity.gateway.console.feeds import Feeds
from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.index import ArtifactIndex
from comity.gateway.console.log_pages import LogPages
from comity.gateway.console.node_pages import AuditPages, NodePages, TokenPages
from comity.gateway.console.page import PageMaker
from comity.gateway.console.recent import RecentStatements
from comity.gateway.console.routes import Console
from comity.gateway.console.sessions import BrowserSessions
from comity.gateway.console.sign_in import SessionAccess, SignInPages
from comity.gateway.console.state import StateReader
from comity.gateway.console.words import prepare_templates
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute
from comity.gateway.hub.catalogue import Catalogue
from comity.node.app import RunningNode
from comity.node.operator_acts import OperatorActs
from comity.node.settings import Gateway
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import Supervisor
from comity.node.threads import Pools
from comity.trust.errors import Unavailable


@contextlib.asynccontextmanager
async def console_routes(
    node: RunningNode, catalogue: Catalogue, uses: TokenUses
) -> AsyncIterator[Sequence[DeclaredRoute]]:
    """Yields the routes of the console; if the operator disabled it, only `/`, which is never an error."""
    home = node.home
    settings, name = home.config.gateway, home.membership.own_node.record.name
    if not settings.console:

        async def plain(request: Request) -> Response:
            return JSONResponse({"node": name, "console": False, "status": "ok"})

        yield [DeclaredRoute("/", plain, EVERYBODY)]
        return
    folder, local = home.config.storage.ledger.parent, catalogue.local_artifacts
    index = await asyncio.to_thread(
        ArtifactIndex, folder, home.ledger, home.pools, home.membership, local, node.copies, home.clock
    )
    node.reading.follow("names for the console", index.progress)
    groups = StatementGroups(home.ledger.tables.proven, home.membership, lambda: catalogue.judge.policy.named)
    recent = RecentStatements(home.ledger, groups)
    states = StateReader(home, node.replication, node.offers, index, recent)
    pages = ArtifactPages(home, catalogue, states, node.copies)
    sessions = BrowserSessions(home.membership.own_node.log, home.clock, time.monotonic)
    tokens = home.config.path(TOKENS_FILE)
    access = SessionAccess(tokens, home.pools, uses, home.clock, sessions, public=settings.public)
    maker = PageMaker(name, settings.url, states, sessions)
    console = Console(node, index, states, pages, access, catalogue, maker)
    origins = BrowserOrigins(settings.url)
    acts = OperatorActs(home.audit_log, home.pools)
    sign_in = SignInPages(maker, sessions, origins, node.links, acts, home.config.oidc.issuer)
    provider = await provider_routes(node, maker, sign_in, origins)
    node_pages = NodePages(node, maker, states, sessions, acts)
    token_pages = TokenPages(TokenFile(tokens), uses, home.pools, home.clock, maker, states, acts)
    feeds = Feeds(home, states, access, groups)
    supervisor = Supervisor(home.metrics)
    index.begin(supervisor)
    feeds.begin(supervisor)
    recent.begin(supervisor)
    preparing = asyncio.create_task(_prepare(home.pools, states), name="console templates")
    try:
        yield [
            *sign_in.routes(),
            *provider,
            *node_pages.routes(),
            *token_pages.routes(),
            *AuditPages(home.config.home, home.pools, maker, states).routes(),
            *feeds.routes(),
            *LogPages(home.ledger, states, access, maker).routes(),
            *console.routes(),
        ]
    finally:
        preparing.cancel()
        await asyncio.gather(preparing, supervisor.stop(), return_exceptions=True)
        await pages.close()
        await asyncio.to_thread(index.close)


async def provider_routes(
    node: RunningNode, maker: PageMaker, sign_in: SignInPages, origins: BrowserOrigins
) -> list[DeclaredRoute]:
    """The routes for signing in through an OpenID Connect provider; none if the settings name none.

    Raises Unavailable if the extra is not installed; Refused, Unavailable and Malformed for the files that are named.
    """
    home = node.home
    settings = home.config.oidc
    if not settings.issuer:
        return []
    try:
        from comity.gateway.console.oidc.provider import OpenIdProvider, ProviderAccess
        from comity.gateway.console.oidc.provider_sign_in import PendingCookie, ProviderSignIn
    except ModuleNotFoundError as error:
        why = f"[oidc] in node.toml needs it: {error}"
        hint = "pip install 'comity[node,oidc]'"
        raise Unavailable("OpenID Connect support is not installed", why=why, hint=hint) from error
    access = await home.pools.files(ProviderAccess.read, settings)
    provider = OpenIdProvider(settings, access, home.pools, home.clock, time.monotonic)
    pending = PendingCookie(home.membership.own_node.log, home.clock)
    return ProviderSignIn(settings, provider, maker, sign_in, origins, pending, lambda: node.links.url).routes()


async def _prepare(pools: Pools, states: StateReader) -> None:
    """Do at the start what the first page would wait for."""
    await pools.files(prepare_templates)
    await states.now()


def console_url(settings: Gateway, listening: str) -> str:
    """The address at which an operator opens the console: the one for clients if it is safe, else one of this machine;
    empty if there is no console."""
    if not settings.console:
        return ""
    if settings.url.startswith("https:"):
        return settings.url
    parts = urlsplit(listening)
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # not listened on here
    host = everywhere.get(parts.hostname or "", parts.netloc.rpartition(":")[0])
    return f"{parts.scheme}://{host}:{parts.port}"
