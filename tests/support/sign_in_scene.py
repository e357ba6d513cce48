"""The console's pages for signing in, without a node, with a provider of OpenID Connect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
from comity.content.audit_log import AuditLog
from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.oidc.provider import OpenIdProvider, ProviderAccess
from comity.gateway.console.oidc.provider_sign_in import PendingCookie, ProviderSignIn
from comity.gateway.console.page import PageMaker, Reader
from comity.gateway.console.sessions import BrowserSessions
from comity.gateway.console.sign_in import SignInPages
from comity.gateway.http import on_error
from comity.node.operator_acts import OperatorActs
from comity.node.services.operator import SignInLinks
from comity.node.settings import OpenIdConnect
from comity.node.threads import Pools
from comity.trust.errors import ComityError
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from support.openid_provider import CLIENT, SECRET

URL = "http://127.0.0.1:7480"


class NoState:
    async def now(self) -> None:
        return None


class SignInScene:
    """The pages for signing in, a page for signed-in people, and clocks that the test sets."""

    def __init__(self, issuer: str, folder: Path, pools: Pools, url: str = "", **settings: Any) -> None:
        secret = folder / "secret"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        self.seconds, self.late = 1_000.0, 0.0
        roles = {"operators": ("comity-operators",), "viewers": ("comity-viewers",)}
        named = OpenIdConnect(**{"issuer": issuer, "client_id": CLIENT, "secret_file": secret, **roles, **settings})
        self.sessions = BrowserSessions("node.example", lambda: time.time() + self.late, lambda: self.seconds)
        states: Any = NoState()
        maker, origins = PageMaker("node.example", url, states, self.sessions), BrowserOrigins(url)
        links = SignInLinks(lambda: self.seconds)
        links.serve_at(url or URL)
        acts = OperatorActs(AuditLog(folder, lambda: 1_800_000_000), pools)
        pages = SignInPages(maker, self.sessions, origins, links, acts, issuer)
        asked = OpenIdProvider(
            named, ProviderAccess.read(named), pools, lambda: time.time() + self.late, lambda: self.seconds
        )
        pending = PendingCookie("node.example", lambda: time.time() + self.late)
        ours = ProviderSignIn(named, asked, maker, pages, origins, pending, lambda: links.url)

        async def who(reader: Reader) -> Response:
            session = reader.person
            return PlainTextResponse(f"{session.who}|{session.role}|{session.by}")

        routes = [*pages.routes(), *ours.routes(), maker.route("/-/node", who, maker.access("viewer"))]
        self.app = Starlette(routes=routes, exception_handlers={ComityError: on_error})

    def browser(self, base: str = URL, client: str = "127.0.0.1") -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app, client=(client, 1))
        return httpx2.AsyncClient(transport=transport, base_url=base)
