"""Puts the console together: its pages, sessions and background tasks, and where an operator opens it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comity.content.gateway_tokens import TOKENS_FILE, TokenFile, TokenUses
from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.node_pages import HomeFilePages, NodePages, TokenPages
from comity.gateway.console.page import PageMaker
from comity.gateway.console.readers import readers_pages
from comity.gateway.console.sessions import BrowserSessions
from comity.gateway.console.sign_in import SessionAccess, SignInPages
from comity.gateway.console.state import WriterFacts
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute
from comity.gateway.hub.catalogue import Catalogue
from comity.node.app import RunningNode
from comity.node.operator_acts import OperatorActs
from comity.node.settings import Gateway
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
    writer = WriterFacts(node.replication, node.offers, home.pulls, node.files, node.watch, node.descent)
    async with readers_pages(home, writer, catalogue, node.copies, node.reading) as pages:
        sessions = BrowserSessions(home.membership.own_node.log, home.clock, time.monotonic)
        tokens = home.config.path(TOKENS_FILE)
        access = SessionAccess(tokens, home.pools, uses, home.clock, sessions, public=settings.public)
        maker = PageMaker(name, settings.url, pages.states, sessions)
        origins = BrowserOrigins(settings.url)
        acts = OperatorActs(home.audit_log, home.pools)
        sign_in = SignInPages(maker, sessions, origins, node.links, acts, home.config.oidc.issuer)
        provider = await provider_routes(node, maker, sign_in, origins)
        yield [
            *sign_in.routes(),
            *provider,
            *NodePages(node, maker, pages.states, sessions, acts).routes(),
            *TokenPages(TokenFile(tokens), uses, home.pools, home.clock, maker, pages.states, acts).routes(),
            *HomeFilePages(home.config.home, home.pools, maker, pages.states).routes(),
            *pages.routes(access, maker),
        ]


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
